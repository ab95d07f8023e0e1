import { parseBackupName, parseLegacyName, type BackupName } from './backup-name.ts';
import { AgentError } from './errors.ts';
import type { BlobItem, BlobStore } from './ports.ts';

/** What the store holds, by name. Nothing here has been opened. */
export interface StoredBackup extends BackupName {
  format: 'tarZst';
  item: BlobItem;
  /** Stored beside the line, and put on it by a person since. */
  isReleased: boolean;
}
export interface LegacyBackup {
  format: 'tarGz' | 'folder';
  stamp: string;
  /** The blob, or the blobs below the folder. */
  items: BlobItem[];
}

export interface Catalog {
  /** Newest first, by (epoch, sequence); never by a clock. */
  line: StoredBackup[];
  tails: StoredBackup[];
  quarantined: StoredBackup[];
  /** Newest first, by the time in their name: they have nothing else. All of them are older than epoch 1. */
  legacy: LegacyBackup[];
  jellyrollerArchives: BlobItem[];
}

const MAX_PAGES = 100_000;

/**
 * Every blob once. Pages may be empty although more follow, and a service under load was seen to repeat entries.
 * @throws AgentError Whatever the store throws: a listing that could not be completed is not an empty one.
 */
export async function listAll(store: BlobStore, prefix: string, signal?: AbortSignal): Promise<BlobItem[]> {
  const found = new Map<string, BlobItem>();
  const seenTokens = new Set<string>();
  let continuation: string | undefined;
  for (let page = 0; page < MAX_PAGES; page += 1) {
    const answer = await store.listPage(prefix, continuation, signal);
    for (const item of answer.items) found.set(item.name, item);
    continuation = answer.continuation;
    if (continuation === undefined) return [...found.values()];
    if (seenTokens.has(continuation)) break;
    seenTokens.add(continuation);
  }
  throw new AgentError(
    'store_rejected',
    `list ${store.describe()} never ends: the service repeats its continuation`,
  );
}

const newestFirst = (a: StoredBackup, b: StoredBackup) =>
  b.epoch - a.epoch || b.sequence - a.sequence || b.stamp.localeCompare(a.stamp);

export function toCatalog(items: readonly BlobItem[]): Catalog {
  const stored: StoredBackup[] = [];
  const legacy = new Map<string, LegacyBackup>();
  for (const item of items) {
    const name = parseBackupName(item.name);
    if (name !== undefined) {
      stored.push({ format: 'tarZst', item, isReleased: item.metadata['released'] === 'true', ...name });
      continue;
    }
    const old = parseLegacyName(item.name);
    if (old === undefined) continue;
    const key = `${old.kind} ${old.stamp}`;
    const entry = legacy.get(key) ?? { format: old.kind, stamp: old.stamp, items: [] };
    entry.items.push(item);
    legacy.set(key, entry);
  }
  const placed = (placement: BackupName['placement']) =>
    stored
      .filter((backup) => (backup.isReleased ? 'line' : backup.placement) === placement)
      .sort(newestFirst);
  return {
    line: placed('line'),
    tails: placed('tail'),
    quarantined: placed('quarantine'),
    // A folder and an archive of one moment: the archive first, it cannot be half uploaded.
    legacy: [...legacy.values()].sort(
      (a, b) => b.stamp.localeCompare(a.stamp) || b.format.localeCompare(a.format),
    ),
    jellyrollerArchives: items.filter((item) => item.name.startsWith('jellyroller/')),
  };
}

export async function readCatalog(store: BlobStore, signal?: AbortSignal): Promise<Catalog> {
  return toCatalog(await listAll(store, '', signal));
}

/** All of them, of every format and placement. */
export function everything(catalog: Catalog): (StoredBackup | LegacyBackup)[] {
  return [...catalog.line, ...catalog.tails, ...catalog.quarantined, ...catalog.legacy];
}

export function nameOf(backup: StoredBackup | LegacyBackup): string {
  if (backup.format === 'tarZst') return backup.item.name;
  return backup.format === 'tarGz' ? `backup-${backup.stamp}.tar.gz` : `backup-${backup.stamp}/`;
}
