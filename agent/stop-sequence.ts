import type { BackupRuns } from './backup-runs.ts';
import { EXIT, type ExitCode } from './contract.ts';
import type { DatabaseWatch } from './database-watch.ts';
import { AgentError, exitCodeOf } from './errors.ts';
import type { Heartbeat } from './heartbeat.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock, Disk, JellyfinServer } from './ports.ts';
import type { Profile } from './profile.ts';
import { observe } from './scan.ts';

export interface StopDeps {
  clock: Clock;
  disk: Disk;
  jellyfin: JellyfinServer;
  log: Logger;
  profile: Profile;
  runs: BackupRuns;
  database: DatabaseWatch;
  heartbeat: Heartbeat;
  recordCleanStop: (signal: AbortSignal) => Promise<void>;
  /** Called each time the sequence comes round. */
  tick: (nowMs: number) => void;
}

export interface StopOptions {
  dataDir: string;
  shutdownBudgetMs: number;
  /** When SIGTERM came; monotonic. */
  stoppedMs: number;
}

const STOP_POLL_MS = 200;
/** A server that hangs must not use up the budget by not answering. */
const STOP_PROBE_MS = 500;
const STOP_RETRY_MS = 1_000;
/** While the server closes it may write for many seconds: backups in between, but not one after the other. */
const STOP_MIN_GAP_MS = 3_000;
/**
 * The port is closed and the files stand still this long, but the `-wal` is there: the server was killed. Not shorter: .NET
 * gives hosted services 30 s after the port has closed, and a last write may come at the end of that (facts/jellyfin.md 5.4).
 */
const KILLED_AFTER_MS = 35_000;
/** Of a budget that is too short for that: whoever set it says that the server closes within it. */
const KILLED_AFTER_OF_BUDGET = 0.8;

/**
 * All containers are signalled at once and in no order, and the grace may be cut short: back up at once what is not stored,
 * wait until Jellyfin has closed its database, and back up what it wrote last.
 * @returns whether the last write is stored: 0, or 7.
 */
export async function stopSequence(deps: StopDeps, options: StopOptions): Promise<ExitCode> {
  const { clock, database, disk, heartbeat, jellyfin, log, profile, runs } = deps;
  const { dataDir, shutdownBudgetMs, stoppedMs } = options;
  const deadlineMs = stoppedMs + shutdownBudgetMs;
  const signal = AbortSignal.timeout(Math.max(0, Math.round(deadlineMs - clock.monotonicMs())));
  const killedAfterMs = Math.min(KILLED_AFTER_MS, shutdownBudgetMs * KILLED_AFTER_OF_BUDGET);
  let failure: unknown;
  let isRefused = false;
  let lastTryMs = Number.NEGATIVE_INFINITY;
  let lastSeen: string | undefined;
  let stillSince: { mark: string; ms: number } | undefined;
  for (;;) {
    const nowMs = clock.monotonicMs();
    deps.tick(nowMs);
    let pauseMs = STOP_POLL_MS;
    try {
      const probe = AbortSignal.any([signal, AbortSignal.timeout(STOP_PROBE_MS)]);
      isRefused = (await jellyfin.health(probe)) === 'refused';
      // Before the files are looked at: what is written between the two looks is then seen by the second.
      await database.look(true);
      const { requested } = heartbeat;
      const { mark } = await observe(disk, dataDir, profile);
      lastSeen = mark;
      runs.observed(mark, nowMs);
      const isGone = isRefused && database.isClosed;
      if (stillSince?.mark !== mark || !isRefused) stillSince = { mark, ms: nowMs };
      const wasKilled = isRefused && nowMs - stillSince.ms >= killedAfterMs;
      const isLastChance = nowMs >= deadlineMs - STOP_MIN_GAP_MS;
      if (mark === runs.storedMark) {
        if (isGone || wasKilled) return await stopped(deps, isGone, signal);
        if (requested !== undefined) await heartbeat.answer(requested, runs.lastStored, signal);
      } else if (isGone || isLastChance || wasKilled || nowMs - lastTryMs >= STOP_MIN_GAP_MS) {
        lastTryMs = nowMs;
        await runs.backUp({ cleanStop: isGone, retain: false }, signal, mark);
        failure = undefined;
      }
    } catch (error) {
      // What the end of the budget breaks off says nothing about why it was not enough.
      if (!signal.aborted) {
        failure = error;
        runs.failed(error);
      }
      pauseMs = STOP_RETRY_MS;
    }
    if (signal.aborted || clock.monotonicMs() >= deadlineMs) break;
    await clock.sleep(pauseMs, signal);
  }
  // Only if nothing was written since that was found: the wizard may have been completed right before the stop.
  if (runs.isUnconfigured && failure === undefined && lastSeen === runs.storedMark) return EXIT.done;
  const reason = failure ?? budgetError(isRefused);
  log.error('final backup failed', { exitCodeOfCause: exitCodeOf(reason), ...errorFields(reason) });
  return EXIT.finalBackup;
}

/** Everything that lies there is stored, and nobody writes any more. */
async function stopped(deps: StopDeps, isGone: boolean, signal: AbortSignal): Promise<ExitCode> {
  const { heartbeat, log, runs } = deps;
  const { beside } = runs;
  if (beside === undefined) {
    // First the sign that a starting replica waits for, then what people read.
    await heartbeat.tell(signal, 'stopped');
    if (isGone && !runs.isUnconfigured) {
      await deps.recordCleanStop(signal).catch((error: unknown) => {
        log.warn('clean stop not recorded', errorFields(error));
      });
    }
  }
  log.info('stopped', { clean: isGone, lastBackupUtc: runs.lastBackup?.createdUtc });
  if (beside === undefined) return EXIT.done;
  log.error('the last write is stored, but the next start does not restore it', {
    backup: beside.backup.name,
    reason: beside.reason,
  });
  return EXIT.finalBackup;
}

function budgetError(isRefused: boolean): AgentError {
  return new AgentError(
    'final_backup_failed',
    isRefused
      ? 'jellyfin had closed its port, but not its database, when the shutdown budget ended'
      : 'jellyfin still ran when the shutdown budget ended',
    {
      hint: 'what was written until then is stored if a backup is logged above; raise SHUTDOWN_BUDGET_SECONDS and the grace period',
    },
  );
}
