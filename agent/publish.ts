import { createHash } from 'node:crypto';
import { formatBackupName, stampOf, type Placement } from './backup-name.ts';
import { commitOnce, stageAll } from './blocks.ts';
import { AgentError } from './errors.ts';
import { manifestOf, type Snapshot } from './snapshot.ts';
import type { ArchiveEntry, Archiver, BlobStore, Clock, Disk } from './ports.ts';

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

  const { ids, sizeBytes, sha256 } = await stageAll(store, name, withHead(head, body), signal);
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

async function* withHead(head: Uint8Array, body: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  yield head;
  yield* body;
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
