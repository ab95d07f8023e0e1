import { existsSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import { jellyrollerBinIn } from '../stand-in/jellyroller-bin.ts';

/** What stands for Azure on this machine. */
export interface World {
  /** Everything the walk writes; removed at its end. */
  dir: string;
  /** The media share. */
  mediaDir: string;
  connectionString: string;
  containerName: string;
  /** One port for all replicas: they run one after the other, and the port is part of a real server's restored settings. */
  jellyfinPort: number;
  jellyfin: { kind: 'real'; bin: string } | { kind: 'stand-in' };
  jellyroller: { kind: 'real' | 'stand-in'; bin: string };
}

export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}

/** @throws When JELLYFIN_BIN names no file: a walk with the stand-in would then claim what it did not show. */
export function jellyfinOf(env: Readonly<Record<string, string | undefined>>): World['jellyfin'] {
  const bin = env['JELLYFIN_BIN'];
  if (bin === undefined || bin === '') return { kind: 'stand-in' };
  if (!existsSync(bin))
    throw new Error(
      `JELLYFIN_BIN must be the path of a Jellyfin server (it is started from there); got "${bin}"`,
    );
  return { kind: 'real', bin };
}

/**
 * JellyRoller speaks HTTP alone: a real one works with the stand-in for Jellyfin, and the other way round.
 * @param dir Where the stand-in is written.
 * @throws When JELLYROLLER_BIN names no file.
 */
export function jellyrollerOf(
  env: Readonly<Record<string, string | undefined>>,
  dir: string,
): World['jellyroller'] {
  const bin = env['JELLYROLLER_BIN'];
  if (bin === undefined || bin === '') return { kind: 'stand-in', bin: jellyrollerBinIn(dir) };
  if (!existsSync(bin))
    throw new Error(
      `JELLYROLLER_BIN must be the path of the JellyRoller binary (it is started from there); got "${bin}"`,
    );
  return { kind: 'real', bin: resolve(bin) };
}

/** Two films that are enough for a library scan. */
export async function makeMedia(dir: string): Promise<void> {
  for (const name of ['Big Buck Bunny (2008)', 'Sintel (2010)']) {
    await mkdir(join(dir, 'movies', name), { recursive: true });
    await writeFile(join(dir, 'movies', name, `${name}.mkv`), 'not really a film');
  }
}
