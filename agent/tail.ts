import { nameOf, readCatalog } from './catalog.ts';
import { lineOf, readEpoch } from './epoch.ts';
import type { Clock } from './ports.ts';
import { verifyStored, type StageDeps } from './stage-backup.ts';

/** How much a fenced replica wrote after its successor had restored. */
export interface TailSize {
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
export class TailMeasure {
  readonly #deps: StageDeps & { clock: Clock };
  readonly #scratchDir: string;
  #base: string | undefined;

  constructor(deps: StageDeps & { clock: Clock }, scratchDir: string) {
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
