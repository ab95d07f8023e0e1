import { randomUUID } from 'node:crypto';
import { readEpoch } from './epoch.ts';
import { AgentError, hasCode } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { BlobStore, Clock } from './ports.ts';
import type { Found } from './state-blob.ts';
import {
  HANDOVER_BLOB,
  readHandoverRequest,
  readWriter,
  writeState,
  type HandoverRequest,
  type WriterState,
} from './writer-state.ts';

/** What is known of the replica that wrote last, and how far its writes are stored. */
export type Predecessor =
  /** No replica signed in the current epoch: none was there, one of an older release, or one that never got to use. */
  | { kind: 'none' }
  /** It says that every write is stored and that it has ended. */
  | { kind: 'stopped'; waitedSeconds: number }
  /** It lives and has stored everything up to the request. */
  | { kind: 'answered'; waitedSeconds: number; backup: string | null }
  /** It lives, and did not store a backup in time. */
  | { kind: 'busy'; waitedSeconds: number }
  /** It ended without saying so: killed, or cut off. At most the last `windowSeconds` of its writes are in no backup. */
  | { kind: 'silent'; waitedSeconds: number; windowSeconds: number }
  /** The store did not say. */
  | { kind: 'unknown' };

export interface HandoverDeps {
  store: BlobStore;
  clock: Clock;
  log: Logger;
}

const POLL_MS = 500;
/** Signs are late when the store is slow: two and a half intervals, and the whole seconds of the service's times. */
const LATE_INTERVALS = 2.5;
const TIME_RESOLUTION_MS = 2_000;
/** A request that is heard at all is heard at the next look; some more for a replica that is busy or a store that is slow. */
const LOOKS_UNTIL_SEEN = 4;
const SEEN_RESERVE_MS = 2_000;

function isLate(writer: Found<WriterState>): boolean {
  return writer.ageMs > writer.value.intervalSeconds * 1000 * LATE_INTERVALS + TIME_RESOLUTION_MS;
}

/** Writes the request, or joins one that another starting replica has just written. */
async function request(
  { clock, store }: HandoverDeps,
  epoch: number,
  waitMs: number,
  signal?: AbortSignal,
): Promise<string> {
  const wanted: HandoverRequest = { format: 1, id: randomUUID(), epoch };
  for (let attempt = 1; ; attempt += 1) {
    const existing = await readHandoverRequest(store, signal);
    if (existing?.value.epoch === epoch && existing.ageMs < waitMs) {
      const answer = (await readWriter(store, signal))?.value.answer;
      // Not replaced while it is worked on: whoever waits for it would take the replica for dead.
      if (answer?.id !== existing.value.id || answer.state !== 'stored') return existing.value.id;
    }
    try {
      await writeState(store, HANDOVER_BLOB, wanted, existing?.etag, signal);
      return wanted.id;
    } catch (error) {
      if (!hasCode(error, 'store_conflict') || attempt >= 3) throw error;
      await clock.sleep(POLL_MS, signal);
    }
  }
}

/** Until the living replica has stored a backup, has ended, or the time is up. */
async function awaitAnswer(
  { clock, store }: HandoverDeps,
  id: string,
  first: WriterState,
  waitMs: number,
  signal?: AbortSignal,
): Promise<Predecessor> {
  const startedMs = clock.monotonicMs();
  const seenWithinMs = Math.min(waitMs, first.pollSeconds * 1000 * LOOKS_UNTIL_SEEN + SEEN_RESERVE_MS);
  for (;;) {
    await clock.sleep(POLL_MS, signal);
    signal?.throwIfAborted();
    const writer = await readWriter(store, signal);
    const waitedMs = clock.monotonicMs() - startedMs;
    const waitedSeconds = Math.round(waitedMs / 100) / 10;
    if (writer === undefined) return { kind: 'unknown' };
    const { answer, phase } = writer.value;
    if (phase === 'stopped') return { kind: 'stopped', waitedSeconds };
    // A replica that is stopping stores again after its server has closed: that backup is the one to wait for.
    if (answer?.id === id && answer.state === 'stored' && phase !== 'stopping')
      return { kind: 'answered', waitedSeconds, backup: answer.backup };
    const isUnheard = answer?.id !== id && waitedMs >= seenWithinMs;
    if (isUnheard || isLate(writer)) return silent(writer.value, waitedSeconds);
    if (waitedMs >= waitMs) {
      if (answer?.id === id && answer.state === 'stored')
        return { kind: 'answered', waitedSeconds, backup: answer.backup };
      return { kind: 'busy', waitedSeconds };
    }
  }
}

function silent(
  { intervalSeconds, pollSeconds, unsavedSeconds }: WriterState,
  waitedSeconds: number,
): Predecessor {
  return {
    kind: 'silent',
    waitedSeconds,
    windowSeconds: Math.ceil((unsavedSeconds ?? 0) + intervalSeconds + pollSeconds),
  };
}

/**
 * Looks whether a replica still writes and asks it for a backup, before the epoch is taken from it.
 *
 * Whether it lives is told by the service's own times: the age of its last sign, never a clock of a replica. The wait is
 * bounded and ends as soon as the backup is stored; it never waits for the old replica to leave, which in a rollout only
 * leaves after this one is ready (facts/peers.md hazard 15).
 * @param waitMs How long at most; 0: only looks.
 */
export async function askForBackup(
  deps: HandoverDeps,
  waitMs: number,
  signal?: AbortSignal,
): Promise<Predecessor> {
  const { log, store } = deps;
  try {
    const writer = await readWriter(store, signal);
    if (writer === undefined) return { kind: 'none' };
    const { epoch, phase } = writer.value;
    const current = (await readEpoch(store, signal))?.state.epoch;
    // It was fenced, and its successor has not signed yet: nobody who could answer.
    if (current !== undefined && current > epoch) return { kind: 'none' };
    if (phase === 'stopped') return { kind: 'stopped', waitedSeconds: 0 };
    if (isLate(writer)) return silent(writer.value, 0);
    if (waitMs === 0) return { kind: 'busy', waitedSeconds: 0 };
    const id = await request(deps, epoch, waitMs, signal);
    log.info('another replica is alive: it is asked for a backup', { epoch, phase, waitMs });
    return await awaitAnswer(deps, id, writer.value, waitMs, signal);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    // What is stored is restored all the same.
    log.warn('handover not possible', errorFields(error));
    return { kind: 'unknown' };
  }
}
