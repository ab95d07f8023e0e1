import type { StoredBackup } from './catalog.ts';
import type { RetentionPolicy } from './config.ts';

export interface RetentionInput {
  /** Backups on the line, newest first. The first is the one that was just stored and verified. */
  line: readonly StoredBackup[];
  /** Tails, quarantined ones, and what a fenced replica still managed to publish; newest first. */
  besideLine: readonly StoredBackup[];
  policy: RetentionPolicy;
  /** The backup that the next start was asked to restore: wherever it is, it stays. */
  requested?: string | undefined;
}

export interface RetentionVerdict {
  backup: StoredBackup;
  keep: boolean;
  /** Why it is kept, or that nothing keeps it. */
  reason: string;
}

/** On a backup, and `released`: a person has let its Jellyfin version go. */
export const VERSION_HOLD_KEY = 'version_hold';

/** A restore that began while a backup was the candidate may still read it this long after it was superseded. */
const READING_GRACE_MS = 60 * 60_000;
/** Off the line is a person's business: kept for a month, and the newest few for ever. */
const BESIDE_KEEP = 10;
const BESIDE_GRACE_MS = 30 * 86_400_000;

type Bucket = (date: Date) => string;
const day: Bucket = (date) => date.toISOString().slice(0, 10);
const month: Bucket = (date) => date.toISOString().slice(0, 7);
/** Weeks begin on Monday; numbered from a Monday long ago, so that no week is split by a year's end. */
const week: Bucket = (date) => String(Math.floor((date.getTime() / 86_400_000 + 3) / 7));

/**
 * A backup counts only if it is known to have passed its checks: this agent wrote it whole (the metadata comes with the
 * atomic commit, after the checks) and no drill found it damaged since.
 */
export function isVerified(backup: StoredBackup): boolean {
  const { metadata, sizeBytes } = backup.item;
  return (
    metadata['sha256'] !== undefined &&
    metadata['size'] === String(sizeBytes) &&
    metadata['damaged'] === undefined
  );
}

/** When it was made, by its name. Only ever compared with other names: a wrong clock now deletes nothing. */
function madeAt(backup: StoredBackup): Date {
  const [, y, mo, d, h, mi, s] = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/.exec(backup.stamp) ?? [];
  const date = new Date(Date.UTC(Number(y), Number(mo) - 1, Number(d), Number(h), Number(mi), Number(s)));
  return Number.isNaN(date.getTime()) ? new Date(0) : date;
}

export interface VersionHold {
  version: string;
  /** Let go by a person: other reasons may still keep the backup, this one does not. */
  isReleased: boolean;
}

/**
 * The last verified backup of each Jellyfin version before the one that runs now. No downgrade exists without it, so it is
 * held until a person lets it go.
 * @param line Newest first.
 */
export function versionHolds(line: readonly StoredBackup[]): Map<StoredBackup, VersionHold> {
  const holds = new Map<StoredBackup, VersionHold>();
  const seen = new Set<string>();
  for (const [index, backup] of line.filter(isVerified).entries()) {
    const { jellyfin_version: version, [VERSION_HOLD_KEY]: hold } = backup.item.metadata;
    if (version === undefined || seen.has(version)) continue;
    seen.add(version);
    if (index > 0) holds.set(backup, { version, isReleased: hold === 'released' });
  }
  return holds;
}

/**
 * When the candidate before became an older one, for each backup on the line: when the first verified one above it was
 * written, in milliseconds of the service's own clock. Writing metadata moves `Last-Modified` forward only, so a backup is
 * never taken for superseded earlier than it was, only later.
 */
function supersededAt(line: readonly StoredBackup[]): Map<StoredBackup, number> {
  const times = new Map<StoredBackup, number>();
  let firstAboveMs = Number.POSITIVE_INFINITY;
  for (const backup of line) {
    times.set(backup, firstAboveMs);
    if (isVerified(backup)) firstAboveMs = Math.min(firstAboveMs, backup.item.lastModified.getTime());
  }
  return times;
}

/**
 * What to keep and what to delete, as a decision on values: no clock, no store.
 *
 * Order is by (epoch, sequence). "Newest N" counts verified backups only, so that a row of damaged ones cannot push the
 * last good one out.
 */
export function decideRetention({ line, besideLine, policy, requested }: RetentionInput): RetentionVerdict[] {
  const verdicts: RetentionVerdict[] = [];
  const [newest] = line;
  const verified = line.filter(isVerified);
  const canDelete = newest !== undefined && isVerified(newest);
  const newestWrittenMs = newest?.item.lastModified.getTime() ?? 0;
  const reasons = new Map<StoredBackup, string>();
  const keep = (backup: StoredBackup, reason: string) => {
    if (!reasons.has(backup)) reasons.set(backup, reason);
  };
  for (const [index, backup] of verified.slice(0, Math.max(1, policy.keep)).entries()) {
    keep(backup, `newest ${String(index + 1)} of ${String(policy.keep)}`);
  }
  const tiers: [string, Bucket, number][] = [
    ['daily', day, policy.daily],
    ['weekly', week, policy.weekly],
    ['monthly', month, policy.monthly],
  ];
  for (const [name, bucket, count] of tiers) {
    const newestOf = new Map<string, StoredBackup>();
    for (const backup of verified) {
      const key = bucket(madeAt(backup));
      if (!newestOf.has(key)) newestOf.set(key, backup);
    }
    for (const [key, backup] of [...newestOf].slice(0, count)) keep(backup, `${name} ${key}`);
  }
  for (const [backup, { version, isReleased }] of versionHolds(line)) {
    if (!isReleased) keep(backup, `held: last of Jellyfin ${version}`);
  }
  for (const [backup, supersededMs] of supersededAt(line)) {
    if (backup.item.name === requested) keep(backup, 'a restore of it is requested');
    if (newestWrittenMs - supersededMs < READING_GRACE_MS) keep(backup, 'a restore may be reading it');
    const reason = reasons.get(backup) ?? (canDelete ? undefined : 'no newer verified backup');
    verdicts.push({ backup, keep: reason !== undefined, reason: reason ?? 'superseded' });
  }
  for (const [index, backup] of besideLine.entries()) {
    const isRequested = backup.item.name === requested;
    const isRecent = newestWrittenMs - backup.item.lastModified.getTime() < BESIDE_GRACE_MS;
    const kept = !canDelete || index < BESIDE_KEEP || isRecent || isRequested;
    verdicts.push({
      backup,
      keep: kept,
      reason: kept ? 'beside the line' : 'beside the line for more than a month',
    });
  }
  return verdicts;
}
