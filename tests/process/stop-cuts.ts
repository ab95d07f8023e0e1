import { setTimeout as sleep } from 'node:timers/promises';
import { DatabaseSync } from 'node:sqlite';
import type { Home } from '../stand-in/support.ts';
import { newHome, Replica, restore, Store, type Sidecar } from './support.ts';

export interface StopCut {
  windowMs: number;
  /** Between SIGTERM and SIGKILL. */
  graceMs: number;
  /** How long the server may take to close: whether it was still writing when it was killed is left to chance. */
  closingMs: number;
  /** The longest backup of this replica, from the snapshot to the end of the upload or to SIGKILL. */
  backupMs: number;
  /** Between the first write that is not in the next start (but not before the server was healthy) and SIGKILL. */
  lostMs: number;
  boundMs: number;
  written: number;
  isWhole: boolean;
}

/** Often enough that a loss is measured to a few hundredths of a second. */
const WRITE_INTERVAL_MS = 40;

interface Row {
  id: number;
  committedMs: number;
}

function rowsIn(home: Home): { rows: Row[]; isWhole: boolean } {
  const database = new DatabaseSync(home.database);
  try {
    const rows = database
      .prepare('SELECT Id, DateCreated FROM ActivityLogs ORDER BY Id')
      .all()
      .map((row) => ({
        id: Number(row['Id']),
        committedMs: Date.parse(`${String(row['DateCreated']).replace(' ', 'T')}Z`),
      }));
    const isWhole = database.prepare('PRAGMA integrity_check').get()?.['integrity_check'] === 'ok';
    return { rows, isWhole };
  } finally {
    database.close();
  }
}

const atOf = (line: Record<string, unknown> | undefined) => Date.parse(String(line?.['time']));

function longestBackupMs(sidecar: Sidecar, killedMs: number): number {
  const begins = sidecar.said('backup begins').map(atOf);
  const ends = sidecar.backups.map(({ line }) => atOf(line));
  const unfinished = begins.findLast((ms) => !ends.some((end) => end >= ms));
  const durations = sidecar.backups.map(({ line }) => Number(line['durationMs']));
  return Math.max(0, ...durations, unfinished === undefined ? 0 : killedMs - unfinished);
}

/** Timers are late on a machine with more processes than cores. */
const LATE_MS = 500;

/** The stop sequence leaves so much between two backups; a window that is shorter is not kept while it stops. */
const STOP_GAP_MS = 3_000;

/**
 * What the README promises: the change window, and twice a backup where backups take longer than half of it (on a busy test
 * machine, with a window of a second, they do). Once a backup in any case: one may take longer than the one before.
 */
const boundMs = (windowMs: number, graceMs: number, backupMs: number) =>
  Math.max(windowMs, Math.min(graceMs, STOP_GAP_MS)) +
  (backupMs > windowMs / 2 ? 2 * backupMs : backupMs) +
  LATE_MS;

/**
 * One line of replicas under steady writes, each started from the backups of the one before. The change window, how long
 * each runs, how long its server takes to close, and when SIGKILL follows SIGTERM are drawn.
 */
export async function stopCuts(rounds: number, maxGraceMs: number): Promise<StopCut[]> {
  const store = await Store.create();
  const results: StopCut[] = [];
  const below = (limit: number) => Math.round(Math.random() * limit);
  let home = newHome();
  await restore(store, home);
  for (let round = 1; round <= rounds; round += 1) {
    const windowSeconds = 1 + below(1);
    const closingMs = below(maxGraceMs);
    const replica = await Replica.start(store, {
      home,
      agent: { BACKUP_ON_CHANGE_SECONDS: String(windowSeconds), LOG_LEVEL: 'debug' },
      server: {
        STAND_IN_WRITE_INTERVAL_MS: String(WRITE_INTERVAL_MS),
        STAND_IN_SHUTDOWN_MS: String(closingMs),
      },
    });
    const healthyMs = atOf(replica.sidecar.said('jellyfin is healthy')[0]);
    if (round === 1) {
      await replica.server.setUp(home);
      await replica.storeAll();
    }
    // Not events, both: any moment of the loop and any moment of the stop is meant.
    await sleep(below(2_500));
    replica.signal('SIGTERM');
    const graceMs = below(maxGraceMs);
    await sleep(graceMs);
    const killedMs = Date.now();
    await replica.kill();

    const next = newHome();
    await restore(store, next);
    const written = rowsIn(home).rows;
    const { rows, isWhole } = rowsIn(next);
    const there = new Set(rows.map(({ id }) => id));
    const lost = written.filter(({ id }) => !there.has(id)).map(({ committedMs }) => committedMs);
    const windowMs = windowSeconds * 1_000;
    const backupMs = longestBackupMs(replica.sidecar, killedMs);
    results.push({
      windowMs,
      graceMs,
      closingMs,
      backupMs,
      lostMs: lost.length === 0 ? 0 : killedMs - Math.max(healthyMs, Math.min(...lost)),
      boundMs: boundMs(windowMs, graceMs, backupMs),
      written: written.length,
      isWhole,
    });
    home = next;
  }
  return results;
}

export const isBroken = ({ lostMs, boundMs: bound, isWhole }: StopCut): boolean => !isWhole || lostMs > bound;
