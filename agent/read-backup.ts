import { createHash } from 'node:crypto';
import { nameOf, type StoredBackup } from './catalog.ts';
import { AgentError, hasCode } from './errors.ts';
import { MANIFEST_NAME, parseManifest, type Manifest, type ManifestEntry } from './manifest.ts';
import type { Archiver, BlobItem, BlobStore, UnpackedEntry } from './ports.ts';
import { unsafePathReason } from './safe-path.ts';

const RANGE_BYTES = 2 * 1024 * 1024;
const RANGES_IN_FLIGHT = 4;
const FIRST_LOOK_BYTES = 256 * 1024;
const LARGEST_LOOK_BYTES = 64 * 1024 * 1024;

/** The bytes of one version of a blob, in order, read by several ranges at once. */
export async function* readParallel(
  store: BlobStore,
  item: BlobItem,
  from: number,
  signal?: AbortSignal,
): AsyncIterable<Uint8Array> {
  const ahead: Promise<Uint8Array>[] = [];
  let next = from;
  const request = () => {
    if (next >= item.sizeBytes) return;
    const range = { offset: next, count: Math.min(RANGE_BYTES, item.sizeBytes - next), ifMatch: item.etag };
    next += range.count;
    const answer = store.readRange(item.name, range, signal);
    // A range that fails while an earlier one is being consumed is reported when its turn comes.
    answer.catch(() => undefined);
    ahead.push(answer);
  };
  for (let count = 0; count < RANGES_IN_FLIGHT; count += 1) request();
  for (let first = ahead.shift(); first !== undefined; first = ahead.shift()) {
    const bytes = await first;
    request();
    yield bytes;
  }
}

/** Retention or a person removed the blob, or wrote it anew, between the listing and the reading. */
export function asGone(error: unknown, name: string): unknown {
  // The status alone: a name may hold any digits.
  const isAbsent = hasCode(error, 'store_rejected') && / failed: (404|416) /.test(error.message);
  if (!hasCode(error, 'store_conflict') && !isAbsent) return error;
  return new AgentError('backup_missing', `${name} changed or vanished while it was read`, { cause: error });
}

export interface OpenedBackup {
  manifest: Manifest;
  manifestBytes: number;
  /** The compressed manifest as it lies at the head of the blob. */
  frame: Uint8Array;
}

async function manifestFrame(
  store: BlobStore,
  archiver: Archiver,
  item: BlobItem,
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const stated = Number(item.metadata['manifestbytes']);
  // Metadata can be wrong: a whole archive in one piece would fill the memory.
  let count = stated > 0 && stated <= LARGEST_LOOK_BYTES ? stated : FIRST_LOOK_BYTES;
  for (;;) {
    if (count > item.sizeBytes) count = item.sizeBytes;
    if (count === 0) throw new AgentError('backup_damaged', `${item.name} is empty`);
    const chunks: Uint8Array[] = [];
    for await (const chunk of readParallel(store, { ...item, sizeBytes: count }, 0, signal))
      chunks.push(chunk);
    const head = Buffer.concat(chunks);
    // The frame itself says where it ends: metadata can be lost when a person copies a blob.
    const end = archiver.firstFrameBytes(head);
    if (end !== undefined) return head.subarray(0, end);
    if (count >= item.sizeBytes)
      throw new AgentError('backup_damaged', `${item.name} is cut inside its manifest`);
    count *= 4;
  }
}

/**
 * The manifest of a stored backup, without reading the rest.
 * @throws AgentError `backup_damaged`, `backup_incompatible`, `backup_missing`, or what the store says.
 */
export async function openBackup(
  store: BlobStore,
  archiver: Archiver,
  backup: StoredBackup,
  signal?: AbortSignal,
): Promise<OpenedBackup> {
  try {
    const frame = await manifestFrame(store, archiver, backup.item, signal);
    const manifest = parseManifest(await archiver.unpackManifest(frame));
    if (manifest.epoch !== backup.epoch || manifest.sequence !== backup.sequence) {
      throw new AgentError(
        'backup_damaged',
        `${nameOf(backup)} holds the manifest of e${String(manifest.epoch)}.s${String(manifest.sequence)}`,
      );
    }
    return { manifest, manifestBytes: frame.byteLength, frame };
  } catch (error) {
    throw asGone(error, nameOf(backup));
  }
}

export type EntrySink = (
  entry: ManifestEntry,
  content: AsyncIterable<Uint8Array>,
) => Promise<{ sha256: string; sizeBytes: number }>;

/**
 * Reads a whole backup and hands each file to `sink`; compares every entry and the archive itself with what the manifest
 * and the metadata say. A tar that was cut at an entry boundary unpacks without any error (style.md H1): only the manifest
 * knows what is missing.
 * @throws AgentError `backup_damaged` and the codes of `openBackup`.
 */
export async function readBackup(
  store: BlobStore,
  archiver: Archiver,
  backup: StoredBackup,
  opened: OpenedBackup,
  sink: EntrySink,
  signal?: AbortSignal,
): Promise<void> {
  const name = nameOf(backup);
  const expected = new Map(opened.manifest.entries.map((entry) => [entry.path, entry]));
  const whole = createHash('sha256');
  const bytes = async function* () {
    for await (const chunk of readParallel(store, backup.item, 0, signal)) {
      whole.update(chunk);
      yield chunk;
    }
  };
  const wrong = (what: string) => new AgentError('backup_damaged', `${name} ${what}`);
  let isFirst = true;
  const receive = async (entry: UnpackedEntry, content: AsyncIterable<Uint8Array>) => {
    signal?.throwIfAborted();
    const quoted = JSON.stringify(entry.path);
    if (isFirst) {
      isFirst = false;
      if (entry.path !== MANIFEST_NAME) throw wrong(`begins with ${quoted}`);
      return;
    }
    if (entry.type !== 'file' && entry.type !== 'directory') throw wrong(`holds ${quoted}, a ${entry.type}`);
    const path = entry.type === 'directory' ? entry.path.replace(/\/$/, '') : entry.path;
    const reason = unsafePathReason(path);
    if (reason !== undefined) throw wrong(`holds ${quoted}: ${reason}`);
    const stated = expected.get(path);
    if (stated?.type !== entry.type) throw wrong(`holds ${quoted}, which its manifest does not name`);
    expected.delete(path);
    // Before a byte is written: room was made for what the manifest says, not for more.
    if (stated.type === 'file' && entry.sizeBytes !== stated.sizeBytes)
      throw wrong(`holds ${quoted} with ${String(entry.sizeBytes)} bytes, not ${String(stated.sizeBytes)}`);
    const { sha256, sizeBytes } = await sink(stated, content);
    if (stated.type === 'file' && (sizeBytes !== stated.sizeBytes || sha256 !== stated.sha256)) {
      throw wrong(`holds ${quoted} with other content than its manifest says`);
    }
  };
  try {
    await archiver.unpack(bytes(), { kind: 'zstd', manifestBytes: opened.manifestBytes }, receive);
  } catch (error) {
    // Being told to stop says nothing about the backup, whatever the decoder made of its input ending.
    signal?.throwIfAborted();
    throw asGone(error, name);
  }
  const [missing] = expected.keys();
  if (missing !== undefined)
    throw wrong(`lacks ${JSON.stringify(missing)} and ${String(expected.size - 1)} more entries`);
  const stated = backup.item.metadata['sha256'];
  if (stated !== undefined && stated !== whole.digest('hex'))
    throw wrong('has another SHA-256 than its metadata says');
}
