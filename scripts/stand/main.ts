import { join } from 'node:path';
import { mkdir } from 'node:fs/promises';
import { startAzurite } from '../../tests/support/azurite.ts';
import { cleanUp } from '../../tests/support/clean-up.ts';
import { makeDiskTempDir } from '../../tests/support/temp-dir.ts';
import { deployedReplica } from './replica-spec.ts';
import { Report } from './report.ts';
import { SPIKE, SPIKE_TITLE } from './spike.ts';
import type { LaterApps } from './steps.ts';
import { walkThrough } from './walk.ts';
import { freePort, jellyfinOf, jellyrollerOf, makeMedia, type World } from './world.ts';

/** The walk ends by itself, also when something in it waits for ever. */
const LIMIT_MS = 5 * 60_000;

/** What an operator sets for JellyRoller. The hash only matters to the image, which is not built here. */
const RUNNER = {
  jellyrollerEnabled: 'true',
  jellyrollerSha256: '0'.repeat(64),
  // Of a server with two films; the stack's default is the client's million.
  jellyrollerMinBackupSizeBytes: '1000',
};

/** One after the other: the first chapters leave one core for them. */
async function laterApps(): Promise<LaterApps> {
  const upgraded = await deployedReplica(false, { jellyfinImage: 'ghcr.io/jellyfin/jellyfin:10.11.12' });
  const bootstrapped = await deployedReplica(true);
  return { upgraded, bootstrapped, withRunner: await deployedReplica(true, RUNNER) };
}

const report = new Report((text) => process.stdout.write(text));
report.demand(SPIKE_TITLE, Object.values(SPIKE));
const limit = setTimeout(() => {
  report.check('the walk ends in time', false, `${String(LIMIT_MS / 1000)} s are over`);
  report.finish();
  process.exit(1);
}, LIMIT_MS);

let isGood = false;
try {
  const jellyfin = jellyfinOf(process.env);
  const dir = makeDiskTempDir('stand');
  const jellyroller = jellyrollerOf(process.env, join(dir, 'bin'));
  const mediaDir = join(dir, 'media-volume');
  await mkdir(mediaDir);
  await makeMedia(mediaDir);
  const [azurite, app] = await Promise.all([startAzurite(), deployedReplica(false)]);
  const later = laterApps();
  // Said by the chapter that needs it.
  later.catch(() => undefined);
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
    jellyroller,
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
    [
      'JellyRoller',
      jellyroller.kind === 'real'
        ? jellyroller.bin
        : 'a stand-in for version 1.1.5 (JELLYROLLER_BIN=… for a real one)',
    ],
    ['replica', 'the Container App of index.ts, evaluated by the real Pulumi SDK'],
    ['agent', 'dist/agent.mjs, as init container, as sidecar and as runner'],
  ]);
  const anotherPort = await freePort();
  const elsewhere = async () => {
    const name = await azurite.createContainer();
    return {
      world: { ...world, containerName: name, jellyfinPort: anotherPort },
      store: azurite.container(name),
    };
  };
  const [second, wiped] = [await elsewhere(), await elsewhere()];
  await walkThrough({ world, store, report, app, later, second, wiped });
  isGood = true;
} catch (error) {
  report.check('the walk comes to its end', false, error instanceof Error ? error.message : String(error));
} finally {
  clearTimeout(limit);
  isGood = report.finish() && isGood;
  await cleanUp();
  process.exitCode = isGood ? 0 : 1;
}
