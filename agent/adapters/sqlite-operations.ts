import { closeSync, copyFileSync, existsSync, openSync, readSync, rmSync, statSync } from 'node:fs';
import { backup, DatabaseSync } from 'node:sqlite';
import { pathToFileURL } from 'node:url';
import type { DatabaseFacts, DatabaseQuestion } from '../ports.ts';

/** More pages than any database has: the whole copy is one step, one read transaction. Node's default of 100 pages a
 * step starts over at each commit of another process and never ends on a busy server (facts/blob.md); -1 is refused. */
const ALL_PAGES = 2 ** 31 - 1;
const BUSY_TIMEOUT_MS = 10_000;
const SQLITE_CANTOPEN = 14;
const SQLITE_NOTADB = 26;
const SQLITE_READONLY_ROLLBACK = 776;

export type SqliteRequest =
  | { operation: 'snapshot'; source: string; target: string; busyTimeoutMs?: number }
  | { operation: 'inspect'; copy: string; questions: readonly DatabaseQuestion[] }
  | { operation: 'settle'; copy: string; setWal: boolean }
  | { operation: 'compare'; copy: string; earlier: string };

function removeSideFiles(database: string): void {
  for (const suffix of ['-wal', '-shm', '-journal']) rmSync(`${database}${suffix}`, { force: true });
}

/**
 * Read-only always: an opener that may write takes itself for the last user of a server that lost its POSIX locks
 * (jellyfin/jellyfin#18100), checkpoints, and deletes the `-wal` the server still writes to.
 * @param isShmReadOnly The `-shm` too. Otherwise even a read-only opener truncates it when no lock tells that somebody uses
 * it, and a server that lost that lock dies of SIGBUS in its mapping of the file.
 */
async function copyLive(source: string, target: string, busyTimeoutMs: number, isShmReadOnly: boolean) {
  const url = pathToFileURL(source);
  if (isShmReadOnly) url.searchParams.set('readonly_shm', '1');
  const live = new DatabaseSync(url, { readOnly: true, timeout: busyTimeoutMs });
  try {
    // Reads the header; backup() would report a foreign file only after it has created the target.
    live.prepare('SELECT count(*) FROM sqlite_schema').get();
    await backup(live, target, { rate: ALL_PAGES });
  } finally {
    live.close();
    removeSideFiles(target);
  }
}

/**
 * A database in rollback mode whose owner died within a transaction: its journal has to be played back, which only a writer
 * can do. On a private copy of both we may write.
 */
function copyWithJournal(source: string, target: string): void {
  const files = ['', '-journal'] as const;
  const mark = () =>
    files
      .map((suffix) => statSync(source + suffix, { bigint: true }))
      .map(({ ino, size, mtimeNs }) => `${String(ino)}:${String(size)}:${String(mtimeNs)}`)
      .join();
  const before = mark();
  for (const suffix of files) copyFileSync(source + suffix, target + suffix);
  if (mark() !== before) throw new Error('somebody wrote to it while it was copied with its journal');
  settle(target, false);
}

async function snapshot(
  source: string,
  target: string,
  busyTimeoutMs = BUSY_TIMEOUT_MS,
): Promise<'copied' | 'not_a_database'> {
  // SQLite would take an empty file for an empty database and make a page of it.
  if (statSync(source).size === 0 && !existsSync(`${source}-wal`)) return 'not_a_database';
  for (let isShmReadOnly = true; ; isShmReadOnly = false) {
    try {
      await copyLive(source, target, busyTimeoutMs, isShmReadOnly);
      return 'copied';
    } catch (error) {
      const code = (error as { errcode?: number }).errcode ?? 0;
      if (code === SQLITE_NOTADB) return 'not_a_database';
      if (code === SQLITE_READONLY_ROLLBACK) {
        copyWithJournal(source, target);
        return 'copied';
      }
      // A closed database in WAL mode has no -shm: nobody uses it, so making one harms nobody.
      const needsShm = isShmReadOnly && (code & 0xff) === SQLITE_CANTOPEN && !existsSync(`${source}-shm`);
      if (!needsShm) throw error;
    }
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
    // The first read plays back what a crash left beside the file.
    database.prepare('SELECT count(*) FROM sqlite_schema').get();
    if (setWal) database.exec('PRAGMA journal_mode = WAL');
    database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  } finally {
    database.close();
  }
  removeSideFiles(copy);
}

/** Nobody else has these copies: no side files are made, and none are looked for. */
function privateCopy(file: string): string {
  const url = pathToFileURL(file);
  url.searchParams.set('immutable', '1');
  return url.href;
}

const quoted = (name: string) => `"${name.replaceAll('"', '""')}"`;

function compare(copy: string, earlier: string): Record<string, number> {
  const database = new DatabaseSync(new URL(privateCopy(copy)), { readOnly: true });
  try {
    database.prepare('ATTACH DATABASE ? AS earlier').run(privateCopy(earlier));
    const tablesOf = (schema: 'main' | 'earlier') =>
      database
        .prepare(
          `SELECT name FROM ${schema}.sqlite_schema
           WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%'`,
        )
        .all()
        .map((row) => String(row['name']));
    const columnsOf = (schema: string, table: string) =>
      database
        .prepare('SELECT name FROM pragma_table_info(?, ?) ORDER BY name')
        .all(table, schema)
        .map((row) => quoted(String(row['name'])));
    const count = (sql: string) =>
      Number(database.prepare(`SELECT count(*) AS n FROM (${sql})`).get()?.['n']);
    const [now, before] = [new Set(tablesOf('main')), new Set(tablesOf('earlier'))];
    const changed: Record<string, number> = {};
    for (const table of [...new Set([...now, ...before])].sort()) {
      const [a, b] = [`main.${quoted(table)}`, `earlier.${quoted(table)}`];
      let rows: number;
      if (!now.has(table) || !before.has(table)) {
        rows = count(`SELECT 1 FROM ${now.has(table) ? a : b}`);
      } else {
        const columns = columnsOf('main', table).join();
        rows =
          columns === columnsOf('earlier', table).join()
            ? Math.max(
                count(`SELECT ${columns} FROM ${a} EXCEPT SELECT ${columns} FROM ${b}`),
                count(`SELECT ${columns} FROM ${b} EXCEPT SELECT ${columns} FROM ${a}`),
              )
            : count(`SELECT 1 FROM ${a}`);
      }
      if (rows > 0) changed[table] = rows;
    }
    return changed;
  } finally {
    database.close();
  }
}

/** Runs one request against SQLite; blocks its thread meanwhile. */
export async function runSqlite(request: SqliteRequest): Promise<unknown> {
  switch (request.operation) {
    case 'snapshot':
      return snapshot(request.source, request.target, request.busyTimeoutMs);
    case 'inspect':
      return inspect(request.copy, request.questions);
    case 'settle':
      settle(request.copy, request.setWal);
      return undefined;
    case 'compare':
      return compare(request.copy, request.earlier);
  }
}
