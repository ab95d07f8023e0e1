import type { BlobItem } from '../ports.ts';
import { formatBytes, formatTable } from '../table.ts';
import { MIRROR_PREFIX, parseMirrorName } from './mirror-name.ts';

export interface ArchiveRow {
  name: string;
  sizeBytes: number;
  timeUtc: string | null;
  jellyfinVersion: string | null;
  sha256: string | null;
  /** When it was read back whole, `null` while it was not. */
  verifiedUtc: string | null;
  damaged: string | null;
}

/** The mirrored archives, newest first by the time that each states. */
export function archiveRows(items: readonly BlobItem[]): ArchiveRow[] {
  return items
    .filter(({ name }) => parseMirrorName(name) !== undefined)
    .map(({ name, sizeBytes, metadata }) => ({
      name,
      sizeBytes,
      timeUtc: metadata['timestamp_utc'] ?? null,
      jellyfinVersion: metadata['jellyfin_version'] ?? null,
      sha256: metadata['sha256'] ?? null,
      verifiedUtc: metadata['verified_utc'] ?? null,
      damaged: metadata['damaged'] ?? null,
    }))
    .sort((a, b) => (b.timeUtc ?? '').localeCompare(a.timeUtc ?? '') || b.name.localeCompare(a.name));
}

/** A table of its own below the one of the tar backups; empty when there is no archive. */
export function archiveTable(rows: readonly ArchiveRow[]): string {
  if (rows.length === 0) return '';
  const cells = rows.map((row) => [
    row.name,
    formatBytes(row.sizeBytes),
    row.timeUtc?.slice(0, 19).replace('T', ' ') ?? '-',
    row.jellyfinVersion ?? '-',
    row.damaged !== null ? 'DAMAGED' : (row.verifiedUtc?.slice(0, 10) ?? '-'),
    row.sha256 ?? '-',
  ]);
  return `\nBelow ${MIRROR_PREFIX}, for agent jellyroller restore:\n${formatTable(['NAME', 'SIZE', 'MADE (UTC)', 'JELLYFIN', 'READ BACK', 'SHA-256'], cells)}`;
}
