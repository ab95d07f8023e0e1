import { mkdtempSync, realpathSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onCleanUp } from './clean-up.ts';

/** A new empty folder, removed with everything in it at the end. */
export function makeTempDir(prefix = 'test', parent = tmpdir()): string {
  const dir = realpathSync(mkdtempSync(join(parent, `joa-${prefix}-`)));
  onCleanUp('folders', () => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }));
  return dir;
}

const MEMORY_DIR = '/dev/shm';
const MEMORY_NEEDED_BYTES = 1024 ** 3;

/**
 * A parent for folders whose flushes need not reach a disk: memory where the machine has a file system in it with a gigabyte
 * to spare (a container's own has 64 MB), otherwise the usual one.
 */
export function memoryTempParent(): string {
  try {
    const { bavail, bsize } = statfsSync(MEMORY_DIR);
    return bavail * bsize > MEMORY_NEEDED_BYTES ? MEMORY_DIR : tmpdir();
  } catch {
    return tmpdir();
  }
}
