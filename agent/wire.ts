import { randomUUID } from 'node:crypto';
import { AzureBlobStore } from './adapters/azure-blob-store.ts';
import { HttpJellyfin } from './adapters/http-jellyfin.ts';
import { LocalDisk } from './adapters/local-disk.ts';
import { NodeSqlite, type WorkerCode } from './adapters/node-sqlite.ts';
import { SystemClock } from './adapters/system-clock.ts';
import { TarZstd } from './adapters/tar-zstd.ts';
import { BackupLine } from './backup-line.ts';
import type { AgentConfig } from './config.ts';
import { bootstrap } from './bootstrap.ts';
import { drill } from './drill.ts';
import type { Logger } from './log.ts';
import { JELLYFIN, WORK_DIR } from './profile.ts';
import type { RestoreDeps } from './plan-restore.ts';
import { withRetry, type RetryPolicy } from './retry.ts';
import { Sidecar } from './sidecar.ts';
import { Snapshotter } from './snapshot.ts';

/**
 * While stopping: few and short retries of one call. The stop sequence itself goes on until the budget ends; a call that did
 * would double its wait up to a minute and sleep through the store's return.
 */
const HURRIED: RetryPolicy = { max: 2, backoffMs: 500 };

/** Builds the adapters of one command. The only file that imports `adapters/`, but for the health server in main.ts. */
export function wireRestore(
  config: AgentConfig,
  log: Logger,
  worker: WorkerCode,
): RestoreDeps & { policy: RetryPolicy } {
  const clock = new SystemClock();
  const policy: RetryPolicy = { max: config.retryMax, backoffMs: config.retryBackoffSeconds * 1000 };
  return {
    store: withRetry(new AzureBlobStore(config.credential, config.container), { policy, clock, log }),
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
  const { policy, ...deps } = wireRestore(config, log, worker);
  const { admin, dataDir } = config;
  const jellyfin = new HttpJellyfin(config.jellyfinUrl);
  const snapshotter = new Snapshotter(deps, { dataDir, includeBulk: config.backupArtwork });
  const line = new BackupLine(
    { ...deps, snapshotter, minBackupSizeBytes: config.minBackupSizeBytes },
    { dataDir, retention: config.retention },
  );
  const scratchDir = `${dataDir}/${WORK_DIR}/drill`;
  return new Sidecar(
    {
      ...deps,
      line,
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
      intervalMs: config.backupIntervalSeconds * 1000,
      onChangeMs: config.backupOnChangeSeconds * 1000,
      startupDelayMs: config.startupDelaySeconds * 1000,
      drillIntervalMs: config.drillIntervalSeconds * 1000,
      shutdownBudgetMs: config.shutdownBudgetSeconds * 1000,
      failureBackoffMs: config.retryBackoffSeconds * 1000,
    },
  );
}
