import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, inTransaction, oneRow } from './database.ts';
import type { Log } from './log.ts';
import type { Paths } from './paths.ts';
import { MIGRATIONS, type Migration } from './schema.ts';
import { isAtLeast, isTwelve, type Version } from './versions.ts';

/**
 * Brings the database to the version of this server. A pending migration on a database with content is preceded by
 * a plain copy of the open file, like the real server's, and costs the process its locks in the same way.
 */
export function migrate(db: DatabaseSync, version: Version, paths: Paths, log: Log): void {
  db.exec(
    'CREATE TABLE IF NOT EXISTS __EFMigrationsHistory (MigrationId TEXT NOT NULL PRIMARY KEY, ProductVersion TEXT NOT NULL)',
  );
  const applied = allRows<{ MigrationId: string }>(db, 'SELECT MigrationId FROM __EFMigrationsHistory');
  const appliedIds = new Set(applied.map((row) => row.MigrationId));
  const known = MIGRATIONS.filter((migration) => isAtLeast(version, migration.since));
  refuseNewer(appliedIds, known);

  const pending = known.filter((migration) => !appliedIds.has(migration.id));
  if (pending.length === 0) return;
  const copy = appliedIds.size > 0 ? copyBeforeMigration(paths, log) : undefined;
  for (const migration of pending) {
    log.info(`Applying migration '${migration.id}'`);
    apply(db, migration, isTwelve(version) ? '10.0.0' : '9.0.10');
  }
  if (copy !== undefined) rmSync(copy);
}

export function lastMigration(db: DatabaseSync): string | undefined {
  const sql = 'SELECT MigrationId AS id FROM __EFMigrationsHistory ORDER BY MigrationId DESC LIMIT 1';
  return oneRow<{ id: string }>(db, sql)?.id;
}

function refuseNewer(appliedIds: ReadonlySet<string>, known: readonly Migration[]): void {
  const newestKnown = known.at(-1)?.id ?? '';
  const newest = [...appliedIds].sort().at(-1) ?? '';
  if (newest > newestKnown) {
    throw new Error(
      `The database was used by a newer server: migration '${newest}' is not known here (newest '${newestKnown}'). ` +
        'A downgrade is not possible.',
    );
  }
}

function copyBeforeMigration(paths: Paths, log: Log): string {
  mkdirSync(paths.migrationCopiesDir, { recursive: true });
  const stamp = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
  const copy = join(paths.migrationCopiesDir, `${stamp}_jellyfin.db`);
  copyFileSync(paths.databaseFile, copy);
  log.info(`Copied the database to ${copy} before the migration`);
  return copy;
}

function apply(db: DatabaseSync, migration: Migration, productVersion: string): void {
  inTransaction(db, () => {
    for (const statement of migration.sql) db.exec(statement);
    execute(db, 'INSERT INTO __EFMigrationsHistory VALUES (?, ?)', migration.id, productVersion);
  });
}
