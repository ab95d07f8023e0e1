import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  ENGINE_VERSION,
  MANIFEST,
  manifestDto,
  readManifest,
  type BackupManifest,
  type BackupOptions,
} from './backup-manifest.ts';
import { allRows, inTransaction, optimizeDatabase } from './database.ts';
import { checkSpaceForBackup } from './free-space.ts';
import type { Log } from './log.ts';
import type { StandInOptions } from './options.ts';
import type { Paths } from './paths.ts';
import { BACKUP_TABLES } from './schema.ts';
import { formatVersion } from './versions.ts';
import { ZipWriter } from './zip.ts';

interface Source {
  name: string;
  read: () => Buffer | string;
}

/** The server's own backup service: zip archives in `data/backups`, without plugins, server id or plugin databases. */
export class Backups {
  readonly #db: DatabaseSync;
  readonly #paths: Paths;
  readonly #options: StandInOptions;
  readonly #log: Log;
  readonly #inProgress = new Set<string>();

  constructor(db: DatabaseSync, paths: Paths, options: StandInOptions, log: Log) {
    this.#db = db;
    this.#paths = paths;
    this.#options = options;
    this.#log = log;
  }

  /** Answers when the archive is complete. Nothing prevents a second one from running at the same time. */
  async create(backupOptions: BackupOptions): Promise<object> {
    const created = new Date();
    optimizeDatabase(this.#db);
    mkdirSync(this.#paths.backupsDir, { recursive: true });
    checkSpaceForBackup(this.#paths, this.#options);
    const file = join(this.#paths.backupsDir, `jellyfin-backup-${localStamp(created)}.zip`);
    const manifest: BackupManifest = {
      ServerVersion: `${formatVersion(this.#options.version)}.0`,
      BackupEngineVersion: ENGINE_VERSION,
      DateCreated: created.toISOString().replace('Z', '0000+00:00'),
      DatabaseTables: [...BACKUP_TABLES.map(() => 'DbSet`1'), 'HistoryRow'],
      Options: backupOptions,
    };
    try {
      if (this.#inProgress.has(file)) throw new Error(`'${file}' is being used by another process.`);
      await this.#write(file, manifest);
    } catch (error) {
      // The real server, too, deletes by name here: of two backups in one second, the loser removes the winner's file.
      this.#log.error(`Failed to create backup, removing ${file}`, error);
      rmSync(file, { force: true });
      throw error;
    }
    this.#log.info(`Backup created: ${file}`);
    return manifestDto(manifest, file);
  }

  list(): object[] {
    return this.#archives().flatMap((file) => {
      const manifest = this.#manifestOf(file);
      return manifest ? [manifestDto(manifest, file)] : [];
    });
  }

  /** Undefined when the archive is there but is no backup. */
  manifest(file: string): object | undefined {
    const manifest = this.#manifestOf(file);
    return manifest && manifestDto(manifest, file);
  }

  /** Only the file name counts; undefined when there is no such archive. */
  find(name: string): string | undefined {
    const file = join(this.#paths.backupsDir, basename(name));
    return basename(name) !== '' && existsSync(file) ? file : undefined;
  }

  async #write(file: string, manifest: BackupManifest): Promise<void> {
    const sources = this.#sources(manifest.Options);
    const zip = new ZipWriter(file);
    this.#inProgress.add(file);
    try {
      for (const { name, read } of sources) {
        zip.add(name, read());
        await sleep(this.#options.backupMs / sources.length);
      }
      zip.add(MANIFEST, JSON.stringify(manifest));
      zip.finish();
    } finally {
      this.#inProgress.delete(file);
      zip.close();
    }
  }

  #sources(backupOptions: BackupOptions): Source[] {
    const { configDir, rootDir, dataDir, metadataDir } = this.#paths;
    const settings = readdirSync(configDir).filter((name) => /\.(xml|json)$/.test(name));
    return [
      ...this.#tables(),
      ...settings.map((name) => ({
        name: `Config/${name}`,
        read: () => readFileSync(join(configDir, name)),
      })),
      ...folder(join(configDir, 'users'), 'Config/users'),
      ...folder(join(configDir, 'ScheduledTasks'), 'Config/ScheduledTasks'),
      ...folder(rootDir, 'Root'),
      ...folder(join(dataDir, 'collections'), 'Data/collections'),
      ...folder(join(dataDir, 'playlists'), 'Data/playlists'),
      ...folder(join(dataDir, 'ScheduledTasks'), 'Data/ScheduledTasks'),
      ...(backupOptions.Subtitles ? folder(join(dataDir, 'subtitles'), 'Data/subtitles') : []),
      ...(backupOptions.Trickplay ? folder(join(dataDir, 'trickplay'), 'Data/trickplay') : []),
      ...(backupOptions.Metadata ? folder(metadataDir, 'Data/metadata') : []),
    ];
  }

  /** All tables at one moment, whatever the option `Database` says; it only matters to a restore. */
  #tables(): Source[] {
    return inTransaction(this.#db, () =>
      [...BACKUP_TABLES, '__EFMigrationsHistory'].map((table) => {
        const rows = JSON.stringify(allRows(this.#db, `SELECT * FROM ${table}`));
        const entity = table === '__EFMigrationsHistory' ? 'HistoryRow' : table;
        return { name: `Database/${entity}.json`, read: () => rows };
      }),
    );
  }

  /** Not in any order that a client could rely on. */
  #archives(): string[] {
    if (!existsSync(this.#paths.backupsDir)) return [];
    const names = readdirSync(this.#paths.backupsDir).filter((name) => name.endsWith('.zip'));
    const mirrored = (name: string): string => Buffer.from(name).reverse().toString('latin1');
    return names
      .sort((left, right) => mirrored(left).localeCompare(mirrored(right)))
      .map((name) => join(this.#paths.backupsDir, name));
  }

  #manifestOf(file: string): BackupManifest | undefined {
    try {
      return readManifest(file);
    } catch (error) {
      this.#log.warn(`Tried to load manifest from archive ${file} but failed: ${(error as Error).message}`);
      return undefined;
    }
  }
}

function folder(dir: string, target: string): Source[] {
  if (!existsSync(dir)) return [];
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .map((file) => ({ name: `${target}/${relative(dir, file)}`, read: () => readFileSync(file) }));
}

/** The name of an archive is in local time, the date in its manifest in UTC. */
function localStamp(date: Date): string {
  const two = (number: number): string => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}${two(date.getMonth() + 1)}${two(date.getDate())}`;
  return `${day}${two(date.getHours())}${two(date.getMinutes())}${two(date.getSeconds())}`;
}
