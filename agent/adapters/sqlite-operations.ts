import { readSync, openSync, closeSync, rmSync } from 'node:fs';
import { backup, DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import type { DatabaseFacts, DatabaseQuestion } from '../ports.ts';

/** More pages than any database has: the whole copy is one step, one read transaction. Node's default of 100 pages a
 * step starts over at each commit of another process and never ends on a busy server (facts/blob.md); -1 is refused. */
const ALL_PAGES = 2 ** 31 - 1;
const BUSY_TIMEOUT_MS = 10_000;
const SQLITE_NOTADB = 26;

export type SqliteRequest =
  | { operation: 'snapshot'; source: string; target: string }
  | { operation: 'inspect'; copy: string; questions: readonly DatabaseQuestion[] }
  | { operation: 'settle'; copy: string; setWal: boolean };

function removeSideFiles(database: string): void {
  for (const suffix of ['-wal', '-shm', '-journal']) rmSync(`${database}${suffix}`, { force: true });
}

/**
 * Read-only always: an opener that may write takes itself for the last user of a server that lost its POSIX locks
 * (jellyfin/jellyfin#18100), checkpoints, and deletes the `-wal` the server still writes to.
 */
async function snapshot(source: string, target: string): Promise<'copied' | 'not_a_database'> {
  const live = new DatabaseSync(source, { readOnly: true, timeout: BUSY_TIMEOUT_MS });
  try {
    // Reads the header; backup() would report a foreign file only after it has created the target.
    live.prepare('SELECT count(*) FROM sqlite_schema').get();
    await backup(live, target, { rate: ALL_PAGES });
    return 'copied';
  } catch (error) {
    if ((error as { errcode?: number }).errcode === SQLITE_NOTADB) return 'not_a_database';
    throw error;
  } finally {
    live.close();
    removeSideFiles(target);
  }
}

function isWal(copy: string): boolean {
  const header = Buffer.alloc(20);
  const file = openSync(copy, 'r');
  try {
    readSync(file, header, 0, header.length, 0);
  } finally {
    closeSync(file);
  }
  return header[18] === 2 && header[19] === 2;
}

function inspect(copy: string, questions: readonly DatabaseQuestion[]): DatabaseFacts {
  const url = pathToFileURL(copy);
  // Nobody else has the copy; without this flag a WAL-mode file would get a -wal and a -shm beside it.
  url.searchParams.set('immutable', '1');
  const database = new DatabaseSync(url, { readOnly: true });
  try {
    const problems = database
      .prepare('PRAGMA quick_check(5)')
      .all()
      .map((row) => String(row['quick_check']));
    const facts: DatabaseFacts = {
      quickCheck: problems.join('; '),
      isWal: isWal(copy),
      tables: [],
      answers: {},
    };
    if (facts.quickCheck !== 'ok') return facts;
    facts.tables = database
      .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
      .all()
      .map((row) => String(row['name']));
    for (const question of questions) {
      if (!facts.tables.includes(question.table)) continue;
      facts.answers[question.name] = database.prepare(question.sql).get()?.['answer'] as
        number | string | null;
    }
    return facts;
  } catch (error) {
    // A damaged page can surface as an exception from any of these statements instead of a line of quick_check.
    return {
      quickCheck: error instanceof Error ? error.message : String(error),
      isWal: false,
      tables: [],
      answers: {},
    };
  } finally {
    database.close();
  }
}

function settle(copy: string, setWal: boolean): void {
  const database = new DatabaseSync(copy, { timeout: BUSY_TIMEOUT_MS });
  try {
    if (setWal) database.exec('PRAGMA journal_mode = WAL');
    database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  } finally {
    database.close();
  }
  removeSideFiles(copy);
}

/** Runs one request against SQLite; blocks its thread meanwhile. */
export async function runSqlite(request: SqliteRequest): Promise<unknown> {
  switch (request.operation) {
    case 'snapshot':
      return snapshot(request.source, request.target);
    case 'inspect':
      return inspect(request.copy, request.questions);
    case 'settle':
      settle(request.copy, request.setWal);
      return undefined;
  }
}
