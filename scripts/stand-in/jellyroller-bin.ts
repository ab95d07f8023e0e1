import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface StandInCliOptions {
  /** How long it waits for an answer. @default 30,000 as the real one */
  timeoutMs?: number;
  /** `1.1.4`: with the misspelt header. @default '1.1.5' */
  version?: '1.1.4' | '1.1.5';
}

/**
 * Writes an executable `jellyroller` into `dir` and answers its path. What it should do is written into it: a driver hands no
 * variables of its own down. Called from the repository's root, as tests and the stand are.
 */
export function jellyrollerBinIn(dir: string, options: StandInCliOptions = {}): string {
  const { timeoutMs = 30_000, version = '1.1.5' } = options;
  const cache = join(process.cwd(), 'node_modules/.cache/stand-in');
  return writeScript(dir, [
    `export STAND_IN_JELLYROLLER_DIR='${dir}' STAND_IN_JELLYROLLER_VERSION='${version}'`,
    `export STAND_IN_JELLYROLLER_TIMEOUT_MS='${timeoutMs}' NODE_COMPILE_CACHE='${cache}'`,
    `exec '${process.execPath}' '${join(process.cwd(), 'scripts/stand-in/jellyroller.ts')}' "$@"`,
  ]);
}

/** Any other program of that name. */
export function writeScript(dir: string, lines: readonly string[]): string {
  mkdirSync(dir, { recursive: true });
  const file = join(dir, 'jellyroller');
  writeFileSync(file, `#!/bin/sh\n${lines.join('\n')}\n`);
  chmodSync(file, 0o755);
  return file;
}
