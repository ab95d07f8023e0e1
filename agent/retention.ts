import type { StoredBackup } from './catalog.ts';
import type { RetentionPolicy } from './config.ts';

export interface RetentionInput {
  /** Backups on the line, newest first. The first is the one that was just stored and verified. */
  line: readonly StoredBackup[];
  /** Tails, quarantined ones, and what a fenced replica still managed to publish; newest first. */
  besideLine: readonly StoredBackup[];
  policy: RetentionPolicy;
}

export interface RetentionVerdict {
  backup: StoredBackup;
  keep: boolean;
  /** Why it is kept, or that nothing keeps it. */
  reason: string;
}

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

/**
 * What to keep and what to delete, as a decision on values: no clock, no store.
 *
 * Order is by (epoch, sequence). "Newest N" counts verified backups only, so that a row of damaged ones cannot push the
 * last good one out. The last backup of each older Jellyfin version stays: no downgrade exists without it.
 */
export function decideRetention({ line, besideLine, policy }: RetentionInput): RetentionVerdict[] {
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
  const versions = new Set<string>();
  for (const backup of verified) {
    const version = backup.item.metadata['jellyfin_version'];
    if (version === undefined || versions.has(version)) continue;
    versions.add(version);
    keep(backup, `last of Jellyfin ${version}`);
  }
  for (const backup of line) {
    const ageMs = newestWrittenMs - backup.item.lastModified.getTime();
    if (ageMs < READING_GRACE_MS) keep(backup, 'a restore may be reading it');
    const reason = reasons.get(backup) ?? (canDelete ? undefined : 'no newer verified backup');
    verdicts.push({ backup, keep: reason !== undefined, reason: reason ?? 'superseded' });
  }
  for (const [index, backup] of besideLine.entries()) {
    const isRecent = newestWrittenMs - backup.item.lastModified.getTime() < BESIDE_GRACE_MS;
    const kept = !canDelete || index < BESIDE_KEEP || isRecent;
    verdicts.push({
      backup,
      keep: kept,
      reason: kept ? 'beside the line' : 'beside the line for more than a month',
    });
  }
  return verdicts;
}
