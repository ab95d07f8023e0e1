import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { guidOf } from './guids.ts';
import { classOf } from './item-types.ts';
import type { Item, Items } from './items.ts';
import type { Paths } from './paths.ts';
import { renderXml, type XmlTree } from './xml.ts';

/** Playlists and collections: a row each, and a file each below `data/` that holds their members. */
export class ItemLists {
  readonly #items: Items;
  readonly #paths: Paths;

  constructor(items: Items, paths: Paths) {
    this.#items = items;
    this.#paths = paths;
  }

  createPlaylist(name: string, members: readonly Item[]): string {
    const dir = join(this.#paths.dataDir, 'playlists', folderName(name));
    const PlaylistItems = { PlaylistItem: members.map((item) => ({ Path: item.Path })) };
    writeList(
      join(dir, 'playlist.xml'),
      { Item: { LocalTitle: name, PlaylistMediaType: 'Video', PlaylistItems } },
      dir,
    );
    return this.#addItem('Playlist', name, dir);
  }

  createCollection(name: string, members: readonly Item[]): string {
    const dir = join(this.#paths.dataDir, 'collections', `${folderName(name)} [boxset]`);
    const CollectionItems = { CollectionItem: members.map((item) => ({ Path: item.Path })) };
    writeList(join(dir, 'collection.xml'), { Item: { LocalTitle: name, CollectionItems } }, dir);
    return this.#addItem('BoxSet', name, dir);
  }

  #addItem(type: 'Playlist' | 'BoxSet', name: string, dir: string): string {
    const id = guidOf(classOf(type), dir);
    this.#items.addOwn(id, type, name, dir);
    return id;
  }
}

const folderName = (name: string): string =>
  name
    .replaceAll(/[/\\\0]/g, ' ')
    .replace(/^\.+/, '')
    .trim() || 'list';

function writeList(file: string, content: XmlTree, dir: string): void {
  mkdirSync(dir, { recursive: true });
  writeFileSync(file, renderXml(content));
}
