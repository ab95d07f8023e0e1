import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import type { DatabaseSync, SQLInputValue } from 'node:sqlite';
import { ENGINE_VERSION, MANIFEST, type BackupManifest } from './backup-manifest.ts';
import { allRows, execute, inTransaction } from './database.ts';
import type { Log } from './log.ts';
import type { Paths } from './paths.ts';
import { BACKUP_TABLES } from './schema.ts';
import { compareVersions, formatVersion, parseVersion, type Version } from './versions.ts';
import { readZip } from './zip.ts';

type Archive = Map<string, () => Buffer>;
type Row = Record<string, SQLInputValue>;

/**
 * Runs at a start, before the migrations. Files are laid over what is there, tables are emptied and filled again, and
 * that is not one transaction: what fails half-way stays half-way, as with the real server.
 */
export function restoreBackup(
  file: string,
  db: DatabaseSync,
  paths: Paths,
  version: Version,
  log: Log,
): void {
  log.warn(`Begin restoring system to ${file}`);
  const archive = readZip(file);
  const manifestEntry = archive.get(MANIFEST);
  if (!manifestEntry)
    throw new Error(`The loaded archive '${file}' does not appear to be a Jellyfin backup.`);
  const manifest = JSON.parse(manifestEntry().toString('utf8')) as BackupManifest;
  checkCompatibility(manifest, version);

  copyFolder(archive, 'Config/', paths.configDir);
  copyFolder(archive, 'Data/', paths.dataDir, 'Data/metadata/');
  copyFolder(archive, 'Root/', paths.rootDir);
  copyFolder(archive, 'Data/metadata/', paths.metadataDir);
  if (manifest.Options.Database) restoreDatabase(archive, db);
  log.info(`Restored Jellyfin system from ${manifest.DateCreated}`);
}

function checkCompatibility(manifest: BackupManifest, version: Version): void {
  const made = parseVersion(manifest.ServerVersion.split('.').slice(0, 3).join('.'));
  if (compareVersions(made, version) > 0 || manifest.BackupEngineVersion !== ENGINE_VERSION) {
    throw new Error(
      `The loaded archive is made for a newer version of Jellyfin (${manifest.ServerVersion}, engine ` +
        `${manifest.BackupEngineVersion}) and cannot be loaded in this version (${formatVersion(version)}).`,
    );
  }
}

function copyFolder(archive: Archive, prefix: string, target: string, except?: string): void {
  for (const [name, read] of archive) {
    const isWanted = name.startsWith(prefix) && !(except !== undefined && name.startsWith(except));
    if (!isWanted || name.endsWith('/') || normalize(name) !== name) continue;
    const file = join(target, name.slice(prefix.length));
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, read());
  }
}

function restoreDatabase(archive: Archive, db: DatabaseSync): void {
  const history = rowsOf(archive, 'HistoryRow');
  if (!history) throw new Error('Cannot restore backup that has no History data.');
  db.exec('DELETE FROM __EFMigrationsHistory');
  for (const row of history) insert(db, '__EFMigrationsHistory', row);

  db.exec('PRAGMA foreign_keys = OFF');
  for (const table of BACKUP_TABLES) db.exec(`DELETE FROM ${table}`);
  db.exec('PRAGMA foreign_keys = ON');
  inTransaction(db, () => {
    for (const table of BACKUP_TABLES) {
      for (const row of rowsOf(archive, table) ?? []) insert(db, table, row);
    }
  });
}

function rowsOf(archive: Archive, entity: string): Row[] | undefined {
  const entry = archive.get(`Database/${entity}.json`);
  return entry && (JSON.parse(entry().toString('utf8')) as Row[]);
}

/** Columns that the table does not have are passed over, as unknown JSON properties are. */
function insert(db: DatabaseSync, table: string, row: Row): void {
  const columns = allRows<{ name: string }>(db, 'SELECT name FROM pragma_table_info(?)', table)
    .map((column) => column.name)
    .filter((name) => Object.hasOwn(row, name));
  const marks = columns.map(() => '?').join(', ');
  const values = columns.map((name) => row[name] ?? null);
  execute(db, `INSERT INTO ${table} (${columns.join(', ')}) VALUES (${marks})`, ...values);
}
