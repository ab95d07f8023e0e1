import { candidatesOf, readEpoch, recordRestored, takeEpoch, type HeldEpoch } from './epoch.ts';
import { everything, nameOf, readCatalog, type Catalog } from './catalog.ts';
import { AgentError, hasCode } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock, Disk } from './ports.ts';
import { WORK_DIR } from './profile.ts';
import { pendingRequest, removeRequest, type RestoreRequest } from './restore-request.ts';
import { decide, type Candidate, type Decision, type StoreState } from './restore-decision.ts';
import { stageBackup, type StagedTree, type StageDeps } from './stage-backup.ts';
import { stageLegacy } from './stage-legacy.ts';
import { contentNames, readVolumeState, writeMarker, type VolumeMarker } from './volume.ts';

export interface RestoreDeps extends StageDeps {
  clock: Clock;
  log: Logger;
  /** A new random value for each start. */
  holder: string;
}

export interface RestoreOptions {
  dataDir: string;
  imageVersion: string | undefined;
}

export interface RestoreReport {
  action: 'kept' | 'first_boot' | 'restored';
  epoch: number;
  restoredFrom: string | null;
  /** Newer backups that did not pass their checks. */
  passedOver: string[];
  files: number;
  bytes: number;
  /** Whether the replica that made the backup had seen its server close; `undefined`: not known. */
  cleanStop: boolean | undefined;
}

const stagingDirOf = (dataDir: string) => `${dataDir}/${WORK_DIR}/staging`;

/** A candidate vanished while it was read (retention, or a person): the plan is made anew, this often. */
const REPLANS = 3;

function storeStateOf(catalog: Catalog, candidates: readonly Candidate[]): StoreState {
  if (candidates.length > 0) return { kind: 'candidates', candidates };
  const beside = [...catalog.line, ...catalog.tails, ...catalog.quarantined].map(nameOf);
  return beside.length > 0 ? { kind: 'only_beside_line', names: beside } : { kind: 'none' };
}

export interface Plan {
  decision: Decision;
  catalog: Catalog | undefined;
  /** The operator's wish; `candidate` undefined: no such backup is stored any more. */
  requested: { request: RestoreRequest; etag: string; candidate: Candidate | undefined } | undefined;
}

/** What a start would do now, without doing it. Never throws for the store: "could not tell" is an answer. */
export async function planRestore(
  deps: RestoreDeps,
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<Plan> {
  const volume = await readVolumeState(deps.disk, options.dataDir, deps.profile);
  const needsStore = volume.kind !== 'live' && volume.kind !== 'foreign';
  let catalog: Catalog | undefined;
  let store: StoreState = { kind: 'none' };
  let requested: Plan['requested'];
  if (needsStore) {
    try {
      catalog = await readCatalog(deps.store, signal);
      const epoch = await readEpoch(deps.store, signal);
      const pending = await pendingRequest(deps.store, epoch?.state, signal);
      const wanted = everything(catalog).find((backup) => nameOf(backup) === pending?.request.name);
      if (pending !== undefined) requested = { ...pending, candidate: wanted };
      // First in the order: if it does not pass its checks, the newest good one is restored as ever.
      const usual = candidatesOf(catalog, epoch?.state).filter((candidate) => candidate !== wanted);
      store = storeStateOf(catalog, wanted === undefined ? usual : [wanted, ...usual]);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      store = { kind: 'unknown', error };
    }
  }
  return { decision: decide(volume, store, options.imageVersion), catalog, requested };
}

async function stage(
  deps: RestoreDeps,
  candidate: Candidate,
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<StagedTree> {
  const dir = stagingDirOf(options.dataDir);
  return candidate.format === 'tarZst'
    ? stageBackup(deps, candidate, dir, options.imageVersion, signal)
    : stageLegacy(deps, candidate, dir, signal);
}

/** The newest candidate that passes every check, staged; older ones are tried loudly, one after the other. */
async function stageNewestGood(
  deps: RestoreDeps,
  candidates: readonly Candidate[],
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<Chosen> {
  const passedOver: string[] = [];
  for (const candidate of candidates) {
    // Twice: what is passed over is off the line for good, and one flipped bit on the way must not do that.
    for (const isSecond of [false, true]) {
      try {
        return { staged: await stage(deps, candidate, options, signal), candidate, passedOver };
      } catch (error) {
        if (!hasCode(error, 'backup_damaged')) throw error;
        const fields = { backup: nameOf(candidate), ...errorFields(error) };
        if (isSecond) deps.log.error('backup passed over', fields);
        else deps.log.warn('backup did not pass, read again', fields);
      }
    }
    passedOver.push(nameOf(candidate));
  }
  throw new AgentError(
    'backup_damaged',
    `none of ${String(candidates.length)} backups passes its checks; the newest is ${nameOf(candidates[0] as Candidate)}`,
    {
      hint: '`agent verify NAME` says what is wrong with each; nothing is started empty over them',
    },
  );
}

/**
 * Moves a staged tree into place: databases last, so that a tree that looks complete is complete.
 * Only empty folders may be in the way.
 */
export async function moveIntoPlace(disk: Disk, staged: StagedTree, dataDir: string): Promise<void> {
  const holdsDatabase = (path: string) =>
    staged.databases.some((database) => database === path || database.startsWith(`${path}/`));
  const touched = new Set<string>();
  async function move(path: string): Promise<void> {
    for (const name of (await disk.names(`${staged.dir}/${path}`)) ?? []) {
      const child = path === '' ? name : `${path}/${name}`;
      if (staged.databases.includes(child)) continue;
      const target = `${dataDir}/${child}`;
      const existing = await disk.stat(target);
      const isFolder = (await disk.stat(`${staged.dir}/${child}`))?.type === 'directory';
      if (isFolder && (existing?.type === 'directory' || holdsDatabase(child))) {
        await disk.makeDir(target);
        touched.add(child);
        await move(child);
      } else if (existing === undefined) {
        await disk.rename(`${staged.dir}/${child}`, target);
      } else {
        throw new AgentError('target_unsafe', `${target} appeared during the restore`);
      }
    }
  }
  await move('');
  for (const path of staged.databases) {
    for (const suffix of ['-wal', '-shm', '-journal']) await disk.removeFile(`${dataDir}/${path}${suffix}`);
    await disk.rename(`${staged.dir}/${path}`, `${dataDir}/${path}`);
  }
  for (const directory of staged.directories) {
    if (touched.has(directory.path)) await disk.setAttributes(`${dataDir}/${directory.path}`, directory);
  }
  for (const path of [...touched].sort().reverse()) await disk.sync(`${dataDir}/${path}`);
  await disk.sync(dataDir);
}

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

interface Chosen {
  staged: StagedTree;
  candidate: Candidate;
  passedOver: string[];
}

/** Carries out one plan: stages, takes the epoch, publishes the tree on the volume. */
class Restoration {
  readonly #deps: RestoreDeps;
  readonly #options: RestoreOptions;
  readonly #signal: AbortSignal | undefined;
  readonly #requested: Plan['requested'];
  #chosen: Chosen | undefined;

  constructor(
    deps: RestoreDeps,
    options: RestoreOptions,
    requested: Plan['requested'],
    signal: AbortSignal | undefined,
  ) {
    this.#deps = deps;
    this.#requested = requested;
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
      catalog = await readCatalog(store, this.#signal);
      if (this.#isRequested()) await this.#putOnLine();
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
    if (newest === undefined || nameOf(newest) === this.#chosen?.staged.name) return;
    this.#deps.log.info('a newer backup appeared', { backup: nameOf(newest) });
    await this.#stage(candidates, cleanFirst);
  }

  #isRequested(): boolean {
    const wanted = this.#requested?.candidate;
    return wanted !== undefined && wanted === this.#chosen?.candidate;
  }

  /** A tail or a quarantined backup that a person asked for is the line from now on, also if no other backup follows. */
  async #putOnLine(): Promise<void> {
    const wanted = this.#requested?.candidate;
    if (wanted?.format !== 'tarZst' || wanted.placement === 'line' || wanted.isReleased) return;
    const item = await this.#deps.store.head(wanted.item.name, this.#signal);
    if (item === undefined || item.metadata['released'] === 'true') return;
    const metadata = { ...item.metadata, released: 'true' };
    await this.#deps.store.setMetadata(wanted.item.name, metadata, { ifMatch: item.etag }, this.#signal);
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
    return {
      action: 'first_boot',
      epoch,
      restoredFrom: null,
      passedOver: [],
      files: 0,
      bytes: 0,
      cleanStop: undefined,
    };
  }

  async #putInPlace({ staged, candidate, passedOver }: Chosen, epoch: number): Promise<RestoreReport> {
    const { disk, log, profile } = this.#deps;
    const { dataDir } = this.#options;
    await moveIntoPlace(disk, staged, dataDir);
    for (const dir of profile.firstBootDirs) await disk.makeDir(`${dataDir}/${dir}`);
    await disk.removeTree(stagingDirOf(dataDir));
    await this.#mark({ state: 'complete', origin: 'restored', epoch, restoredFrom: staged.name });
    const cleanStop = cleanStopOf(candidate);
    if (!staged.keptOwners) log.warn('owners not kept: only root may give files away');
    if (cleanStop === false)
      log.warn('the replica before this one was stopped without a last backup', { backup: staged.name });
    const report = {
      action: 'restored' as const,
      epoch,
      restoredFrom: staged.name,
      passedOver,
      files: staged.files,
      bytes: staged.unpackedBytes,
      cleanStop,
    };
    log.info('restored', report);
    return report;
  }

  async #mark(part: Pick<VolumeMarker, 'state' | 'origin' | 'epoch' | 'restoredFrom'>): Promise<void> {
    const { clock, disk, holder } = this.#deps;
    await writeMarker(disk, this.#options.dataDir, {
      format: 1,
      holder,
      writtenUtc: clock.now().toISOString(),
      ...part,
    });
  }
}

function cleanStopOf(candidate: Candidate): boolean | undefined {
  return candidate.format === 'tarZst' ? candidate.item.metadata['clean_stop'] === 'true' : undefined;
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
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<RestoreReport> {
  for (let attempt = 1; ; attempt += 1) {
    const { decision, catalog, requested } = await planRestore(deps, options, signal);
    if (decision.action === 'refuse') throw decision.error;
    if (decision.action === 'keep') {
      const { epoch, restoredFrom } = decision.marker;
      deps.log.info('volume kept: it is newer than any backup', { epoch, restoredFrom });
      return {
        action: 'kept',
        epoch,
        restoredFrom,
        passedOver: [],
        files: 0,
        bytes: 0,
        cleanStop: undefined,
      };
    }
    const isRestore = decision.action === 'restore';
    try {
      const restoration = new Restoration(deps, options, requested, signal);
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
