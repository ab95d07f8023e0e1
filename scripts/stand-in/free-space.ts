import { statfsSync } from 'node:fs';
import type { StandInOptions } from './options.ts';
import type { Paths } from './paths.ts';

const NEEDED_TO_BOOT_BYTES = 2_147_483_647;
const NEEDED_FOR_BACKUP_BYTES = 5_368_709_115;

export function checkSpaceToBoot(paths: Paths, options: StandInOptions): void {
  for (const dir of [paths.dataDir, paths.cacheDir, paths.programDataDir]) {
    demand(dir, NEEDED_TO_BOOT_BYTES, options);
  }
}

export function checkSpaceForBackup(paths: Paths, options: StandInOptions): void {
  demand(paths.backupsDir, NEEDED_FOR_BACKUP_BYTES, options);
}

function demand(dir: string, neededBytes: number, options: StandInOptions): void {
  const freeBytes = options.freeSpaceBytes ?? freeBytesOf(dir);
  if (freeBytes < neededBytes) {
    throw new Error(
      `The path '${dir}' has insufficient free space: ${freeBytes} of at least ${neededBytes} bytes.`,
    );
  }
}

function freeBytesOf(dir: string): number {
  const { bavail, bsize } = statfsSync(dir);
  return bavail * bsize;
}
