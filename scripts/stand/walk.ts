import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ContainerClient } from '@azure/storage-blob';
import { CONTAINER } from '../../agent/contract.ts';
import { formatBytes } from '../../agent/table.ts';
import { JellyfinClient } from './jellyfin-client.ts';
import type { DeployedApp } from '../deployed-app.ts';
import { Replica } from './replica.ts';
import type { Report } from './report.ts';
import type { World } from './world.ts';

const ADMIN = { name: 'admin', password: 'correct horse battery staple' };
const CHANGE_WINDOW_MS = 3_000;

/** What a person would miss. */
interface ServerState {
  serverId: string;
  users: string[];
  keys: string[];
  libraries: string[];
  played: string[];
}

interface Walk {
  world: World;
  store: ContainerClient;
  report: Report;
  app: DeployedApp;
  /** The same app, with the stack's default: a generated administrator. */
  bootstrapped: { app: DeployedApp; world: World };
}

const backupLine = /last_backup_utc=(\S+) size_bytes=(\d+)/;

async function blobNames(store: ContainerClient, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for await (const blob of store.listBlobsFlat({ prefix })) names.push(blob.name);
  return names;
}

/** The next backup that the sidecar reports from now on. */
async function nextBackup({ report }: Walk, replica: Replica, timeoutMs = 30_000): Promise<void> {
  const sidecar = replica.container(CONTAINER.backup);
  const line = await sidecar.waitForLine(
    ({ text }) => backupLine.test(text),
    timeoutMs,
    sidecar.lines.length,
  );
  const size = Number(backupLine.exec(line.text)?.[2] ?? 0);
  report.event(
    'backup-agent',
    `${String(line.json?.['backup'])} stored, ${formatBytes(size)}, in ${String(line.json?.['durationMs'])} ms`,
  );
}

async function stateOf(client: JellyfinClient, userId: string): Promise<ServerState> {
  const played: string[] = [];
  for (const movie of await client.movies(userId))
    if (await client.isPlayed(userId, movie.id)) played.push(movie.name);
  return {
    serverId: (await client.publicInfo()).Id,
    users: await client.userNames(),
    keys: await client.apiKeys(),
    libraries: await client.libraries(),
    played,
  };
}

function describeState({ users, keys, libraries, played }: ServerState): string {
  return `users ${users.join(', ')}; ${String(keys.length)} API key; libraries ${libraries.join(', ')}; played ${played.length === 0 ? 'nothing' : played.join(', ')}`;
}

async function coldStart(walk: Walk, number: number): Promise<Replica> {
  const { report, world } = walk;
  const replica = new Replica(walk.app, world, number);
  const { exit, log } = await replica.init();
  const restored = log.find((line) => line['msg'] === 'restored');
  const what =
    restored === undefined
      ? 'first boot'
      : `${String(restored['restoredFrom'])}, ${String(restored['files'])} files`;
  report.event(CONTAINER.restore, `exit ${String(exit.code)}: ${what}`);
  if (exit.code !== 0) throw new Error(`restore failed: ${JSON.stringify(log.at(-1))}`);
  await replica.start();
  const client = new JellyfinClient(urlOf(world));
  await client.waitHealthy();
  report.event(CONTAINER.jellyfin, 'Healthy');
  return replica;
}

const urlOf = (world: World) => `http://127.0.0.1:${String(world.jellyfinPort)}`;

/** Looks with the token of before the restart, then signs in anew. */
async function signInAfter(
  { report, world }: Walk,
  before: { token: string; serverId: string },
  when: string,
): Promise<{ client: JellyfinClient; userId: string }> {
  const { Id, StartupWizardCompleted } = await new JellyfinClient(urlOf(world)).publicInfo();
  const wizard = `StartupWizardCompleted: ${String(StartupWizardCompleted)}`;
  report.check(`login screen, not the wizard, ${when}`, StartupWizardCompleted, wizard);
  report.check(`same server, ${when}`, Id === before.serverId, `id ${Id.slice(0, 8)}…`);
  const isSignedIn = await new JellyfinClient(urlOf(world), before.token).userNames().then(
    () => true,
    () => false,
  );
  report.check(
    `browsers stay signed in, ${when}`,
    isSignedIn,
    `the old token ${isSignedIn ? 'works' : 'is refused'}`,
  );
  const client = new JellyfinClient(urlOf(world));
  return { client, userId: await client.logIn(ADMIN.name, ADMIN.password) };
}

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
  const exits = await replica.stop();
  report.event(
    'platform',
    `SIGTERM to all; exits ${[...exits].map(([name, exit]) => `${name} ${String(exit.code ?? exit.signal)}`).join(', ')}`,
  );
  report.check(
    'the sidecar says that the last write is stored',
    exits.get(CONTAINER.backup)?.code === 0,
    `exit ${String(exits.get(CONTAINER.backup)?.code)}`,
  );
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
  await next.stop();
  report.event('platform', 'SIGTERM to all');
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
  const { app, world } = walk.bootstrapped;
  report.chapter('A brand-new server as `pulumi up` deploys it: with a generated administrator');
  const replica = await coldStart({ ...walk, app, world }, 80);
  await nextBackup(walk, replica);
  const said = (msg: string) =>
    replica.container(CONTAINER.backup).lines.find(({ json }) => json?.['msg'] === msg)?.json;
  const timeOf = (msg: string) => Date.parse(String(said(msg)?.['time']));
  const openMs = timeOf('setup wizard completed') - timeOf('jellyfin is healthy');
  report.event(CONTAINER.backup, `closed the wizard ${String(openMs)} ms after it saw the server healthy`);
  const client = new JellyfinClient(urlOf(world));
  const { StartupWizardCompleted } = await client.publicInfo();
  report.check(
    'the sidecar completes the wizard',
    StartupWizardCompleted,
    `StartupWizardCompleted: ${String(StartupWizardCompleted)}`,
  );
  const secret = (name: string) => app.secrets.get(name) ?? '';
  await client.logIn(secret('jellyfin-admin-user'), secret('jellyfin-admin-password'));
  const libraries = await client.libraries();
  report.check(
    'its administrator signs in and finds the folders of the share',
    libraries.join() === 'Movies',
    `libraries ${libraries.join(', ')}`,
  );
  const keys = (await client.apiKeys()).map((key) => key.split(':')[0]);
  report.check('one API key for the runner', keys.join() === 'JellyRoller', `keys ${keys.join(', ')}`);
  await replica.stop();
  report.event('platform', 'SIGTERM to all');
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
  await bootstrapped(walk);
  await storeFaults(walk);
  await openWithTar(walk);
}
