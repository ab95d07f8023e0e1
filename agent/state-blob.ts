import { AgentError } from './errors.ts';
import type { BlobStore } from './ports.ts';

export interface Found<T> {
  value: T;
  etag: string;
  /** Since it was written, by the service's own times. */
  ageMs: number;
}

/** A state as it lies in the store: JSON that a person can read. */
export const encodeState = (value: { format: 1 }): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify(value, null, 1)}\n`);

/**
 * One of the small blobs below `state/`; `undefined` when it is not there.
 * @param isWhole Whether the value has what it must have.
 * @param hint What a person can do about one that is not readable.
 * @throws AgentError What the store says; `store_rejected` for a blob that is not ours.
 */
export async function readState<T extends { format: 1 }>(
  store: BlobStore,
  name: string,
  isWhole: (value: Partial<T>) => boolean,
  hint: string,
  signal?: AbortSignal,
): Promise<Found<T> | undefined> {
  const found = await store.find(name, signal);
  if (found === undefined) return undefined;
  const { bytes, etag, ageMs } = found;
  let cause: unknown;
  try {
    const value = JSON.parse(new TextDecoder().decode(bytes)) as Partial<T> | null;
    if (value?.format === 1 && isWhole(value)) return { value: value as T, etag, ageMs };
  } catch (error) {
    cause = error;
  }
  throw new AgentError('store_rejected', `${name} is not readable`, { cause, hint });
}
