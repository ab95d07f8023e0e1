import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { startAzurite } from '../../tests/support/azurite.ts';
import { cleanUp } from '../../tests/support/clean-up.ts';
import { makeDiskTempDir } from '../../tests/support/temp-dir.ts';
import { deployedReplica } from './replica-spec.ts';
import { Report } from './report.ts';
import { walkThrough } from './walk.ts';
import { freePort, jellyfinOf, makeMedia, type World } from './world.ts';

/** The walk ends by itself, also when something in it waits for ever. */
const LIMIT_MS = 5 * 60_000;

const report = new Report((text) => process.stdout.write(text));
const limit = setTimeout(() => {
  report.check('the walk ends in time', false, `${String(LIMIT_MS / 1000)} s are over`);
  report.finish();
  process.exit(1);
}, LIMIT_MS);

let isGood = false;
try {
  const jellyfin = jellyfinOf(process.env);
  const dir = makeDiskTempDir('stand');
  const mediaDir = join(dir, 'media-volume');
  await mkdir(mediaDir);
  await makeMedia(mediaDir);
  const [azurite, app, bootstrappedApp, upgraded] = await Promise.all([
    startAzurite(),
    deployedReplica(false),
    deployedReplica(true),
    deployedReplica(false, { jellyfinImage: 'ghcr.io/jellyfin/jellyfin:10.11.12' }),
  ]);
  const containerName = 'jellyfin-backups';
  const store = azurite.container(containerName);
  await store.create();
  const world: World = {
    dir,
    mediaDir,
    connectionString: azurite.connectionString,
    containerName,
    jellyfinPort: await freePort(),
    jellyfin,
  };
  report.headline('Jellyfin on Azure, on this machine', [
    ['Blob account', `Azurite on 127.0.0.1:${String(azurite.port)}, container ${containerName}`],
    ['EmptyDir', `${dir}/replica-N/data-volume, a new one for each replica`],
    [
      'Jellyfin',
      jellyfin.kind === 'real'
        ? jellyfin.bin
        : 'a stand-in with a real WAL database (JELLYFIN_BIN=… for a real one)',
    ],
    ['replica', 'the Container App of index.ts, evaluated by the real Pulumi SDK'],
    ['agent', 'dist/agent.mjs, as init container and as sidecar'],
  ]);
  const second = { ...world, containerName: await azurite.createContainer(), jellyfinPort: await freePort() };
  const bootstrapped = { app: bootstrappedApp, world: second };
  await walkThrough({ world, store, report, app, bootstrapped, upgraded });
  isGood = true;
} catch (error) {
  report.check('the walk comes to its end', false, error instanceof Error ? error.message : String(error));
} finally {
  clearTimeout(limit);
  isGood = report.finish() && isGood;
  await cleanUp();
  process.exitCode = isGood ? 0 : 1;
}
