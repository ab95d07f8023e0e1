import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { CONTAINER } from '../../agent/contract.ts';
import { JellyfinClient } from './jellyfin-client.ts';
import { jellyroller } from './jellyroller.ts';
import { operatorsWishes } from './operator.ts';
import { overlaps } from './overlaps.ts';
import { Replica } from './replica.ts';
import {
  ADMIN,
  blobNames,
  CHANGE_WINDOW_MS,
  coldStart,
  describeState,
  nextBackup,
  signInAfter,
  signInAsAdmin,
  stateOf,
  stop,
  urlOf,
  type ServerState,
  type Walk,
} from './steps.ts';

async function firstBootAndUse(
  walk: Walk,
): Promise<{ token: string; before: ServerState; movies: { id: string; name: string }[]; replica: Replica }> {
  const { report, store, world } = walk;
  report.chapter('First boot: an empty store, an empty volume');
  const replica = await coldStart(walk, 1);
  const client = new JellyfinClient(urlOf(world));
  const { StartupWizardCompleted } = await client.publicInfo();
  report.check(
    'first boot shows the wizard',
    !StartupWizardCompleted,
    `StartupWizardCompleted: ${String(StartupWizardCompleted)}`,
  );
  await sleep(CHANGE_WINDOW_MS + 1_500);
  const early = await blobNames(store, 'backup-');
  report.check(
    'an unconfigured server is not backed up',
    early.length === 0,
    `${String(early.length)} backups`,
  );

  report.chapter('Somebody sets it up and uses it');
  const configured = nextBackup(walk, replica);
  await client.completeWizard(ADMIN.name, ADMIN.password);
  const userId = await client.logIn(ADMIN.name, ADMIN.password);
  await client.createApiKey('stand');
  await client.addLibrary('Movies', join(world.mediaDir, 'movies'));
  let movies = await client.movies(userId);
  for (let waited = 0; movies.length === 0 && waited < 300; waited += 1) {
    await sleep(200);
    movies = await client.movies(userId);
  }
  report.event('a person', `completed the wizard, added a library with ${String(movies.length)} films`);
  await configured;
  const [first] = movies;
  if (first === undefined) throw new Error('the library scan found no film');
  await client.markPlayed(userId, first.id);
  report.event('a person', `watched ${first.name}`);
  await nextBackup(walk, replica);
  return { token: client.token ?? '', before: await stateOf(client, userId), movies, replica };
}

async function scaleToZero(
  walk: Walk,
  replica: Replica,
  client: JellyfinClient,
  movies: { id: string; name: string }[],
) {
  const { report } = walk;
  report.chapter('Scale to zero, with a write just before it');
  const userId = await client.logIn(ADMIN.name, ADMIN.password);
  const last = movies[1] ?? movies[0];
  if (last === undefined) throw new Error('no film');
  await client.markPlayed(userId, last.id);
  report.event('a person', `watched ${last.name}`);
  const before = await stateOf(client, userId);
  const token = client.token ?? '';
  const exitCode = await stop(walk, replica);
  report.check('the sidecar says that the last write is stored', exitCode === 0, `exit ${String(exitCode)}`);
  return { before, token };
}

async function killed(walk: Walk, replica: Replica, movies: { id: string; name: string }[]): Promise<void> {
  const { report, world } = walk;
  report.chapter('Killed without warning: kill -9 of the whole replica');
  const client = new JellyfinClient(urlOf(world));
  await client.logIn(ADMIN.name, ADMIN.password);
  await client.createApiKey('before the window');
  report.event('a person', 'created an API key');
  await sleep(CHANGE_WINDOW_MS + 2_500);
  await client.createApiKey('in the window');
  report.event('a person', 'created another one, and at once');
  const keysBefore = await client.apiKeys();
  const seen = { token: client.token ?? '', serverId: (await client.publicInfo()).Id };
  await replica.kill();
  report.event('platform', 'SIGKILL to all');
  const next = await coldStart(walk, replica.number + 1);
  const { client: again, userId } = await signInAfter(walk, seen, 'after kill -9');
  const keys = await again.apiKeys();
  const lost = keysBefore.filter((key) => !keys.includes(key)).map((key) => key.split(':')[0] ?? '');
  const isWithinWindow = lost.every((name) => name === 'in the window');
  report.check(
    'at most the change window is lost',
    isWithinWindow,
    lost.length === 0 ? 'nothing lost' : `lost: ${lost.join(', ')}`,
  );
  const played = (await stateOf(again, userId)).played.length;
  report.check(
    'watched films survive the kill',
    played === Math.min(2, movies.length),
    `${String(played)} of ${String(Math.min(2, movies.length))}`,
  );
  await stop(walk, next);
}

async function storeFaults(walk: Walk): Promise<void> {
  const { report, store, world } = walk;
  report.chapter('A store that lies, and a store that does not answer');
  const damaged = 'backup-29991231235959.e9999.s1.tar.zst';
  await store
    .getBlockBlobClient(damaged)
    .upload('not an archive', 14, { metadata: { sha256: '0'.repeat(64), size: '14' } });
  const replica = new Replica(walk.app, world, 90);
  const { exit, log } = await replica.init();
  const restored = log.find((line) => line['msg'] === 'restored');
  report.check(
    'a damaged newest backup is passed over',
    exit.code === 0 && restored !== undefined,
    `exit ${String(exit.code)}: ${String(restored?.['restoredFrom'])}`,
  );
  await store.deleteBlob(damaged);

  const dead = world.connectionString.replace(/(BlobEndpoint=http:\/\/127\.0\.0\.1:)\d+/, '$11');
  const offline = new Replica(walk.app, world, 91);
  const refused = await offline.init({ AZURE_STORAGE_CONNECTION_STRING: dead });
  const left = (await readdir(offline.dataDir)).filter((name) => name !== '.agent');
  report.check(
    'no answer is not "no backup": no empty server',
    refused.exit.code === 3 && left.length === 0,
    `exit ${String(refused.exit.code)}, volume empty`,
  );
}

async function openWithTar(walk: Walk): Promise<void> {
  const { report, store, world } = walk;
  report.chapter('Without our program: plain tar');
  const newest = (await blobNames(store, 'backup-')).sort().at(-1) ?? '';
  const file = join(world.dir, 'newest.tar.zst');
  await store.getBlobClient(newest).downloadToFile(file);
  // The one thing that this machine may lack; the archive format is tested with Node alone as well.
  const listed = await promisify(execFile)('tar', ['--zstd', '-tf', file]).then(
    ({ stdout }) => stdout.split('\n'),
    (error: unknown) => `tar --zstd is not available here (${(error as Error).message.split('\n')[0] ?? ''})`,
  );
  if (typeof listed === 'string') {
    report.event('tar', listed);
    return;
  }
  report.check(
    'tar --zstd -tf lists the manifest first',
    listed[0] === 'manifest.json',
    `${listed.slice(0, 3).join(', ')}, … ${String(listed.length - 1)} entries`,
  );
}

/** The stack's default: nobody ever sees the wizard of a server on a public address. */
async function bootstrapped(walk: Walk): Promise<void> {
  const { report } = walk;
  const here = { ...walk, ...walk.second, app: (await walk.later).bootstrapped };
  report.chapter('A brand-new server as `pulumi up` deploys it: with a generated administrator');
  const replica = await coldStart(here, 80);
  await nextBackup(walk, replica);
  const said = (msg: string) =>
    replica.container(CONTAINER.backup).lines.find(({ json }) => json?.['msg'] === msg)?.json;
  const timeOf = (msg: string) => Date.parse(String(said(msg)?.['time']));
  const openMs = timeOf('setup wizard completed') - timeOf('jellyfin is healthy');
  report.event(CONTAINER.backup, `closed the wizard ${String(openMs)} ms after it saw the server healthy`);
  const { StartupWizardCompleted } = await new JellyfinClient(urlOf(here.world)).publicInfo();
  report.check(
    'the sidecar completes the wizard',
    StartupWizardCompleted,
    `StartupWizardCompleted: ${String(StartupWizardCompleted)}`,
  );
  const { client } = await signInAsAdmin(here);
  const libraries = await client.libraries();
  report.check(
    'its administrator signs in and finds the folders of the share',
    libraries.join() === 'Movies',
    `libraries ${libraries.join(', ')}`,
  );
  const keys = (await client.apiKeys()).map((key) => key.split(':')[0]);
  report.check('one API key for the runner', keys.join() === 'JellyRoller', `keys ${keys.join(', ')}`);
  await stop(walk, replica);
}

/** The client's success criteria, one after the other, on one machine. */
export async function walkThrough(walk: Walk): Promise<void> {
  const { report, world } = walk;
  const { before: used, movies, replica: first } = await firstBootAndUse(walk);
  report.event('a person', `sees: ${describeState(used)}`);
  const { before, token } = await scaleToZero(walk, first, new JellyfinClient(urlOf(world)), movies);

  report.chapter('Cold start: a new replica, an empty volume');
  const second = await coldStart(walk, 2);
  const seen = { token, serverId: before.serverId };
  const { client, userId } = await signInAfter(walk, seen, 'after scale to zero');
  const after = await stateOf(client, userId);
  const isSame = JSON.stringify({ ...after, keys: [] }) === JSON.stringify({ ...before, keys: [] });
  report.check('users, libraries and watched films are there', isSame, describeState(after));
  report.check(
    'API keys are there',
    JSON.stringify(after.keys) === JSON.stringify(before.keys),
    `${String(after.keys.length)} key`,
  );
  report.check(
    'the last write before SIGTERM is there',
    after.played.length === Math.min(2, movies.length),
    `played: ${after.played.join(', ')}`,
  );

  await killed(walk, second, movies);
  await overlaps(walk);
  await operatorsWishes(walk);
  await bootstrapped(walk);
  await jellyroller(walk);
  await storeFaults(walk);
  await openWithTar(walk);
}
