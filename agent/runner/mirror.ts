import { createHash } from 'node:crypto';
import { commitOnce, stageAll } from '../blocks.ts';
import { listAll } from '../catalog.ts';
import { AgentError, hasCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { BlobItem, BlobStore, Clock, Disk } from '../ports.ts';
import { readParallel } from '../read-backup.ts';
import type { EngineArchive } from './archive.ts';
import { freeMirrorName, MIRROR_PREFIX } from './mirror-name.ts';

export interface MirrorDeps {
  store: BlobStore;
  disk: Disk;
  clock: Clock;
  log: Logger;
}

/** Of another archive at the same name, or of bytes that did not arrive as they were sent. */
const ATTEMPTS = 3;

/** The same bytes, whatever they are called: an upload whose answer was lost, or one of a run that was killed. */
export function findMirrored(
  items: readonly BlobItem[],
  archive: { sha256: string; sizeBytes: number },
): BlobItem | undefined {
  const same = items.filter(
    ({ metadata, sizeBytes }) =>
      metadata['sha256'] === archive.sha256 &&
      sizeBytes === archive.sizeBytes &&
      metadata['damaged'] === undefined,
  );
  return same.find(isVerifiedArchive) ?? same[0];
}

/** It was read back whole after it was stored, and had the hash that its metadata says. */
export function isVerifiedArchive({ metadata, sizeBytes }: BlobItem): boolean {
  return (
    metadata['source'] === 'jellyroller' &&
    metadata['verified_utc'] !== undefined &&
    metadata['damaged'] === undefined &&
    metadata['size'] === String(sizeBytes)
  );
}

async function upload(
  { store, disk, log }: MirrorDeps,
  archive: EngineArchive,
  taken: ReadonlySet<string>,
  signal: AbortSignal,
): Promise<string> {
  const name = freeMirrorName(archive.manifest.createdUtc, taken);
  log.info('upload starts', {
    archive: archive.fileName,
    url: urlOf(store, name),
    sizeBytes: archive.sizeBytes,
  });
  const { ids, sizeBytes, sha256 } = await stageAll(store, name, disk.read(archive.file), signal);
  if (sha256 !== archive.sha256 || sizeBytes !== archive.sizeBytes)
    throw new AgentError('source_damaged', `${archive.fileName} changed while it was uploaded`, {
      retryable: true,
    });
  const metadata = {
    source: 'jellyroller',
    size: String(sizeBytes),
    sha256,
    jellyfin_version: archive.manifest.jellyfinVersion,
    timestamp_utc: archive.manifest.createdUtc,
  };
  await commitOnce(store, name, ids, metadata, signal);
  return name;
}

async function hashOfStored(store: BlobStore, item: BlobItem, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of readParallel(store, item, 0, signal)) hash.update(chunk);
  return hash.digest('hex');
}

/** Writes what was found on the blob; an answer that was lost shows as a conflict with our own write. */
async function record(
  store: BlobStore,
  item: BlobItem,
  found: Record<string, string>,
  signal: AbortSignal,
): Promise<void> {
  try {
    await store.setMetadata(item.name, { ...item.metadata, ...found }, { ifMatch: item.etag }, signal);
  } catch (error) {
    if (!hasCode(error, 'store_conflict')) throw error;
    const now = await store.head(item.name, signal);
    if (!Object.keys(found).every((key) => now?.metadata[key] !== undefined)) throw error;
  }
}

/**
 * Reads a stored archive back as a whole and records the result on it: `verified_utc`, or `damaged`.
 * @returns whether it is good.
 */
export async function verifyMirrored(
  { store, clock, log }: MirrorDeps,
  item: BlobItem,
  signal: AbortSignal,
): Promise<boolean> {
  const expected = item.metadata['sha256'];
  // Once more before a verdict that stays: a byte may have been flipped on the way back.
  const isGood =
    (await hashOfStored(store, item, signal)) === expected ||
    (await hashOfStored(store, item, signal)) === expected;
  if (isGood) await record(store, item, { verified_utc: clock.now().toISOString() }, signal);
  else {
    log.error('the stored archive is damaged', { backup: item.name });
    await record(store, item, { damaged: 'it does not have its sha256 when it is read back' }, signal);
  }
  return isGood;
}

/**
 * Stores an archive, unless these very bytes are stored already, and reads it back whole.
 * @returns the verified blob.
 * @throws AgentError What the store says; `source_damaged` when the file changed; `store_rejected` when the store does not
 *   give back what it took.
 */
export async function mirror(
  deps: MirrorDeps,
  archive: EngineArchive,
  signal: AbortSignal,
): Promise<BlobItem> {
  const { store } = deps;
  for (let attempt = 1; ; attempt += 1) {
    const items = await listAll(store, MIRROR_PREFIX, signal);
    const known = findMirrored(items, archive);
    if (known !== undefined && isVerifiedArchive(known)) return known;
    try {
      const name =
        known?.name ?? (await upload(deps, archive, new Set(items.map((item) => item.name)), signal));
      const stored = await store.head(name, signal);
      if (stored !== undefined && (await verifyMirrored(deps, stored, signal))) return stored;
    } catch (error) {
      // Somebody else took the name, or retention of another replica the blob.
      if (!hasCode(error, 'store_conflict') || attempt === ATTEMPTS) throw error;
    }
    if (attempt === ATTEMPTS)
      throw new AgentError('store_rejected', `${archive.fileName} does not come back as it was stored`);
  }
}

/** For the log: no query, so no signature either. */
export const urlOf = (store: BlobStore, name: string): string => `${store.describe()}/${name}`;
