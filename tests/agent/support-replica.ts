import { createHash } from 'node:crypto';
import { copyFileSync, cpSync, existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { runSqlite, type SqliteRequest } from '../../agent/adapters/sqlite-operations.ts';
import { SystemClock } from '../../agent/adapters/system-clock.ts';
import { TarZstd } from '../../agent/adapters/tar-zstd.ts';
import { BackupLine } from '../../agent/backup-line.ts';
import { toCatalog, type StoredBackup } from '../../agent/catalog.ts';
import { EPOCH_BLOB, type EpochState } from '../../agent/epoch.ts';
import { AgentError } from '../../agent/errors.ts';
import { createLogger } from '../../agent/log.ts';
import type { BlobStore, DatabaseEngine, Disk } from '../../agent/ports.ts';
import { JELLYFIN, WORK_DIR } from '../../agent/profile.ts';
import type { RestoreDeps } from '../../agent/plan-restore.ts';
import { Snapshotter } from '../../agent/snapshot.ts';
import { verifyStored } from '../../agent/stage-backup.ts';
import type { VolumeMarker } from '../../agent/volume.ts';
import { AZURITE_ACCOUNT, type Azurite } from '../support/azurite.ts';
import { createJellyfinTree, openAsJellyfin } from '../support/jellyfin-tree.ts';
import { checkLedger, Ledger } from '../support/ledger.ts';
import { runProcess, startProcess, type FinishedProcess, type ProcessOptions } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { MemoryBlobStore, type MemoryBlob } from './support-memory-store.ts';

/* What a replica is made of, in this process and as a process of its own, and what a container holds after some use. */

async function sqlite(request: SqliteRequest): Promise<unknown> {
  try {
    return await runSqlite(request);
  } catch (cause) {
    // As the adapter reports it from its thread.
    throw new AgentError('source_damaged', `${request.operation} failed: ${String(cause)}`, { cause });
  }
}

/** SQLite without a thread per question: a thread costs 40 ms, and these tests ask a thousand questions. */
export const SQLITE_IN_THREAD: DatabaseEngine = {
  snapshot: async (source, target) =>
    (await sqlite({ operation: 'snapshot', source, target })) as 'copied' | 'not_a_database',
  inspect: async (copy, questions) =>
    (await sqlite({ operation: 'inspect', copy, questions })) as Awaited<
      ReturnType<DatabaseEngine['inspect']>
    >,
  compare: async (copy, earlier) =>
    (await sqlite({ operation: 'compare', copy, earlier })) as Record<string, number>,
  settle: async (copy, setWal) => void (await sqlite({ operation: 'settle', copy, setWal })),
};

export interface Logged {
  level: string;
  msg: string;
  [field: string]: unknown;
}

/** A backup as the sidecar's loop takes it. */
export const BACKUP = { cleanStop: false, retain: true } as const;

let starts = 0;

/** The agent's own parts on a store. Each call is a start of its own: another holder. */
export function partsOn(
  store: BlobStore,
  outside: { disk?: Disk; databases?: DatabaseEngine } = {},
): RestoreDeps & { logged: Logged[] } {
  const logged: Logged[] = [];
  return {
    store,
    logged,
    archiver: new TarZstd(),
    disk: outside.disk ?? new LocalDisk(),
    databases: outside.databases ?? SQLITE_IN_THREAD,
    clock: new SystemClock(),
    log: createLogger('test', (line) => logged.push(JSON.parse(line) as Logged), { level: 'debug' }),
    profile: JELLYFIN,
    holder: `start-${String((starts += 1))}`,
  };
}

export function lineOn(deps: RestoreDeps, dataDir: string, keep = 100): BackupLine {
  const snapshotter = new Snapshotter(deps, { dataDir, includeBulk: true });
  return new BackupLine(
    { ...deps, profile: JELLYFIN, snapshotter, minBackupSizeBytes: 0 },
    { dataDir, retention: { keep, daily: 0, weekly: 0, monthly: 0 } },
  );
}

export const SERVER = { version: '10.11.11', serverId: 'server-1' } as const;

/** One more transaction on a server's database; its number. */
export function writeMore(dataDir: string): number {
  const database = openAsJellyfin(join(dataDir, 'data/jellyfin.db'));
  try {
    return new Ledger(database).commit();
  } finally {
    database.close();
  }
}

export interface Used {
  /** The server's volume. It stays as it is: work on a copy. */
  dataDir: string;
  blobs: readonly (readonly [string, MemoryBlob])[];
  older: { name: string; lastSeq: number };
  newer: { name: string; lastSeq: number };
}

/** What a server can do without: a test that counts every write wants few of them. */
const INESSENTIAL = ['plugins', 'config/users', 'data/playlists', 'data/collections', 'data/ScheduledTasks'];

/** A server that was used and backed up twice, by the agent's own code; its volume, and what the container holds. */
export async function usedServer(options: { isTiny?: boolean } = {}): Promise<Used> {
  const { dir: dataDir } = createJellyfinTree(makeTempDir('used'), { items: 3, serverId: SERVER.serverId });
  if (options.isTiny === true)
    for (const path of INESSENTIAL) rmSync(join(dataDir, path), { recursive: true });
  const store = new MemoryBlobStore();
  const line = lineOn(partsOn(store), dataDir);
  const backUp = async () => {
    const lastSeq = writeMore(dataDir);
    const outcome = await line.backUp(SERVER, { cleanStop: false, retain: true });
    if (outcome.kind !== 'published') throw new Error(`not published: ${outcome.kind}`);
    return { name: outcome.backup.name, lastSeq };
  };
  const older = await backUp();
  const newer = await backUp();
  return { dataDir, blobs: store.content, older, newer };
}

export function copyOfVolume(dataDir: string): string {
  const copy = makeTempDir('volume');
  cpSync(dataDir, copy, { recursive: true, preserveTimestamps: true });
  return copy;
}

/** Uploads blobs as they are, with their metadata, past any fault. */
export async function fill(
  container: ContainerClient,
  blobs: Iterable<readonly [string, MemoryBlob]>,
): Promise<void> {
  for (const [name, { bytes, metadata }] of blobs) {
    await container
      .getBlockBlobClient(name)
      .upload(Buffer.from(bytes), bytes.byteLength, { metadata: { ...metadata } });
  }
}

/** Everything that a reader of the container sees. */
export async function contentOf(container: ContainerClient): Promise<[string, MemoryBlob][]> {
  const content: [string, MemoryBlob][] = [];
  for await (const { name, metadata } of container.listBlobsFlat({ includeMetadata: true })) {
    const bytes = await container.getBlobClient(name).downloadToBuffer();
    content.push([name, { bytes, metadata: { ...metadata } }]);
  }
  return content;
}

const knownWhole = new Map<string, number>();

/**
 * The new-format backups, newest first, with the newest transaction in each.
 * @throws Error when one of them is not whole: hash, manifest, content, database.
 */
export async function wholeBackups(
  blobs: Iterable<readonly [string, MemoryBlob]>,
): Promise<{ name: string; lastSeq: number }[]> {
  const content = new Map(blobs);
  const store = new MemoryBlobStore(content);
  const whole = [];
  const { line, tails, quarantined } = toCatalog((await store.listPage('')).items);
  for (const backup of [...line, ...tails, ...quarantined]) {
    const { name } = backup.item;
    const bytes = content.get(name)?.bytes ?? Buffer.of();
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    if (backup.item.metadata['sha256'] !== sha256)
      throw new Error(`${name} has not the hash in its metadata`);
    // The same bytes under the same name are looked at once.
    const lastSeq = knownWhole.get(`${name} ${sha256}`) ?? (await verified(store, backup));
    knownWhole.set(`${name} ${sha256}`, lastSeq);
    whole.push({ name, lastSeq });
  }
  return whole;
}

async function verified(store: BlobStore, backup: StoredBackup): Promise<number> {
  const scratch = makeTempDir('verify');
  await verifyStored(partsOn(store), backup, scratch);
  const { ok, problems, lastSeq } = checkLedger(join(scratch, 'data/jellyfin.db'));
  if (!ok) throw new Error(`${backup.item.name}: ${problems.join('; ')}`);
  return lastSeq;
}

export function epochIn(blobs: Iterable<readonly [string, MemoryBlob]>): number | undefined {
  const state = new Map(blobs).get(EPOCH_BLOB);
  return state && (JSON.parse(Buffer.from(state.bytes).toString()) as EpochState).epoch;
}

export interface Volume {
  marker: VolumeMarker | undefined;
  /** At the top, without the agent's own folder. */
  names: string[];
  /** The newest transaction; `undefined` when there is no database. */
  lastSeq: number | undefined;
}

/**
 * What a server would find on a volume.
 * @throws Error when its database is damaged, would not open in WAL mode, or has side files of another one.
 */
export function volumeAt(dataDir: string): Volume {
  const names = readdirSync(dataDir).filter((name) => name !== WORK_DIR);
  const markerFile = join(dataDir, WORK_DIR, 'volume.json');
  const marker = existsSync(markerFile)
    ? (JSON.parse(readFileSync(markerFile, 'utf8')) as VolumeMarker)
    : undefined;
  const database = join(dataDir, 'data/jellyfin.db');
  if (!existsSync(database)) return { marker, names, lastSeq: undefined };
  for (const suffix of ['-wal', '-shm', '-journal'])
    if (existsSync(database + suffix)) throw new Error(`jellyfin.db${suffix} lies beside the database`);
  const { ok, problems, lastSeq, isWal } = checkLedger(database);
  if (!ok || !isWal) throw new Error(`the database on the volume: ${problems.join('; ')}, WAL ${isWal}`);
  if (!/<IsStartupWizardCompleted>true</.test(readFileSync(join(dataDir, 'config/system.xml'), 'utf8')))
    throw new Error('the server would show its setup wizard');
  return { marker, names, lastSeq };
}

/** Path and hash of every file below `dir` but those below `skip`; folders end in a slash. */
export function listingOf(dir: string, skip?: string): string[] {
  return readdirSync(dir, { recursive: true, withFileTypes: true })
    .map((entry) => {
      const path = join(entry.parentPath, entry.name);
      if (!entry.isFile()) return `${path}${entry.isDirectory() ? '/' : ' not a file'}`;
      return `${path} ${createHash('sha256').update(readFileSync(path)).digest('hex')}`;
    })
    .filter((line) => skip === undefined || !line.startsWith(skip))
    .sort();
}

export interface AgentRun {
  connectionString: string;
  container: string;
  dataDir: string;
  env?: Readonly<Record<string, string>>;
}

/** A copy: a second jest run builds the bundle anew, and a process that starts at that moment would find none. */
const BUNDLE = join(makeTempDir('bundle'), 'agent.mjs');
copyFileSync('dist/agent.mjs', BUNDLE);

/** How the agent's process is started; nothing listens where it looks for Jellyfin. */
export function agentProcess(args: readonly string[], run: AgentRun): ProcessOptions {
  return {
    name: `agent ${args.join(' ')}`,
    args: [BUNDLE, ...args],
    env: {
      AZURE_STORAGE_CONNECTION_STRING: run.connectionString,
      BLOB_CONTAINER: run.container,
      DATA_DIR: run.dataDir,
      RETRY_MAX: '2',
      RETRY_BACKOFF_SECONDS: '0',
      JELLYFIN_URL: 'http://127.0.0.1:1',
      HEALTH_PORT: '0',
      NODE_COMPILE_CACHE: join(BUNDLE, '../compile-cache'),
      ...run.env,
    },
  };
}

export function startAgent(args: readonly string[], run: AgentRun) {
  return startProcess(agentProcess(args, run));
}

/** Runs the agent to its end. Whatever happened, nothing that it printed may hold the account's key or a signature. */
export async function runAgent(args: readonly string[], run: AgentRun): Promise<FinishedProcess> {
  const finished = await runProcess(agentProcess(args, run));
  requireNoSecret(finished.stdout + finished.stderr);
  return finished;
}

export function requireNoSecret(output: string): void {
  if (output.includes(AZURITE_ACCOUNT.key) || /SharedKey|AccountKey=|sig=/.test(output))
    throw new Error(`a secret was printed:\n${output}`);
}

/** A new container with these blobs. */
export async function containerWith(
  azurite: Azurite,
  blobs: Iterable<readonly [string, MemoryBlob]>,
): Promise<ContainerClient> {
  const container = azurite.container(await azurite.createContainer('fault'));
  await fill(container, blobs);
  return container;
}
