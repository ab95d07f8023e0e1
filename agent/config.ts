import { COMMAND_ENV, ENV, HEALTH_PORT, MOUNT, SHUTDOWN, type Command, type EnvKey } from './contract.ts';
import { AgentError } from './errors.ts';
import { LOG_LEVELS, type LogLevel } from './log.ts';
import { Secret } from './secret.ts';

export type StoreCredential =
  | { kind: 'connectionString'; connectionString: Secret }
  | { kind: 'sharedKey'; account: string; key: Secret }
  | { kind: 'managedIdentity'; account: string; clientId: string }
  | { kind: 'azureCli'; account: string };

export const JELLYROLLER_DRIVERS = ['cli', 'http'] as const;
export type JellyrollerDriver = (typeof JELLYROLLER_DRIVERS)[number];

export interface RetentionPolicy {
  keep: number;
  daily: number;
  weekly: number;
  monthly: number;
}

export interface AgentConfig {
  readonly credential: StoreCredential;
  readonly container: string;
  readonly dataDir: string;
  /** Where the server sees the media; the libraries of a brand-new server are made of it. */
  readonly mediaDir: string;
  readonly jellyfinUrl: string;
  /** The version of the Jellyfin image; `undefined` turns the downgrade gate off. */
  readonly jellyfinVersion: string | undefined;
  readonly backupIntervalSeconds: number;
  /** 0: no change-driven backups. */
  readonly backupOnChangeSeconds: number;
  readonly startupDelaySeconds: number;
  readonly minBackupSizeBytes: number;
  readonly backupArtwork: boolean;
  /** 0: no restore drill. */
  readonly drillIntervalSeconds: number;
  readonly retention: RetentionPolicy;
  readonly retryMax: number;
  readonly retryBackoffSeconds: number;
  /** How long a start waits for the replica before it to back up; 0: it does not ask. */
  readonly handoverWaitSeconds: number;
  readonly shutdownBudgetSeconds: number;
  readonly healthHost: string;
  /** 0: no liveness answer. */
  readonly healthPort: number;
  readonly logLevel: LogLevel;
  readonly jellyrollerEnabled: boolean;
  /** `cli`: the binary, or the API where there is none; `http`: the API. */
  readonly jellyrollerDriver: JellyrollerDriver;
  /** A path, or a name on the PATH. */
  readonly jellyrollerBin: string;
  /** How long one run of Jellyfin's backup engine may take. */
  readonly jellyrollerTimeoutSeconds: number;
  readonly jellyfinApiKey: Secret | undefined;
  /** Of a brand-new server; `undefined`: its wizard waits for a person. */
  readonly admin: { readonly name: string; readonly password: Secret } | undefined;
}

type Env = Readonly<Record<string, string | undefined>>;

class Reader {
  readonly problems: string[] = [];
  readonly #env: Env;
  readonly #allowed: ReadonlySet<EnvKey>;

  constructor(env: Env, allowed: readonly EnvKey[]) {
    this.#env = env;
    this.#allowed = new Set(allowed);
  }

  /** A variable that the command may not see reads as absent. Empty counts as absent: that is how compose files and
   * ARM templates say "not set". */
  raw(key: EnvKey): string | undefined {
    if (!this.#allowed.has(key)) return undefined;
    const value = this.#env[ENV[key]];
    return value === undefined || value === '' ? undefined : value;
  }

  problem(key: EnvKey, rule: string, reason: string, value?: string): void {
    const got = value === undefined ? 'it is not set' : `got ${JSON.stringify(value)}`;
    this.problems.push(`${ENV[key]} must be ${rule} (${reason}); ${got}`);
  }

  integer(key: EnvKey, fallback: number, min: number, max: number, reason: string): number {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    const parsed = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN;
    if (parsed >= min && parsed <= max) return parsed;
    this.problem(key, `a whole number from ${String(min)} to ${String(max)}, digits only`, reason, value);
    return fallback;
  }

  matching(key: EnvKey, fallback: string, pattern: RegExp, rule: string, reason: string): string {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    if (!pattern.test(value)) this.problem(key, rule, reason, value);
    return value;
  }

  boolean(key: EnvKey, fallback: boolean, reason: string): boolean {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    if (value === 'true' || value === 'false') return value === 'true';
    this.problem(key, '"true" or "false"', reason, value);
    return fallback;
  }

  oneOf<T extends string>(key: EnvKey, fallback: T, values: readonly T[], reason: string): T {
    const value = this.raw(key);
    if (value === undefined) return fallback;
    const found = values.find((candidate) => candidate === value);
    if (found !== undefined) return found;
    this.problem(key, `one of ${values.join(', ')}`, reason, value);
    return fallback;
  }
}

// https://learn.microsoft.com/azure/storage/common/storage-account-overview#storage-account-name
const ACCOUNT = /^[a-z0-9]{3,24}$/;
// https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
const CONTAINER = /^(?=.{3,63}$)[a-z0-9]+(-[a-z0-9]+)*$/;
const GUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const BASE64_KEY = /^[A-Za-z0-9+/]{20,}={0,2}$/;

/** What the SDK accepts. It would throw for anything else, and a bug's exit code is not a configuration's. */
function isConnectionString(value: string): boolean {
  if (value.startsWith('UseDevelopmentStorage=true')) return true;
  const part = (name: string) => new RegExp(`(?:^|;)${name}=([^;]+)`).exec(value)?.[1];
  const endpoint = part('BlobEndpoint');
  if (endpoint !== undefined && !/^https?:\/\/[^/]/.test(endpoint)) return false;
  const protocol = part('DefaultEndpointsProtocol');
  const key = part('AccountKey');
  if (protocol === undefined || key === undefined)
    return endpoint !== undefined && part('SharedAccessSignature') !== undefined;
  const hasAddress = endpoint !== undefined || part('EndpointSuffix') !== undefined;
  return (
    /^https?$/i.test(protocol) && hasAddress && part('AccountName') !== undefined && BASE64_KEY.test(key)
  );
}

function readCredential(read: Reader): StoreCredential | undefined {
  const connectionString = read.raw('connectionString');
  const account = read.raw('storageAccount');
  const key = read.raw('storageKey');
  const clientId = read.raw('clientId');
  if (connectionString !== undefined) {
    if (!isConnectionString(connectionString)) {
      // The value is a secret: the message says which rule it breaks, never what it is.
      read.problem(
        'connectionString',
        'DefaultEndpointsProtocol=…;AccountName=…;AccountKey=…;EndpointSuffix=… (or BlobEndpoint=…), or BlobEndpoint=…;SharedAccessSignature=…',
        'it names the account and carries its key',
        '[redacted]',
      );
    }
    if (key !== undefined || clientId !== undefined) {
      read.problem(
        key === undefined ? 'clientId' : 'storageKey',
        `unset when ${ENV.connectionString} is set`,
        'two credentials could mean two accounts',
        key === undefined ? clientId : '[redacted]',
      );
    }
    return { kind: 'connectionString', connectionString: new Secret(connectionString) };
  }
  if (account === undefined) {
    read.problem('storageAccount', 'set', `backups live there; or set ${ENV.connectionString}`);
    return undefined;
  }
  if (!ACCOUNT.test(account)) {
    read.problem(
      'storageAccount',
      '3 to 24 lower-case letters and digits',
      'Azure allows no other name',
      account,
    );
  }
  if (key !== undefined) {
    if (clientId !== undefined) {
      read.problem(
        'storageKey',
        `unset when ${ENV.clientId} is set`,
        'one credential, not two',
        '[redacted]',
      );
    }
    if (!BASE64_KEY.test(key)) read.problem('storageKey', 'base64', 'Azure account keys are', '[redacted]');
    return { kind: 'sharedKey', account, key: new Secret(key) };
  }
  if (clientId !== undefined) {
    if (!GUID.test(clientId)) {
      read.problem('clientId', 'a GUID', "it is the client id of the app's user-assigned identity", clientId);
    }
    return { kind: 'managedIdentity', account, clientId };
  }
  return { kind: 'azureCli', account };
}

function readAdmin(read: Reader): AgentConfig['admin'] {
  const name = read.raw('adminUser');
  const password = read.raw('adminPassword');
  if (name === undefined && password === undefined) return undefined;
  if (name === undefined)
    read.problem('adminUser', `set when ${ENV.adminPassword} is`, 'the wizard needs both');
  if (password === undefined)
    read.problem('adminPassword', `set when ${ENV.adminUser} is`, 'the wizard needs both');
  return name === undefined || password === undefined ? undefined : { name, password: new Secret(password) };
}

function readUrl(read: Reader): string {
  const fallback = 'http://localhost:8096';
  const value = read.raw('jellyfinUrl');
  if (value === undefined) return fallback;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (/\/\/[^/]*@/.test(value)) {
    // First: no other problem may print such a value.
    read.problem('jellyfinUrl', 'a URL without credentials', 'URLs are logged', '[redacted]');
  } else if (
    url === undefined ||
    !['http:', 'https:'].includes(url.protocol) ||
    url.search !== '' ||
    url.hash !== ''
  ) {
    read.problem(
      'jellyfinUrl',
      'an http or https URL without query',
      'Jellyfin is asked for /health there',
      value,
    );
  }
  return value.replace(/\/+$/, '');
}

/**
 * The configuration of one command, from the variables that this command may see.
 *
 * Intervals and delays are in seconds, sizes in bytes.
 * @throws AgentError `configuration_invalid` that lists every problem at once: variable, rule, reason, value.
 */
export function parseConfig(command: Command, env: Env): AgentConfig {
  const read = new Reader(env, COMMAND_ENV[command]);
  const seconds = 'a day has 86400';
  const credential = readCredential(read);
  const config = {
    container: read.matching(
      'container',
      'jellyfin-backups',
      CONTAINER,
      '3 to 63 lower-case letters, digits and single hyphens',
      'Azure allows no other container name',
    ),
    dataDir: read.matching(
      'dataDir',
      '/data',
      /^\/(?!$)/,
      'an absolute path below /',
      'a relative one would depend on the working folder',
    ),
    mediaDir: read.matching(
      'mediaDir',
      MOUNT.media,
      /^\/(?!$)/,
      'an absolute path below /',
      "it is a folder of Jellyfin's container",
    ),
    jellyfinUrl: readUrl(read),
    jellyfinVersion: ((value) => (value === '' ? undefined : value))(
      read.matching(
        'jellyfinVersion',
        '',
        /^\d+\.\d+(\.\d+)*(-[\w.]+)?$/,
        'a version such as 10.11.11',
        'a restore refuses backups of a newer one',
      ),
    ),
    backupIntervalSeconds: read.integer('backupIntervalSeconds', 14_400, 1, 604_800, `a week has 604800 s`),
    backupOnChangeSeconds: read.integer('backupOnChangeSeconds', 60, 0, 86_400, `0 turns it off; ${seconds}`),
    startupDelaySeconds: read.integer(
      'startupDelaySeconds',
      60,
      0,
      3_600,
      'writes in this time are not yet backed up',
    ),
    minBackupSizeBytes: read.integer(
      'minBackupSizeBytes',
      1_024,
      0,
      1_000_000_000_000,
      'a floor under the content checks',
    ),
    backupArtwork: read.boolean('backupArtwork', true, 'metadata/ is in the backup or it is not'),
    drillIntervalSeconds: read.integer(
      'drillIntervalSeconds',
      86_400,
      0,
      2_592_000,
      `0 turns it off; ${seconds}`,
    ),
    retention: {
      keep: read.integer('retentionKeep', 30, 1, 4_000, 'the last good backup is never deleted'),
      daily: read.integer('retentionDaily', 7, 0, 3_650, '0 turns the tier off'),
      weekly: read.integer('retentionWeekly', 4, 0, 520, '0 turns the tier off'),
      monthly: read.integer('retentionMonthly', 12, 0, 120, '0 turns the tier off'),
    },
    retryMax: read.integer('retryMax', 5, 0, 100, 'retries after the first attempt'),
    retryBackoffSeconds: read.integer(
      'retryBackoffSeconds',
      15,
      0,
      600,
      'the first wait; it doubles, up to a minute',
    ),
    handoverWaitSeconds: read.integer(
      'handoverWaitSeconds',
      45,
      0,
      200,
      'a cold start that takes longer than 240 s is cut by the ingress; 0 turns it off',
    ),
    shutdownBudgetSeconds: read.integer(
      'shutdownBudgetSeconds',
      SHUTDOWN.budgetSeconds,
      1,
      600,
      'the platform kills the replica after its grace period',
    ),
    healthHost: read.matching(
      'healthHost',
      '127.0.0.1',
      /^[0-9a-fA-F.:]+$|^localhost$/,
      'an IP address or localhost',
      'the liveness answer is bound to it',
    ),
    healthPort: read.integer('healthPort', HEALTH_PORT, 0, 65_535, '0 turns the liveness answer off'),
    admin: readAdmin(read),
    jellyrollerEnabled: read.boolean('jellyrollerEnabled', false, 'the runner runs or it does not'),
    jellyrollerDriver: read.oneOf('jellyrollerDriver', 'cli', JELLYROLLER_DRIVERS, 'there are two'),
    jellyrollerBin: read.matching(
      'jellyrollerBin',
      'jellyroller',
      /^(\/|[\w.-]+$)/,
      'an absolute path, or a name on the PATH',
      'a relative path would depend on the working folder',
    ),
    jellyrollerTimeoutSeconds: read.integer(
      'jellyrollerTimeoutSeconds',
      7_200,
      60,
      86_400,
      'until then no second backup is started',
    ),
    jellyfinApiKey: ((value) => (value === undefined ? undefined : new Secret(value)))(
      read.raw('jellyfinApiKey'),
    ),
    logLevel: read.oneOf('logLevel', 'info', LOG_LEVELS, 'other levels do not exist'),
  };
  if (read.problems.length > 0 || credential === undefined) {
    const count = read.problems.length;
    throw new AgentError(
      'configuration_invalid',
      `configuration has ${String(count)} problem${count === 1 ? '' : 's'}:\n${read.problems.map((line) => `  - ${line}`).join('\n')}`,
    );
  }
  return deepFreeze({ credential, ...config });
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value)) {
    if (typeof child === 'object' && child !== null && !(child instanceof Secret))
      deepFreeze(child as object);
  }
  return Object.freeze(value);
}
