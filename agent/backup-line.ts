import { collapseReason, type Counts } from './checks.ts';
import { readCatalog, type Catalog, type StoredBackup } from './catalog.ts';
import type { RetentionPolicy } from './config.ts';
import { lineOf, newestNamed, readEpoch, reassertEpoch, recordRestored, takeEpoch } from './epoch.ts';
import { AgentError, hasCode } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock, DatabaseEngine, Disk } from './ports.ts';
import type { Profile } from './profile.ts';
import { prune } from './prune.ts';
import { publish, type PublishDeps, type PublishedBackup } from './publish.ts';
import type { Snapshotter } from './snapshot.ts';
import { Tails } from './tail.ts';
import { readMarker, writeMarker, type VolumeMarker } from './volume.ts';

export interface LineDeps extends PublishDeps {
  clock: Clock;
  disk: Disk;
  databases: DatabaseEngine;
  log: Logger;
  profile: Profile;
  snapshotter: Snapshotter;
  holder: string;
}

export interface LineOptions {
  dataDir: string;
  retention: RetentionPolicy;
}

export interface ServerIdentity {
  version: string | undefined;
  serverId: string | undefined;
}

export interface BackupRequest {
  /** The server has closed its database. */
  cleanStop: boolean;
  /** Delete what nothing keeps afterwards. Not while stopping: the grace may be cut short at any moment. */
  retain: boolean;
}

export type BackupOutcome =
  | { kind: 'unconfigured'; why: string; mark?: undefined }
  /** `backup` holds what lies on the volume, whoever made it. */
  | { kind: 'unchanged'; mark: string; backup: PublishedBackup }
  | { kind: 'published'; mark: string; backup: PublishedBackup }
  /** Stored, but not what the next start restores. */
  | {
      kind: 'beside_line';
      mark: string;
      backup: PublishedBackup;
      placement: 'tail' | 'quarantine';
      reason: string;
    };

interface Position {
  epoch: number;
  /** Of the start that took the epoch: after the state was deleted by hand, another start can have taken the same number. */
  holder: string;
  nextSequence: number;
  /** Of the newest backup on the line, whoever made it. */
  counts: Partial<Counts> | undefined;
}

const MOVING_ATTEMPTS = 3;

class FencedError extends Error {
  override readonly name = 'FencedError';
}

/** A count that a person mistyped is none: compared with it, every backup would look like a collapse. */
const countOf = (value: string | undefined) => (/^\d+$/.test(value ?? '') ? Number(value) : undefined);

function countsOf(newest: StoredBackup | undefined): Partial<Counts> | undefined {
  const users = countOf(newest?.item.metadata['users']);
  const items = countOf(newest?.item.metadata['items']);
  if (newest === undefined) return undefined;
  return { ...(users === undefined ? {} : { users }), ...(items === undefined ? {} : { items }) };
}

/** The sidecar's place on the line: publishes in the epoch that its volume was restored under, and in no other. */
export class BackupLine {
  readonly #deps: LineDeps;
  readonly #options: LineOptions;
  #position: Position | undefined;
  #isFenced = false;
  #lastDigest: string | undefined;
  #lastName: string | undefined;
  #lastBackup: PublishedBackup | undefined;
  readonly #tails: Tails;

  constructor(deps: LineDeps, options: LineOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#tails = new Tails(deps, options.dataDir);
  }

  /** The blob with the state that was stored last: what a clean stop is recorded on. */
  get lastStored(): string | undefined {
    return this.#lastName;
  }

  /**
   * One backup: snapshot, checks, publish, retention.
   * @throws AgentError When nothing was stored that had to be.
   */
  async backUp(server: ServerIdentity, request: BackupRequest, signal?: AbortSignal): Promise<BackupOutcome> {
    const { log, snapshotter } = this.#deps;
    try {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await this.#attempt(server, request, signal);
        } catch (error) {
          // A library scan rewrites artwork while it is packed: the next attempt meets another moment.
          const isMoving = hasCode(error, 'source_damaged') && error.retryable;
          if (!isMoving || attempt >= MOVING_ATTEMPTS) throw error;
          log.info('the files moved, taken again', errorFields(error));
        }
      }
    } finally {
      await snapshotter.discard();
    }
  }

  async #attempt(
    server: ServerIdentity,
    request: BackupRequest,
    signal?: AbortSignal,
  ): Promise<BackupOutcome> {
    const { log, snapshotter } = this.#deps;
    const position = (this.#position ??= await this.#takePosition(signal));
    const result = await snapshotter.take(signal);
    if (result.kind === 'unconfigured') {
      if (position.counts === undefined) return result;
      throw new AgentError(
        'source_damaged',
        `nothing is published: ${result.why}, but the line has configured backups`,
        { hint: 'the server lost its settings; stop it and restore the newest backup' },
      );
    }
    const { snapshot } = result;
    if (snapshot.treeDigest === this.#lastDigest) {
      const backup = (this.#lastBackup ??= await this.#restoredBackup(signal));
      if (backup !== undefined) return { kind: 'unchanged', mark: snapshot.mark, backup };
    }
    let collapse = collapseReason(this.#deps.profile, snapshot.verdict.counts, position.counts);
    if (collapse !== undefined) {
      // A person may have released the last quarantined one: then its counts are the measure.
      const catalog = await readCatalog(this.#deps.store, signal);
      position.counts = countsOf(lineOf(catalog, (await readEpoch(this.#deps.store, signal))?.state)[0]);
      collapse = collapseReason(this.#deps.profile, snapshot.verdict.counts, position.counts);
    }
    const what = { snapshot, ...server, cleanStop: request.cleanStop };
    const outcome = await this.#publishSomewhere(position, what, collapse, signal);
    this.#lastDigest = snapshot.treeDigest;
    this.#lastName = outcome.backup.name;
    this.#lastBackup = outcome.backup;
    if (outcome.kind === 'published') {
      position.counts = snapshot.verdict.counts;
      if (request.retain) {
        await prune(this.#deps, position, this.#options.retention, signal).catch((error: unknown) => {
          log.warn('retention failed', errorFields(error));
        });
      }
    }
    return outcome;
  }

  /** What this volume was restored from, if it is still stored: a person may have deleted it since. */
  async #restoredBackup(signal?: AbortSignal): Promise<PublishedBackup | undefined> {
    const item =
      this.#lastName === undefined ? undefined : await this.#deps.store.head(this.#lastName, signal);
    if (item === undefined) return undefined;
    const { name, metadata, sizeBytes } = item;
    const { sha256, timestamp_utc: createdUtc } = metadata;
    // Without metadata it is not known to be ours whole; another backup costs little.
    if (sha256 === undefined || createdUtc === undefined) return undefined;
    return { name, sizeBytes, sha256, createdUtc, metadata: { ...metadata } };
  }

  /** Records on the last backup that nothing was written after it: the server had closed its database. */
  async recordCleanStop(signal?: AbortSignal): Promise<void> {
    const name = this.#lastName;
    if (name === undefined) return;
    const item = await this.#deps.store.head(name, signal);
    if (item === undefined || item.metadata['clean_stop'] === 'true') return;
    await this.#deps.store.setMetadata(
      name,
      { ...item.metadata, clean_stop: 'true' },
      { ifMatch: item.etag },
      signal,
    );
  }

  async #takePosition(signal?: AbortSignal): Promise<Position> {
    const { disk, store } = this.#deps;
    const found = await readMarker(disk, this.#options.dataDir);
    const catalog = await readCatalog(store, signal);
    const marker = found === undefined ? await this.#adopt(catalog, signal) : found;
    if (marker === 'unreadable' || marker.state !== 'complete') {
      throw new AgentError('target_unsafe', `${this.#options.dataDir} holds a restore that did not finish`, {
        hint: 'run `agent restore` first; an unfinished tree is never backed up',
      });
    }
    const state = (await readEpoch(store, signal))?.state;
    const own = [...catalog.line, ...catalog.tails, ...catalog.quarantined].filter(
      (backup) => backup.epoch === marker.epoch,
    );
    this.#lastDigest ??= marker.treeDigest;
    this.#lastName ??= marker.restoredFrom?.endsWith('.tar.zst') === true ? marker.restoredFrom : undefined;
    return {
      epoch: marker.epoch,
      holder: marker.holder,
      nextSequence: Math.max(marker.lastSequence ?? 0, ...own.map((backup) => backup.sequence)) + 1,
      counts: countsOf(lineOf(catalog, state)[0]),
    };
  }

  /**
   * A server that was set up before the agent came: it may become the line only where there is none. A sidecar that did not
   * restore must not publish over backups that it does not know (facts/peers.md hazard 21).
   */
  async #adopt(catalog: Catalog, signal?: AbortSignal): Promise<VolumeMarker> {
    const { clock, disk, holder, log, store } = this.#deps;
    const existing =
      catalog.line.length + catalog.tails.length + catalog.quarantined.length + catalog.legacy.length;
    if (existing > 0) {
      throw new AgentError(
        'target_unsafe',
        `${this.#options.dataDir} was not restored by this agent, and the store holds ${String(existing)} backups`,
        {
          hint: 'run `agent restore` on an empty volume; or use an empty container for this server',
        },
      );
    }
    const takenUtc = clock.now().toISOString();
    const held = await takeEpoch(store, catalog, { holder, takenUtc }, signal);
    await recordRestored(store, held, undefined, catalog, undefined, signal);
    const marker: VolumeMarker = {
      format: 1,
      state: 'complete',
      origin: 'adopted',
      epoch: held.state.epoch,
      holder,
      restoredFrom: null,
      writtenUtc: takenUtc,
    };
    await writeMarker(disk, this.#options.dataDir, marker);
    log.info('volume adopted: the store was empty', { epoch: marker.epoch });
    return marker;
  }

  async #publishSomewhere(
    position: Position,
    what: Pick<Parameters<typeof publish>[1], 'snapshot' | 'version' | 'serverId' | 'cleanStop'>,
    collapse: string | undefined,
    signal?: AbortSignal,
  ): Promise<Extract<BackupOutcome, { kind: 'published' | 'beside_line' }>> {
    const { log } = this.#deps;
    const { mark } = what.snapshot;
    const { epoch } = position;
    const put = async (placement: 'line' | 'tail' | 'quarantine', reason?: string) => {
      // Never used twice, also when an attempt fails after its commit went through: gaps in the sequence mean nothing,
      // two blobs with one number would have to be told apart by a clock.
      const sequence = position.nextSequence;
      position.nextSequence += 1;
      await this.#noteSequence(sequence);
      return publish(
        this.#deps,
        {
          ...what,
          placement,
          epoch,
          sequence,
          ...(reason === undefined ? {} : { reason }),
          beforeCommit: async (abort) => {
            if (placement !== 'tail') await this.#requireEpoch(position, abort);
          },
        },
        signal,
      );
    };
    if (!this.#isFenced) {
      try {
        await this.#requireEpoch(position, signal);
        const placement = collapse === undefined ? 'line' : 'quarantine';
        const backup = await put(placement, collapse);
        if (collapse === undefined) {
          const late = await this.#lateReason(position, backup, signal);
          if (late === undefined) return { kind: 'published', mark, backup };
          this.#isFenced = true;
          log.error('fenced: a newer replica restored while this backup was being published', {
            backup: backup.name,
            reason: late,
            hint: `to go back to it: agent restore-request ${backup.name}`,
          });
          return { kind: 'beside_line', mark, backup, placement: 'tail', reason: late };
        }
        log.error('backup quarantined', {
          backup: backup.name,
          reason: collapse,
          hint: `if that is as it should be: agent release ${backup.name}`,
        });
        return { kind: 'beside_line', mark, backup, placement: 'quarantine', reason: collapse };
      } catch (error) {
        if (!(error instanceof FencedError)) throw error;
        this.#isFenced = true;
        log.error('fenced: a newer replica has restored; what is written here is kept beside the line', {
          epoch,
          ...errorFields(error),
        });
      }
    }
    const reason = 'a newer replica had taken the epoch';
    const backup = await put('tail', reason);
    log.warn('tail stored', {
      backup: backup.name,
      ...(await this.#tails.keep(backup, what.snapshot, signal)),
      hint: `to put it on the line: agent release ${backup.name}`,
    });
    return { kind: 'beside_line', mark, backup, placement: 'tail', reason };
  }

  /** For a sidecar that restarts on this volume: the commit of the one before it may still be under way. */
  async #noteSequence(lastSequence: number): Promise<void> {
    const { disk } = this.#deps;
    const marker = await readMarker(disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable') return;
    await writeMarker(disk, this.#options.dataDir, { ...marker, lastSequence });
  }

  /**
   * A successor may take the epoch between the check and the commit, and list the store before the commit: then it does not
   * know this backup, whatever we tell people. Whoever takes the epoch from now on lists after the commit.
   * @returns Why the backup may not be on the line; `undefined` when it is.
   */
  async #lateReason(
    { epoch, holder }: Position,
    backup: PublishedBackup,
    signal?: AbortSignal,
  ): Promise<string | undefined> {
    const state = (await readEpoch(this.#deps.store, signal))?.state;
    if (state === undefined || state.epoch < epoch) return undefined;
    if (state.epoch === epoch && state.holder === holder) return undefined;
    const cut = state.line.find((entry) => entry.epoch === epoch);
    // Null: the successor has not chosen yet. It may have listed before or after: not known, so not promised.
    const isOnLine =
      cut !== undefined && cut.upTo !== null && Number(backup.metadata['sequence']) <= cut.upTo;
    return isOnLine ? undefined : `epoch ${String(state.epoch)} was taken while it was being published`;
  }

  /** @throws FencedError When a newer replica took the epoch. */
  async #requireEpoch({ epoch, holder }: Position, signal?: AbortSignal): Promise<void> {
    const { clock, log, store } = this.#deps;
    const held = await readEpoch(store, signal);
    if (held?.state.epoch === epoch) {
      if (held.state.holder === holder) return;
      throw new FencedError(`another start holds epoch ${String(epoch)}: the state had been deleted by hand`);
    }
    if (held !== undefined && held.state.epoch > epoch) {
      throw new FencedError(
        `epoch ${String(epoch)} has passed, the current one is ${String(held.state.epoch)}`,
      );
    }
    const catalog = await readCatalog(store, signal);
    const newest = newestNamed(catalog);
    if (newest > epoch)
      throw new FencedError(`epoch ${String(epoch)} has passed, ${String(newest)} has backups`);
    // Deleted or set back by hand: the volume's epoch is still the newest known.
    log.warn('the epoch was missing or set back: written anew', { epoch });
    const who = { holder, takenUtc: clock.now().toISOString() };
    const isOurs = await reassertEpoch(store, held, catalog, { epoch, ...who }, signal);
    if (!isOurs) throw new FencedError('another replica wrote the epoch at the same moment');
  }
}
