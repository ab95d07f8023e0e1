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
import { JellyfinClient } from './jellyfin-client.ts';
import type { Replica } from './replica.ts';
import { SPIKE } from './spike.ts';
import {
  blobNames,
  coldStart,
  describeState,
  keyNames,
  nextBackup,
  operate,
  stateOf,
  stop,
  urlOf,
  type ServerState,
  type Walk,
} from './steps.ts';

const GUEST = { name: 'guest', password: 'battery staple horse' };
/** The stack refuses less than five minutes, for the alert; the runner itself does not. */
const SHORT_INTERVAL = { [ENV.backupIntervalSeconds]: '6' };
const SCAN_WITHIN_MS = 30_000;

interface Archived {
  run: Run;
  /** What the server held when it was made. */
  state: ServerState;
}

/** The generated administrator of the stack. */
function adminOf({ withRunner: { secrets } }: Walk): { name: string; password: string } {
  return {
    name: secrets.get('jellyfin-admin-user') ?? '',
    password: secrets.get('jellyfin-admin-password') ?? '',
  };
}

async function signInAsAdmin(walk: Walk): Promise<{ client: JellyfinClient; userId: string }> {
  const { name, password } = adminOf(walk);
  const client = new JellyfinClient(urlOf(walk.world));
  return { client, userId: await client.logIn(name, password) };
}

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
  const here = { ...walk, ...walk.bootstrapped, app: walk.withRunner };
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
    adminOf(walk).password,
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

interface Restored {
  backedUpFirst: string | null;
  checks: { what: string; ok: boolean; is: string }[];
}

/** What the guardrails refuse, in the runner's container. */
async function refusals(there: Walk, replica: Replica): Promise<void> {
  const { report, store } = there;
  const before = await blobNames(store, 'jellyroller/');
  const once = (env: Record<string, string>) =>
    replica.exec(CONTAINER.jellyroller, ['jellyroller', '--once'], env);
  const tooSmall = await once({ [ENV.minBackupSizeBytes]: '1000000000' });
  const after = await blobNames(store, 'jellyroller/');
  report.check(
    SPIKE.floor,
    tooSmall.code === 4 && after.length === before.length,
    `with MIN_BACKUP_SIZE_BYTES=1000000000: exit ${String(tooSmall.code)}, nothing stored`,
  );
  const isOff = await once({ [ENV.jellyrollerEnabled]: 'false' });
  report.check(
    SPIKE.gate,
    isOff.code === 2 &&
      !there.bootstrapped.app.template.containers.some(({ name }) => name === CONTAINER.jellyroller),
    `"false": exit ${String(isOff.code)}; no such container without jellyrollerEnabled`,
  );
}

/** The volume and every tar backup are gone; another server has come up in their place. */
async function restoreOnWiped(walk: Walk, { run, state }: Archived): Promise<Walk> {
  const { report } = walk;
  report.chapter('The volume and all tar backups are lost: back from the archive');
  const there = { ...walk, ...walk.wiped, app: walk.withRunner };
  const file = join(there.world.dir, 'saved.zip');
  const { metadata } = await download(walk.bootstrapped.store, run.name, file);
  await there.store.getBlockBlobClient(run.name).uploadFile(file, { metadata });
  report.event('Blob', `another container, in it only ${run.name}`);
  const replica = await coldStart(there, 82);
  const runner = replica.container(CONTAINER.jellyroller);
  await nextRun(report, runner, 0);
  const stranger = (await signInAsAdmin(there)).client;
  await stranger.createApiKey('of the empty server');
  const wipedId = (await stranger.publicInfo()).Id;
  report.event(
    'jellyfin',
    `another server, id ${wipedId.slice(0, 8)}…, users ${(await stranger.userNames()).join(', ')}`,
  );
  await refusals(there, replica);

  report.event('an operator', `agent jellyroller restore ${run.name}, in the container of the runner`);
  const { code, stdout, stderr } = await replica.exec(CONTAINER.jellyroller, [
    'jellyroller',
    'restore',
    run.name,
    '--json',
  ]);
  if (code !== 0) throw new Error(`agent jellyroller restore exited ${String(code)}: ${stderr}`);
  const { backedUpFirst, checks } = JSON.parse(stdout) as Restored;
  report.event('agent', checks.map(({ what, is }) => `${what}: ${is}`).join('; '));
  const { backups } = await operate<{ backups: { name: string }[] }>(there, ['list']);
  report.check(
    'the state before that restore is in a tar backup, named in the answer',
    backedUpFirst !== null && backups.some(({ name }) => name === backedUpFirst),
    backedUpFirst ?? 'none',
  );
  const { Id, StartupWizardCompleted } = await new JellyfinClient(urlOf(there.world)).publicInfo();
  report.check(
    SPIKE.loginScreen,
    StartupWizardCompleted,
    `StartupWizardCompleted: ${String(StartupWizardCompleted)}`,
  );
  const { client, userId } = await signInAsAdmin(there);
  const found = await stateOf(client, userId);
  await new JellyfinClient(urlOf(there.world)).logIn(GUEST.name, GUEST.password);
  report.check(SPIKE.expectedData, isSame(found, state), `${describeState(found)}; ${GUEST.name} signs in`);
  report.event(
    'jellyfin',
    `id ${Id.slice(0, 8)}…: ${Id === wipedId ? 'still that of the new server' : 'another'}; the archive has no id, no plugins`,
  );

  await runner.kill();
  report.event('platform', `SIGKILL to ${CONTAINER.jellyroller}`);
  const next = nextBackup(there, replica);
  await client.createApiKey('without the runner');
  report.event('a person', 'created an API key');
  await next;
  const exitCode = await stop(there, replica);
  report.check(
    'the sidecar goes on with the restored server, and without the runner',
    exitCode === 0,
    `a tar backup more, exit ${String(exitCode)}`,
  );
  return there;
}

/** All but the server's id, which the engine does not save (facts/jellyfin.md 4.2). */
function isSame(found: ServerState, expected: ServerState): boolean {
  return JSON.stringify({ ...found, serverId: '' }) === JSON.stringify({ ...expected, serverId: '' });
}

async function off(there: Walk, { state }: Archived): Promise<void> {
  const { report } = there;
  report.chapter('JellyRoller off again: the tar backups go on from there');
  const here = { ...there, app: there.bootstrapped.app };
  const names = here.app.template.containers.map(({ name }) => name);
  report.check(
    'without jellyrollerEnabled there is no runner',
    !names.includes(CONTAINER.jellyroller),
    `containers ${names.join(', ')}`,
  );
  const replica = await coldStart(here, 83);
  const { client, userId } = await signInAsAdmin(here);
  const found = await stateOf(client, userId);
  const more = found.keys.filter((key) => !state.keys.includes(key)).map((key) => key.split(':')[0]);
  const without = { ...found, keys: found.keys.filter((key) => state.keys.includes(key)) };
  report.check(
    SPIKE.tarFallback,
    isSame(without, state) && more.join() === 'without the runner',
    `cold start from a tar backup: ${describeState(found)}; keys ${(await keyNames(client)).join(', ')}`,
  );
  await stop(here, replica);
}

/** The client's spike: an archive of Jellyfin's own engine, there and back (spike.ts). */
export async function jellyroller(walk: Walk): Promise<void> {
  const archived = await makeArchives(walk);
  const there = await restoreOnWiped(walk, archived);
  await off(there, archived);
}
