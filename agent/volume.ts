import type { Disk } from './ports.ts';
import { WORK_DIR, type Profile } from './profile.ts';

/** What this volume is and where it came from. Written before the first byte of a restore and after the last. */
export interface VolumeMarker {
  format: 1;
  state: 'restoring' | 'complete';
  origin: 'first_boot' | 'restored' | 'adopted';
  /** The epoch in which this volume's server may publish; 0 while restoring. */
  epoch: number;
  holder: string;
  /** The backup on it, for people. */
  restoredFrom: string | null;
  writtenUtc: string;
  /** The image has the version that made the restored backup: its start migrates nothing. */
  sameVersion?: boolean;
  /** Of the restored backup; as long as the volume has it, there is nothing to store. */
  treeDigest?: string;
  /** Jellyfin answered `Healthy` on this volume: what lies here is more than a half-finished migration. */
  seenHealthyUtc?: string;
  /** Of the image; of the server, once it was seen. */
  jellyfinVersion?: string;
  /** The newest sequence number that was handed out on this volume, whether or not its backup was stored. */
  lastSequence?: number;
  serverId?: string;
  /**
   * How far the agent came in setting up a brand-new server. `wizard`: it began; `libraries`: the wizard is closed, by us;
   * `done`: nothing is left to do. Absent: the agent never changed anything on it.
   */
  bootstrap?: 'wizard' | 'libraries' | 'done';
}

export type VolumeState =
  | { kind: 'live'; marker: VolumeMarker }
  | { kind: 'prepared'; marker: VolumeMarker }
  | { kind: 'empty' }
  | { kind: 'half_restored' }
  | { kind: 'foreign'; why: string };

const markerFile = (dataDir: string) => `${dataDir}/${WORK_DIR}/volume.json`;

/** The marker, or `undefined` when there is none; `'unreadable'` when it is not ours. */
export async function readMarker(
  disk: Disk,
  dataDir: string,
): Promise<VolumeMarker | 'unreadable' | undefined> {
  const file = await disk.readStable(markerFile(dataDir));
  if (file === undefined) return undefined;
  try {
    const marker = JSON.parse(new TextDecoder().decode(file.bytes)) as Partial<VolumeMarker> | null;
    const isKnown = marker?.format === 1 && (marker.state === 'restoring' || marker.state === 'complete');
    return isKnown && Number.isSafeInteger(marker.epoch) ? (marker as VolumeMarker) : 'unreadable';
  } catch {
    return 'unreadable';
  }
}

export async function writeMarker(disk: Disk, dataDir: string, marker: VolumeMarker): Promise<void> {
  await disk.makeDir(`${dataDir}/${WORK_DIR}`);
  await disk.replace(markerFile(dataDir), new TextEncoder().encode(`${JSON.stringify(marker, null, 1)}\n`));
}

/** The first thing below `dir` that is not a folder, relative to `dir`. */
async function firstFile(disk: Disk, dir: string, prefix = ''): Promise<string | undefined> {
  for (const name of (await disk.names(dir)) ?? []) {
    const stat = await disk.stat(`${dir}/${name}`);
    if (stat === undefined) continue;
    if (stat.type !== 'directory') return `${prefix}${name}`;
    const found = await firstFile(disk, `${dir}/${name}`, `${prefix}${name}/`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Names at the top of the volume that belong neither to the agent nor to what a restore never touches. */
export async function contentNames(disk: Disk, dataDir: string, profile: Profile): Promise<string[]> {
  const names = (await disk.names(dataDir)) ?? [];
  return names.filter((name) => name !== WORK_DIR && !profile.untouched.includes(name));
}

async function firstContentFile(disk: Disk, dataDir: string, profile: Profile): Promise<string | undefined> {
  for (const name of await contentNames(disk, dataDir, profile)) {
    const stat = await disk.stat(`${dataDir}/${name}`);
    if (stat !== undefined && stat.type !== 'directory') return name;
    const found = await firstFile(disk, `${dataDir}/${name}`, `${name}/`);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** A side file without its database: SQLite would replay it into whatever database is put beside it. */
async function strayWal(disk: Disk, dataDir: string): Promise<string | undefined> {
  const names = (await disk.names(`${dataDir}/data`)) ?? [];
  return names.find(
    (name) => /-(wal|journal)$/.test(name) && !names.includes(name.replace(/-(wal|journal)$/, '')),
  );
}

/** What lies on the volume. Reads only. */
export async function readVolumeState(disk: Disk, dataDir: string, profile: Profile): Promise<VolumeState> {
  const marker = await readMarker(disk, dataDir);
  if (marker === 'unreadable') return { kind: 'foreign', why: `${WORK_DIR}/volume.json is not readable` };
  if (marker?.state === 'restoring') return { kind: 'half_restored' };
  const found = await firstContentFile(disk, dataDir, profile);
  if (found === undefined)
    return marker?.origin === 'first_boot' ? { kind: 'prepared', marker } : { kind: 'empty' };
  if (marker === undefined) return { kind: 'foreign', why: `${found} was not put there by a restore` };
  const stray = await strayWal(disk, dataDir);
  if (stray !== undefined) return { kind: 'foreign', why: `data/${stray} has no database beside it` };
  const hasDatabase = (await disk.stat(`${dataDir}/${profile.mainDatabase}`)) !== undefined;
  const hasSettings = (await disk.stat(`${dataDir}/${profile.settingsFile}`)) !== undefined;
  if (hasDatabase && hasSettings) return { kind: 'live', marker };
  // Jellyfin was stopped in its very first seconds: nothing of a user can be there yet.
  if (marker.origin === 'first_boot' && !hasDatabase) return { kind: 'prepared', marker };
  const missing = hasDatabase ? profile.settingsFile : profile.mainDatabase;
  return { kind: 'foreign', why: `${missing} is missing on a volume that was complete` };
}
