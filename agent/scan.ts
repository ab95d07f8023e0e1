import type { Disk, FileStat } from './ports.ts';
import { scopeOf, scopeRoots, type Profile, type Tier } from './profile.ts';

export interface ScannedEntry {
  path: string;
  tier: Tier;
  stat: FileStat;
}

export interface Scan {
  files: ScannedEntry[];
  directories: ScannedEntry[];
  /** SQLite's side files, by the path of their database. Never copied; they tell that somebody writes. */
  wals: Map<string, FileStat>;
  /** In scope by name, but links, devices or names that are not UTF-8: not backed up, and said so. */
  skipped: string[];
}

const byPath = (a: ScannedEntry, b: ScannedEntry) => (a.path < b.path ? -1 : 1);

/** Everything in scope below `dataDir`, sorted. Entries that vanish while scanning are left out. */
export async function scanTree(
  disk: Disk,
  dataDir: string,
  profile: Profile,
  includeBulk = true,
): Promise<Scan> {
  const scope = scopeOf(profile);
  const bulkRoots = new Set(profile.bulk.map((glob) => glob.slice(0, glob.indexOf('/'))));
  const scan: Scan = { files: [], directories: [], wals: new Map(), skipped: [] };
  // Two probes stand for whatever could lie in a folder: an unknown folder beside the databases is not walked, however
  // many files it holds.
  const mayHoldScope = (path: string) =>
    [`${path}/x`, `${path}/x.json`].some((probe) => scope(probe) !== undefined);

  /** Answers whether the folder is worth keeping: it holds something in scope, or is itself in scope. */
  async function walk(path: string, tier: Tier): Promise<boolean> {
    const names = (await disk.names(`${dataDir}/${path}`)) ?? [];
    let isWorthKeeping = scope(path) !== undefined;
    for (const name of names) {
      const child = `${path}/${name}`;
      const stat = await disk.stat(`${dataDir}/${child}`);
      if (stat === undefined) continue;
      if (stat.type === 'directory') {
        if (!mayHoldScope(child)) continue;
        const position = scan.directories.push({ path: child, tier, stat }) - 1;
        if (await walk(child, tier)) isWorthKeeping = true;
        else scan.directories.splice(position, 1);
        continue;
      }
      if (name.endsWith('-wal')) scan.wals.set(child.slice(0, -'-wal'.length), stat);
      const fileTier = scope(child);
      if (fileTier === undefined) continue;
      if (stat.type !== 'file' || name.includes('\uFFFD')) {
        scan.skipped.push(child);
        continue;
      }
      scan.files.push({ path: child, tier: fileTier, stat });
      isWorthKeeping = true;
    }
    return isWorthKeeping;
  }

  for (const root of scopeRoots(profile)) {
    const tier = bulkRoots.has(root) ? 'bulk' : 'essential';
    if (tier === 'bulk' && !includeBulk) continue;
    const stat = await disk.stat(`${dataDir}/${root}`);
    if (stat === undefined) continue;
    if (stat.type !== 'directory') {
      scan.skipped.push(root);
      continue;
    }
    scan.directories.push({ path: root, tier, stat });
    await walk(root, tier);
  }
  scan.files.sort(byPath);
  scan.directories.sort(byPath);
  return scan;
}

/** Differs whenever the file was written to. */
export function fileMark(stat: FileStat): string {
  return `${stat.inode}:${String(stat.sizeBytes)}:${stat.mtimeNs}`;
}

export interface Observation {
  /** Equal marks: nothing was written in between. */
  mark: string;
  /** The main database's `-wal` holds frames: the server has not closed it. */
  hasOpenWal: boolean;
}

/**
 * Whether anything changed, from the stats of the essential files, of the databases and of their `-wal`.
 *
 * Not `PRAGMA data_version`: it needs a connection that stays open, and an open reader keeps Jellyfin's last close from
 * removing the `-wal`, which is how we tell that Jellyfin has gone (facts/jellyfin.md 3.2). Artwork is not looked at:
 * Jellyfin records each image in the database too.
 */
export function observationOf(scan: Scan, profile: Profile): Observation {
  const marks = scan.files
    .filter((file) => file.tier === 'essential')
    .map((file) => `${file.path}=${fileMark(file.stat)}`);
  for (const [database, wal] of scan.wals) {
    // An empty side file says the same as none: a read-only opener that finds none creates one.
    if (wal.sizeBytes > 0) marks.push(`${database}-wal=${fileMark(wal)}`);
  }
  return {
    mark: marks.sort().join('\n'),
    hasOpenWal: (scan.wals.get(profile.mainDatabase)?.sizeBytes ?? 0) > 0,
  };
}

export async function observe(disk: Disk, dataDir: string, profile: Profile): Promise<Observation> {
  return observationOf(await scanTree(disk, dataDir, profile, false), profile);
}
