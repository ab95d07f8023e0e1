import { EXIT, LOG_MESSAGE, type ExitCode } from '../contract.ts';
import { listAll } from '../catalog.ts';
import { AgentError, exitCodeOf, hasCode, InterruptedError } from '../errors.ts';
import { errorFields } from '../log.ts';
import type { BlobItem, JellyfinServer, JellyfinSetup, ZipReader } from '../ports.ts';
import { retrying, type RetryPolicy } from '../retry.ts';
import { fileMark } from '../scan.ts';
import { examineArchive, type EngineArchive } from './archive.ts';
import { decideArchiveRetention, decideLocalRetention } from './archive-retention.ts';
import { backupsDirOf, engineFiles, stagingDirOf, type EngineFile } from './backup-folder.ts';
import type { EngineBackup } from './engine.ts';
import { EngineRun, type EngineRunDeps, type EngineRunOptions } from './engine-run.ts';
import { findMirrored, isVerifiedArchive, mirror, urlOf, type MirrorDeps } from './mirror.ts';
import { MIRROR_PREFIX } from './mirror-name.ts';
import { isLeftBehind, readRunState, releaseRun, type RunState } from './run-state.ts';

export interface RunnerDeps extends EngineRunDeps, MirrorDeps {
  server: JellyfinServer & Pick<JellyfinSetup, 'wizardCompleted'>;
  zip: ZipReader;
  policy: RetryPolicy;
}

export interface RunnerOptions extends EngineRunOptions {
  intervalMs: number;
  /** Counted from Jellyfin healthy. */
  startupDelayMs: number;
  minBackupSizeBytes: number;
  /** RETENTION_KEEP. */
  keep: number;
}

const HEALTH_POLL_MS = 1_000;
const COMPLAIN_EVERY_MS = 15 * 60_000;
const RESTORE_POLL_MS = 2_000;
const WIZARD_POLL_MS = 10_000;
const GO_ON_AFTER_MS = 5 * 60_000;

/**
 * Mirrors Jellyfin's own backups: makes one each interval and stores it below `jellyroller/`. Beside the tar backups, never
 * instead of them: it has no part in the stop sequence, and nothing of theirs depends on it.
 */
export class Runner {
  readonly #deps: RunnerDeps;
  readonly #options: RunnerOptions;
  /** Hashes of local archives, by name and mark: reading gigabytes again at each run says nothing new. */
  readonly #examined = new Map<string, EngineArchive>();
  #isAtWork = false;

  constructor(deps: RunnerDeps, options: RunnerOptions) {
    this.#deps = deps;
    this.#options = options;
  }

  /**
   * Runs until `stop` aborts. A failed run is logged, and the next one comes after the interval: a container that ends would
   * only be started again, and find the same.
   * @returns 0 between two runs, 143 or 130 with one under way; the next start goes on with that.
   */
  async run(stop: AbortSignal): Promise<ExitCode> {
    const { clock, log } = this.#deps;
    try {
      await this.#untilHealthy(stop);
      await clock.sleep(this.#options.startupDelayMs, stop);
      while (!stop.aborted) {
        await this.#untilConfigured(stop);
        this.#isAtWork = true;
        let waitMs = this.#options.intervalMs;
        try {
          await this.#backUp(stop);
        } catch (error) {
          stop.throwIfAborted();
          // The alert asks about the tar backups only; these words are for whoever greps.
          log.error(LOG_MESSAGE.backupFailed, { exitCode: exitCodeOf(error), ...errorFields(error) });
          // An archive that only has to be stored need not wait for hours; the engine is not asked again for it.
          if ((await this.#claimed()) !== undefined) waitMs = Math.min(waitMs, GO_ON_AFTER_MS);
        }
        this.#isAtWork = false;
        await clock.sleep(waitMs, stop);
      }
    } catch (error) {
      if (!stop.aborted) throw error;
    }
    if (!this.#isAtWork) {
      log.info('stopped between two runs');
      return EXIT.done;
    }
    log.warn('stopped during a run: the next start goes on with it');
    return exitCodeOf(stop.reason);
  }

  /**
   * One archive now.
   * @throws AgentError Why there is none; InterruptedError.
   */
  async once(stop: AbortSignal): Promise<ExitCode> {
    try {
      await this.#backUp(stop);
      return EXIT.done;
    } catch (error) {
      throw stop.aborted ? (stop.reason as InterruptedError) : error;
    }
  }

  async #untilHealthy(stop: AbortSignal): Promise<void> {
    const { clock, log, server } = this.#deps;
    let complainAtMs = clock.monotonicMs() + COMPLAIN_EVERY_MS;
    while ((await server.health(stop)) !== 'healthy') {
      stop.throwIfAborted();
      if (clock.monotonicMs() >= complainAtMs) {
        complainAtMs += COMPLAIN_EVERY_MS;
        log.error('jellyfin is not healthy: no backup can be made');
      }
      await clock.sleep(HEALTH_POLL_MS, stop);
    }
    log.info('jellyfin is healthy');
  }

  /** A server in its setup wizard has nothing to back up, and no key: a normal state, one line. */
  async #untilConfigured(stop: AbortSignal): Promise<void> {
    const { clock, log } = this.#deps;
    for (let isFirst = true; await this.#isInWizard(stop); isFirst = false) {
      if (isFirst) log.info('the setup wizard is not completed: nothing to back up yet');
      await clock.sleep(WIZARD_POLL_MS, stop);
      stop.throwIfAborted();
    }
  }

  /** Only a clear "not completed" counts: whatever else is wrong, the run itself finds and reports. */
  async #isInWizard(stop: AbortSignal): Promise<boolean> {
    try {
      const isHealthy = (await this.#deps.server.health(stop)) === 'healthy';
      return isHealthy && (await this.#deps.server.wizardCompleted(stop)) === false;
    } catch {
      stop.throwIfAborted();
      return false;
    }
  }

  /** One run, from start to health line. */
  async #backUp(stop: AbortSignal): Promise<void> {
    const { clock, engine, log } = this.#deps;
    const startedMs = clock.monotonicMs();
    const lap = () => Math.round(clock.monotonicMs() - startedMs);
    log.info('run starts', { driver: engine.driver });
    await retrying(() => this.#isReady(stop), 'ask jellyfin', this.#deps, stop);
    await this.#whileRestoring(stop);
    if ((await this.#claimed()) === undefined) {
      await this.#mirrorFound(stop);
      await this.#makeRoom(stop);
    }
    const { state, backup } = await retrying(() => this.#engineRun(stop), 'create', this.#deps, stop);
    const archive = await this.#examine(backup.fileName, stop).catch(async (error: unknown) => {
      // The engine has ended, so the claim has too; the file stays as it is.
      if (!stop.aborted) await releaseRun(this.#deps.disk, this.#options.dataDir, state);
      throw error;
    });
    log.info('archive is complete', {
      archive: archive.fileName,
      sizeBytes: archive.sizeBytes,
      sha256: archive.sha256,
      jellyfinVersion: archive.manifest.jellyfinVersion,
      durationMs: lap(),
    });
    const stored = await mirror(this.#deps, archive, stop);
    log.info('stored and read back', {
      archive: archive.fileName,
      url: urlOf(this.#deps.store, stored.name),
      sizeBytes: stored.sizeBytes,
      sha256: archive.sha256,
      durationMs: lap(),
    });
    await this.#prune(stored.name, stop);
    await releaseRun(this.#deps.disk, this.#options.dataDir, state);
    log.info(
      `${LOG_MESSAGE.backupStored}${archive.manifest.createdUtc} size_bytes=${String(archive.sizeBytes)}`,
      { archive: archive.fileName, backup: stored.name, sha256: archive.sha256, durationMs: lap() },
    );
  }

  /** @throws AgentError `jellyfin_unavailable`, or `external_failed` for a key that the server refuses. */
  async #isReady(stop: AbortSignal): Promise<void> {
    const { engine, server } = this.#deps;
    const health = await server.health(stop);
    stop.throwIfAborted();
    if (health !== 'healthy')
      throw new AgentError('jellyfin_unavailable', 'jellyfin is not healthy', { retryable: true });
    await engine.list(stop);
  }

  #claimed(): Promise<RunState | undefined> {
    return readRunState(this.#deps.disk, this.#options.dataDir);
  }

  /** Of a run that was begun before a kill, or of a new one. The claim is held. */
  async #engineRun(stop: AbortSignal): Promise<{ state: RunState; backup: EngineBackup }> {
    const run = new EngineRun(this.#deps, this.#options);
    const claimed = await this.#claimed();
    return claimed === undefined ? run.begin(stop) : run.resume(claimed, stop);
  }

  async #whileRestoring(stop: AbortSignal): Promise<void> {
    const { clock, disk, log } = this.#deps;
    for (let isFirst = true; ; isFirst = false) {
      const state = await this.#claimed();
      if (state?.kind !== 'restore') return;
      if (isLeftBehind(state, clock.now())) {
        log.warn('a restore was left behind', { since: state.startedUtc });
        await disk.removeTree(stagingDirOf(this.#options.dataDir));
        await releaseRun(disk, this.#options.dataDir, state);
        return;
      }
      if (isFirst) log.info('waiting: an archive is being restored', { since: state.startedUtc });
      await clock.sleep(RESTORE_POLL_MS, stop);
      stop.throwIfAborted();
    }
  }

  async #examine(fileName: string, stop: AbortSignal): Promise<EngineArchive> {
    const { disk } = this.#deps;
    const file = `${backupsDirOf(this.#options.dataDir)}/${fileName}`;
    const stat = await disk.stat(file);
    const key = stat === undefined ? '' : `${fileName} ${fileMark(stat)}`;
    const known = this.#examined.get(key);
    if (known !== undefined) return known;
    const archive = await examineArchive(this.#deps, file, this.#options.minBackupSizeBytes, stop);
    const after = await disk.stat(file);
    if (after !== undefined && `${fileName} ${fileMark(after)}` === key) this.#examined.set(key, archive);
    return archive;
  }

  /** Complete archives that are not stored: of a runner that was killed, or made by hand in the dashboard. Oldest first. */
  async #mirrorFound(stop: AbortSignal): Promise<void> {
    const { disk, engine, log } = this.#deps;
    const listed = new Map((await engine.list(stop)).map((backup) => [backup.fileName, backup]));
    const files = (await engineFiles(disk, this.#options.dataDir)).filter(({ fileName }) =>
      listed.has(fileName),
    );
    const order = ({ fileName }: EngineFile) => listed.get(fileName)?.createdUtc ?? '';
    for (const { fileName } of files.toSorted((a, b) => order(a).localeCompare(order(b)))) {
      try {
        const archive = await this.#examine(fileName, stop);
        const items = await this.#stored(stop);
        const known = findMirrored(items, archive);
        if (known !== undefined && isVerifiedArchive(known)) continue;
        log.info('an archive is not stored yet', { archive: fileName });
        await mirror(this.#deps, archive, stop);
      } catch (error) {
        stop.throwIfAborted();
        // One that is too small or damaged is no reason not to make a better one.
        if (!hasCode(error, 'source_damaged', 'backup_damaged')) throw error;
        log.warn('archive passed over', { archive: fileName, ...errorFields(error) });
      }
    }
  }

  #stored(stop: AbortSignal): Promise<BlobItem[]> {
    return listAll(this.#deps.store, MIRROR_PREFIX, stop);
  }

  /** Removes local archives that are stored and verified: the engine begins nothing with less than 5 GiB free. */
  async #makeRoom(stop: AbortSignal): Promise<void> {
    const { disk, log } = this.#deps;
    const { dataDir } = this.#options;
    const files = await engineFiles(disk, dataDir);
    if (files.length === 0) return;
    const items = await this.#stored(stop);
    const mirrored = new Set<string>();
    for (const { fileName, stat } of files) {
      const archive = this.#examined.get(`${fileName} ${fileMark(stat)}`);
      const blob = archive === undefined ? undefined : findMirrored(items, archive);
      if (blob !== undefined && isVerifiedArchive(blob)) mirrored.add(fileName);
    }
    for (const fileName of decideLocalRetention(files, mirrored, await disk.freeBytes(dataDir))) {
      await disk.removeFile(`${backupsDirOf(dataDir)}/${fileName}`);
      log.info('local archive removed: it is stored', { archive: fileName });
    }
  }

  /** After a newer one is stored and verified. A failure here costs space, not a backup. */
  async #prune(justStored: string, stop: AbortSignal): Promise<void> {
    const { log, store } = this.#deps;
    try {
      await this.#makeRoom(stop);
      const items = await this.#stored(stop);
      const verdicts = decideArchiveRetention(items, justStored, this.#options.keep);
      const etags = new Map(items.map(({ name, etag }) => [name, etag]));
      const deleted: string[] = [];
      for (const { name, keep } of verdicts) {
        if (keep) continue;
        await store.remove(name, etags.get(name) ?? '', stop);
        deleted.push(name);
      }
      log.info('retention', { kept: verdicts.length - deleted.length, deleted });
    } catch (error) {
      stop.throwIfAborted();
      log.warn('retention not completed', errorFields(error));
    }
  }
}
