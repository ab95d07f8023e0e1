import { randomUUID } from 'node:crypto';
import type { EpochState } from './epoch.ts';
import { hasCode } from './errors.ts';
import type { BlobStore } from './ports.ts';
import { encodeState, readState } from './state-blob.ts';

export const REQUEST_BLOB = 'state/restore-request.json';

/**
 * "Restore that one": a wish that the next start on an empty volume consumes once. Not a setting: a setting would restore
 * the same old backup at every start.
 */
export interface RestoreRequest {
  format: 1;
  /** What the epoch's state remembers of a consumed request, so that a start that dies right after does not repeat it. */
  id: string;
  name: string;
  requestedUtc: string;
}

/** The request that is still to be consumed. */
export async function pendingRequest(
  store: BlobStore,
  state: EpochState | undefined,
  signal?: AbortSignal,
): Promise<{ request: RestoreRequest; etag: string } | undefined> {
  const found = await readState<RestoreRequest>(
    store,
    REQUEST_BLOB,
    ({ id, name }) => typeof id === 'string' && typeof name === 'string',
    'agent restore-request --cancel removes it',
    signal,
  );
  if (found === undefined || found.value.id === state?.consumedRequest) return undefined;
  return { request: found.value, etag: found.etag };
}

/** Writes the request; a later one replaces an earlier one. */
export async function writeRequest(
  store: BlobStore,
  name: string,
  now: Date,
  signal?: AbortSignal,
): Promise<RestoreRequest> {
  const request: RestoreRequest = { format: 1, id: randomUUID(), name, requestedUtc: now.toISOString() };
  await store.put(REQUEST_BLOB, encodeState(request), {}, signal);
  return request;
}

/** Takes the request back, or tidies up after it was consumed. A newer one is left alone. */
export async function removeRequest(
  store: BlobStore,
  etag: string | undefined,
  signal?: AbortSignal,
): Promise<boolean> {
  const found = await store.find(REQUEST_BLOB, signal);
  if (found === undefined) return false;
  try {
    await store.remove(REQUEST_BLOB, etag ?? found.etag, signal);
    return true;
  } catch (error) {
    if (hasCode(error, 'store_conflict')) return false;
    throw error;
  }
}
