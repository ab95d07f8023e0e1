import type { BlobStore } from './ports.ts';
import { encodeState, readState, type Found } from './state-blob.ts';

/** What the replica that writes says of itself, again and again: the sign of life that a starting replica looks for. */
export const WRITER_BLOB = 'state/writer.json';
/** What a starting replica asks the living one for. */
export const HANDOVER_BLOB = 'state/handover.json';

export interface WriterState {
  format: 1;
  /** The epoch in which this replica publishes. */
  epoch: number;
  /** Random, per process. */
  holder: string;
  /** `stopped`: every write is in `lastBackup`, and nobody writes any more. */
  phase: 'starting' | 'running' | 'stopping' | 'stopped';
  /** The next sign comes within this time, unless the process has died. */
  intervalSeconds: number;
  /** How often this replica looks for a request. */
  pollSeconds: number;
  /** Age of the oldest change that no backup held when this was written; null: everything was stored. */
  unsavedSeconds: number | null;
  lastBackup: string | null;
  /** To the last request for a backup. */
  answer?: HandoverAnswer;
}

export interface HandoverAnswer {
  id: string;
  /** `stored`: everything that was committed before the request is in a backup. */
  state: 'seen' | 'stored';
  /** null: an unconfigured server has nothing to store. */
  backup: string | null;
}

/** "Back up now": asked by a starting replica, before it takes the epoch. */
export interface HandoverRequest {
  format: 1;
  id: string;
  /** Whoever publishes in this epoch is asked; the replica that asks will have a later one and must not answer itself. */
  epoch: number;
}

const HINT = 'nothing depends on it for long: delete it';

/** @throws AgentError What the store says; `store_rejected` for a blob that is not ours. */
export function readWriter(store: BlobStore, signal?: AbortSignal): Promise<Found<WriterState> | undefined> {
  return readState<WriterState>(
    store,
    WRITER_BLOB,
    ({ epoch, intervalSeconds, phase }) =>
      Number.isSafeInteger(epoch) && typeof intervalSeconds === 'number' && typeof phase === 'string',
    HINT,
    signal,
  );
}

/** @throws AgentError What the store says; `store_rejected` for a blob that is not ours. */
export function readHandoverRequest(
  store: BlobStore,
  signal?: AbortSignal,
): Promise<Found<HandoverRequest> | undefined> {
  return readState<HandoverRequest>(
    store,
    HANDOVER_BLOB,
    ({ id, epoch }) => typeof id === 'string' && Number.isSafeInteger(epoch),
    HINT,
    signal,
  );
}

/**
 * Writes one of the two, if nobody else did since `etag`; `undefined`: only if there is none.
 * @returns the new etag.
 * @throws AgentError `store_conflict` when somebody else wrote it.
 */
export function writeState(
  store: BlobStore,
  name: typeof WRITER_BLOB | typeof HANDOVER_BLOB,
  value: WriterState | HandoverRequest,
  etag: string | undefined,
  signal?: AbortSignal,
): Promise<string> {
  return store.put(
    name,
    encodeState(value),
    etag === undefined ? { ifAbsent: true } : { ifMatch: etag },
    signal,
  );
}
