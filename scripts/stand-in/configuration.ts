import { existsSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { Log } from './log.ts';
import type { Paths } from './paths.ts';
import { loadSettings, saveSettings, type Settings } from './xml-settings.ts';

interface SettingsFile {
  name: string;
  root: string;
  defaults: Settings;
}

const SYSTEM: SettingsFile = {
  name: 'system.xml',
  root: 'ServerConfiguration',
  defaults: {
    LogFileRetentionDays: '3',
    IsStartupWizardCompleted: 'false',
    EnableMetrics: 'false',
    IsPortAuthorized: 'true',
    QuickConnectAvailable: 'true',
    EnableCaseSensitiveItemIds: 'true',
    MetadataPath: '',
    PreferredMetadataLanguage: 'en',
    MetadataCountryCode: 'US',
    SortRemoveWords: ['the', 'a', 'an'],
    MinResumePct: '5',
    LibraryMonitorDelay: '60',
    ServerName: '',
    UICulture: 'en-US',
    ActivityLogRetentionDays: '30',
  },
};
const NETWORK: SettingsFile = {
  name: 'network.xml',
  root: 'NetworkConfiguration',
  defaults: {
    BaseUrl: '',
    EnableHttps: 'false',
    RequireHttps: 'false',
    InternalHttpPort: '8096',
    InternalHttpsPort: '8920',
    PublicHttpPort: '8096',
    PublicHttpsPort: '8920',
    AutoDiscovery: 'true',
    EnableUPnP: 'false',
    EnableIPv4: 'true',
    EnableIPv6: 'false',
    EnableRemoteAccess: 'true',
    LocalNetworkSubnets: [],
    LocalNetworkAddresses: [],
    KnownProxies: [],
  },
};
const ENCODING: SettingsFile = {
  name: 'encoding.xml',
  root: 'EncodingOptions',
  defaults: {
    EncodingThreadCount: '-1',
    TranscodingTempPath: '',
    EnableHardwareEncoding: 'true',
    H264Crf: '23',
  },
};
const DATABASE: SettingsFile = {
  name: 'database.xml',
  root: 'DatabaseConfigurationOptions',
  defaults: { DatabaseType: 'Jellyfin-SQLite', LockingBehavior: 'NoLock' },
};
const LOGGING = { Serilog: { MinimumLevel: { Default: 'Information', Override: { Microsoft: 'Warning' } } } };

/** The settings files. A missing or damaged one is replaced by the defaults without a question, wizard included. */
export class ServerConfiguration {
  readonly #paths: Paths;
  readonly #xmlPauseMs: number;
  readonly #system: Settings;
  readonly #network: Settings;

  constructor(paths: Paths, log: Log, xmlPauseMs: number) {
    this.#paths = paths;
    this.#xmlPauseMs = xmlPauseMs;
    this.#system = this.#loadOrReplace(SYSTEM, log);
    this.#network = this.#loadOrReplace(NETWORK, log);
    this.#loadOrReplace(ENCODING, log);
    this.#loadOrReplace(DATABASE, log);
    const logging = join(paths.configDir, 'logging.default.json');
    if (!existsSync(logging)) writeFileSync(logging, `${JSON.stringify(LOGGING, undefined, 2)}\n`);
  }

  get isWizardCompleted(): boolean {
    return this.#system.IsStartupWizardCompleted === 'true';
  }

  get serverName(): string {
    return String(this.#system.ServerName) || hostname();
  }

  get baseUrl(): string {
    return normalBaseUrl(this.#network);
  }

  get system(): Readonly<Settings> {
    return this.#system;
  }

  updateSystem(changes: Settings): void {
    Object.assign(this.#system, changes);
    this.#save(SYSTEM, this.#system);
  }

  updateNetwork(changes: Settings): void {
    Object.assign(this.#network, changes);
    this.#save(NETWORK, this.#network);
  }

  #loadOrReplace(file: SettingsFile, log: Log): Settings {
    const path = join(this.#paths.configDir, file.name);
    const loaded = loadSettings(path, file.root, (error) =>
      log.error(`Error loading configuration file: ${path}`, error),
    );
    if (loaded !== undefined) return { ...file.defaults, ...loaded };
    const defaults = { ...file.defaults };
    this.#save(file, defaults);
    return defaults;
  }

  #save(file: SettingsFile, settings: Settings): void {
    saveSettings(join(this.#paths.configDir, file.name), file.root, settings, this.#xmlPauseMs);
  }
}

/** What the setup server must know before the configuration is loaded for good. */
export function readNetwork(paths: Paths): { port: number; baseUrl: string } {
  const file = join(paths.configDir, NETWORK.name);
  const network = loadSettings(file, NETWORK.root, () => undefined) ?? NETWORK.defaults;
  return { port: Number(network.InternalHttpPort) || 8096, baseUrl: normalBaseUrl(network) };
}

function normalBaseUrl(network: Settings): string {
  const text = String(network.BaseUrl ?? '').replace(/^\/+|\/+$/g, '');
  return text === '' ? '' : `/${text}`;
}
