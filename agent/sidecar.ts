import type { BackupLine } from './backup-line.ts';
import { BackupRuns } from './backup-runs.ts';
import type { BootstrapResult } from './bootstrap.ts';
import { EXIT, type ExitCode } from './contract.ts';
import { DatabaseWatch } from './database-watch.ts';
import type { Heartbeat, Vitals } from './heartbeat.ts';
import type { Logger } from './log.ts';
import type { Clock, Disk, JellyfinServer } from './ports.ts';
import type { Profile } from './profile.ts';
import { observe } from './scan.ts';
import { stopSequence } from './stop-sequence.ts';
import { readMarker, writeMarker } from './volume.ts';

export interface SidecarDeps {
  clock: Clock;
  disk: Disk;
  jellyfin: JellyfinServer;
  log: Logger;
  profile: Profile;
  line: BackupLine;
  heartbeat: Heartbeat;
  /** Called when the stop sequence begins: retries become short, a wait of a minute would be the whole budget. */
  hurry: () => void;
  /** Sets up a brand-new server; absent without credentials for it. */
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
/** A wizard that could not be closed is open to the world: tried again for as long as it takes. */
const BOOTSTRAP_AGAIN_MS = 15_000;
/** A backup that runs when SIGTERM comes may finish for this long; then it is given up for a new one with the last write. */
const FINISH_CURRENT_MS = 10_000;
/** A server that hangs must not use up the budget by not answering. */
const LAST_LOOK_MS = 1_000;
/** A store that does not answer must not hold up a stop that has nothing to store. */
const LAST_SIGN_MS = 5_000;

/** How often the volume, and a successor's request, are looked at, in milliseconds. */
export function pollMsOf({
  intervalMs,
  onChangeMs,
}: Pick<SidecarOptions, 'intervalMs' | 'onChangeMs'>): number {
  return Math.max(100, Math.min(MAX_POLL_MS, (onChangeMs > 0 ? onChangeMs : intervalMs) / 6));
}

export class Sidecar {
  readonly #deps: SidecarDeps;
  readonly #options: SidecarOptions;
  readonly #runs: BackupRuns;
  readonly #database: DatabaseWatch;
  #phase: SidecarStatus['phase'] = 'waiting';
  #tickMs: number;
  #hasSeenHealthy = false;
  /** Ends the pause of the watch loop. */
  #wake = new AbortController();
  #drilling: Promise<void> | undefined;

  constructor(deps: SidecarDeps, options: SidecarOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#runs = new BackupRuns(deps, options.onChangeMs);
    this.#database = new DatabaseWatch(deps.disk, `${options.dataDir}/${deps.profile.mainDatabase}`);
    this.#tickMs = deps.clock.monotonicMs();
  }

  get status(): SidecarStatus {
    return {
      phase: this.#phase,
      lastBackupUtc: this.#runs.lastBackup?.createdUtc,
      sinceTickMs: this.#deps.clock.monotonicMs() - this.#tickMs,
    };
  }

  /** Runs until `stop` aborts, then the stop sequence. The exit code tells whether the last write is stored. */
  async run(stop: AbortSignal): Promise<ExitCode> {
    await this.#recallHealthy();
    // Its own signal: SIGTERM must not break off a backup that is about to finish.
    const current = new AbortController();
    const loop = this.#watch(stop, current.signal);
    const ended = new AbortController();
    const beating = this.#beat(ended.signal);
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
    // A replica that starts now waits for the last backup instead of the next.
    const told = this.#deps.heartbeat.tell(ended.signal);
    const giveUp = setTimeout(
      () => {
        current.abort(new Error('stopping'));
      },
      Math.min(FINISH_CURRENT_MS, this.#options.shutdownBudgetMs / 3),
    );
    try {
      await loop.finally(() => {
        clearTimeout(giveUp);
      });
      return await this.#stop(stoppedMs);
    } finally {
      ended.abort();
      await Promise.all([this.#drilling, beating, told]);
    }
  }

  /** Signs of life, and requests of a successor, beside everything else: also while a backup is uploaded. */
  #beat(signal: AbortSignal): Promise<void> {
    const { clock, heartbeat } = this.#deps;
    const vitals = (): Vitals => {
      const { dirtySinceMs } = this.#runs;
      const isUp = this.#phase === 'waiting' ? this.#hasSeenHealthy : true;
      return {
        phase: this.#phase === 'stopping' ? 'stopping' : isUp ? 'running' : 'starting',
        unsavedMs: dirtySinceMs === undefined ? undefined : clock.monotonicMs() - dirtySinceMs,
        lastBackup: this.#runs.lastStored,
      };
    };
    const onEvent = () => {
      this.#wake.abort();
    };
    return heartbeat.run(vitals, onEvent, signal);
  }

  async #stop(stoppedMs: number): Promise<ExitCode> {
    const { heartbeat, line, log } = this.#deps;
    const { dataDir, shutdownBudgetMs } = this.#options;
    const nothing = this.#hasSeenHealthy ? undefined : await this.#nothingToStore();
    if (nothing !== undefined) {
      if (nothing.isCertain) await heartbeat.tell(AbortSignal.timeout(LAST_SIGN_MS), 'stopped');
      log.info(`stopped: ${nothing.why}`);
      return EXIT.done;
    }
    const deps = {
      ...this.#deps,
      runs: this.#runs,
      database: this.#database,
      recordCleanStop: (signal: AbortSignal) => line.recordCleanStop(signal),
      tick: (nowMs: number) => {
        this.#tickMs = nowMs;
      },
    };
    return stopSequence(deps, { dataDir, shutdownBudgetMs, stoppedMs });
  }

  /** One backup now, without a loop. */
  async once(signal: AbortSignal): Promise<ExitCode> {
    await this.#recallHealthy();
    await this.#waitHealthy(signal, true);
    signal.throwIfAborted();
    const outcome = await this.#runs.backUp({ cleanStop: false, retain: true }, signal);
    if (outcome.kind !== 'beside_line') return EXIT.done;
    return outcome.placement === 'tail' ? EXIT.target : EXIT.backup;
  }

  /** The sidecar's container may restart beside a running server: what the volume says it has seen still holds. */
  async #recallHealthy(): Promise<void> {
    const marker = await readMarker(this.#deps.disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable') return;
    this.#hasSeenHealthy = marker.seenHealthyUtc !== undefined;
    this.#runs.server = { version: marker.jellyfinVersion, serverId: marker.serverId };
  }

  /**
   * SIGTERM may come in the seconds in which the server is up already and this process does not know: what a user wrote then
   * must not be lost. A server that is gone may have been up; where it had nothing to migrate, its files are as good as after
   * `Healthy`.
   */
  async #nothingToStore(): Promise<{ why: string; isCertain: boolean } | undefined> {
    const { disk, jellyfin } = this.#deps;
    const health = await jellyfin.health(AbortSignal.timeout(LAST_LOOK_MS));
    if (health === 'healthy') return undefined;
    if (health === 'starting')
      return { why: 'jellyfin never became healthy, so nobody could have written anything', isCertain: true };
    const marker = await readMarker(disk, this.#options.dataDir);
    const isKnown = marker !== undefined && marker !== 'unreadable';
    if (isKnown && (marker.origin === 'first_boot' || marker.sameVersion === true)) return undefined;
    return {
      why: 'jellyfin was never seen healthy, and a half-finished migration is not backed up',
      isCertain: false,
    };
  }

  async #rememberHealthy(): Promise<void> {
    const { clock, disk, jellyfin } = this.#deps;
    this.#hasSeenHealthy = true;
    const info = await jellyfin.publicInfo();
    this.#runs.server = {
      version: info?.version ?? this.#runs.server.version,
      serverId: info?.serverId ?? this.#runs.server.serverId,
    };
    const marker = await readMarker(disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable' || marker.state !== 'complete') return;
    await writeMarker(disk, this.#options.dataDir, {
      ...marker,
      seenHealthyUtc: clock.now().toISOString(),
      ...(this.#runs.server.version === undefined ? {} : { jellyfinVersion: this.#runs.server.version }),
      ...(this.#runs.server.serverId === undefined ? {} : { serverId: this.#runs.server.serverId }),
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
      const { requested } = this.#deps.heartbeat;
      const health = await jellyfin.health(signal);
      // Nobody can have used a server that never came up: there is nothing to hand over but what was restored.
      if (health !== 'healthy' && requested !== undefined && !this.#hasSeenHealthy)
        await this.#deps.heartbeat.answer(requested, this.#runs.lastStored, signal);
      if (health === 'healthy') {
        await this.#rememberHealthy();
        log.info('jellyfin is healthy', { version: this.#runs.server.version });
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
    const { clock, disk, heartbeat, profile } = this.#deps;
    const { dataDir, intervalMs, startupDelayMs } = this.#options;
    await this.#waitHealthy(stop, false);
    // Here, not where a one-off run comes by: that one must not sign for the sidecar.
    void heartbeat.tell(stop);
    const healthyMs = clock.monotonicMs();
    this.#runs.begin();
    this.#phase = 'watching';
    const pollMs = pollMsOf(this.#options);
    let notBeforeMs = healthyMs + startupDelayMs;
    /** A successor waits: the start-up delay does not hold, only the pause after a failure. */
    let askedNotBeforeMs = healthyMs;
    let isUrgent = false;
    let nextBootstrapMs = healthyMs;
    let nextDrillMs = healthyMs + this.#options.drillIntervalMs;
    let hasPassed = false;
    while (!stop.aborted) {
      this.#wake = new AbortController();
      const nowMs = (this.#tickMs = clock.monotonicMs());
      if (nowMs >= nextBootstrapMs) {
        const result = await this.#deps.bootstrap?.(stop);
        nextBootstrapMs = result === 'failed' ? clock.monotonicMs() + BOOTSTRAP_AGAIN_MS : Infinity;
        // At once: the first backup decides what the next start shows.
        if (result === 'completed') {
          isUrgent = true;
          notBeforeMs = nowMs;
        }
      }
      // Before the files are looked at: what was committed before the request is then seen.
      const { requested } = heartbeat;
      const { mark } = await observe(disk, dataDir, profile);
      await this.#database.look(false);
      this.#runs.observed(mark, nowMs);
      // Fenced: what lies here and in no backup is stored as a tail at once, the replica has not long to live.
      if (heartbeat.hasPassed && !hasPassed) isUrgent = hasPassed = true;
      const isAsked = requested !== undefined && nowMs >= askedNotBeforeMs;
      if (isAsked && mark === this.#runs.storedMark) {
        await heartbeat.answer(requested, this.#runs.lastStored, stop);
      } else if (isAsked || (nowMs >= notBeforeMs && (isUrgent || this.#isDue(nowMs, pollMs)))) {
        try {
          const outcome = await this.#runs.backUp({ cleanStop: false, retain: true }, current, mark);
          isUrgent = false;
          if (requested === undefined) await heartbeat.tell(current);
          else if (outcome.kind !== 'beside_line')
            await heartbeat.answer(requested, this.#runs.lastStored, current);
        } catch (error) {
          if (current.aborted) return;
          this.#runs.failed(error);
          notBeforeMs = askedNotBeforeMs = clock.monotonicMs() + this.#options.failureBackoffMs;
        }
      } else if (this.#deps.drill !== undefined && nowMs >= nextDrillMs) {
        nextDrillMs = nowMs + this.#options.drillIntervalMs;
        // Beside the loop: a large archive takes minutes, and the change window goes on meanwhile.
        this.#drilling ??= this.#deps.drill(AbortSignal.any([stop, current])).finally(() => {
          this.#drilling = undefined;
        });
      }
      this.#runs.repeatHealthLine(nowMs, intervalMs);
      await clock.sleep(pollMs, AbortSignal.any([stop, this.#wake.signal]));
    }
  }

  /**
   * Whether a change has waited long enough. The window counts until the backup is stored, so the time that a backup takes
   * and the time to notice a change are taken off it.
   */
  #isDue(nowMs: number, pollMs: number): boolean {
    const { intervalMs, onChangeMs } = this.#options;
    const { dirtySinceMs, lastBackupMs, lastDurationMs } = this.#runs;
    if (dirtySinceMs === undefined) return false;
    if (nowMs - lastBackupMs >= intervalMs) return true;
    if (onChangeMs === 0) return false;
    const headStartMs = Math.min(onChangeMs / 2, lastDurationMs * 1.5 + pollMs);
    return nowMs - dirtySinceMs >= onChangeMs - headStartMs;
  }
}
