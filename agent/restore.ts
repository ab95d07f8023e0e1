import { candidatesOf, newestNamed, recordRestored, takeEpoch, type HeldEpoch } from './epoch.ts';
import { everything, nameOf, readCatalog, type Catalog } from './catalog.ts';
import { AgentError, hasCode } from './errors.ts';
import { askForBackup, type Predecessor } from './handover.ts';
import { errorFields } from './log.ts';
import { moveIntoPlace } from './move-into-place.ts';
import { planRestore, type Plan, type RestoreDeps, type RestoreOptions } from './plan-restore.ts';
import { WORK_DIR } from './profile.ts';
import type { Candidate } from './restore-decision.ts';
import { cleanStopOf, nothingRestored, reportPredecessor, type RestoreReport } from './restore-report.ts';
import { removeRequest } from './restore-request.ts';
import type { StagedTree } from './stage-backup.ts';
import { stage, stageNewestGood, stagingDirOf, type Chosen } from './stage-newest.ts';
import { contentNames, writeMarker, type VolumeMarker } from './volume.ts';

/** A candidate vanished while it was read (retention, or a person): the plan is made anew, this often. */
const REPLANS = 3;

/** Only on a volume whose marker says that everything on it came from a restore that did not finish. */
async function clean(deps: RestoreDeps, dataDir: string): Promise<void> {
  for (const name of await contentNames(deps.disk, dataDir, deps.profile))
    await deps.disk.removeTree(`${dataDir}/${name}`);
}

function positionOf(candidate: Candidate | undefined): { epoch: number; sequence: number } | undefined {
  return candidate?.format === 'tarZst'
    ? { epoch: candidate.epoch, sequence: candidate.sequence }
    : undefined;
}

const EPOCH_RACES = 5;

/** Carries out one plan: stages, takes the epoch, publishes the tree on the volume. */
class Restoration {
  readonly #deps: RestoreDeps;
  readonly #options: RestoreOptions;
  readonly #signal: AbortSignal | undefined;
  readonly #requested: Plan['requested'];
  readonly #predecessor: Predecessor;
  #chosen: Chosen | undefined;

  constructor(
    deps: RestoreDeps,
    options: RestoreOptions,
    requested: Plan['requested'],
    predecessor: Predecessor,
    signal: AbortSignal | undefined,
  ) {
    this.#deps = deps;
    this.#requested = requested;
    this.#predecessor = predecessor;
    this.#options = options;
    this.#signal = signal;
  }

  async run(candidates: readonly Candidate[], cleanFirst: boolean, planned: Catalog): Promise<RestoreReport> {
    const { clock, holder, log, store } = this.#deps;
    if (candidates.length > 0) await this.#stage(candidates, cleanFirst);
    let catalog = planned;
    for (let race = 1; race <= EPOCH_RACES; race += 1) {
      const held = await takeEpoch(
        store,
        catalog,
        { holder, takenUtc: clock.now().toISOString() },
        this.#signal,
      );
      log.info('epoch taken', { epoch: held.state.epoch });
      if (this.#requested !== undefined && held.state.consumedRequest === this.#requested.request.id) {
        // Once: what that start has published since is newer, and this plan does not know it.
        throw new AgentError('backup_missing', 'another start has carried out the restore request meanwhile');
      }
      catalog = await readCatalog(store, this.#signal);
      // Only after the state was deleted by hand: somebody has published in this epoch already.
      if (newestNamed(catalog) >= held.state.epoch) continue;
      if (this.#isRequested()) await this.#putOnLine(catalog);
      else await this.#stageIfNewer(held, catalog, cleanFirst);
      const recorded = await recordRestored(
        store,
        held,
        positionOf(this.#chosen?.candidate),
        catalog,
        this.#requested?.request.id,
        this.#signal,
      );
      if (recorded === undefined) continue;
      this.#signal?.throwIfAborted();
      const report = await (this.#chosen === undefined
        ? this.#firstBoot(held.state.epoch)
        : this.#putInPlace(this.#chosen, held.state.epoch));
      await this.#finishRequest();
      return report;
    }
    throw new AgentError('store_conflict', `other replicas took the epoch ${String(EPOCH_RACES)} times`, {
      retryable: true,
    });
  }

  async #stage(candidates: readonly Candidate[], cleanFirst: boolean): Promise<void> {
    const { dataDir } = this.#options;
    await this.#mark({ state: 'restoring', origin: 'restored', epoch: 0, restoredFrom: null });
    if (cleanFirst) await clean(this.#deps, dataDir);
    const before = this.#chosen?.passedOver ?? [];
    const chosen = await stageNewestGood(this.#deps, candidates, this.#options, this.#signal);
    this.#chosen = { ...chosen, passedOver: [...before, ...chosen.passedOver] };
  }

  /** The old replica could publish until the epoch was taken; what it published until then is to be restored. */
  async #stageIfNewer(held: HeldEpoch, catalog: Catalog, cleanFirst: boolean): Promise<void> {
    const passedOver = this.#chosen?.passedOver ?? [];
    const candidates = candidatesOf(catalog, held.state).filter(
      (candidate) => !passedOver.includes(nameOf(candidate)),
    );
    const [newest] = candidates;
    if (newest === undefined && this.#chosen === undefined && everything(catalog).length > 0) {
      // The plan found none. Planned anew, this is a start over backups that only a person may choose from.
      throw new AgentError('backup_missing', 'backups appeared beside the line while the epoch was taken');
    }
    if (newest === undefined || nameOf(newest) === this.#chosen?.staged.name) return;
    this.#deps.log.info('a newer backup appeared', { backup: nameOf(newest) });
    await this.#stage(candidates, cleanFirst);
  }

  #isRequested(): boolean {
    const wanted = this.#requested?.candidate;
    return wanted !== undefined && wanted === this.#chosen?.candidate;
  }

  /** A tail or a quarantined backup that a person asked for is the line from now on, also if no other backup follows. */
  async #putOnLine(catalog: Catalog): Promise<void> {
    const wanted = this.#requested?.candidate;
    // What was released before and is newer would be the next start's choice, whatever the cuts say: the newest wish counts.
    const wantedAt = positionOf(wanted);
    for (const backup of catalog.line) {
      const isNewer =
        wantedAt === undefined ||
        backup.epoch > wantedAt.epoch ||
        (backup.epoch === wantedAt.epoch && backup.sequence > wantedAt.sequence);
      if (backup.isReleased && isNewer) await this.#setReleased(backup.item.name, false);
    }
    if (wanted?.format !== 'tarZst' || wanted.placement === 'line' || wanted.isReleased) return;
    await this.#setReleased(wanted.item.name, true);
  }

  async #setReleased(name: string, isReleased: boolean): Promise<void> {
    const { store } = this.#deps;
    const item = await store.head(name, this.#signal);
    if (item === undefined || (item.metadata['released'] === 'true') === isReleased) return;
    // Only "true" counts; every value stays one that the service takes.
    const metadata = { ...item.metadata, released: String(isReleased) };
    await store.setMetadata(name, metadata, { ifMatch: item.etag }, this.#signal);
  }

  /** The epoch's state already says that it is done; the blob is only tidied away. */
  async #finishRequest(): Promise<void> {
    const { log, store } = this.#deps;
    if (this.#requested === undefined) return;
    const { etag, request } = this.#requested;
    if (this.#isRequested())
      log.info('restored on request', { backup: request.name, requestedUtc: request.requestedUtc });
    else
      log.error('the requested backup could not be restored; the request is consumed', {
        backup: request.name,
      });
    await removeRequest(store, etag, this.#signal).catch((error: unknown) => {
      log.warn('consumed request not deleted', errorFields(error));
    });
  }

  async #firstBoot(epoch: number): Promise<RestoreReport> {
    const { disk, log, profile } = this.#deps;
    for (const dir of profile.firstBootDirs) await disk.makeDir(`${this.#options.dataDir}/${dir}`);
    await this.#mark({ state: 'complete', origin: 'first_boot', epoch, restoredFrom: null });
    log.info('first boot: the store holds no backup', { epoch });
    return nothingRestored('first_boot', epoch, null, this.#predecessor);
  }

  async #putInPlace({ staged, candidate, passedOver }: Chosen, epoch: number): Promise<RestoreReport> {
    const { disk, log, profile } = this.#deps;
    const { dataDir } = this.#options;
    await moveIntoPlace(disk, staged, dataDir);
    for (const dir of profile.firstBootDirs) await disk.makeDir(`${dataDir}/${dir}`);
    await disk.removeTree(stagingDirOf(dataDir));
    const version = staged.manifest?.jellyfin.version ?? undefined;
    await this.#mark({
      state: 'complete',
      origin: 'restored',
      epoch,
      restoredFrom: staged.name,
      sameVersion: version !== undefined && version === this.#options.imageVersion,
      ...(staged.manifest === undefined ? {} : { treeDigest: staged.manifest.treeDigest }),
      ...(staged.manifest?.jellyfin.serverId == null ? {} : { serverId: staged.manifest.jellyfin.serverId }),
    });
    const cleanStop = cleanStopOf(candidate, this.#predecessor);
    if (!staged.keptOwners) log.warn('owners not kept: only root may give files away');
    reportPredecessor(log, this.#predecessor, cleanStop, staged.name);
    const report = {
      action: 'restored' as const,
      epoch,
      restoredFrom: staged.name,
      passedOver,
      files: staged.files,
      bytes: staged.unpackedBytes,
      predecessor: this.#predecessor,
      cleanStop,
    };
    log.info('restored', report);
    return report;
  }

  async #mark(part: Omit<VolumeMarker, 'format' | 'holder' | 'writtenUtc'>): Promise<void> {
    const { clock, disk, holder } = this.#deps;
    const { dataDir, imageVersion } = this.#options;
    await writeMarker(disk, dataDir, {
      format: 1,
      holder,
      ...(imageVersion === undefined ? {} : { jellyfinVersion: imageVersion }),
      writtenUtc: clock.now().toISOString(),
      ...part,
    });
  }
}

export interface VolumeRestoreOptions extends RestoreOptions {
  /** How long to wait for a backup of a replica that still writes, in milliseconds; absent: only look. */
  handoverWaitMs?: number;
}

/**
 * Restores the newest good backup onto the volume, or finds that there is nothing to restore.
 *
 * The epoch is taken only after a verified tree is staged: an init container that fails again and again must not fence a
 * healthy replica. Then the store is listed once more, since the old replica may have published until that moment.
 * @throws AgentError In every case in which the server must not start.
 */
export async function restoreVolume(
  deps: RestoreDeps,
  options: VolumeRestoreOptions,
  signal?: AbortSignal,
): Promise<RestoreReport> {
  let predecessor: Predecessor | undefined;
  for (let attempt = 1; ; attempt += 1) {
    const { decision, catalog, requested } = await planRestore(deps, options, signal);
    if (decision.action === 'refuse') throw decision.error;
    if (decision.action === 'keep') {
      const { epoch, restoredFrom } = decision.marker;
      deps.log.info('volume kept: it is newer than any backup', { epoch, restoredFrom });
      return nothingRestored('kept', epoch, restoredFrom);
    }
    if (predecessor === undefined) {
      predecessor = await askForBackup(deps, options.handoverWaitMs ?? 0, signal);
      // It has stored more since the plan was made.
      if ('waitedSeconds' in predecessor && predecessor.waitedSeconds > 0) {
        attempt -= 1;
        continue;
      }
    }
    const isRestore = decision.action === 'restore';
    try {
      const restoration = new Restoration(deps, options, requested, predecessor, signal);
      return await restoration.run(
        isRestore ? decision.candidates : [],
        isRestore && decision.cleanFirst,
        catalog as Catalog,
      );
    } catch (error) {
      if (!hasCode(error, 'backup_missing') || attempt >= REPLANS) throw error;
      deps.log.warn('planning anew', errorFields(error));
    }
  }
}

/**
 * Restores one backup into a folder of its own, without touching the epoch.
 * @param targetDir Must be empty or absent.
 * @throws AgentError `target_unsafe`, and what staging throws.
 */
export async function restoreInto(
  deps: RestoreDeps,
  candidate: Candidate,
  targetDir: string,
  signal?: AbortSignal,
): Promise<StagedTree> {
  const { disk } = deps;
  const existing = await disk.stat(targetDir);
  const names = existing === undefined ? [] : await disk.names(targetDir);
  if ((existing !== undefined && existing.type !== 'directory') || (names?.length ?? 0) > 0) {
    throw new AgentError(
      'target_unsafe',
      `--to ${targetDir} must be an empty or a new folder (files there would be mixed with the backup's)`,
    );
  }
  await disk.makeDir(targetDir);
  try {
    const staged = await stage(deps, candidate, { dataDir: targetDir, imageVersion: undefined }, signal);
    await moveIntoPlace(disk, staged, targetDir);
    return staged;
  } finally {
    await disk.removeTree(`${targetDir}/${WORK_DIR}`);
  }
}
