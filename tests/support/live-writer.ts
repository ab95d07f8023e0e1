/**
 * A program: a server that owns a WAL database as Jellyfin does and writes to it without pause.
 *
 *   node tests/support/live-writer.ts DIR ['{"initialMiB":20}']
 *
 * Commands on stdin, one per line, optionally after an id: `seq?` `stats?` `resetstats` `pause` `resume` `commit N`
 * `vacuum` `checkpoint MODE` `loselocks [all]` `stop`. Each is answered by one JSON line on stdout. It ends when stdin
 * closes, after its maximal lifetime, and on SIGTERM; each time it closes the database cleanly, as Jellyfin does.
 */
import { closeSync, existsSync, openSync, readSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { DatabaseSync } from 'node:sqlite';
import {
  ADMIN_ID,
  createJellyfinTree,
  itemId,
  openAsJellyfin,
  type JellyfinTreeOptions,
} from './jellyfin-tree.ts';
import { Ledger } from './ledger.ts';

export interface LiveWriterOptions extends JellyfinTreeOptions {
  /** 0: as fast as it can. @default 1000 */
  commitsPerSecond?: number;
  /** Grow the database to about this size before the first commit. @default 0 */
  initialMiB?: number;
  /** 0: never. @default 200 */
  passiveCheckpointEveryMs?: number;
  /** 0: never. @default 1500 */
  truncateCheckpointEveryMs?: number;
  /** 0: never. @default 4000 */
  vacuumEveryMs?: number;
  /** 0: never. @default 1000 */
  optimizeEveryMs?: number;
  /** A row in the plugin's database, 0: never. @default 250 */
  pluginWriteEveryMs?: number;
  /** SQLite's own checkpoint after so many pages, 0: never. @default 1000 */
  autoCheckpointPages?: number;
  /** After SIGTERM it goes on writing for so long before it closes. @default 0 */
  closeDelayMs?: number;
  /** @default false: it commits at once */
  startPaused?: boolean;
  /** @default 120000 */
  maxLifetimeMs?: number;
  seed?: number;
}

export interface WriterStats {
  lastCommittedSeq: number;
  /** Since the start or the last `resetstats`, as all that follows. */
  commits: number;
  /** From BEGIN to the end of COMMIT. */
  medianCommitMs: number;
  p99CommitMs: number;
  maxCommitMs: number;
  vacuums: number;
  checkpoints: number;
  /** Statements that gave up on a lock. */
  busy: number;
  walExists: boolean;
}

const [dir, optionsJson = '{}'] = process.argv.slice(2);
if (dir === undefined) throw new Error('usage: live-writer.ts DIR [OPTIONS_JSON]');
const options = JSON.parse(optionsJson) as LiveWriterOptions;

/** How long it writes before it looks at stdin again. */
const BATCH_MS = 5;
const SAMPLES_KEPT = 1 << 18;
const SQLITE_BUSY = 5;

const tree = createJellyfinTree(dir, options);
const database = openAsJellyfin(tree.databaseFile);
const pluginDatabase = new DatabaseSync(tree.pluginDatabaseFile, { timeout: 5000 });
database.exec(`PRAGMA wal_autocheckpoint=${options.autoCheckpointPages ?? 1000}`);

const random = mulberry32(options.seed ?? 1);
const below = (limit: number) => Math.floor(random() * limit);
const VOCABULARY = Array.from({ length: 400 }, () =>
  random()
    .toString(36)
    .slice(2, 4 + below(8)),
);

grow(options.initialMiB ?? 0);

const ledger = new Ledger(database, random);
const saveItem = database.prepare('UPDATE BaseItems SET Data = ?, DateLastSaved = ? WHERE Id = ?');
const logActivity = database.prepare(
  `INSERT INTO ActivityLogs (Name, Type, UserId, DateCreated, LogSeverity) VALUES (?, 'VideoPlayback', ?, ?, 2)`,
);
// Rows that come and go leave free pages behind, and VACUUM has something to move.
const trimLog = database.prepare(
  'DELETE FROM ActivityLogs WHERE Id < (SELECT max(Id) FROM ActivityLogs) - 2000',
);
const items = options.items ?? 40;

let samples = new Float64Array(SAMPLES_KEPT);
let commits = 0;
let maxCommitMs = 0;
let vacuums = 0;
let checkpoints = 0;
let busy = 0;
let isPaused = options.startPaused ?? false;
let isClosed = false;

function commit(): void {
  const before = performance.now();
  ledger.commit((seq) => {
    const now = new Date().toISOString();
    // Finds nothing on an unconfigured server, which has no library.
    saveItem.run(`{"seq":${seq},"overview":"${words(100)}"}`, now, itemId(below(items)));
    logActivity.run(`played ${seq}`, ADMIN_ID, now);
    if (seq % 500 === 0) trimLog.run();
  });
  const took = performance.now() - before;
  samples[commits++ % SAMPLES_KEPT] = took;
  maxCommitMs = Math.max(maxCommitMs, took);
}

/** Runs a statement that may find the database locked, as anything in a server may. */
function attempt(statement: () => void): void {
  try {
    statement();
  } catch (error) {
    if (((error as { errcode?: number }).errcode ?? 0) % 256 !== SQLITE_BUSY) throw error;
    busy += 1;
  }
}

const checkpoint = (mode: string) =>
  attempt(() => {
    database.prepare(`PRAGMA wal_checkpoint(${mode})`).all();
    checkpoints += 1;
  });
const vacuum = () =>
  attempt(() => {
    database.exec('VACUUM');
    vacuums += 1;
  });

interface Chore {
  everyMs: number;
  run: () => void;
  dueMs: number;
}
const chores = (
  [
    [options.passiveCheckpointEveryMs ?? 200, () => checkpoint('PASSIVE')],
    [options.truncateCheckpointEveryMs ?? 1500, () => checkpoint('TRUNCATE')],
    [options.vacuumEveryMs ?? 4000, vacuum],
    [options.optimizeEveryMs ?? 1000, () => attempt(() => database.exec('PRAGMA optimize'))],
    [
      options.pluginWriteEveryMs ?? 250,
      () =>
        attempt(() =>
          pluginDatabase.exec(
            `INSERT INTO PlaybackActivity VALUES (datetime(), '${ADMIN_ID}', '${itemId(0)}', 1)`,
          ),
        ),
    ],
  ] as const
)
  .filter(([everyMs]) => everyMs > 0)
  .map(([everyMs, run]): Chore => ({ everyMs, run, dueMs: performance.now() + everyMs }));

const rate = options.commitsPerSecond ?? 1000;
let paidUntilMs = performance.now();

function work(): void {
  if (isClosed) return;
  if (isPaused) return void setTimeout(work, BATCH_MS);
  const started = performance.now();
  // After a stop (VACUUM, a busy machine) it does not make up for more than a moment.
  paidUntilMs = Math.max(paidUntilMs, started - 100);
  let isAhead = false;
  while (performance.now() - started < BATCH_MS) {
    isAhead = rate > 0 && paidUntilMs > performance.now();
    if (isAhead) break;
    attempt(commit);
    if (rate > 0) paidUntilMs += 1000 / rate;
  }
  for (const chore of chores) {
    if (performance.now() < chore.dueMs) continue;
    chore.run();
    chore.dueMs = performance.now() + chore.everyMs;
  }
  if (isAhead) setTimeout(work, 1);
  else setImmediate(work);
}

function close(reason: string): void {
  if (isClosed) return;
  isClosed = true;
  attempt(() => database.exec('PRAGMA optimize'));
  pluginDatabase.close();
  database.close();
  print({ event: 'stopped', reason, lastCommittedSeq: ledger.lastSeq });
  process.exitCode = 0;
  commands.close();
  process.stdin.destroy();
  clearTimeout(lifetime);
}

/**
 * What `File.Copy` of the database does to the process that owns it: closing any descriptor of a file drops all its
 * POSIX locks on it. SQLite before 3.51 then takes itself for the last user; newer ones also look at the lock on the
 * `-shm`, so that `all` is needed to expose a writing stranger of today.
 */
function loseLocks(which: string | undefined): void {
  for (const suffix of which === 'all' ? ['', '-shm'] : ['']) {
    const fd = openSync(tree.databaseFile + suffix, 'r');
    readSync(fd, Buffer.alloc(100));
    closeSync(fd);
  }
}

function stats(): WriterStats {
  const sorted = samples.slice(0, Math.min(commits, SAMPLES_KEPT)).sort();
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return {
    lastCommittedSeq: ledger.lastSeq,
    commits,
    medianCommitMs: at(0.5),
    p99CommitMs: at(0.99),
    maxCommitMs,
    vacuums,
    checkpoints,
    busy,
    walExists: existsSync(`${tree.databaseFile}-wal`),
  };
}

function obey(command: string, argument: string | undefined): object {
  switch (command) {
    case 'seq?':
      break;
    case 'stats?':
      return stats();
    case 'resetstats':
      samples = new Float64Array(SAMPLES_KEPT);
      commits = maxCommitMs = vacuums = checkpoints = busy = 0;
      break;
    case 'pause':
      isPaused = true;
      break;
    case 'resume':
      isPaused = false;
      break;
    case 'commit':
      for (let i = 0; i < Number(argument ?? 1); i++) commit();
      break;
    case 'vacuum':
      vacuum();
      break;
    case 'checkpoint':
      checkpoint(argument ?? 'PASSIVE');
      break;
    case 'loselocks':
      loseLocks(argument);
      break;
    case 'stop':
      close('stop');
      break;
    default:
      return { error: `unknown command ${command}` };
  }
  return { lastCommittedSeq: ledger.lastSeq };
}

const commands = createInterface({ input: process.stdin });
commands.on('line', (line) => {
  const [, id, command = '', argument] = /^(?:(\d+) )?(\S+)(?: (\S+))?$/.exec(line.trim()) ?? [];
  const answer = (body: object) => print({ ...(id !== undefined ? { id: Number(id) } : {}), ...body });
  try {
    answer(obey(command, argument));
  } catch (error) {
    answer({ error: (error as Error).message });
  }
});
commands.on('close', () => close('stdin closed'));
const lifetime = setTimeout(() => close('lifetime over'), options.maxLifetimeMs ?? 120_000);
process.on('SIGTERM', () => {
  print({ event: 'stopping', lastCommittedSeq: ledger.lastSeq });
  setTimeout(() => close('SIGTERM'), options.closeDelayMs ?? 0);
});

const journalMode = String(database.prepare('PRAGMA journal_mode').get()?.['journal_mode']);
print({
  event: 'ready',
  pid: process.pid,
  serverId: tree.serverId,
  journalMode,
  lastCommittedSeq: ledger.lastSeq,
});
work();

function print(value: object): void {
  if (process.stdout.writable) process.stdout.write(`${JSON.stringify(value)}\n`);
}

/** Rows with a third of noise: they compress about as a real library does, by a factor of three. */
function grow(wantedMiB: number): void {
  const sizeOf = (pragma: string) =>
    Number(Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0]);
  const missing = wantedMiB * 2 ** 20 - sizeOf('page_count') * sizeOf('page_size');
  if (missing <= 0) return;
  const rowBytes = 8000;
  const insert = database.prepare(
    `INSERT INTO BaseItems (Id, Type, Name, Data) VALUES (?, 'Folder', 'grown', ?)`,
  );
  const prefix = Date.now().toString(16).toUpperCase().padStart(12, '0');
  const text = words(2000);
  const noise = new Uint32Array(rowBytes / 16);
  database.exec('BEGIN');
  for (let i = 0; i * (rowBytes + 200) < missing; i++) {
    for (let j = 0; j < noise.length; j++) noise[j] = random() * 2 ** 32;
    const start = below(4000);
    const data = Buffer.from(noise.buffer).toString('base64') + text.slice(start, start + rowBytes / 1.5);
    insert.run(`C0000000-${prefix}-${i.toString(16).padStart(8, '0')}`, data);
    if (i % 5000 === 4999) database.exec('COMMIT; BEGIN');
  }
  database.exec('COMMIT');
  database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').all();
}

function words(count: number): string {
  return Array.from({ length: count }, () => VOCABULARY[below(VOCABULARY.length)]).join(' ');
}

function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
