import { randomUUID } from 'node:crypto';
import { AzureBlobStore } from './adapters/azure-blob-store.ts';
import { chooseEngine } from './adapters/choose-engine.ts';
import { HttpInventory } from './adapters/http-inventory.ts';
import { HttpJellyfin } from './adapters/http-jellyfin.ts';
import { LocalDisk } from './adapters/local-disk.ts';
import { NodeSqlite, type WorkerCode } from './adapters/node-sqlite.ts';
import { SystemClock } from './adapters/system-clock.ts';
import { TarZstd } from './adapters/tar-zstd.ts';
import { YauzlZip } from './adapters/yauzl-zip.ts';
import { BackupLine } from './backup-line.ts';
import { askForBackup } from './handover.ts';
import { Heartbeat } from './heartbeat.ts';
import type { AgentConfig } from './config.ts';
import { bootstrap } from './bootstrap.ts';
import { drill } from './drill.ts';
import type { Logger } from './log.ts';
import { JELLYFIN, WORK_DIR } from './profile.ts';
import type { RestoreDeps } from './plan-restore.ts';
import type { BlobStore } from './ports.ts';
import { withRetry, type RetryPolicy } from './retry.ts';
import { pollMsOf, Sidecar } from './sidecar.ts';
import { keySource } from './runner/key-source.ts';
import type { RestoreArchiveDeps } from './runner/restore-archive.ts';
import { Runner, type RunnerDeps } from './runner/runner.ts';
import { Snapshotter } from './snapshot.ts';

/**
 * While stopping: few and short retries of one call. The stop sequence itself goes on until the budget ends; a call that did
 * would double its wait up to a minute and sleep through the store's return.
 */
const HURRIED: RetryPolicy = { max: 2, backoffMs: 500 };

/** A cold start after a kill waits for four of these before it takes the replica for dead; each is a request that costs. */
const REQUEST_POLL_MS = { min: 500, max: 2_000 };
/** A sign of life every 30 s at the default change window: with the looks for a request a sixth of a cent an hour. */
const POLLS_PER_SIGN = 6;
/** A person waits at a terminal: long enough for a large library on a quarter of a core. */
const SIDECAR_WAIT_MS = 120_000;
/** While the engine writes an archive, rows or artwork reach the file all the time. */
const ENGINE_QUIET_MS = 10_000;

/** Builds the adapters of one command. The only file that imports `adapters/`, but for the health server in main.ts. */
export function wireRestore(
  config: AgentConfig,
  log: Logger,
  worker: WorkerCode,
): RestoreDeps & { policy: RetryPolicy; plainStore: BlobStore } {
  const clock = new SystemClock();
  const policy: RetryPolicy = { max: config.retryMax, backoffMs: config.retryBackoffSeconds * 1000 };
  const plainStore = new AzureBlobStore(config.credential, config.container);
  return {
    plainStore,
    store: withRetry(plainStore, { policy, clock, log }),
    archiver: new TarZstd(),
    disk: new LocalDisk(),
    databases: new NodeSqlite(worker),
    clock,
    log,
    profile: JELLYFIN,
    holder: randomUUID(),
    policy,
  };
}

export function wireSidecar(config: AgentConfig, log: Logger, worker: WorkerCode): Sidecar {
  const { plainStore, policy, ...deps } = wireRestore(config, log, worker);
  const { admin, dataDir } = config;
  const jellyfin = new HttpJellyfin(config.jellyfinUrl);
  const snapshotter = new Snapshotter(deps, { dataDir, includeBulk: config.backupArtwork });
  const line = new BackupLine(
    { ...deps, snapshotter, minBackupSizeBytes: config.minBackupSizeBytes },
    { dataDir, retention: config.retention },
  );
  const windows = {
    intervalMs: config.backupIntervalSeconds * 1000,
    onChangeMs: config.backupOnChangeSeconds * 1000,
  };
  const volumePollMs = Math.max(pollMsOf(windows), REQUEST_POLL_MS.min);
  const heartbeat = new Heartbeat(
    { ...deps, store: plainStore },
    {
      dataDir,
      pollMs: Math.min(volumePollMs, REQUEST_POLL_MS.max),
      intervalMs: volumePollMs * POLLS_PER_SIGN,
    },
  );
  const scratchDir = `${dataDir}/${WORK_DIR}/drill`;
  return new Sidecar(
    {
      ...deps,
      line,
      heartbeat,
      jellyfin,
      ...(admin === undefined
        ? {}
        : {
            bootstrap: (signal) =>
              bootstrap({ ...deps, server: jellyfin }, { dataDir, mediaDir: config.mediaDir }, admin, signal),
          }),
      hurry: () => Object.assign(policy, HURRIED),
      ...(config.drillIntervalSeconds === 0 ? {} : { drill: (signal) => drill(deps, scratchDir, signal) }),
    },
    {
      dataDir,
      ...windows,
      startupDelayMs: config.startupDelaySeconds * 1000,
      drillIntervalMs: config.drillIntervalSeconds * 1000,
      shutdownBudgetMs: config.shutdownBudgetSeconds * 1000,
      failureBackoffMs: config.retryBackoffSeconds * 1000,
    },
  );
}

/** What of the machine the JellyRoller CLI is given. */
export interface CliSurroundings {
  /** A folder of our own, for its configuration. */
  homeDir: string;
  path: string | undefined;
}

async function wireEngine(
  config: AgentConfig,
  log: Logger,
  cli: CliSurroundings,
): Promise<RunnerDeps & Pick<RestoreArchiveDeps, 'apiKey' | 'inventory'>> {
  const clock = new SystemClock();
  const policy: RetryPolicy = { max: config.retryMax, backoffMs: config.retryBackoffSeconds * 1000 };
  const server = new HttpJellyfin(config.jellyfinUrl);
  const apiKey = keySource(server, config.jellyfinApiKey, config.admin);
  return {
    store: withRetry(new AzureBlobStore(config.credential, config.container), { policy, clock, log }),
    disk: new LocalDisk(),
    zip: new YauzlZip(),
    engine: await chooseEngine(config, { apiKey, log, ...cli }),
    inventory: new HttpInventory(config.jellyfinUrl),
    server,
    apiKey,
    clock,
    log,
    policy,
  };
}

export async function wireRunner(config: AgentConfig, log: Logger, cli: CliSurroundings): Promise<Runner> {
  return new Runner(await wireEngine(config, log, cli), {
    dataDir: config.dataDir,
    intervalMs: config.backupIntervalSeconds * 1000,
    startupDelayMs: config.startupDelaySeconds * 1000,
    timeoutMs: config.jellyrollerTimeoutSeconds * 1000,
    quietMs: ENGINE_QUIET_MS,
    minBackupSizeBytes: config.minBackupSizeBytes,
    keep: config.retention.keep,
  });
}

export async function wireRestoreArchive(
  config: AgentConfig,
  log: Logger,
  cli: CliSurroundings,
): Promise<RestoreArchiveDeps> {
  const deps = await wireEngine(config, log, cli);
  return {
    ...deps,
    // As a starting replica does: the sidecar beside this container answers.
    backUpFirst: async (signal) => {
      const answer = await askForBackup(deps, SIDECAR_WAIT_MS, signal);
      return answer.kind === 'answered' ? (answer.backup ?? undefined) : undefined;
    },
  };
}
