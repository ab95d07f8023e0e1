import { readEpoch } from './epoch.ts';
import { hasCode } from './errors.ts';
import { RepeatedFailure, type Logger } from './log.ts';
import type { BlobStore, Clock, Disk } from './ports.ts';
import { readMarker } from './volume.ts';
import {
  readHandoverRequest,
  readWriter,
  writeState,
  WRITER_BLOB,
  type HandoverAnswer,
  type WriterState,
} from './writer-state.ts';

export interface HeartbeatDeps {
  /** Without retries: the next beat is the retry, and a beat that waits for minutes says nothing. */
  store: BlobStore;
  clock: Clock;
  disk: Disk;
  log: Logger;
  holder: string;
}

export interface HeartbeatOptions {
  dataDir: string;
  /** How often a request is looked for. */
  pollMs: number;
  /** How often a sign of life is written when nothing happens. */
  intervalMs: number;
}

/** What the sidecar knows at this moment. */
export interface Vitals {
  phase: WriterState['phase'];
  /** Age of the oldest change that no backup holds. */
  unsavedMs: number | undefined;
  lastBackup: string | undefined;
}

/** A request that lay there this long is nobody's: whoever asked has long gone on. */
const REQUEST_EXPIRES_MS = 10 * 60_000;

/**
 * The sidecar's sign of life, and its ear for a successor's request (design.md 6, "Handover").
 *
 * Nothing here may harm a backup: a store that does not answer costs signs of life, and a starting replica that sees none
 * restores the newest backup there is.
 */
export class Heartbeat {
  readonly #deps: HeartbeatDeps;
  readonly #options: HeartbeatOptions;
  readonly #failure: RepeatedFailure;
  #vitals: () => Vitals = () => ({ phase: 'starting', unsavedMs: undefined, lastBackup: undefined });
  #epoch: number | undefined;
  #etag: string | undefined;
  #hasPassed = false;
  #hasEnded = false;
  #writtenMs = Number.NEGATIVE_INFINITY;
  #answer: HandoverAnswer | undefined;
  #requestedId: string | undefined;
  /** One write at a time: two would race for the etag. */
  #beating: Promise<void> = Promise.resolve();

  constructor(deps: HeartbeatDeps, options: HeartbeatOptions) {
    this.#deps = deps;
    this.#options = options;
    this.#failure = new RepeatedFailure(deps.log, 'no sign of life written', 15 * 60_000);
  }

  /** The request that waits for a backup, which must be begun after it was seen. */
  get requested(): string | undefined {
    return this.#requestedId;
  }

  /** A newer replica has taken the epoch: what is written from now on is a tail. */
  get hasPassed(): boolean {
    return this.#hasPassed;
  }

  /**
   * Beats and listens until `signal` aborts.
   * @param onEvent Called when a request has come, and when the epoch has passed.
   */
  async run(vitals: () => Vitals, onEvent: () => void, signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    this.#vitals = vitals;
    const isOver = () => signal.aborted || this.#hasPassed;
    while (!isOver()) {
      try {
        if (await this.#hearRequest(signal)) onEvent();
        if (clock.monotonicMs() - this.#writtenMs >= this.#options.intervalMs) await this.beat(signal);
        this.#failure.succeeded();
      } catch (error) {
        if (isOver()) break;
        this.#failure.failed(clock.monotonicMs(), error);
      }
      if (!isOver()) await clock.sleep(this.#options.pollMs, signal);
    }
    if (this.#hasPassed) onEvent();
  }

  /**
   * Everything that was committed when `requested` was read is stored.
   * @param backup Where; `undefined`: an unconfigured server, nothing to store.
   */
  async answer(id: string, backup: string | undefined, signal?: AbortSignal): Promise<void> {
    if (this.#requestedId === id) this.#requestedId = undefined;
    this.#answer = { id, state: 'stored', backup: backup ?? null };
    this.#deps.log.info('backed up on request', { backup });
    await this.tell(signal);
  }

  /**
   * A sign of life at once, because something changed; never throws.
   * @param last The last sign: nobody writes any more, and every write is stored.
   */
  async tell(signal?: AbortSignal, last?: 'stopped'): Promise<void> {
    try {
      if (last === undefined) await this.beat(signal);
      else {
        this.#vitals = ((before) => () => ({ ...before(), phase: last, unsavedMs: undefined }))(this.#vitals);
        await this.beat(signal);
        this.#hasEnded = true;
      }
    } catch (error) {
      if (signal?.aborted !== true) this.#failure.failed(this.#deps.clock.monotonicMs(), error);
    }
  }

  /** @throws AgentError What the store says. */
  beat(signal?: AbortSignal): Promise<void> {
    const next = this.#beating.then(() => this.#write(signal));
    this.#beating = next.catch(() => undefined);
    return next;
  }

  /** @returns whether there is a new one. */
  async #hearRequest(signal: AbortSignal): Promise<boolean> {
    const epoch = await this.#knownEpoch();
    if (epoch === undefined) return false;
    const found = await readHandoverRequest(this.#deps.store, signal);
    if (found === undefined || found.ageMs > REQUEST_EXPIRES_MS || found.value.epoch !== epoch) return false;
    const { id } = found.value;
    if (id === this.#answer?.id || id === this.#requestedId) return false;
    this.#deps.log.info('a backup is asked for', { request: id });
    this.#requestedId = id;
    this.#answer = { id, state: 'seen', backup: null };
    await this.beat(signal);
    return true;
  }

  async #knownEpoch(): Promise<number | undefined> {
    if (this.#epoch !== undefined) return this.#epoch;
    const marker = await readMarker(this.#deps.disk, this.#options.dataDir);
    if (marker === undefined || marker === 'unreadable' || marker.state !== 'complete') return undefined;
    return (this.#epoch = marker.epoch);
  }

  async #write(signal?: AbortSignal): Promise<void> {
    const { clock, holder, log, store } = this.#deps;
    const epoch = await this.#knownEpoch();
    if (epoch === undefined || this.#hasPassed || this.#hasEnded) return;
    const current = await readEpoch(store, signal);
    if (current !== undefined && current.state.epoch > epoch) {
      // The successor's sidecar signs from now on; a late sign of ours would hide that it died.
      this.#hasPassed = true;
      log.warn('a newer replica has taken over', { epoch, current: current.state.epoch });
      return;
    }
    const { intervalMs, pollMs } = this.#options;
    const { lastBackup, phase, unsavedMs } = this.#vitals();
    const state: WriterState = {
      format: 1,
      epoch,
      holder,
      phase,
      intervalSeconds: intervalMs / 1000,
      pollSeconds: pollMs / 1000,
      unsavedSeconds: unsavedMs === undefined ? null : Math.max(0, Math.round(unsavedMs / 100) / 10),
      lastBackup: lastBackup ?? null,
      ...(this.#answer === undefined ? {} : { answer: this.#answer }),
    };
    try {
      this.#etag = await writeState(store, WRITER_BLOB, state, this.#etag, signal);
    } catch (error) {
      if (!hasCode(error, 'store_conflict')) throw error;
      // The first sign of this process, a lost response to our own, or another replica's.
      const other = await readWriter(store, signal);
      if (other !== undefined && other.value.epoch > epoch) {
        this.#hasPassed = true;
        return;
      }
      this.#etag = await writeState(store, WRITER_BLOB, state, other?.etag, signal);
    }
    this.#writtenMs = clock.monotonicMs();
    log.debug('sign of life', { phase, unsavedSeconds: state.unsavedSeconds });
  }
}
