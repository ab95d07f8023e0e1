import { mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onCleanUp } from './clean-up.ts';

/** A new empty folder, removed with everything in it at the end. */
export function makeTempDir(prefix = 'test'): string {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), `joa-${prefix}-`)));
  onCleanUp('folders', () => rmSync(dir, { recursive: true, force: true, maxRetries: 5, retryDelay: 50 }));
  return dir;
}
