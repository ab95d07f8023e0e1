import { join } from 'node:path';
import type { LiveWriterOptions, WriterStats } from './live-writer.ts';
import { startProcess, type ProcessExit, type RunningProcess } from './processes.ts';

export type { LiveWriterOptions, WriterStats } from './live-writer.ts';
export { checkLedger, type LedgerCheck } from './ledger.ts';

export interface LiveWriter {
  readonly dir: string;
  readonly databaseFile: string;
  readonly serverId: string;
  /** `wal`, unless it was started on a folder whose database was restored in another mode. */
  readonly journalMode: string;
  readonly process: RunningProcess;
  /** The newest transaction that is committed at the moment of the answer. */
  lastSeq(): Promise<number>;
  stats(): Promise<WriterStats>;
  resetStats(): Promise<void>;
  /** Stops committing; the number is final until `resume`. */
  pause(): Promise<number>;
  resume(): Promise<void>;
  /** Commits so many transactions at once, also while paused, and returns the last one's number. */
  commit(count?: number): Promise<number>;
  vacuum(): Promise<void>;
  checkpoint(mode: 'PASSIVE' | 'FULL' | 'RESTART' | 'TRUNCATE'): Promise<void>;
  /**
   * Jellyfin #18100: opens and closes the database file, which drops the process's POSIX locks on it. `all` drops
   * those on the `-shm` too: SQLite from 3.51 on still respects these, older ones do not look.
   * @default database
   */
  loseLocks(which?: 'database' | 'all'): Promise<void>;
  /** Closes the database cleanly; returns the last transaction's number. */
  stop(): Promise<number>;
  /** SIGTERM: it goes on for `closeDelayMs`, closes cleanly, and this returns the last transaction's number. */
  terminate(): Promise<number>;
  /** SIGKILL. */
  kill(): Promise<ProcessExit>;
}

/** Starts a writer on `dir`: on a new server's folder if it is empty, else on the database that is there. */
export async function startLiveWriter(dir: string, options: LiveWriterOptions = {}): Promise<LiveWriter> {
  const child = startProcess({
    name: 'live-writer',
    args: [join(process.cwd(), 'tests/support/live-writer.ts'), dir, JSON.stringify(options)],
  });
  // Growing to a gigabyte takes its time.
  const ready = await child.waitForLine(
    ({ json }) => json?.['event'] === 'ready',
    20_000 + 200 * (options.initialMiB ?? 0),
  );
  let lastId = 0;
  const ask = async (command: string): Promise<Record<string, unknown>> => {
    const id = ++lastId;
    const from = child.lines.length;
    child.write(`${id} ${command}\n`);
    const { json } = await child.waitForLine((line) => line.json?.['id'] === id, 30_000, from);
    if (json?.['error'] !== undefined)
      throw new Error(`live writer: ${command} failed: ${String(json['error'])}`);
    return json ?? {};
  };
  const seqAfter = async (command: string) => Number((await ask(command))['lastCommittedSeq']);
  const lastSeqOfStop = async () => {
    const { json } = await child.waitForLine((line) => line.json?.['event'] === 'stopped', 60_000);
    await child.exit;
    return Number(json?.['lastCommittedSeq']);
  };

  return {
    dir,
    databaseFile: join(dir, 'data/jellyfin.db'),
    serverId: String(ready.json?.['serverId']),
    journalMode: String(ready.json?.['journalMode']),
    process: child,
    lastSeq: () => seqAfter('seq?'),
    stats: async () => (await ask('stats?')) as unknown as WriterStats,
    resetStats: async () => void (await ask('resetstats')),
    pause: () => seqAfter('pause'),
    resume: async () => void (await ask('resume')),
    commit: (count = 1) => seqAfter(`commit ${count}`),
    vacuum: async () => void (await ask('vacuum')),
    checkpoint: async (mode) => void (await ask(`checkpoint ${mode}`)),
    loseLocks: async (which = 'database') => void (await ask(`loselocks ${which}`)),
    stop() {
      child.write('stop\n');
      return lastSeqOfStop();
    },
    terminate() {
      child.signal('SIGTERM');
      return lastSeqOfStop();
    },
    kill: () => child.kill(),
  };
}
