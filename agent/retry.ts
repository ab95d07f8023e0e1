import { AgentError, messageOf } from './errors.ts';
import type { Logger } from './log.ts';
import type { BlobStore, Clock } from './ports.ts';

/** Read anew before each wait: a stop shortens it while calls are under way. */
export interface RetryPolicy {
  /** Attempts after the first. */
  max: number;
  /** The first wait; it doubles with each attempt. */
  backoffMs: number;
}

/** An init container that waits longer than this between two attempts only lets the browser time out (240 s). */
const MAX_WAIT_MS = 60_000;

/** The wait before attempt `attempt + 1`: doubled, never below what the server asked for, with a quarter of jitter. */
export function waitMs(
  policy: RetryPolicy,
  attempt: number,
  retryAfterMs: number | undefined,
  random: number,
): number {
  const backoff = Math.min(policy.backoffMs * 2 ** (attempt - 1), MAX_WAIT_MS);
  return Math.max(backoff * (1 - random / 4), Math.min(retryAfterMs ?? 0, MAX_WAIT_MS));
}

/** Runs `work` again while it fails with a retryable error. Throws the last error. */
export async function retrying<T>(
  work: () => Promise<T>,
  what: string,
  deps: { policy: RetryPolicy; clock: Clock; log: Logger },
  signal?: AbortSignal,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      signal?.throwIfAborted();
      return await work();
    } catch (error) {
      if (
        !(error instanceof AgentError) ||
        !error.retryable ||
        attempt > deps.policy.max ||
        signal?.aborted === true
      ) {
        throw error;
      }
      const delayMs = Math.round(waitMs(deps.policy, attempt, error.retryAfterMs, Math.random()));
      deps.log.warn('retrying', { what, attempt, nextAttemptMs: delayMs, error: messageOf(error) });
      await deps.clock.sleep(delayMs, signal);
    }
  }
}

/** A store whose calls are tried again when the network, a throttle or the service itself is the reason. */
export function withRetry(
  store: BlobStore,
  deps: { policy: RetryPolicy; clock: Clock; log: Logger },
): BlobStore {
  const call = <T>(what: string, work: () => Promise<T>, signal?: AbortSignal) =>
    retrying(work, what, deps, signal);
  return {
    describe: () => store.describe(),
    listPage: (prefix, continuation, signal) =>
      call('list', () => store.listPage(prefix, continuation, signal), signal),
    head: (name, signal) => call(`head ${name}`, () => store.head(name, signal), signal),
    readRange: (name, range, signal) =>
      call(`read ${name}`, () => store.readRange(name, range, signal), signal),
    find: (name, signal) => call(`find ${name}`, () => store.find(name, signal), signal),
    put: (name, bytes, condition, signal) =>
      call(`put ${name}`, () => store.put(name, bytes, condition, signal), signal),
    stageBlock: (name, id, bytes, signal) =>
      call(`stage ${name}`, () => store.stageBlock(name, id, bytes, signal), signal),
    commitNew: (name, ids, metadata, signal) =>
      call(`commit ${name}`, () => store.commitNew(name, ids, metadata, signal), signal),
    setMetadata: (name, metadata, condition, signal) =>
      call(`set metadata ${name}`, () => store.setMetadata(name, metadata, condition, signal), signal),
    remove: (name, ifMatch, signal) =>
      call(`delete ${name}`, () => store.remove(name, ifMatch, signal), signal),
  };
}
