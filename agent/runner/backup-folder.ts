import type { Disk, FileStat } from '../ports.ts';
import { WORK_DIR } from '../profile.ts';
import { ENGINE_FILE_NAME } from './engine.ts';

/** Fixed: no setting of Jellyfin moves it (facts/jellyfin.md 4.3). */
export const backupsDirOf = (dataDir: string): string => `${dataDir}/data/backups`;

/** On the same volume, and where the engine does not look: an archive is renamed out of it when it is whole. */
export const stagingDirOf = (dataDir: string): string => `${dataDir}/${WORK_DIR}/jellyroller-restore`;

export interface EngineFile {
  fileName: string;
  stat: FileStat;
}

/** The files with the engine's kind of name in Jellyfin's backup folder: complete, half-written, or left behind. */
export async function engineFiles(disk: Disk, dataDir: string): Promise<EngineFile[]> {
  const dir = backupsDirOf(dataDir);
  const found: EngineFile[] = [];
  for (const fileName of (await disk.names(dir)) ?? []) {
    if (!ENGINE_FILE_NAME.test(fileName)) continue;
    const stat = await disk.stat(`${dir}/${fileName}`);
    if (stat?.type === 'file') found.push({ fileName, stat });
  }
  return found;
}
