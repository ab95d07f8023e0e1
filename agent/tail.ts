import { nameOf, readCatalog } from './catalog.ts';
import { lineOf, readEpoch } from './epoch.ts';
import { errorFields, type LogFields, type Logger } from './log.ts';
import type { Clock } from './ports.ts';
import { WORK_DIR } from './profile.ts';
import type { PublishedBackup } from './publish.ts';
import { pendingRequest } from './restore-request.ts';
import type { Snapshot } from './snapshot.ts';
import { verifyStored, type StageDeps } from './stage-backup.ts';
import { readMarker } from './volume.ts';

interface TailDeps extends StageDeps {
  clock: Clock;
  log: Logger;
}

/** How much a fenced replica wrote after its successor had restored. */
interface TailSize {
  /** What the successor restored: the newest backup on the line up to the tail's epoch. */
  since: string;
  /** From that backup to the tail; `undefined` when the clock went backwards in between. */
  seconds: number | undefined;
  /** Rows of the main database that are new or changed, or gone, since. */
  rows: number;
  /** The same by table, without those in which nothing changed. */
  tables: Record<string, number>;
}

/**
 * Compares tails with the line. The backup that the successor restored is read once and kept on the disk until the replica
 * ends: each of its tails is measured against it.
 */
class TailMeasure {
  readonly #deps: TailDeps;
  readonly #scratchDir: string;
  #base: string | undefined;

  constructor(deps: TailDeps, scratchDir: string) {
    this.#deps = deps;
    this.#scratchDir = scratchDir;
  }

  /**
   * @param tail `database` is a private copy of the main database, as the tail holds it; `restoredUtc` is when this replica
   * began, for one that never had a backup of its own on the line.
   * @returns `undefined` when the successor restored nothing of the new format.
   * @throws AgentError What reading the line says.
   */
  async measure(
    tail: { epoch: number; createdUtc: string; restoredUtc: string; database: string },
    signal?: AbortSignal,
  ): Promise<TailSize | undefined> {
    const { databases, profile, store } = this.#deps;
    const catalog = await readCatalog(store, signal);
    const state = (await readEpoch(store, signal))?.state;
    const base = lineOf(catalog, state).find(({ epoch }) => epoch <= tail.epoch);
    if (base === undefined) return undefined;
    const since = nameOf(base);
    if (this.#base !== since) {
      this.#base = undefined;
      await verifyStored(this.#deps, base, this.#scratchDir, signal);
      this.#base = since;
    }
    const baseUtc = base.epoch === tail.epoch ? base.item.metadata['timestamp_utc'] : tail.restoredUtc;
    const seconds = Math.round((Date.parse(tail.createdUtc) - Date.parse(baseUtc ?? '')) / 1000);
    const tables = await databases.compare(
      tail.database,
      `${this.#scratchDir}/${profile.mainDatabase}`,
      signal,
    );
    return {
      since,
      seconds: seconds >= 0 ? seconds : undefined,
      rows: Object.values(tables).reduce((sum, count) => sum + count, 0),
      tables,
    };
  }
}

/** The tails of one fenced replica: its newest holds all of the one before, so that one is all there is. */
export class Tails {
  readonly #deps: TailDeps;
  readonly #dataDir: string;
  readonly #measure: TailMeasure;
  #last: string | undefined;

  constructor(deps: TailDeps, dataDir: string) {
    this.#deps = deps;
    this.#dataDir = dataDir;
    this.#measure = new TailMeasure(deps, `${dataDir}/${WORK_DIR}/tail`);
  }

  /**
   * Deletes the tail before this one, which is stored, and measures this one: for whoever lists it, on the blob, and for the
   * log, as the answer. Never throws for the store: the tail is safe.
   */
  async keep(backup: PublishedBackup, snapshot: Snapshot, signal?: AbortSignal): Promise<LogFields> {
    await this.#removeLast(signal);
    this.#last = backup.name;
    return this.#measured(backup, snapshot, signal);
  }

  async #removeLast(signal?: AbortSignal): Promise<void> {
    const { log, store } = this.#deps;
    const previous = this.#last;
    if (previous === undefined) return;
    try {
      const item = await store.head(previous, signal);
      // A person has put it on the line: until its successor has published, it is the only backup of what that server has.
      if (item === undefined || item.metadata['released'] === 'true') return;
      if ((await pendingRequest(store, undefined, signal))?.request.name === previous) return;
      await store.remove(previous, item.etag, signal);
    } catch (error) {
      log.warn('superseded tail not deleted', { backup: previous, ...errorFields(error) });
    }
  }

  async #measured(backup: PublishedBackup, snapshot: Snapshot, signal?: AbortSignal): Promise<LogFields> {
    const { disk, log, profile, store } = this.#deps;
    try {
      const marker = await readMarker(disk, this.#dataDir);
      if (marker === undefined || marker === 'unreadable') return {};
      const size = await this.#measure.measure(
        {
          epoch: marker.epoch,
          createdUtc: backup.createdUtc,
          restoredUtc: marker.writtenUtc,
          database: snapshot.sourceOf(profile.mainDatabase),
        },
        signal,
      );
      if (size === undefined) return {};
      const { rows, seconds, since, tables } = size;
      const found = {
        tail_since: since,
        tail_rows: String(rows),
        ...(seconds === undefined ? {} : { tail_seconds: String(seconds) }),
      };
      const item = await store.head(backup.name, signal);
      if (item !== undefined)
        await store.setMetadata(backup.name, { ...item.metadata, ...found }, { ifMatch: item.etag }, signal);
      return { since, seconds, rows, tables };
    } catch (error) {
      log.warn('tail not measured', errorFields(error));
      return {};
    }
  }
}
