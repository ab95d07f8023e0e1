import type { Log } from './log.ts';

export type Stop = 'shutdown' | 'restart';

/**
 * The wish to stop, from a signal or from the API. While a server starts nobody waits for one and it is lost, as with
 * the real server: a stop in that phase ends in SIGKILL.
 */
export class StopRequests {
  readonly #log: Log;
  #deliver: ((stop: Stop) => void) | undefined;

  constructor(log: Log) {
    this.#log = log;
  }

  listenToSignals(): void {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (!this.request('shutdown')) this.#log.warn(`${signal} is swallowed: the server is not running`);
      });
    }
  }

  /** Resolves to the first wish after this call. */
  next(): Promise<Stop> {
    return new Promise((resolve) => {
      this.#deliver = resolve;
    });
  }

  /** False when nobody waits for it. */
  request(stop: Stop): boolean {
    const deliver = this.#deliver;
    this.#deliver = undefined;
    deliver?.(stop);
    return deliver !== undefined;
  }
}
