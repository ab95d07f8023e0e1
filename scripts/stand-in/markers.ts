import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Paths } from './paths.ts';

/**
 * Each folder is claimed by a marker file, and a foreign `.jellyfin-*` file in it stops the server: two servers that
 * share a folder, a backup tool that leaves its own marker there, or a config folder that is the data folder itself.
 */
export function checkMarkers(paths: Paths): void {
  claim(paths.configDir, '.jellyfin-config');
  claim(paths.logDir, '.jellyfin-log');
  claim(paths.pluginsDir, '.jellyfin-plugin');
  claim(paths.programDataDir, '.jellyfin-data');
  claim(paths.cacheDir, '.jellyfin-cache');
  claim(paths.dataDir, '.jellyfin-data');
  claim(paths.rootDir, '.jellyfin-root');
}

function claim(dir: string, marker: string): void {
  const markers = readdirSync(dir, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.startsWith('.jellyfin-'))
    .map((entry) => entry.name);
  const foreign = markers.find((name) => name !== marker);
  if (foreign !== undefined) {
    throw new Error(`Expected to find only ${marker} but found marker for ${join(dir, foreign)}.`);
  }
  if (markers.length === 0) writeFileSync(join(dir, marker), '');
}
