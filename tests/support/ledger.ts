import { closeSync, openSync, readSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { DatabaseSync, type StatementSync } from 'node:sqlite';

/**
 * An invariant over several tables, so that a copy which mixes two moments shows: every transaction moves money
 * between two accounts, writes the transfer down, counts it, and counts a playback in Jellyfin's own `UserData`.
 */
const LEDGER_ACCOUNTS = 20;
const OPENING_BALANCE = 1000;

export function createLedger(database: DatabaseSync): void {
  database.exec(`
    CREATE TABLE ledger_accounts (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
    CREATE TABLE ledger_transfers (seq INTEGER PRIMARY KEY, from_id INTEGER NOT NULL, to_id INTEGER NOT NULL,
      amount INTEGER NOT NULL);
    CREATE TABLE ledger_state (id INTEGER PRIMARY KEY CHECK (id = 1), last_seq INTEGER NOT NULL, total INTEGER NOT NULL);
    INSERT INTO ledger_state VALUES (1, 0, 0);`);
  const insert = database.prepare('INSERT INTO ledger_accounts VALUES (?, ?)');
  for (let id = 1; id <= LEDGER_ACCOUNTS; id++) insert.run(id, OPENING_BALANCE);
}

/** Writes transactions to a database that has a ledger, from its last one on. */
export class Ledger {
  lastSeq: number;
  readonly #database: DatabaseSync;
  readonly #random: () => number;
  readonly #items: readonly string[];
  readonly #statements: Readonly<Record<'take' | 'give' | 'note' | 'play' | 'count', StatementSync>>;

  constructor(database: DatabaseSync, random: () => number = Math.random) {
    this.#database = database;
    this.#random = random;
    this.lastSeq = Number(database.prepare('SELECT last_seq FROM ledger_state').get()?.['last_seq']);
    this.#items = database
      .prepare('SELECT ItemId FROM UserData')
      .all()
      .map((row) => String(row['ItemId']));
    this.#statements = {
      take: database.prepare('UPDATE ledger_accounts SET balance = balance - ? WHERE id = ?'),
      give: database.prepare('UPDATE ledger_accounts SET balance = balance + ? WHERE id = ?'),
      note: database.prepare('INSERT INTO ledger_transfers VALUES (?, ?, ?, ?)'),
      play: database.prepare('UPDATE UserData SET PlayCount = PlayCount + 1, Played = 1 WHERE ItemId = ?'),
      count: database.prepare('UPDATE ledger_state SET last_seq = ?, total = total + ?'),
    };
  }

  /** One transaction; `also` may write more within it. Returns its number. */
  commit(also?: (seq: number) => void): number {
    const below = (limit: number) => Math.floor(this.#random() * limit);
    const { take, give, note, play, count } = this.#statements;
    const seq = this.lastSeq + 1;
    const from = 1 + below(LEDGER_ACCOUNTS);
    const to = 1 + ((from + below(LEDGER_ACCOUNTS - 1)) % LEDGER_ACCOUNTS);
    const amount = 1 + below(50);
    this.#database.exec('BEGIN IMMEDIATE');
    try {
      take.run(amount, from);
      note.run(seq, from, to, amount);
      give.run(amount, to);
      if (this.#items.length > 0) play.run(this.#items[below(this.#items.length)] ?? null);
      also?.(seq);
      count.run(seq, amount);
      this.#database.exec('COMMIT');
    } catch (error) {
      this.#database.exec('ROLLBACK');
      throw error;
    }
    return (this.lastSeq = seq);
  }
}

export interface LedgerCheck {
  ok: boolean;
  /** Sentences; empty if ok. */
  problems: string[];
  /** The newest transaction in the copy; -1 if it cannot be read. */
  lastSeq: number;
  /** What `PRAGMA integrity_check` says: `ok`, or the first lines of trouble, or the error. */
  integrity: string;
  /** Header bytes 18 and 19 are 2: a server that opens the file works in WAL mode. */
  isWal: boolean;
}

/** Each query returns the number that must be equal to the one of the query after it. */
const INVARIANT: readonly (readonly [claim: string, left: string, right: string])[] = [
  [
    'the balances add up to what was there in the beginning',
    'SELECT sum(balance) FROM ledger_accounts',
    `SELECT ${LEDGER_ACCOUNTS * OPENING_BALANCE}`,
  ],
  [
    'the newest transfer is the one that was counted last',
    'SELECT coalesce(max(seq), 0) FROM ledger_transfers',
    'SELECT last_seq FROM ledger_state',
  ],
  ['no transfer is missing', 'SELECT count(*) FROM ledger_transfers', 'SELECT last_seq FROM ledger_state'],
  [
    'the amounts add up to the total',
    'SELECT coalesce(sum(amount), 0) FROM ledger_transfers',
    'SELECT total FROM ledger_state',
  ],
  [
    'every account has what the transfers left it',
    `SELECT count(*) FROM ledger_accounts AS a WHERE balance = ${OPENING_BALANCE}
       + coalesce((SELECT sum(amount) FROM (SELECT to_id, sum(amount) AS amount FROM ledger_transfers GROUP BY to_id)
           WHERE to_id = a.id), 0)
       - coalesce((SELECT sum(amount) FROM (SELECT from_id, sum(amount) AS amount FROM ledger_transfers
           GROUP BY from_id) WHERE from_id = a.id), 0)`,
    `SELECT ${LEDGER_ACCOUNTS}`,
  ],
  [
    'every transfer counted a playback',
    'SELECT coalesce(sum(PlayCount), 0) FROM UserData',
    'SELECT CASE WHEN EXISTS (SELECT 1 FROM UserData) THEN last_seq ELSE 0 END FROM ledger_state',
  ],
];

/**
 * Checks a COPY. By default it is opened as immutable: nothing is written beside it and a `-wal` is ignored, as it
 * must be for a file that claims to be complete. `recoverWal` opens it as a server would, with the `-wal` beside it.
 */
export function checkLedger(databaseFile: string, options: { recoverWal?: boolean } = {}): LedgerCheck {
  const check: LedgerCheck = { ok: false, problems: [], lastSeq: -1, integrity: 'not checked', isWal: false };
  let database: DatabaseSync | undefined;
  try {
    check.isWal = hasWalHeader(databaseFile);
    database = options.recoverWal
      ? new DatabaseSync(databaseFile)
      : new DatabaseSync(new URL(`${pathToFileURL(databaseFile).href}?immutable=1`), { readOnly: true });
    const { problems } = check;
    const value = (sql: string) => Number(Object.values(database?.prepare(sql).get() ?? {})[0]);
    const integrity = database.prepare('PRAGMA integrity_check(5)').all();
    check.integrity = integrity.map((row) => String(row['integrity_check'])).join('; ');
    if (check.integrity !== 'ok') problems.push(`integrity_check: ${check.integrity}`);
    check.lastSeq = value('SELECT last_seq FROM ledger_state');
    for (const [claim, left, right] of INVARIANT) {
      const [found, wanted] = [value(left), value(right)];
      if (found !== wanted) problems.push(`not true: ${claim} (${found}, not ${wanted})`);
    }
  } catch (error) {
    // Any failure to read a copy is the finding: malformed, not a database, no such table, no such file.
    check.problems.push((error as Error).message);
    if (check.integrity === 'not checked') check.integrity = (error as Error).message;
  } finally {
    database?.close();
  }
  check.ok = check.problems.length === 0;
  return check;
}

function hasWalHeader(file: string): boolean {
  const header = Buffer.alloc(20);
  const fd = openSync(file, 'r');
  try {
    readSync(fd, header, 0, 20, 0);
  } finally {
    closeSync(fd);
  }
  return header[18] === 2 && header[19] === 2;
}
