import { AgentError } from '../errors.ts';
import type { Clock, Disk, ExaminedZip, ZipReader } from '../ports.ts';
import { fileMark } from '../scan.ts';

/** An archive of Jellyfin's backup engine that was read whole. */
export interface EngineArchive {
  file: string;
  fileName: string;
  sizeBytes: number;
  sha256: string;
  manifest: EngineManifest;
}

export interface EngineManifest {
  /** Three parts, as the server calls itself; the archive has a fourth, which .NET adds. */
  jellyfinVersion: string;
  /** In UTC. */
  createdUtc: string;
  /** Whether a restore brings the database back. */
  hasDatabase: boolean;
}

export const MANIFEST_ENTRY = 'manifest.json';
const READS = 3;
const READ_GAP_MS = 500;
/** An archive that is listed is complete; this is for a copy that a person is making at the moment. */
const STILL_WITHIN_MS = 5 * 60_000;

/**
 * @param what Names the archive in messages.
 * @throws AgentError `backup_damaged`.
 */
export function parseEngineManifest(zip: ExaminedZip, what: string): EngineManifest {
  const bytes = zip.kept.get(MANIFEST_ENTRY);
  const wrong = (reason: string) =>
    new AgentError('backup_damaged', `${what} is no backup of Jellyfin: ${reason}`);
  if (bytes === undefined) throw wrong(`it holds no ${MANIFEST_ENTRY}`);
  let manifest: {
    ServerVersion?: unknown;
    DateCreated?: unknown;
    Options?: { Database?: unknown } | null;
  } | null;
  try {
    manifest = JSON.parse(new TextDecoder().decode(bytes)) as typeof manifest;
  } catch {
    manifest = null;
  }
  const { ServerVersion: version, DateCreated: date, Options: options } = manifest ?? {};
  if (typeof version !== 'string' || !/^\d+(\.\d+){1,3}$/.test(version)) throw wrong('its ServerVersion');
  if (typeof date !== 'string' || Number.isNaN(Date.parse(date))) throw wrong('its DateCreated');
  return {
    jellyfinVersion: version.split('.').slice(0, 3).join('.'),
    createdUtc: new Date(date).toISOString(),
    hasDatabase: options?.Database !== false,
  };
}

async function untilStill(
  deps: { clock: Clock; disk: Disk },
  file: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  const deadlineMs = deps.clock.monotonicMs() + STILL_WITHIN_MS;
  let last: string | undefined;
  for (let equal = 0; equal < READS;) {
    const stat = await deps.disk.stat(file);
    if (stat === undefined || deps.clock.monotonicMs() > deadlineMs) return undefined;
    const mark = fileMark(stat);
    equal = mark === last ? equal + 1 : 1;
    last = mark;
    if (equal < READS) await deps.clock.sleep(READ_GAP_MS, signal);
    signal.throwIfAborted();
  }
  return last;
}

/**
 * Reads an archive that the engine lists: its size equal over several reads, not below the floor, every entry with the
 * right checksum, a manifest, and not changed meanwhile.
 * @param minSizeBytes MIN_BACKUP_SIZE_BYTES.
 * @throws AgentError `backup_damaged`, or `source_damaged` when it is too small or does not stand still.
 */
export async function examineArchive(
  deps: { clock: Clock; disk: Disk; zip: ZipReader },
  file: string,
  minSizeBytes: number,
  signal: AbortSignal,
): Promise<EngineArchive> {
  const fileName = file.slice(file.lastIndexOf('/') + 1);
  const mark = await untilStill(deps, file, signal);
  if (mark === undefined)
    throw new AgentError('source_damaged', `${fileName} went away or did not stand still`, {
      retryable: true,
    });
  const { sizeBytes, sha256 } = await deps.disk.hash(file, signal);
  if (sizeBytes < minSizeBytes) {
    throw new AgentError(
      'source_damaged',
      `${fileName} has ${String(sizeBytes)} bytes, MIN_BACKUP_SIZE_BYTES is ${String(minSizeBytes)}: not uploaded`,
    );
  }
  const manifest = parseEngineManifest(await deps.zip.examine(file, [MANIFEST_ENTRY], signal), fileName);
  const after = await deps.disk.stat(file);
  if (after === undefined || fileMark(after) !== mark)
    throw new AgentError('source_damaged', `${fileName} changed while it was read`, { retryable: true });
  return { file, fileName, sizeBytes, sha256, manifest };
}
