import { mkdtempSync, realpathSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onCleanUp } from './clean-up.ts';

const MEMORY_DIR = '/dev/shm';
const MEMORY_NEEDED_BYTES = 1024 ** 3;

/**
 * A new empty folder, removed with everything in it at the end.
 * @param parent Flushes need not reach a disk: half of the time of a restore of a small tree is flushing.
 */
export function makeTempDir(prefix = 'test', parent = memoryTempParent()): string {
  const dir = realpathSync(mkdtempSync(join(parent, `joa-${prefix}-`)));
  onCleanUp('folders', () => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }));
  return dir;
}

/** The same on a disk: for gigabytes, for a benchmark, and for what a person looks at. */
export function makeDiskTempDir(prefix: string): string {
  return makeTempDir(prefix, tmpdir());
}

/** Memory where the machine has a file system in it with a gigabyte to spare: a container's own has 64 MB. */
function memoryTempParent(): string {
  // Whoever sets it means it.
  if (process.env['TMPDIR'] !== undefined) return tmpdir();
  try {
    const { bavail, bsize } = statfsSync(MEMORY_DIR);
    return bavail * bsize > MEMORY_NEEDED_BYTES ? MEMORY_DIR : tmpdir();
  } catch {
    return tmpdir();
  }
}
