import { createHash, randomBytes } from 'node:crypto';
import { AgentError, hasCode } from './errors.ts';
import type { BlobItem, BlobStore } from './ports.ts';

/** Three of these in flight bound the memory; 50,000 blocks a blob bound the archive to 195 GiB. */
const BLOCK_BYTES = 4 * 1024 * 1024;
const BLOCKS_IN_FLIGHT = 3;

/**
 * Buffers for blocks, used again and again. New ones would be garbage faster than it is collected, and what the allocator
 * keeps of them would grow with the size of the archive.
 */
class BlockPool {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES);
  }

  giveBack(buffer: Buffer): void {
    this.#free.push(buffer);
  }
}

interface Block {
  buffer: Buffer;
  bytes: Buffer;
}

async function* blocksOf(pool: BlockPool, body: AsyncIterable<Uint8Array>): AsyncIterable<Block> {
  let buffer = pool.take();
  let filledBytes = 0;
  for await (const chunk of body) {
    for (let rest = chunk; rest.byteLength > 0;) {
      const part = rest.subarray(0, BLOCK_BYTES - filledBytes);
      rest = rest.subarray(part.byteLength);
      buffer.set(part, filledBytes);
      filledBytes += part.byteLength;
      if (filledBytes < BLOCK_BYTES) continue;
      yield { buffer, bytes: buffer };
      buffer = pool.take();
      filledBytes = 0;
    }
  }
  if (filledBytes > 0) yield { buffer, bytes: buffer.subarray(0, filledBytes) };
}

/** Stages blocks, a few at a time, and answers their ids in order with the size and hash of the whole. */
export async function stageAll(
  store: BlobStore,
  name: string,
  body: AsyncIterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<{ ids: string[]; sizeBytes: number; sha256: string }> {
  // Ids of one length, and unlike those of an earlier attempt at the same name whose blocks still lie there.
  const attempt = randomBytes(6).toString('hex');
  const hash = createHash('sha256');
  const ids: string[] = [];
  const inFlight = new Set<Promise<void>>();
  let sizeBytes = 0;
  const pool = new BlockPool();
  let failure: unknown;
  for await (const { buffer, bytes } of blocksOf(pool, body)) {
    if (failure !== undefined) break;
    const id = Buffer.from(`${attempt}-${String(ids.length).padStart(6, '0')}`).toString('base64');
    ids.push(id);
    hash.update(bytes);
    sizeBytes += bytes.byteLength;
    const staging: Promise<void> = store
      .stageBlock(name, id, bytes, signal)
      .then(() => {
        pool.giveBack(buffer);
      })
      .catch((error: unknown) => {
        failure ??= error;
      })
      .finally(() => inFlight.delete(staging));
    inFlight.add(staging);
    if (inFlight.size >= BLOCKS_IN_FLIGHT) await Promise.race(inFlight);
  }
  await Promise.all(inFlight);
  if (failure !== undefined) throw failure as Error;
  return { ids, sizeBytes, sha256: hash.digest('hex') };
}

/**
 * Makes the staged blocks visible, and only if no blob of that name exists. A response can be lost after the service did the
 * work: what is stored under our name then has our hash.
 * @param metadata Holds at least `sha256` and `size`.
 * @throws AgentError `store_conflict` when another archive has the name; what the store says.
 */
export async function commitOnce(
  store: BlobStore,
  name: string,
  ids: string[],
  metadata: Record<string, string>,
  signal?: AbortSignal,
): Promise<void> {
  let stored: BlobItem | undefined;
  try {
    await store.commitNew(name, ids, metadata, signal);
    stored = await store.head(name, signal);
  } catch (error) {
    if (!hasCode(error, 'store_conflict', 'store_rejected')) throw error;
    stored = await store.head(name, signal);
    if (stored?.metadata['sha256'] !== metadata['sha256']) throw error;
  }
  if (stored?.sizeBytes !== Number(metadata['size'])) {
    throw new AgentError(
      'store_rejected',
      `commit ${name}: the service holds ${String(stored?.sizeBytes)} of ${String(metadata['size'])} bytes`,
    );
  }
}
