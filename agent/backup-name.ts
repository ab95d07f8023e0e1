/** Where a backup stands: on the line, or beside it. */
export type Placement = 'line' | 'tail' | 'quarantine';

export interface BackupName {
  placement: Placement;
  epoch: number;
  sequence: number;
  /** `YYYYMMDDHHMMSS` in UTC; for people, never for order. */
  stamp: string;
}

const FOLDER: Record<Placement, string> = { line: '', tail: 'tail/', quarantine: 'quarantine/' };
const PATTERN = /^(tail\/|quarantine\/)?backup-(\d{14})\.e(\d{1,9})\.s(\d{1,9})\.tar\.zst$/;

/** `YYYYMMDDHHMMSS` of a moment, in UTC. */
export function stampOf(date: Date): string {
  return date.toISOString().replace(/\D/g, '').slice(0, 14);
}

export function formatBackupName(name: BackupName): string {
  return `${FOLDER[name.placement]}backup-${name.stamp}.e${String(name.epoch)}.s${String(name.sequence)}.tar.zst`;
}

/** The parts of a blob name that this program writes, or `undefined` for any other name. */
export function parseBackupName(blob: string): BackupName | undefined {
  const match = PATTERN.exec(blob);
  if (match === null) return undefined;
  const [, folder, stamp = '', epoch, sequence] = match;
  const placement = folder === undefined ? 'line' : folder === 'tail/' ? 'tail' : 'quarantine';
  return { placement, stamp, epoch: Number(epoch), sequence: Number(sequence) };
}

/** What the client's first set-ups wrote (spec/, sixth implementation and before). */
export type LegacyName = { kind: 'tarGz'; stamp: string } | { kind: 'folder'; stamp: string; path: string };

export function parseLegacyName(blob: string): LegacyName | undefined {
  const tar = /^backup-(\d{14})\.tar\.gz$/.exec(blob);
  if (tar?.[1] !== undefined) return { kind: 'tarGz', stamp: tar[1] };
  const folder = /^backup-(\d{14})\/(.+)$/.exec(blob);
  if (folder?.[1] !== undefined && folder[2] !== undefined)
    return { kind: 'folder', stamp: folder[1], path: folder[2] };
  return undefined;
}
