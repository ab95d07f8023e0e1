import type { BlobItem } from '../ports.ts';
import type { EngineFile } from './backup-folder.ts';
import { parseMirrorName } from './mirror-name.ts';
import { isVerifiedArchive } from './mirror.ts';

export interface ArchiveVerdict {
  name: string;
  keep: boolean;
  /** Why it is kept, or that nothing keeps it. */
  reason: string;
}

interface Placed {
  item: BlobItem;
  /** By the time that the archive itself states; then by its turn within a second. */
  order: string;
}

function placed(item: BlobItem): Placed | undefined {
  const name = parseMirrorName(item.name);
  if (name === undefined) return undefined;
  const stated = Date.parse(item.metadata['timestamp_utc'] ?? '');
  const time = Number.isNaN(stated)
    ? name.stamp
    : new Date(stated).toISOString().replace(/\D/g, '').slice(0, 14);
  return { item, order: `${time}.${String(name.turn).padStart(5, '0')}` };
}

/**
 * What to keep below `jellyroller/`, as a decision on values.
 *
 * Counts archives that were read back whole; the one just stored stays whatever its date says (a server's clock may be
 * behind), and without a verified one nothing is deleted. An archive that is not verified, or damaged, counts for nothing and
 * goes when it is older than all that are kept. Names that the runner does not write are nobody's business.
 * @param keep RETENTION_KEEP.
 */
export function decideArchiveRetention(
  items: readonly BlobItem[],
  justStored: string,
  keep: number,
): ArchiveVerdict[] {
  const ours = items
    .flatMap((item) => placed(item) ?? [])
    .sort((a, b) => b.order.localeCompare(a.order) || b.item.name.localeCompare(a.item.name));
  const verified = ours.filter(({ item }) => isVerifiedArchive(item));
  const newest = new Set(verified.slice(0, Math.max(1, keep)).map(({ item }) => item.name));
  const canDelete = verified.some(({ item }) => item.name === justStored);
  const oldestKept = verified.filter(({ item }) => newest.has(item.name)).at(-1)?.order ?? '';
  return ours.map(({ item, order }) => {
    const { name } = item;
    const verdict = (isKept: boolean, reason: string) => ({ name, keep: isKept, reason });
    if (name === justStored) return verdict(true, 'just stored');
    if (newest.has(name)) return verdict(true, `one of the newest ${String(keep)}`);
    if (!canDelete) return verdict(true, 'no newer verified archive');
    if (order > oldestKept) return verdict(true, 'not verified, and newer than one that is kept');
    return verdict(false, 'superseded');
  });
}

/** Jellyfin refuses to begin a backup with less (facts/jellyroller.md 3). */
export const ENGINE_NEEDS_BYTES = 5_368_709_115;

/**
 * Which archives in Jellyfin's backup folder go: those that are stored and verified, but for the newest, and that one too
 * when the engine would have too little space for the next.
 * @param mirrored Names whose bytes are stored and verified; no other file is ever named here.
 */
export function decideLocalRetention(
  files: readonly EngineFile[],
  mirrored: ReadonlySet<string>,
  freeBytes: number,
): string[] {
  const safe = files
    .filter(({ fileName }) => mirrored.has(fileName))
    .sort(
      (a, b) =>
        Number(BigInt(b.stat.mtimeNs) - BigInt(a.stat.mtimeNs)) || b.fileName.localeCompare(a.fileName),
    );
  const [newest, ...older] = safe.map(({ fileName }) => fileName);
  if (newest === undefined) return [];
  const freed = safe.slice(1).reduce((sum, { stat }) => sum + stat.sizeBytes, 0);
  return freeBytes + freed < ENGINE_NEEDS_BYTES ? [newest, ...older] : older;
}
