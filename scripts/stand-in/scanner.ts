import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { basename, dirname, extname, join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, inTransaction, oneRow, sqlDate } from './database.ts';
import { apiGuid, guidOf, newGuid } from './guids.ts';
import { classOf, typeOfFile } from './item-types.ts';
import { isFolder, type Libraries, type Library } from './libraries.ts';
import type { Paths } from './paths.ts';

/** Fills BaseItems from the files of the libraries. */
export class Scanner {
  readonly #db: DatabaseSync;
  readonly #libraries: Libraries;
  readonly #paths: Paths;

  constructor(db: DatabaseSync, libraries: Libraries, paths: Paths) {
    this.#db = db;
    this.#libraries = libraries;
    this.#paths = paths;
  }

  scan(): void {
    this.removeOrphans();
    for (const library of this.#libraries.list()) {
      this.#ensureFolderItem(library);
      for (const location of library.locations) this.#scanLocation(library, location);
    }
  }

  /** Items of a library that is gone. Their played state stays, and comes back with the library. */
  removeOrphans(): void {
    const known = new Set(this.#libraries.list().map((library) => library.id));
    const sql = 'SELECT DISTINCT TopParentId AS id FROM BaseItems WHERE TopParentId IS NOT NULL';
    for (const { id } of allRows<{ id: string }>(this.#db, sql)) {
      if (!known.has(id)) execute(this.#db, 'DELETE FROM BaseItems WHERE TopParentId = ?', id);
    }
  }

  #ensureFolderItem(library: Library): void {
    const now = sqlDate();
    execute(
      this.#db,
      `INSERT OR IGNORE INTO BaseItems (Id, Type, Path, Name, SortName, IsFolder, TopParentId, DateCreated,
        DateModified, PresentationUniqueKey) VALUES (?, ?, ?, ?, ?, 1, ?, ?, ?, ?)`,
      library.id,
      classOf('CollectionFolder'),
      join(this.#paths.librariesDir, library.name),
      library.name,
      library.name.toLowerCase(),
      library.id,
      now,
      now,
      apiGuid(library.id),
    );
  }

  /** A folder that is away or empty is taken for an unmounted share: nothing is removed because of it. */
  #scanLocation(library: Library, location: string): void {
    const files = isFolder(location) ? readdirSync(location, { recursive: true, withFileTypes: true }) : [];
    if (files.length === 0) return;
    const found = new Set<string>();
    for (const file of files) {
      const path = join(file.parentPath, file.name);
      if (file.isFile() && this.#addFile(library, path)) found.add(path);
    }
    const sql = `SELECT Id, Path FROM BaseItems WHERE TopParentId = ? AND IsFolder = 0 AND substr(Path, 1, length(?)) = ?`;
    const prefix = join(location, '/');
    for (const item of allRows<{ Id: string; Path: string }>(this.#db, sql, library.id, prefix, prefix)) {
      if (!found.has(item.Path)) execute(this.#db, 'DELETE FROM BaseItems WHERE Id = ?', item.Id);
    }
  }

  /** False when the file is no media of this library. */
  #addFile(library: Library, path: string): boolean {
    const type = typeOfFile(path, library.collectionType);
    if (type === undefined) return false;
    const id = guidOf(classOf(type), path);
    if (oneRow(this.#db, 'SELECT 1 FROM BaseItems WHERE Id = ?', id) !== undefined) return true;

    const name = basename(path, extname(path)).replace(/ \(\d{4}\)$/, '');
    const now = sqlDate();
    const poster = `library/${apiGuid(id).slice(0, 2)}/${apiGuid(id)}/poster.jpg`;
    inTransaction(this.#db, () => {
      execute(
        this.#db,
        `INSERT INTO BaseItems (Id, Type, Path, Name, SortName, IsFolder, MediaType, ParentId, TopParentId, DateCreated,
          DateModified, PresentationUniqueKey) VALUES (?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)`,
        id,
        classOf(type),
        path,
        name,
        name.toLowerCase(),
        type === 'Audio' ? 'Audio' : 'Video',
        library.id,
        library.id,
        now,
        now,
        apiGuid(id),
      );
      execute(
        this.#db,
        'INSERT INTO BaseItemImageInfos (Id, ItemId, Path, ImageType, DateModified, Width, Height) VALUES (?, ?, ?, 0, ?, 600, 900)',
        newGuid(),
        id,
        `%MetadataPath%/${poster}`,
        now,
      );
    });
    writeImage(join(this.#paths.metadataDir, poster), apiGuid(id));
    this.#writeRegenerable(apiGuid(id));
    return true;
  }

  /** What a backup can leave out: it would be made again from the media. */
  #writeRegenerable(id: string): void {
    const shard = id.slice(0, 2);
    writeImage(join(this.#paths.dataDir, 'trickplay', shard, id, '320 - 10x10', '0.jpg'), `trickplay ${id}`);
    const subtitle = join(this.#paths.dataDir, 'subtitles', shard, `${id}.srt`);
    mkdirSync(dirname(subtitle), { recursive: true });
    writeFileSync(subtitle, '1\n00:00:00,000 --> 00:00:01,000\nstand-in\n');
  }
}

/** Bytes that look like a JPEG file to a program that checks its ends, different for each item. */
function writeImage(file: string, seed: string): void {
  const noise = createHash('sha512').update(seed).digest();
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(
    file,
    Buffer.concat([Buffer.from('ffd8ffe0', 'hex'), Buffer.alloc(8192, noise), Buffer.from('ffd9', 'hex')]),
  );
}
