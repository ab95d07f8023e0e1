import type { ContainerClient } from '@azure/storage-blob';
import { CONTAINER, ENV } from '../../agent/contract.ts';
import { formatBytes } from '../../agent/table.ts';
import { startProcess } from '../../tests/support/processes.ts';
import type { DeployedApp } from '../deployed-app.ts';
import { JellyfinClient } from './jellyfin-client.ts';
import { Replica } from './replica.ts';
import type { Report } from './report.ts';
import type { World } from './world.ts';

export const ADMIN = { name: 'admin', password: 'correct horse battery staple' };
/** `backupOnChangeSeconds` of the evaluated stack (replica-spec.ts). */
export const CHANGE_WINDOW_MS = 3_000;

/** What a person would miss. */
export interface ServerState {
  serverId: string;
  users: string[];
  keys: string[];
  libraries: string[];
  played: string[];
}

/** What else an operator may deploy; evaluated while the walk is under way. */
export interface LaterApps {
  /** With a newer Jellyfin image. */
  upgraded: DeployedApp;
  /** With the stack's default: a generated administrator. */
  bootstrapped: DeployedApp;
  /** That one with `jellyrollerEnabled`. */
  withRunner: DeployedApp;
}

export interface Walk {
  world: World;
  store: ContainerClient;
  report: Report;
  app: DeployedApp;
  /** Rejects when the program cannot be evaluated so. */
  later: Promise<LaterApps>;
  /** Where another server lives, with backups of its own. */
  second: { world: World; store: ContainerClient };
  /** Where that server has lost everything; its port is the same, since an archive brings that back. */
  wiped: { world: World; store: ContainerClient };
}

const backupLine = /last_backup_utc=(\S+) size_bytes=(\d+)/;

export async function blobNames(store: ContainerClient, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for await (const blob of store.listBlobsFlat({ prefix })) names.push(blob.name);
  return names;
}

/** The next backup that the sidecar reports from now on. */
export async function nextBackup({ report }: Walk, replica: Replica, timeoutMs = 30_000): Promise<void> {
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

export async function stateOf(client: JellyfinClient, userId: string): Promise<ServerState> {
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

export function describeState({ users, keys, libraries, played }: ServerState): string {
  return `users ${users.join(', ')}; ${String(keys.length)} API key; libraries ${libraries.join(', ')}; played ${played.length === 0 ? 'nothing' : played.join(', ')}`;
}

export interface Start {
  /** Another revision than the walk's. */
  app?: DeployedApp;
  /** Of the sidecar alone, over what the app says. */
  sidecarEnv?: Readonly<Record<string, string>>;
  /** The same of the runner. */
  runnerEnv?: Readonly<Record<string, string>>;
}

/** The init container, whatever it says. */
export async function runInit(
  { app, report, world }: Walk,
  number: number,
  start: Start = {},
): Promise<{ replica: Replica; exitCode: number | null; log: Record<string, unknown>[] }> {
  const replica = new Replica(start.app ?? app, world, number);
  const { exit, log } = await replica.init();
  const restored = log.find((line) => line['msg'] === 'restored');
  const failed = exit.code === 0 ? undefined : String((log.at(-1)?.['err'] as { message?: string }).message);
  const what =
    restored === undefined
      ? (failed ?? 'first boot')
      : `${String(restored['restoredFrom'])}, ${String(restored['files'])} files`;
  report.event(CONTAINER.restore, `exit ${String(exit.code)}: ${what}`);
  return { replica, exitCode: exit.code, log };
}

/** A new replica on an empty volume, up to a healthy server. */
export async function coldStart(walk: Walk, number: number, start: Start = {}): Promise<Replica> {
  return (await coldStartWithLog(walk, number, start)).replica;
}

/** The same, with the lines of the init container. */
export async function coldStartWithLog(
  walk: Walk,
  number: number,
  start: Start = {},
): Promise<{ replica: Replica; log: Record<string, unknown>[] }> {
  const { replica, exitCode, log } = await runInit(walk, number, start);
  if (exitCode !== 0) throw new Error(`restore failed: ${JSON.stringify(log.at(-1))}`);
  await replica.start({
    [CONTAINER.backup]: start.sidecarEnv ?? {},
    [CONTAINER.jellyroller]: start.runnerEnv ?? {},
  });
  await new JellyfinClient(urlOf(walk.world)).waitHealthy();
  walk.report.event(CONTAINER.jellyfin, 'Healthy');
  return { replica, log };
}

/** SIGTERM to every container; what the sidecar says of the last write. */
export async function stop({ report }: Walk, replica: Replica): Promise<number | null | undefined> {
  const exits = await replica.stop();
  const codes = [...exits].map(([name, exit]) => `${name} ${String(exit.code ?? exit.signal)}`);
  report.event('platform', `SIGTERM to all; exits ${codes.join(', ')}`);
  return exits.get(CONTAINER.backup)?.code;
}

/** A person who is signed in. */
export async function signIn(walk: Walk): Promise<JellyfinClient> {
  const client = new JellyfinClient(urlOf(walk.world));
  await client.logIn(ADMIN.name, ADMIN.password);
  return client;
}

/** The generated administrator of the stack. */
export function adminOf({ app: { secrets } }: Walk): { name: string; password: string } {
  return {
    name: secrets.get('jellyfin-admin-user') ?? '',
    password: secrets.get('jellyfin-admin-password') ?? '',
  };
}

/** As that administrator. */
export async function signInAsAdmin(walk: Walk): Promise<{ client: JellyfinClient; userId: string }> {
  const { name, password } = adminOf(walk);
  const client = new JellyfinClient(urlOf(walk.world));
  return { client, userId: await client.logIn(name, password) };
}

/** The names of the API keys: rows of the database that the walk can name. */
export async function keyNames(client: JellyfinClient): Promise<string[]> {
  return (await client.apiKeys()).map((key) => key.split(':')[0] ?? '');
}

/** One of the agent's commands for people, with `--json`. */
export async function operate<T>({ world }: Walk, args: readonly string[]): Promise<T> {
  const child = startProcess({
    name: `agent ${args.join(' ')}`,
    args: ['dist/agent.mjs', ...args, '--json'],
    env: {
      [ENV.connectionString]: world.connectionString,
      [ENV.container]: world.containerName,
    },
  });
  const { code } = await child.waitForExit(30_000);
  if (code !== 0) throw new Error(`agent ${args.join(' ')} exited ${String(code)}: ${child.stderr()}`);
  return JSON.parse(child.stdout()) as T;
}

export const urlOf = (world: World) => `http://127.0.0.1:${String(world.jellyfinPort)}`;

/** Looks with the token of before the restart, then signs in anew. */
export async function signInAfter(
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
