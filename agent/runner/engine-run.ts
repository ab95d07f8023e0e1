import { AgentError, hasCode, messageOf } from '../errors.ts';
import { errorFields, type Logger } from '../log.ts';
import type { Clock, Disk, JellyfinServer } from '../ports.ts';
import { fileMark } from '../scan.ts';
import { engineFiles } from './backup-folder.ts';
import type { BackupEngine, EngineBackup } from './engine.ts';
import { claimRun, judgeRun, releaseRun, updateRun, type RunLimits, type RunState } from './run-state.ts';

export interface EngineRunDeps {
  clock: Clock;
  disk: Disk;
  engine: BackupEngine;
  server: JellyfinServer;
  log: Logger;
}

export interface EngineRunOptions extends RunLimits {
  dataDir: string;
}

/** The folder is looked at this often; that costs nothing. */
const POLL_MS = 1_000;
/** The list is not: while an archive is written, Jellyfin logs a warning each time that it is asked (facts/jellyroller.md 4). */
const LIST_EVERY_MS = 10_000;
const PROGRESS_EVERY_MS = 60_000;
/** Names have seconds: a second archive within one would be written into the first (facts/jellyroller.md 4). */
const NAME_RESOLUTION_MS = 1_000;

/** One run of Jellyfin's backup engine, from the claim to an archive that it lists. The claim stays: the caller releases it. */
export class EngineRun {
  readonly #deps: EngineRunDeps;
  readonly #options: EngineRunOptions;
  readonly #stillSince = new Map<string, { mark: string; ms: number }>();

  constructor(deps: EngineRunDeps, options: EngineRunOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Claims the engine and asks it for an archive.
   * @throws AgentError `jellyfin_unavailable` (retryable) when the engine did not begin; `external_failed` when the key is
   *   refused, nothing came in time, or the server went away. The claim is released where nothing can come any more, and
   *   only there.
   */
  async begin(signal: AbortSignal): Promise<{ state: RunState; backup: EngineBackup }> {
    const { clock, disk, engine, log } = this.#deps;
    const { dataDir } = this.#options;
    const listed = await engine.list(signal);
    const files = await engineFiles(disk, dataDir);
    const newestMs = Math.max(0, ...files.map(({ stat }) => Number(BigInt(stat.mtimeNs) / 1_000_000n)));
    const ageMs = clock.now().getTime() - newestMs;
    if (ageMs >= 0 && ageMs <= NAME_RESOLUTION_MS) await clock.sleep(NAME_RESOLUTION_MS - ageMs + 1, signal);
    signal.throwIfAborted();
    const before = [...new Set([...listed, ...files].map(({ fileName }) => fileName))].sort();
    const state = await claimRun(disk, dataDir, {
      kind: 'backup',
      startedUtc: clock.now().toISOString(),
      before,
    });
    log.info('create starts', { driver: engine.driver, before: before.length });
    const startedMs = clock.monotonicMs();
    let answer;
    try {
      answer = await engine.create(signal);
    } catch (error) {
      // Aborted before it was sent, or an answer that is not Jellyfin's: what came of it, the next look tells.
      signal.throwIfAborted();
      if (hasCode(error, 'configuration_invalid')) await releaseRun(disk, dataDir, state);
      throw error;
    }
    log.info('create answered', {
      answer: answer.kind,
      ...('why' in answer ? { why: answer.why } : {}),
      durationMs: Math.round(clock.monotonicMs() - startedMs),
    });
    signal.throwIfAborted();
    if (answer.kind === 'refused') {
      const backup = await this.#glance(state, signal);
      if (backup !== undefined) return { state, backup };
      await releaseRun(disk, dataDir, state);
      throw new AgentError(
        answer.isRetryable ? 'jellyfin_unavailable' : 'external_failed',
        `Jellyfin made no backup: ${answer.why}`,
        {
          retryable: answer.isRetryable,
          hint: 'its log says why; it needs 5 GiB free in its data folder, and 12.0 refuses during a library scan',
        },
      );
    }
    return { state, backup: await this.#awaited(state, startedMs, answer.kind === 'done', signal) };
  }

  /** Goes on with a run that somebody began who is gone. The same errors. */
  async resume(state: RunState, signal: AbortSignal): Promise<{ state: RunState; backup: EngineBackup }> {
    const { clock, log } = this.#deps;
    log.info('a run is under way: waiting for its archive', { since: state.startedUtc });
    // By the wall clock, for want of another; a clock that was set back only makes it wait from now on.
    const elapsedMs = Math.max(0, clock.now().getTime() - Date.parse(state.startedUtc));
    return { state, backup: await this.#awaited(state, clock.monotonicMs() - elapsedMs, true, signal) };
  }

  /** What is there now, without waiting. */
  async #glance(state: RunState, signal: AbortSignal): Promise<EngineBackup | undefined> {
    const listed = await this.#list(signal);
    const verdict = judgeRun(
      state,
      { elapsedMs: 0, listed, files: await this.#observe(state) },
      this.#options,
    );
    return verdict.kind === 'finished' ? verdict.backup : undefined;
  }

  async #awaited(
    state: RunState,
    startedMs: number,
    isDone: boolean,
    signal: AbortSignal,
  ): Promise<EngineBackup> {
    const { clock, disk, log, server } = this.#deps;
    let current = state;
    let listAtMs = isDone ? Number.NEGATIVE_INFINITY : undefined;
    let progressAtMs = clock.monotonicMs() + PROGRESS_EVERY_MS;
    for (;;) {
      const health = await server.health(signal);
      signal.throwIfAborted();
      if (health === 'refused' && !current.serverWasGone) {
        // Nobody listens: whatever was writing has ended. `starting` would not do, a busy server also answers late.
        current = { ...current, serverWasGone: true };
        await updateRun(disk, this.#options.dataDir, current);
        log.warn('jellyfin went away during its backup', { since: state.startedUtc });
      }
      const files = await this.#observe(current);
      const nowMs = clock.monotonicMs();
      if (listAtMs === undefined && files.some(({ stillMs }) => stillMs >= POLL_MS)) listAtMs = nowMs;
      const isTime = health === 'healthy' && listAtMs !== undefined && nowMs >= listAtMs;
      const listed = isTime ? await this.#list(signal) : undefined;
      if (isTime) listAtMs = clock.monotonicMs() + LIST_EVERY_MS;
      const verdict = judgeRun(current, { elapsedMs: nowMs - startedMs, listed, files }, this.#options);
      if (verdict.kind === 'finished') return verdict.backup;
      // Only a list that was read says that nothing came: a server that is starting again may list it in a moment.
      if (verdict.kind === 'over' && listed !== undefined) {
        await this.#cleanUp(verdict.leftBehind);
        await releaseRun(disk, this.#options.dataDir, current);
        // Not tried again before the next interval: an engine that took the server down with it would do so again.
        throw new AgentError('external_failed', verdict.why);
      }
      if (verdict.kind === 'over') {
        listAtMs ??= nowMs;
        // The claim stays: what there is, the next look tells.
        if (health !== 'healthy' && nowMs - startedMs >= this.#options.timeoutMs)
          throw new AgentError('jellyfin_unavailable', `${verdict.why}, and it is not back`, {
            retryable: true,
          });
      }
      if (verdict.kind === 'wait' && nowMs >= progressAtMs) {
        progressAtMs = nowMs + PROGRESS_EVERY_MS;
        log.info('waiting for the archive', { why: verdict.why, elapsedMs: Math.round(nowMs - startedMs) });
      }
      await clock.sleep(POLL_MS, signal);
      signal.throwIfAborted();
    }
  }

  /** `undefined` when the server does not answer now; a key that is refused ends the run. */
  async #list(signal: AbortSignal): Promise<EngineBackup[] | undefined> {
    try {
      return await this.#deps.engine.list(signal);
    } catch (error) {
      signal.throwIfAborted();
      if (!hasCode(error, 'jellyfin_unavailable')) throw error;
      this.#deps.log.debug('list not answered', { error: messageOf(error) });
      return undefined;
    }
  }

  async #observe(state: RunState): Promise<{ fileName: string; stillMs: number }[]> {
    const before = new Set(state.before);
    const nowMs = this.#deps.clock.monotonicMs();
    const files = await engineFiles(this.#deps.disk, this.#options.dataDir);
    return files
      .filter(({ fileName }) => !before.has(fileName))
      .map(({ fileName, stat }) => {
        const mark = fileMark(stat);
        const known = this.#stillSince.get(fileName);
        const since = known?.mark === mark ? known : { mark, ms: nowMs };
        this.#stillSince.set(fileName, since);
        return { fileName, stillMs: nowMs - since.ms };
      });
  }

  /**
   * Half-written files that nobody completes: the engine lists them never, and each takes away from the space without which
   * it, and Jellyfin's next start, refuse. They appeared during a run of ours that is over, and are no archives.
   */
  async #cleanUp(leftBehind: readonly string[]): Promise<void> {
    const { disk, log } = this.#deps;
    for (const fileName of leftBehind) {
      try {
        await disk.removeFile(`${this.#options.dataDir}/data/backups/${fileName}`);
        log.warn('half-written archive removed', { archive: fileName });
      } catch (error) {
        log.warn('half-written archive not removed', { archive: fileName, ...errorFields(error) });
      }
    }
  }
}
