import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { apiGuid, guidOf } from './guids.ts';
import { renderXml } from './xml.ts';

export interface Library {
  name: string;
  collectionType: string | undefined;
  locations: string[];
  /** The GUID of its item, in the database's look. */
  id: string;
}

const LINK = '.mblink';
const COLLECTION = '.collection';

/**
 * Libraries are files below `root/default`, not rows: a restore of the database alone has no libraries, and their
 * items are then removed as orphans.
 */
export class Libraries {
  readonly #dir: string;

  constructor(librariesDir: string) {
    this.#dir = librariesDir;
  }

  list(): Library[] {
    return readdirSync(this.#dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => this.#read(entry.name));
  }

  /** The caller has checked that the folders exist. */
  create(name: string, collectionType: string | undefined, locations: readonly string[]): Library {
    const folder = this.#freeName(name);
    const dir = join(this.#dir, folder);
    mkdirSync(dir, { recursive: true });
    if (collectionType) writeFileSync(join(dir, `${collectionType}${COLLECTION}`), '');
    writeFileSync(join(dir, 'options.xml'), renderOptions(locations));
    for (const location of locations) writeFileSync(join(dir, linkName(dir, location)), location);
    return this.#read(folder);
  }

  /** False when there is no such library. */
  remove(name: string): boolean {
    const library = this.list().find((candidate) => candidate.name === name);
    if (!library) return false;
    rmSync(join(this.#dir, library.name), { recursive: true });
    return true;
  }

  #read(folder: string): Library {
    const dir = join(this.#dir, folder);
    const files = readdirSync(dir);
    const collection = files.find((file) => file.endsWith(COLLECTION));
    return {
      name: folder,
      collectionType: collection?.slice(0, -COLLECTION.length),
      locations: files
        .filter((file) => file.endsWith(LINK))
        .map((file) => readFileSync(join(dir, file), 'utf8')),
      id: guidOf('CollectionFolder', `root/default/${folder}`),
    };
  }

  #freeName(name: string): string {
    for (let number = 1; ; number++) {
      const candidate = number === 1 ? name : `${name}${number}`;
      if (!existsSync(join(this.#dir, candidate))) return candidate;
    }
  }
}

export const isFolder = (path: string): boolean =>
  statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

export function libraryDto(library: Library): object {
  return {
    Name: library.name,
    Locations: library.locations,
    CollectionType: library.collectionType,
    LibraryOptions: { Enabled: true, PathInfos: library.locations.map((Path) => ({ Path })) },
    ItemId: apiGuid(library.id),
    RefreshStatus: 'Idle',
  };
}

function linkName(dir: string, location: string): string {
  const name = basename(location) || 'media';
  for (let number = 1; ; number++) {
    const candidate = `${name}${number === 1 ? '' : number}${LINK}`;
    if (!existsSync(join(dir, candidate))) return candidate;
  }
}

function renderOptions(locations: readonly string[]): string {
  const options = {
    Enabled: 'true',
    EnableRealtimeMonitor: 'true',
    PathInfos: { MediaPathInfo: locations.map((Path) => ({ Path })) },
    PreferredMetadataLanguage: 'en',
    MetadataCountryCode: 'US',
  };
  return renderXml({ LibraryOptions: options });
}
