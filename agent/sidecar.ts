import type { BackupLine, BackupOutcome, ServerIdentity } from './backup-line.ts';
import type { BootstrapResult } from './bootstrap.ts';
import { EXIT, type ExitCode } from './contract.ts';
import { AgentError, exitCodeOf } from './errors.ts';
import { errorFields, RepeatedFailure, type LogFields, type Logger } from './log.ts';
import type { Clock, Disk, JellyfinServer } from './ports.ts';
import type { Profile } from './profile.ts';
import type { PublishedBackup } from './publish.ts';
import { fileMark, observe } from './scan.ts';
import { readMarker, writeMarker } from './volume.ts';

export interface SidecarDeps {
  clock: Clock;
  disk: Disk;
  jellyfin: JellyfinServer;
  log: Logger;
  profile: Profile;
  line: BackupLine;
  /** Called when the stop sequence begins: retries become short, a wait of a minute would be the whole budget. */
  hurry: () => void;
  /** Completes the wizard of a brand-new server; absent without credentials for it. */
  bootstrap?: (signal: AbortSignal) => Promise<BootstrapResult>;
  /** Regular restore of the candidate into scratch space; absent when it is turned off. */
  drill?: (signal: AbortSignal) => Promise<void>;
}

export interface SidecarOptions {
  dataDir: string;
  intervalMs: number;
  onChangeMs: number;
  startupDelayMs: number;
  drillIntervalMs: number;
  shutdownBudgetMs: number;
  /** Between two attempts after a failure. */
  failureBackoffMs: number;
}

export interface SidecarStatus {
  phase: 'waiting' | 'watching' | 'stopping';
  lastBackupUtc: string | undefined;
  /** Milliseconds since the loop last came round: a loop that hangs is not alive. */
  sinceTickMs: number;
}

/** Also how long a write may lie there before the sidecar knows that the server was ever up. */
const HEALTH_POLL_MS = 250;
/** Twice what a long migration takes; then a person should look, again and again. */
const COMPLAIN_AFTER_MS = 15 * 60_000;
const MAX_POLL_MS = 5_000;
/** A backup that runs when SIGTERM comes may finish for this long; then it is given up for a new one with the last write. */
const FINISH_CURRENT_MS = 10_000;
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

export class Sidecar {
  readonly #deps: SidecarDeps;
  readonly #options: SidecarOptions;
  readonly #failure: RepeatedFailure;
  #server: ServerIdentity = { version: undefined, serverId: undefined };
  #phase: SidecarStatus['phase'] = 'waiting';
  #tickMs: number;
  #lastBackup: PublishedBackup | undefined;
  #lastHealthLineMs = 0;
  #lastBackupMs: number;
  #lastDurationMs = 0;
  /** The observation that the last stored snapshot holds. */
  #storedMark: string | undefined;
  #dirtySinceMs: number | undefined;
  /** The last stored snapshot, if the next start does not restore it. */
  #beside: Extract<BackupOutcome, { kind: 'beside_line' }> | undefined;
  /** The main database's `-wal` when it was last looked at. */
  #walMark: string | undefined;
  #isDatabaseClosed = false;
  #hasSeenHealthy = false;
  #isUnconfigured = false;
  #drilling: Promise<void> | undefined;

  constructor(deps: SidecarDeps, options: SidecarOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#failure = new RepeatedFailure(deps.log, 'backup failed');
    this.#tickMs = deps.clock.monotonicMs();
    this.#lastBackupMs = this.#tickMs;
  }

  get status(): SidecarStatus {
    return {
      phase: this.#phase,
      lastBackupUtc: this.#lastBackup?.createdUtc,
      sinceTickMs: this.#deps.clock.monotonicMs() - this.#tickMs,
    };
  }

  /** Runs until `stop` aborts, then the stop sequence. The exit code tells whether the last write is stored. */
  async run(stop: AbortSignal): Promise<ExitCode> {
    await this.#recallHealthy();
    // Its own signal: SIGTERM must not break off a backup that is about to finish.
    const current = new AbortController();
    const loop = this.#watch(stop, current.signal);
    await new Promise<void>((resolve) => {
      if (stop.aborted) resolve();
      else
        stop.addEventListener(
          'abort',
          () => {
            resolve();
          },
          { once: true },
        );
      // A bug in the loop must end the process, not leave it idle.
      loop.catch(() => {
        resolve();
      });
    });
    if (!stop.aborted) await loop;
    // The budget counts from here, also while the current backup finishes.
    const stoppedMs = this.#deps.clock.monotonicMs();
    this.#phase = 'stopping';
    this.#deps.log.info('stopping', { budgetMs: this.#options.shutdownBudgetMs });
    this.#deps.hurry();
    const giveUp = setTimeout(
      () => {
        current.abort(new Error('stopping'));
      },
      Math.min(FINISH_CURRENT_MS, this.#options.shutdownBudgetMs / 3),
    );
    await loop.finally(() => {
      clearTimeout(giveUp);
    });
    const exitCode = await this.#stop(stoppedMs);
    await this.#drilling;
    return exitCode;
  }

  /** One backup now, without a loop. */
  async once(signal: AbortSignal): Promise<ExitCode> {
    await this.#recallHealthy();
    await this.#waitHealthy(signal, true);
    signal.throwIfAborted();
    const outcome = await this.#backUp(false, signal);
    if (outcome.kind !== 'beside_line') return EXIT.done;
    return outcome.placement === 'tail' ? EXIT.target : EXIT.backup;
  }

  /** The sidecar's container may restart beside a running server: what the volume says it has seen still holds. */
  async #recallHealthy(): Promise<void> {
    const marker = await readMarker(this.#deps.disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable' || marker.seenHealthyUtc === undefined) return;
    this.#hasSeenHealthy = true;
    this.#server = { version: marker.jellyfinVersion, serverId: marker.serverId };
  }

  async #rememberHealthy(): Promise<void> {
    const { clock, disk, jellyfin } = this.#deps;
    this.#hasSeenHealthy = true;
    const info = await jellyfin.publicInfo();
    this.#server = {
      version: info?.version ?? this.#server.version,
      serverId: info?.serverId ?? this.#server.serverId,
    };
    const marker = await readMarker(disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable' || marker.state !== 'complete') return;
    await writeMarker(disk, this.#options.dataDir, {
      ...marker,
      seenHealthyUtc: clock.now().toISOString(),
      ...(this.#server.version === undefined ? {} : { jellyfinVersion: this.#server.version }),
      ...(this.#server.serverId === undefined ? {} : { serverId: this.#server.serverId }),
    });
  }

  /**
   * A database in the middle of a migration is a valid transaction and a useless backup (facts/peers.md hazard 9): nothing is
   * read before the server is `Healthy`.
   * @param acceptRefused For a one-off run beside a server that is not running: its files stand still.
   */
  async #waitHealthy(signal: AbortSignal, acceptRefused: boolean): Promise<void> {
    const { clock, jellyfin, log } = this.#deps;
    const startedMs = clock.monotonicMs();
    let complainAtMs = startedMs + COMPLAIN_AFTER_MS;
    let hasSaid = false;
    while (!signal.aborted) {
      this.#tickMs = clock.monotonicMs();
      const health = await jellyfin.health(signal);
      if (health === 'healthy') {
        await this.#rememberHealthy();
        log.info('jellyfin is healthy', { version: this.#server.version });
        return;
      }
      if (health === 'refused' && acceptRefused) {
        log.warn('jellyfin does not run: its files are backed up as they lie');
        return;
      }
      if (!hasSaid) log.info('waiting for jellyfin', { health });
      hasSaid = true;
      if (this.#tickMs >= complainAtMs) {
        complainAtMs += COMPLAIN_AFTER_MS;
        log.error('jellyfin is still not healthy: nothing is backed up', {
          health,
          afterSeconds: Math.round((this.#tickMs - startedMs) / 1000),
          hint: 'with a BaseUrl in its network settings, JELLYFIN_URL must end with it',
        });
      }
      await clock.sleep(HEALTH_POLL_MS, signal);
    }
  }

  async #watch(stop: AbortSignal, current: AbortSignal): Promise<void> {
    const { clock, disk, profile } = this.#deps;
    const { dataDir, intervalMs, onChangeMs, startupDelayMs } = this.#options;
    await this.#waitHealthy(stop, false);
    const healthyMs = clock.monotonicMs();
    this.#lastBackupMs = healthyMs;
    this.#phase = 'watching';
    const pollMs = Math.max(100, Math.min(MAX_POLL_MS, (onChangeMs > 0 ? onChangeMs : intervalMs) / 6));
    let notBeforeMs = healthyMs + startupDelayMs;
    let isUrgent = await this.#bootstrapNew(stop);
    if (isUrgent) notBeforeMs = healthyMs;
    let nextDrillMs = healthyMs + this.#options.drillIntervalMs;
    while (!stop.aborted) {
      const nowMs = (this.#tickMs = clock.monotonicMs());
      const { mark } = await observe(disk, dataDir, profile);
      await this.#lookAtWal(false);
      if (mark === this.#storedMark) this.#dirtySinceMs = undefined;
      else this.#dirtySinceMs ??= nowMs;
      if (nowMs >= notBeforeMs && (isUrgent || this.#isDue(nowMs, pollMs))) {
        try {
          await this.#backUp(false, current, mark);
          this.#failure.succeeded();
          isUrgent = false;
        } catch (error) {
          if (current.aborted) return;
          this.#failure.failed(nowMs, error);
          notBeforeMs = clock.monotonicMs() + this.#options.failureBackoffMs;
        }
      } else if (this.#deps.drill !== undefined && nowMs >= nextDrillMs) {
        nextDrillMs = nowMs + this.#options.drillIntervalMs;
        // Beside the loop: a large archive takes minutes, and the change window goes on meanwhile.
        this.#drilling ??= this.#deps.drill(AbortSignal.any([stop, current])).finally(() => {
          this.#drilling = undefined;
        });
      }
      const isStored = this.#dirtySinceMs === undefined && this.#beside === undefined;
      if (isStored && nowMs - this.#lastHealthLineMs >= intervalMs) this.#logHealthLine({ unchanged: true });
      await clock.sleep(pollMs, stop);
    }
  }

  /**
   * Only on a volume that began as a first boot: a wizard that shows on a restored one is a fault, and nobody's to complete.
   * @returns whether there is now something to back up at once: the first backup decides what the next start shows.
   */
  async #bootstrapNew(signal: AbortSignal): Promise<boolean> {
    const { bootstrap, disk } = this.#deps;
    if (bootstrap === undefined || signal.aborted) return false;
    const marker = await readMarker(disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable' || marker.origin !== 'first_boot') return false;
    return (await bootstrap(signal)) === 'completed';
  }

  /**
   * Whether a change has waited long enough. The window counts until the backup is stored, so the time that a backup takes
   * and the time to notice a change are taken off it.
   */
  #isDue(nowMs: number, pollMs: number): boolean {
    const { intervalMs, onChangeMs } = this.#options;
    if (this.#dirtySinceMs === undefined) return false;
    if (nowMs - this.#lastBackupMs >= intervalMs) return true;
    if (onChangeMs === 0) return false;
    const headStartMs = Math.min(onChangeMs / 2, this.#lastDurationMs * 1.5 + pollMs);
    return nowMs - this.#dirtySinceMs >= onChangeMs - headStartMs;
  }

  /** @param markBefore What was observed before: all that an answer "unconfigured" may speak of. */
  async #backUp(cleanStop: boolean, signal: AbortSignal, markBefore?: string): Promise<BackupOutcome> {
    const { clock, log } = this.#deps;
    const startedMs = clock.monotonicMs();
    const outcome = await this.#deps.line.backUp(
      this.#server,
      { cleanStop, retain: this.#phase !== 'stopping' },
      signal,
    );
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    if (outcome.kind === 'unconfigured') {
      if (!this.#isUnconfigured)
        log.info('no backup: the server is not configured yet', { why: outcome.why });
      this.#isUnconfigured = true;
      // Not stored, but nothing to store either: looked at again at the next change. Not observed anew: the wizard may have
      // been completed since its flag was read.
      this.#storedMark = markBefore;
      this.#beside = undefined;
    } else {
      this.#isUnconfigured = false;
      this.#storedMark = outcome.mark;
      this.#lastDurationMs = durationMs;
      if (outcome.kind !== 'unchanged') this.#beside = outcome.kind === 'beside_line' ? outcome : undefined;
    }
    this.#dirtySinceMs = undefined;
    this.#lastBackupMs = clock.monotonicMs();
    if (outcome.kind === 'unchanged') log.debug('unchanged: nothing uploaded', { durationMs });
    if (outcome.kind === 'published') {
      const { backup } = outcome;
      this.#lastBackup = backup;
      this.#logHealthLine({ durationMs, cleanStop });
    }
    return outcome;
  }

  /**
   * The client's health line, to be found by grep (spec/, Observability). Said again after each interval without changes: the
   * alert takes a replica that ran for hours without it for one that stores nothing.
   */
  #logHealthLine(fields: LogFields): void {
    const backup = this.#lastBackup;
    if (backup === undefined) return;
    this.#lastHealthLineMs = this.#deps.clock.monotonicMs();
    this.#deps.log.info(`last_backup_utc=${backup.createdUtc} size_bytes=${String(backup.sizeBytes)}`, {
      backup: backup.name,
      sha256: backup.sha256,
      ...fields,
    });
  }

  /**
   * Looks at the main database's `-wal`: the last connection that closes removes it.
   *
   * An empty one is ambiguous. A server that has only read since its start, or since its last truncating checkpoint, has
   * one; and our own read-only snapshot of a database that the server has closed makes one. So an empty `-wal` means
   * "closed" only if it was another one, or not empty, when it was last looked at.
   */
  async #lookAtWal(isStopping: boolean): Promise<void> {
    const { disk, profile } = this.#deps;
    const wal = await disk.stat(`${this.#options.dataDir}/${profile.mainDatabase}-wal`);
    const mark = wal === undefined ? undefined : fileMark(wal);
    if (!isStopping || (wal !== undefined && wal.sizeBytes > 0)) this.#isDatabaseClosed = false;
    else if (wal === undefined || mark !== this.#walMark) this.#isDatabaseClosed = true;
    this.#walMark = mark;
  }

  /**
   * SIGTERM reaches every container at once and the grace may be cut short: so back up at once what changed, then wait
   * within the budget until Jellyfin has closed its database, and back up what it wrote last.
   */
  async #stop(stoppedMs: number): Promise<ExitCode> {
    const { clock, disk, jellyfin, log, profile } = this.#deps;
    const { dataDir, shutdownBudgetMs } = this.#options;
    const deadlineMs = stoppedMs + shutdownBudgetMs;
    if (!this.#hasSeenHealthy) {
      log.info('stopped: jellyfin never became healthy, so nobody could have written anything');
      return EXIT.done;
    }
    const signal = AbortSignal.timeout(Math.max(0, Math.round(deadlineMs - clock.monotonicMs())));
    const killedAfterMs = Math.min(KILLED_AFTER_MS, shutdownBudgetMs * KILLED_AFTER_OF_BUDGET);
    let failure: unknown;
    let isRefused = false;
    let lastTryMs = Number.NEGATIVE_INFINITY;
    let stillSince: { mark: string; ms: number } | undefined;
    let lastSeen: string | undefined;
    for (;;) {
      const nowMs = (this.#tickMs = clock.monotonicMs());
      let pauseMs = STOP_POLL_MS;
      try {
        const probe = AbortSignal.any([signal, AbortSignal.timeout(STOP_PROBE_MS)]);
        isRefused = (await jellyfin.health(probe)) === 'refused';
        // Before the files are looked at: what is written between the two looks is then seen by the second.
        await this.#lookAtWal(true);
        const { mark } = await observe(disk, dataDir, profile);
        lastSeen = mark;
        const isGone = isRefused && this.#isDatabaseClosed;
        if (stillSince?.mark !== mark || !isRefused) stillSince = { mark, ms: nowMs };
        const wasKilled = isRefused && nowMs - stillSince.ms >= killedAfterMs;
        const isLastChance = nowMs >= deadlineMs - STOP_MIN_GAP_MS;
        if (mark === this.#storedMark) {
          if (isGone || wasKilled) return await this.#stopped(isGone, signal);
        } else if (isGone || isLastChance || wasKilled || nowMs - lastTryMs >= STOP_MIN_GAP_MS) {
          lastTryMs = nowMs;
          await this.#backUp(isGone, signal, mark);
          failure = undefined;
          this.#failure.succeeded();
        }
      } catch (error) {
        // What the end of the budget breaks off says nothing about why it was not enough.
        if (!signal.aborted) {
          failure = error;
          this.#failure.failed(clock.monotonicMs(), error);
        }
        pauseMs = STOP_RETRY_MS;
      }
      if (signal.aborted || clock.monotonicMs() >= deadlineMs) break;
      await clock.sleep(pauseMs, signal);
    }
    // Only if nothing was written since that was found: the wizard may have been completed right before the stop.
    if (this.#isUnconfigured && failure === undefined && lastSeen === this.#storedMark) return EXIT.done;
    const reason = failure ?? budgetError(isRefused);
    log.error('final backup failed', { exitCodeOfCause: exitCodeOf(reason), ...errorFields(reason) });
    return EXIT.finalBackup;
  }

  /** Everything that lies there is stored, and nobody writes any more. */
  async #stopped(isGone: boolean, signal: AbortSignal): Promise<ExitCode> {
    const { log } = this.#deps;
    const beside = this.#beside;
    if (isGone && beside === undefined && !this.#isUnconfigured) await this.#recordCleanStop(signal);
    log.info('stopped', { clean: isGone, lastBackupUtc: this.#lastBackup?.createdUtc });
    if (beside === undefined) return EXIT.done;
    log.error('the last write is stored, but the next start does not restore it', {
      backup: beside.backup.name,
      reason: beside.reason,
    });
    return EXIT.finalBackup;
  }

  async #recordCleanStop(signal: AbortSignal): Promise<void> {
    try {
      await this.#deps.line.recordCleanStop(signal);
    } catch (error) {
      this.#deps.log.warn('clean stop not recorded', errorFields(error));
    }
  }
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
