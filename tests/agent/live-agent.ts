import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { AzureBlobStore } from '../../agent/adapters/azure-blob-store.ts';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { NodeSqlite } from '../../agent/adapters/node-sqlite.ts';
import { runSqlite } from '../../agent/adapters/sqlite-operations.ts';
import { SystemClock } from '../../agent/adapters/system-clock.ts';
import { TarZstd } from '../../agent/adapters/tar-zstd.ts';
import { BackupLine } from '../../agent/backup-line.ts';
import { readCatalog, type StoredBackup } from '../../agent/catalog.ts';
import { createLogger, type Logger } from '../../agent/log.ts';
import type { DatabaseEngine, DatabaseFacts, Disk } from '../../agent/ports.ts';
import { JELLYFIN } from '../../agent/profile.ts';
import { publish } from '../../agent/publish.ts';
import { restoreInto } from '../../agent/restore.ts';
import { Secret } from '../../agent/secret.ts';
import { Snapshotter, type Snapshot } from '../../agent/snapshot.ts';
import { sharedAzurite } from '../support/azurite.ts';

/** The thread that runs SQLite, from its source: jest compiles to CommonJS, where `import.meta` does not exist. */
export const SQLITE_WORKER = { file: join(process.cwd(), 'agent/adapters/sqlite-worker.ts') };

/** SQLite's operations themselves, without a thread for each, whose start costs more than the copy of a small database. */
export const SQLITE_IN_PROCESS: DatabaseEngine = {
  snapshot: (source, target) =>
    runSqlite({ operation: 'snapshot', source, target }) as ReturnType<DatabaseEngine['snapshot']>,
  inspect: (copy, questions) =>
    runSqlite({ operation: 'inspect', copy, questions }) as Promise<DatabaseFacts>,
  compare: async (copy, earlier) =>
    (await runSqlite({ operation: 'compare', copy, earlier })) as Record<string, number>,
  settle: (copy, setWal) => runSqlite({ operation: 'settle', copy, setWal }) as Promise<void>,
};

export interface LogLine {
  level: string;
  msg: string;
  [field: string]: unknown;
}

export interface LiveAgentOptions {
  disk?: Disk;
  databases?: DatabaseEngine;
  /** @default 0: these trees are small */
  minBackupSizeBytes?: number;
}

export type LiveAgent = Awaited<ReturnType<typeof liveAgent>>;

/** The agent's own parts on `dataDir` and on a new container of Azurite, in this process: no start-up time per backup. */
export async function liveAgent(dataDir: string, options: LiveAgentOptions = {}) {
  const azurite = await sharedAzurite();
  const containerName = await azurite.createContainer('live');
  const container = azurite.container(containerName);
  const store = new AzureBlobStore(
    { kind: 'connectionString', connectionString: new Secret(azurite.connectionString) },
    containerName,
  );
  const logged: LogLine[] = [];
  const log: Logger = createLogger('test', (line) => logged.push(JSON.parse(line) as LogLine));
  const deps = {
    store,
    log,
    archiver: new TarZstd(),
    disk: options.disk ?? new LocalDisk(),
    databases: options.databases ?? new NodeSqlite(SQLITE_WORKER),
    clock: new SystemClock(),
    profile: JELLYFIN,
    holder: randomUUID(),
    minBackupSizeBytes: options.minBackupSizeBytes ?? 0,
  };
  const snapshotter = new Snapshotter(deps, { dataDir, includeBulk: true });
  const line = new BackupLine(
    { ...deps, snapshotter },
    { dataDir, retention: { keep: 100, daily: 0, weekly: 0, monthly: 0 } },
  );
  const catalog = () => readCatalog(store);

  return {
    container,
    containerName,
    connectionString: azurite.connectionString,
    deps,
    logged,
    snapshotter,
    catalog,
    /** Through the line, as the sidecar does: epoch, checks, collapse guard, retention. */
    backUp: () =>
      line.backUp({ version: '10.11.11', serverId: undefined }, { cleanStop: false, retain: true }),
    /** A snapshot that must be one: of a configured server. */
    async snapshot(): Promise<Snapshot> {
      const result = await snapshotter.take();
      if (result.kind !== 'snapshot') throw new Error(`no snapshot: ${result.why}`);
      return result.snapshot;
    },
    /** Past the line: packs a snapshot and puts it into the store. */
    publish: (snapshot: Snapshot, sequence: number) =>
      publish(deps, {
        snapshot,
        placement: 'line',
        epoch: 1,
        sequence,
        cleanStop: false,
        version: '10.11.11',
        serverId: undefined,
        beforeCommit: () => Promise.resolve(),
      }),
    async find(name: string): Promise<StoredBackup> {
      const { line: onLine, quarantined, tails } = await catalog();
      const found = [...onLine, ...quarantined, ...tails].find((backup) => backup.item.name === name);
      if (found === undefined) throw new Error(`${name} is not in the store`);
      return found;
    },
    /** Downloads, checks and puts in place: what lies in `targetDir` then is what a cold start would have. */
    async restore(name: string, targetDir: string) {
      return restoreInto(deps, await this.find(name), targetDir);
    },
    /** Names of all blobs, the uncommitted ones too: what a backup that failed has left behind. */
    async blobNames(): Promise<string[]> {
      const names: string[] = [];
      for await (const blob of container.listBlobsFlat({ includeUncommitedBlobs: true }))
        names.push(blob.name);
      return names;
    },
  };
}
