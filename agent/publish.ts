import { createHash, randomBytes } from 'node:crypto';
import { formatBackupName, stampOf, type Placement } from './backup-name.ts';
import { AgentError, hasCode } from './errors.ts';
import { manifestOf, type Snapshot } from './snapshot.ts';
import type { ArchiveEntry, Archiver, BlobItem, BlobStore, Clock, Disk } from './ports.ts';

export interface PublishDeps {
  store: BlobStore;
  archiver: Archiver;
  disk: Disk;
  clock: Clock;
  profile: { name: string };
  minBackupSizeBytes: number;
}

export interface PublishRequest {
  snapshot: Snapshot;
  placement: Placement;
  epoch: number;
  sequence: number;
  cleanStop: boolean;
  version: string | undefined;
  serverId: string | undefined;
  /** Why it is beside the line, for whoever lists it. */
  reason?: string;
  /** Called when everything is staged and nothing is visible yet; throws when this replica may no longer publish. */
  beforeCommit: (signal?: AbortSignal) => Promise<void>;
}

export interface PublishedBackup {
  name: string;
  sizeBytes: number;
  sha256: string;
  createdUtc: string;
  metadata: Record<string, string>;
}

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

async function* blocksOf(
  pool: BlockPool,
  head: Uint8Array,
  body: AsyncIterable<Uint8Array>,
): AsyncIterable<Block> {
  let buffer = pool.take();
  let filledBytes = 0;
  const chunks = async function* () {
    yield head;
    yield* body;
  };
  for await (const chunk of chunks()) {
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
async function stageAll(
  store: BlobStore,
  name: string,
  head: Uint8Array,
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
  for await (const { buffer, bytes } of blocksOf(pool, head, body)) {
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

/** A response can be lost after the service did the work: what is stored under our name then has our hash. */
async function commitOnce(
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

/**
 * Packs, stages, and makes the backup visible in one step: before the commit nobody sees it, after it it is whole.
 * @throws AgentError What the store says; `source_damaged` when the archive is below the size floor; whatever
 * `beforeCommit` throws. Nothing is visible then.
 */
export async function publish(
  deps: PublishDeps,
  request: PublishRequest,
  signal?: AbortSignal,
): Promise<PublishedBackup> {
  const { archiver, clock, disk, store } = deps;
  const { snapshot, placement, epoch, sequence, cleanStop } = request;
  const now = clock.now();
  const createdUtc = now.toISOString();
  const { manifest, bytes } = manifestOf(snapshot, {
    profile: deps.profile.name,
    createdUtc,
    epoch,
    sequence,
    cleanStop,
    version: request.version,
    serverId: request.serverId,
  });
  const head = await archiver.packManifest(bytes);
  const entries: ArchiveEntry[] = manifest.entries.map(
    ({ path, type, sizeBytes, mode, uid, gid, mtimeMs }) => ({
      path,
      type,
      sizeBytes,
      attributes: { mode, uid, gid, mtimeMs },
    }),
  );
  const hashes = new Map(manifest.entries.map((entry) => [entry.path, entry.sha256]));
  const body = archiver.packTree(entries, (entry) =>
    asRecorded(disk.read(snapshot.sourceOf(entry.path)), entry, hashes.get(entry.path)),
  );
  const name = formatBackupName({ placement, stamp: stampOf(now), epoch, sequence });

  const { ids, sizeBytes, sha256 } = await stageAll(store, name, head, body, signal);
  if (sizeBytes < deps.minBackupSizeBytes) {
    throw new AgentError(
      'source_damaged',
      `archive has ${String(sizeBytes)} bytes, MIN_BACKUP_SIZE_BYTES is ${String(deps.minBackupSizeBytes)}: not published`,
    );
  }
  const { counts, jellyfin } = manifest;
  const metadata: Record<string, string> = {
    source: 'agent',
    format: '1',
    epoch: String(epoch),
    sequence: String(sequence),
    sha256,
    size: String(sizeBytes),
    manifestbytes: String(head.byteLength),
    unpackedbytes: String(manifest.unpackedBytes),
    wizard: 'completed',
    users: String(counts.users),
    items: String(counts.items),
    timestamp_utc: createdUtc,
    clean_stop: String(cleanStop),
    ...(jellyfin.version === null ? {} : { jellyfin_version: jellyfin.version }),
    ...(jellyfin.migration === null ? {} : { migration: jellyfin.migration }),
    ...(request.reason === undefined
      ? {}
      : { reason: request.reason.replace(/[^\x20-\x7e]/g, '?').slice(0, 1_000) }),
  };
  await request.beforeCommit(signal);
  await commitOnce(store, name, ids, metadata, signal);
  return { name, sizeBytes, sha256, createdUtc, metadata };
}

/**
 * Artwork is read a second time when it is packed: a file that grew, shrank, changed or went since its hash was taken stops
 * this attempt, before tar could pad or cut it.
 */
async function* asRecorded(
  content: AsyncIterable<Uint8Array>,
  entry: ArchiveEntry,
  expected: string | undefined,
) {
  const changed = (cause?: unknown) =>
    new AgentError('source_damaged', `pack ${entry.path}: it changed since the snapshot`, {
      retryable: true,
      cause,
    });
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    for await (const chunk of content) {
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
      if (sizeBytes > entry.sizeBytes) throw changed();
      yield chunk;
    }
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? changed(error) : error;
  }
  if (sizeBytes !== entry.sizeBytes || hash.digest('hex') !== expected) throw changed();
}
