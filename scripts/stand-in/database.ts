import { existsSync, closeSync, openSync } from 'node:fs';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { isTwelve, type Version } from './versions.ts';

/** Every connection of the real server gets these; the journal mode is not among them. */
const CONNECTION_PRAGMAS = `
  PRAGMA locking_mode=NORMAL;
  PRAGMA journal_size_limit=134217728;
  PRAGMA synchronous=1;
  PRAGMA temp_store=2;
`;

/**
 * WAL is chosen once, when the file is made, and never again: a file that comes back from a restore in another
 * journal mode stays in it.
 */
export function openDatabase(file: string): DatabaseSync {
  const isNew = !existsSync(file);
  const db = new DatabaseSync(file, { timeout: 30_000 });
  if (isNew) db.exec('PRAGMA journal_mode=WAL');
  db.exec(CONNECTION_PRAGMAS);
  db.prepare('SELECT count(*) FROM sqlite_master').get();
  return db;
}

/** `database`: the state of issue #18100. `database-and-index`: the same for the -shm file. */
export type LostLocks = 'none' | 'database' | 'database-and-index';

/**
 * What the real server does to itself when it copies its database file while it is open (issue #18100): closing any
 * descriptor of a file drops all POSIX locks of the process on it, so other processes believe that nobody has the
 * database open. SQLite 3.40 is taken in by the lost lock on the database file alone. 3.53, the one in Node 24, looks
 * at the -shm file too before it removes a -wal; those locks go when something in the process copies `jellyfin.db*`.
 */
export function loseLocks(file: string, lost: LostLocks): void {
  if (lost === 'none') return;
  closeSync(openSync(file, 'r'));
  if (lost === 'database-and-index') closeSync(openSync(`${file}-shm`, 'r'));
}

/** The last connection to close checkpoints the WAL and removes it. */
export function closeDatabase(db: DatabaseSync, version: Version): void {
  db.exec('PRAGMA optimize');
  if (isTwelve(version)) db.exec('VACUUM; ANALYZE');
  db.close();
}

/** The maintenance task: the WAL is emptied and the whole file rewritten, under whoever reads it at the moment. */
export function optimizeDatabase(db: DatabaseSync): void {
  db.exec('PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize; VACUUM; PRAGMA wal_checkpoint(TRUNCATE)');
}

/** Rows are typed by the caller: the queries are constants that sit beside their type. */
export function allRows<T>(db: DatabaseSync, sql: string, ...values: SQLInputValue[]): T[] {
  return db.prepare(sql).all(...values) as T[];
}

// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters -- see above
export function oneRow<T>(db: DatabaseSync, sql: string, ...values: SQLInputValue[]): T | undefined {
  return db.prepare(sql).get(...values) as T | undefined;
}

export function execute(db: DatabaseSync, sql: string, ...values: SQLInputValue[]): number {
  return Number(db.prepare(sql).run(...values).lastInsertRowid);
}

export function inTransaction<T>(db: DatabaseSync, work: () => T): T {
  db.exec('BEGIN IMMEDIATE');
  try {
    const result = work();
    db.exec('COMMIT');
    return result;
  } catch (error) {
    db.exec('ROLLBACK');
    throw error;
  }
}

/** The look of a DateTime that Entity Framework stores in SQLite. */
export const sqlDate = (date = new Date()): string =>
  date.toISOString().replace('T', ' ').replace('Z', '0000');
