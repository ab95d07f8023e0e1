import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONTAINER, ENV } from '../../agent/contract.ts';
import { formatBytes } from '../../agent/table.ts';
import { environmentOf, type DeployedApp } from '../deployed-app.ts';
import {
  betweenMs,
  download,
  fileOf,
  getBackups,
  healthLine,
  localFile,
  missingInLog,
  nextRun,
  placeOf,
  wrongMetadata,
  type Run,
} from './archives.ts';
import { GUEST, restoreOnWiped, turnOff, type Archived } from './jellyroller-restore.ts';
import type { Replica } from './replica.ts';
import { SPIKE } from './spike.ts';
import { adminOf, blobNames, coldStart, signInAsAdmin, stateOf, stop, type Walk } from './steps.ts';

/** The stack refuses less than five minutes, for the alert; the runner itself does not. */
const SHORT_INTERVAL = { [ENV.backupIntervalSeconds]: '6' };
const SCAN_WITHIN_MS = 30_000;

/** Of the runner's container, as the app says it. */
function runnerEnv(app: DeployedApp): Record<string, string> {
  const container = app.template.containers.find(({ name }) => name === CONTAINER.jellyroller);
  if (container === undefined) throw new Error(`the app has no container ${CONTAINER.jellyroller}`);
  return environmentOf(app, container);
}

async function firstArchive(here: Walk, replica: Replica, run: Run): Promise<void> {
  const { app, report, store, world } = here;
  const { [ENV.minBackupSizeBytes]: floor = '', [ENV.startupDelaySeconds]: delay = '' } = runnerEnv(app);
  const runner = replica.container(CONTAINER.jellyroller);
  const { client } = await signInAsAdmin(here);
  const [onDisk, listed] = await Promise.all([
    fileOf(localFile(replica.dataDir, run)),
    getBackups(world, (await client.apiKeys())[0]?.split(':')[1] ?? ''),
  ]);
  const sizeBytes = onDisk?.sizeBytes ?? 0;
  report.check(
    SPIKE.onDisk,
    sizeBytes >= Number(floor),
    `${run.fileName}, ${formatBytes(sizeBytes)}, at least ${formatBytes(Number(floor))} here`,
  );
  report.check(
    SPIKE.listed,
    listed.some(({ fileName }) => fileName === run.fileName),
    `jellyroller get-backups -o json: ${listed.map(({ fileName }) => fileName).join(', ')}`,
  );
  const { Version } = await client.publicInfo();
  const back = await download(store, run.name, join(world.dir, 'downloaded.zip'));
  const wrong = wrongMetadata(back.metadata, { sizeBytes, sha256: onDisk?.sha256 ?? '' }, Version);
  report.check(
    SPIKE.mirrored,
    wrong.length === 0,
    wrong.length === 0
      ? `${run.name}: source, size, sha256, jellyfin_version ${Version}, timestamp_utc`
      : `${run.name} without the right ${wrong.join(', ')}`,
  );
  report.check(
    SPIKE.roundTrip,
    back.sha256 === back.metadata['sha256'] && back.sha256 === onDisk?.sha256,
    `sha256 ${back.sha256.slice(0, 12)}… downloaded, ${String(back.metadata['sha256']).slice(0, 12)}… in the metadata, ${String(onDisk?.sha256).slice(0, 12)}… on disk`,
  );

  const waitedMs = betweenMs(runner.lines, 'jellyfin is healthy', 'run starts');
  report.check(
    SPIKE.delay,
    waitedMs >= Number(delay) * 1_000,
    `${String(waitedMs)} ms after Jellyfin was healthy, ${delay} s set`,
  );
  const missing = missingInLog(run.lines);
  report.check(
    SPIKE.log,
    missing.length === 0,
    missing.length === 0 ? 'all of it' : `no ${missing.join(', ')}`,
  );
  const line = healthLine(run.lines);
  report.check(SPIKE.healthLine, line !== undefined, line ?? 'no such line');
}

/** A guest, an API key and a film that was watched. */
async function use(here: Walk): Promise<void> {
  const { client, userId } = await signInAsAdmin(here);
  await client.addUser(GUEST.name, GUEST.password);
  await client.createApiKey('in the archive');
  let [film] = await client.movies(userId);
  for (let waitedMs = 0; film === undefined && waitedMs < SCAN_WITHIN_MS; waitedMs += 200) {
    await sleep(200);
    [film] = await client.movies(userId);
  }
  if (film === undefined) throw new Error('the library scan found no film');
  await client.markPlayed(userId, film.id);
  here.report.event('a person', `added the user ${GUEST.name} and an API key, watched ${film.name}`);
}

async function makeArchives(walk: Walk): Promise<Archived> {
  const { report } = walk;
  report.chapter("JellyRoller on: the backups of Jellyfin's own engine, beside the tar backups");
  const here = { ...walk, ...walk.second, app: (await walk.later).withRunner };
  const tarBackups = (await blobNames(here.store, 'backup-')).length;
  const replica = await coldStart(here, 81, { runnerEnv: SHORT_INTERVAL });
  const runner = replica.container(CONTAINER.jellyroller);
  await firstArchive(here, replica, await nextRun(report, runner, 0));
  await use(here);
  const run = await nextRun(report, runner, runner.lines.length);
  const stored = placeOf(run.lines, 'stored and read back');
  const removed = placeOf(run.lines, 'local archive removed: it is stored');
  report.check(
    SPIKE.prune,
    stored >= 0 && removed > stored && placeOf(run.lines, 'retention') > stored,
    'read back whole, then the older archive in the folder went',
  );
  const { client, userId } = await signInAsAdmin(here);
  const state = await stateOf(client, userId);
  const said = runner.stdout() + runner.stderr();
  const hidden = [
    adminOf(here).password,
    ...state.keys.map((key) => key.split(':')[1] ?? ''),
    /AccountKey=([^;]+)/.exec(here.world.connectionString)?.[1] ?? '',
  ];
  report.check(
    'the runner logs no password and no key',
    hidden.every((secret) => secret !== '' && !said.includes(secret)),
    `none of ${String(hidden.length)} in ${String(runner.lines.length)} lines`,
  );
  const exitCode = await stop(here, replica);
  const more = (await blobNames(here.store, 'backup-')).length - tarBackups;
  report.check(
    SPIKE.tarIntact,
    exitCode === 0 && more > 0,
    `${String(more)} tar backups more meanwhile, the last write is stored, exit ${String(exitCode)}`,
  );
  return { run, state };
}

/** The client's spike: an archive of Jellyfin's own engine, there and back (spike.ts). */
export async function jellyroller(walk: Walk): Promise<void> {
  const archived = await makeArchives(walk);
  const there = await restoreOnWiped(walk, archived);
  await turnOff(there, archived);
}
