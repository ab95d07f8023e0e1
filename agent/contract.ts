/**
 * The contract between infrastructure and agent: the one module of `agent/` that `components/` may import.
 * Constants and types only, no imports, no value that differs per stack, no tuning default (those are in config.ts).
 */

/** Key: what the code says. Value: the environment variable that the container sees. */
export const ENV = {
  storageAccount: 'AZURE_STORAGE_ACCOUNT',
  clientId: 'AZURE_CLIENT_ID',
  storageKey: 'AZURE_STORAGE_KEY',
  connectionString: 'AZURE_STORAGE_CONNECTION_STRING',
  container: 'BLOB_CONTAINER',
  dataDir: 'DATA_DIR',
  mediaDir: 'MEDIA_DIR',
  jellyfinUrl: 'JELLYFIN_URL',
  jellyfinVersion: 'JELLYFIN_VERSION',
  backupIntervalSeconds: 'BACKUP_INTERVAL_SECONDS',
  backupOnChangeSeconds: 'BACKUP_ON_CHANGE_SECONDS',
  startupDelaySeconds: 'STARTUP_DELAY_SECONDS',
  minBackupSizeBytes: 'MIN_BACKUP_SIZE_BYTES',
  backupArtwork: 'BACKUP_ARTWORK',
  drillIntervalSeconds: 'DRILL_INTERVAL_SECONDS',
  retentionKeep: 'RETENTION_KEEP',
  retentionDaily: 'RETENTION_DAILY',
  retentionWeekly: 'RETENTION_WEEKLY',
  retentionMonthly: 'RETENTION_MONTHLY',
  retryMax: 'RETRY_MAX',
  retryBackoffSeconds: 'RETRY_BACKOFF_SECONDS',
  handoverWaitSeconds: 'HANDOVER_WAIT_SECONDS',
  shutdownBudgetSeconds: 'SHUTDOWN_BUDGET_SECONDS',
  healthHost: 'HEALTH_HOST',
  healthPort: 'HEALTH_PORT',
  logLevel: 'LOG_LEVEL',
  jellyrollerEnabled: 'JELLYROLLER_ENABLED',
  jellyrollerDriver: 'JELLYROLLER_DRIVER',
  jellyrollerBin: 'JELLYROLLER_BIN',
  jellyrollerTimeoutSeconds: 'JELLYROLLER_TIMEOUT_SECONDS',
  jellyfinApiKey: 'JELLYFIN_API_KEY',
  adminUser: 'JELLYFIN_ADMIN_USER',
  adminPassword: 'JELLYFIN_ADMIN_PASSWORD',
} as const;
export type EnvKey = keyof typeof ENV;

/** Keys that may only arrive by `secretRef`; the agent holds them in a type that cannot print. */
export const SECRET_ENV = [
  'storageKey',
  'connectionString',
  'jellyfinApiKey',
  'adminUser',
  'adminPassword',
] as const satisfies readonly EnvKey[];

const STORE = ['storageAccount', 'clientId', 'storageKey', 'connectionString', 'container'] as const;
const RETRY = ['retryMax', 'retryBackoffSeconds', 'logLevel'] as const;
/** The administrator that the bootstrap creates on a brand-new server, and that the runner mints its API key with. */
const ADMIN = ['adminUser', 'adminPassword'] as const;
const RETENTION = ['retentionKeep', 'retentionDaily', 'retentionWeekly', 'retentionMonthly'] as const;

/** Least privilege: a command reads these variables and no others. */
export const COMMAND_ENV = {
  restore: [...STORE, ...RETRY, 'dataDir', 'jellyfinVersion', 'minBackupSizeBytes', 'handoverWaitSeconds'],
  backup: [
    ...STORE,
    ...RETRY,
    ...RETENTION,
    ...ADMIN,
    'dataDir',
    'mediaDir',
    'jellyfinUrl',
    'backupIntervalSeconds',
    'backupOnChangeSeconds',
    'startupDelaySeconds',
    'minBackupSizeBytes',
    'backupArtwork',
    'drillIntervalSeconds',
    'shutdownBudgetSeconds',
    'healthHost',
    'healthPort',
  ],
  jellyroller: [
    ...STORE,
    ...RETRY,
    ...ADMIN,
    'retentionKeep',
    'dataDir',
    'jellyfinUrl',
    'jellyfinApiKey',
    'jellyrollerEnabled',
    'jellyrollerDriver',
    'jellyrollerBin',
    'jellyrollerTimeoutSeconds',
    'backupIntervalSeconds',
    'startupDelaySeconds',
    'minBackupSizeBytes',
    'shutdownBudgetSeconds',
  ],
  /** What a person runs: `list`, `verify`, `status`, `prune`, `export`, `release`, `restore --to`. */
  operate: [...STORE, ...RETRY, ...RETENTION, 'dataDir', 'jellyfinVersion', 'minBackupSizeBytes'],
} as const satisfies Record<string, readonly EnvKey[]>;
export type Command = keyof typeof COMMAND_ENV;
export type EnvOf<C extends Command> = (typeof COMMAND_ENV)[C][number];

/** Where the volumes appear. Every container that uses a path mounts it at the same place. */
export const MOUNT = { data: '/data', cache: '/cache', media: '/media' } as const;
export const VOLUME = { data: 'data-volume', cache: 'cache-volume', media: 'media-volume' } as const;
/** Which of the volumes a command needs. */
export const COMMAND_MOUNTS = {
  restore: ['data'],
  backup: ['data'],
  jellyroller: ['data'],
  operate: [],
} as const satisfies Record<Command, readonly (keyof typeof MOUNT)[]>;
export const CONTAINER = {
  restore: 'restore-db',
  jellyfin: 'jellyfin',
  backup: 'backup-agent',
  jellyroller: 'jellyroller-runner',
} as const;

/** The truth about a run. The table with the meaning of each is in the README. */
export const EXIT = {
  done: 0,
  bug: 1,
  configuration: 2,
  store: 3,
  backup: 4,
  target: 5,
  external: 6,
  finalBackup: 7,
  interrupted: 130,
  terminated: 143,
} as const;
export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

/**
 * The sidecar ends by itself within `budgetSeconds` of SIGTERM; `terminationGracePeriodSeconds` must exceed it.
 * Replicas were seen killed 60 to 80 s after SIGTERM whatever the grace says
 * (microsoft/azure-container-apps#1824), so the budget stays below that.
 */
export const SHUTDOWN = { budgetSeconds: 50, graceSeconds: 120 } as const;

/** The port of the sidecar's liveness answer. Not the ingress port; nothing outside the replica reaches it. */
export const HEALTH_PORT = 8097;
/** Where the sidecar answers the platform's liveness probe. */
export const HEALTH_PATH = '/health';
/** How an image of the agent is started; the command is the container's `args`. */
export const AGENT_BUNDLE = '/app/agent.mjs';

/** What the log alert looks for: part of the `msg` of a JSON line, word for word. */
export const LOG_MESSAGE = {
  /** Part of the message of every stored backup; the client's health line. */
  backupStored: 'last_backup_utc=',
  backupFailed: 'backup failed',
  restoreRefused: 'restore refused',
} as const;

/**
 * All four, always: the official image sets JELLYFIN_CONFIG_DIR=/config/config, so JELLYFIN_DATA_DIR alone leaves
 * system.xml outside the volume and brings the setup wizard back at each cold start (facts/jellyfin.md 1.2).
 */
export const JELLYFIN_DIRS = {
  JELLYFIN_DATA_DIR: '/data',
  JELLYFIN_CONFIG_DIR: '/data/config',
  JELLYFIN_CACHE_DIR: '/cache',
  JELLYFIN_LOG_DIR: '/data/log',
} as const;
