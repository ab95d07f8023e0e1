import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { DatabaseSync } from 'node:sqlite';
import type { BlobItem, ContainerClient } from '@azure/storage-blob';
import { eventually, Home, StandIn } from '../stand-in/support.ts';
import { connectionStringFor, sharedAzurite, type Azurite } from '../support/azurite.ts';
import { startFaultProxy, type FaultProxy } from '../support/fault-proxy.ts';
import {
  startProcess,
  type FinishedProcess,
  type OutputLine,
  type RunningProcess,
} from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

/** A copy: another jest run in the same checkout builds `dist` anew while our processes start. */
const agentFile = join(makeTempDir('agent'), 'agent.mjs');
copyFileSync('dist/agent.mjs', agentFile);

/** The container of one server's backups. */
export class Store {
  readonly name: string;
  readonly azurite: Azurite;
  readonly client: ContainerClient;
  /** In front of Azurite, where a test wants to break the connection. */
  readonly proxy: FaultProxy | undefined;

  private constructor(azurite: Azurite, name: string, proxy?: FaultProxy) {
    this.azurite = azurite;
    this.name = name;
    this.client = azurite.container(name);
    this.proxy = proxy;
  }

  static async create(): Promise<Store> {
    const azurite = await sharedAzurite();
    return new Store(azurite, await azurite.createContainer('process'));
  }

  static async createBehindProxy(): Promise<Store & { proxy: FaultProxy }> {
    const azurite = await sharedAzurite();
    const proxy = await startFaultProxy(azurite.port);
    return new Store(azurite, await azurite.createContainer('process'), proxy) as Store & {
      proxy: FaultProxy;
    };
  }

  get env(): Record<string, string> {
    const port = this.proxy?.port ?? this.azurite.port;
    return { AZURE_STORAGE_CONNECTION_STRING: connectionStringFor(port), BLOB_CONTAINER: this.name };
  }

  /** By name, which is by age within one epoch. */
  async blobs(prefix = ''): Promise<BlobItem[]> {
    const found: BlobItem[] = [];
    for await (const item of this.client.listBlobsFlat({ prefix, includeMetadata: true })) found.push(item);
    return found;
  }

  async names(prefix = ''): Promise<string[]> {
    return (await this.blobs(prefix)).map(({ name }) => name);
  }

  /** The backups on the line, oldest first. */
  async line(): Promise<{ name: string; epoch: number; sequence: number; meta: Record<string, string> }[]> {
    return (await this.blobs('backup-'))
      .map(({ name, metadata }) => {
        const [, epoch, sequence] = /\.e(\d+)\.s(\d+)\./.exec(name) ?? [];
        return { name, epoch: Number(epoch), sequence: Number(sequence), meta: metadata ?? {} };
      })
      .sort((a, b) => a.epoch - b.epoch || a.sequence - b.sequence);
  }

  async newest() {
    const newest = (await this.line()).at(-1);
    if (newest === undefined) throw new Error('the store holds no backup');
    return newest;
  }

  read(name: string): Promise<Buffer> {
    return this.client.getBlobClient(name).downloadToBuffer();
  }

  async readJson(name: string): Promise<Record<string, unknown>> {
    // In one request: a blob that is written again and again may change its size between two.
    const { readableStreamBody } = await this.client.getBlobClient(name).download();
    return (await json(readableStreamBody as NodeJS.ReadableStream)) as Record<string, unknown>;
  }
}

/** Settings under which a test need not wait; no variable of the agent is left to its default that would take time. */
const QUICK: Readonly<Record<string, string>> = {
  STARTUP_DELAY_SECONDS: '0',
  BACKUP_ON_CHANGE_SECONDS: '1',
  RETRY_MAX: '0',
  RETRY_BACKOFF_SECONDS: '0',
  DRILL_INTERVAL_SECONDS: '0',
  HEALTH_PORT: '0',
};

/** As a change window: a test in which only the stop sequence stores anything. */
export const NEVER = '86400';

export function agentEnv(
  store: Store,
  dataDir: string,
  overrides: Record<string, string> = {},
): Record<string, string> {
  return { ...QUICK, ...store.env, DATA_DIR: dataDir, ...overrides };
}

export function startAgent(args: readonly string[], env: Record<string, string>): RunningProcess {
  return startProcess({
    name: `agent ${args.join(' ')}`,
    args: [agentFile, ...args],
    // A start costs a third of a second without.
    env: { NODE_COMPILE_CACHE: join(process.cwd(), 'node_modules/.cache/agent'), ...env },
  });
}

/** One of the commands that end by themselves. */
export async function runAgent(
  args: readonly string[],
  env: Record<string, string>,
): Promise<FinishedProcess> {
  const running = startAgent(args, env);
  try {
    const exit = await running.waitForExit(45_000);
    const { lines } = running;
    return {
      ...exit,
      lines,
      stdout: running.stdout(),
      stderr: running.stderr(),
      jsonLines: running.jsonLines(),
    };
  } finally {
    await running.kill();
  }
}

/** `--json` of a command for people. */
export async function ask<T = Record<string, unknown>>(
  store: Store,
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<T> {
  const { code, stdout, stderr } = await runAgent([...args, '--json'], {
    ...store.env,
    RETRY_MAX: '0',
    ...env,
  });
  if (code !== 0) throw new Error(`agent ${args.join(' ')} exited ${String(code)}\n${stderr}`);
  return JSON.parse(stdout) as T;
}

/** A volume before its server: the folder exists, as an EmptyDir does. */
export function newHome(): Home {
  const home = new Home();
  mkdirSync(home.data);
  return home;
}

/** The init container. Fails the test if it does not exit 0. */
export async function restore(
  store: Store,
  home: Home,
  env: Record<string, string> = {},
): Promise<FinishedProcess> {
  const result = await runAgent(['restore'], agentEnv(store, home.data, env));
  if (result.code !== 0) throw new Error(`restore exited ${String(result.code)}\n${result.stdout}`);
  return result;
}

export const isMessage =
  (msg: string | RegExp) =>
  ({ json }: OutputLine): boolean => {
    const said = json?.['msg'];
    return typeof said === 'string' && (typeof msg === 'string' ? said === msg : msg.test(said));
  };
const HEALTH_LINE = /^last_backup_utc=(\S+) size_bytes=(\d+)$/;
export const isBackup = isMessage(HEALTH_LINE);

export interface Stored {
  name: string;
  utc: string;
  sizeBytes: number;
  atMs: number;
  line: Record<string, unknown>;
}

function storedOf(line: OutputLine): Stored {
  const json = line.json ?? {};
  const [, utc = '', size] = HEALTH_LINE.exec(String(json['msg'])) ?? [];
  return { name: String(json['backup']), utc, sizeBytes: Number(size), atMs: line.atMs, line: json };
}

export class Sidecar {
  readonly process: RunningProcess;

  constructor(process: RunningProcess) {
    this.process = process;
  }

  said(msg: string | RegExp): Record<string, unknown>[] {
    return this.process.lines.filter(isMessage(msg)).map(({ json }) => json ?? {});
  }

  async until(msg: string | RegExp, from = 0, timeoutMs = 30_000): Promise<Record<string, unknown>> {
    return (await this.process.waitForLine(isMessage(msg), timeoutMs, from)).json ?? {};
  }

  /** The next backup from now on; `from` an earlier `process.lines.length`. */
  async nextBackup(from = this.process.lines.length, timeoutMs = 30_000): Promise<Stored> {
    return storedOf(await this.process.waitForLine(isBackup, timeoutMs, from));
  }

  /** The n-th backup of this process, from 0, also if it is still to come. */
  async nth(index: number, timeoutMs = 30_000): Promise<Stored> {
    let seen = -1;
    return storedOf(
      await this.process.waitForLine((line) => isBackup(line) && (seen += 1) === index, timeoutMs),
    );
  }

  get backups(): Stored[] {
    return this.process.lines.filter(isBackup).map(storedOf);
  }

  terminate(): Promise<number | null> {
    this.process.signal('SIGTERM');
    return this.exit();
  }

  async exit(timeoutMs = 55_000): Promise<number | null> {
    return (await this.process.waitForExit(timeoutMs)).code;
  }
}

/** What runs in one replica: a volume, a server and its sidecar. */
export class Replica {
  readonly store: Store;
  readonly home: Home;
  readonly server: StandIn;
  readonly sidecar: Sidecar;

  constructor(store: Store, home: Home, server: StandIn, sidecar: Sidecar) {
    this.store = store;
    this.home = home;
    this.server = server;
    this.sidecar = sidecar;
  }

  /** Restores into a new volume, then starts both containers; resolves when the sidecar has seen the server healthy. */
  static async start(
    store: Store,
    options: { agent?: Record<string, string>; server?: Record<string, string>; home?: Home } = {},
  ): Promise<Replica> {
    const home = options.home ?? newHome();
    if (options.home === undefined) await restore(store, home);
    const server = await StandIn.launch(home, options.server);
    const env = agentEnv(store, home.data, { JELLYFIN_URL: server.url, ...options.agent });
    const sidecar = new Sidecar(startAgent(['backup'], env));
    await sidecar.until('jellyfin is healthy');
    return new Replica(store, home, server, sidecar);
  }

  /** The same, with a user, a library and a first backup of them. */
  static async startUsed(
    store: Store,
    options: { agent?: Record<string, string>; server?: Record<string, string> } = {},
  ): Promise<Replica & { token: string; itemId: string }> {
    const replica = await Replica.start(store, options);
    const { token, itemId } = await replica.server.setUp(replica.home);
    if (options.agent?.['BACKUP_ON_CHANGE_SECONDS'] !== NEVER) await replica.storeAll();
    return Object.assign(replica, { token, itemId });
  }

  /** The first backup that was begun after `sinceMs`: it holds all that was committed until then. */
  async backupAfter(sinceMs: number, timeoutMs?: number): Promise<Stored> {
    for (let next = 0; ; next += 1) {
      const stored = await this.sidecar.nth(next, timeoutMs);
      if (Date.parse(String(stored.line['time'])) - Number(stored.line['durationMs']) > sinceMs)
        return stored;
    }
  }

  /** Resolves when everything that was committed until now is stored, in a backup that was begun since. */
  async storeAll(): Promise<Stored> {
    for (let attempt = 1; ; attempt += 1) {
      // A change of our own: what was committed before may be stored already, and no backup would come. That can happen to
      // this row too, by a backup that begins at the same moment; hence another one.
      await this.write(`store all ${String(attempt)}`);
      const stored = await this.backupAfter(Date.now(), 4_000).catch((error: unknown) => {
        if (attempt === 4) throw error;
        return undefined;
      });
      if (stored !== undefined) return stored;
    }
  }

  /** A row that is committed when this returns. */
  write(label: string): Promise<void> {
    return writeRow(this.home, label);
  }

  /** To both containers at once, as the platform does it. */
  signal(signal: NodeJS.Signals): void {
    this.server.process.signal(signal);
    this.sidecar.process.signal(signal);
  }

  async kill(): Promise<void> {
    await Promise.all([this.server.process.kill(), this.sidecar.process.kill()]);
  }
}

/**
 * Commits a row beside the server, as one of its own threads would. Not through its API: that answers after more than one
 * transaction, and nobody could say which one the test means.
 */
export async function writeRow(home: Home, label: string): Promise<void> {
  const database = new DatabaseSync(home.database, { timeout: 10_000 });
  try {
    database
      .prepare(
        `INSERT INTO ActivityLogs (Name, Type, UserId, DateCreated, LogSeverity, RowVersion)
         VALUES (?, 'Test', '00000000-0000-0000-0000-000000000000', '2026-01-01 00:00:00', 2, 0)`,
      )
      .run(label);
  } finally {
    database.close();
  }
}

/** Names of the activities in a database that nobody writes. */
export function activitiesIn(databaseFile: string): string[] {
  const database = new DatabaseSync(databaseFile, { readOnly: true });
  try {
    return database
      .prepare('SELECT Name FROM ActivityLogs ORDER BY Id')
      .all()
      .map((row) => String(row['Name']));
  } finally {
    database.close();
  }
}

export function countRows(databaseFile: string, table: string): number {
  const database = new DatabaseSync(databaseFile, { readOnly: true });
  try {
    return Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.['n']);
  } finally {
    database.close();
  }
}

/** What the next start finds: a restore into a new volume. */
export async function nextStart(
  store: Store,
  env: Record<string, string> = {},
): Promise<{ home: Home; activities: string[]; report: unknown; lines: Record<string, unknown>[] }> {
  const home = newHome();
  const { jsonLines } = await restore(store, home, env);
  const activities = existsSync(home.database) ? activitiesIn(home.database) : [];
  return { home, activities, report: jsonLines.find(({ msg }) => msg === 'restored'), lines: jsonLines };
}

/** A port that somebody else holds. */
export async function takePort(): Promise<{ port: number; server: Server }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return { port: address.port, server };
}

export async function freePort(): Promise<number> {
  const { port, server } = await takePort();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export { eventually, Home, StandIn };
export const filesIn = (dir: string): string[] => (existsSync(dir) ? readdirSync(dir).sort() : []);
export const readText = (file: string): string => readFileSync(file, 'utf8');
