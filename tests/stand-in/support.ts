import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startProcess, type RunningProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const CLIENT = 'MediaBrowser Client="test", Device="jest", DeviceId="jest-1", Version="1.0.0"';

/** The folders of one server: `data` is its volume, `media` has two films. */
export class Home {
  readonly dir = makeTempDir('stand-in');
  readonly data = join(this.dir, 'data');
  readonly media = join(this.dir, 'media');
  readonly database = join(this.data, 'data/jellyfin.db');
  readonly wal = `${this.database}-wal`;

  constructor() {
    mkdirSync(this.media);
    writeFileSync(join(this.media, 'Big Buck Bunny (2008).mkv'), 'x');
    writeFileSync(join(this.media, 'Sintel (2010).mkv'), 'x');
  }

  path(name: string): string {
    return join(this.data, name);
  }

  read(name: string): string {
    return readFileSync(this.path(name), 'utf8');
  }

  has(name: string): boolean {
    return existsSync(this.path(name));
  }

  env(): Record<string, string> {
    return {
      PATH: process.env['PATH'] ?? '',
      HOME: join(this.dir, 'home'),
      // A start costs half a second without, most of it for stripping types.
      NODE_COMPILE_CACHE: join(process.cwd(), 'node_modules/.cache/stand-in'),
      JELLYFIN_DATA_DIR: this.data,
      JELLYFIN_CONFIG_DIR: this.path('config'),
      JELLYFIN_CACHE_DIR: join(this.dir, 'cache'),
      JELLYFIN_LOG_DIR: this.path('log'),
      STAND_IN_PORT: '0',
      STAND_IN_BOOT_MS: '40',
      STAND_IN_SHUTDOWN_MS: '60',
      STAND_IN_WRITE_INTERVAL_MS: '0',
      STAND_IN_EXIT_AFTER_SECONDS: '60',
      STAND_IN_FREE_SPACE_BYTES: String(2 ** 40),
    };
  }
}

export async function eventually(
  isTrue: () => boolean | Promise<boolean>,
  complaint: () => string = () => 'it did not happen in time',
): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await isTrue())) {
    if (Date.now() > deadline) throw new Error(complaint());
    await sleep(5);
  }
}

/** The properties that the tests ask for, of whatever object the server answers with. */
export interface Body {
  Id: string;
  Name: string;
  Path: string;
  Played: boolean;
  AccessToken: string;
  ServerId: string;
  StartupWizardCompleted: boolean;
  TotalRecordCount: number;
  Items: Body[];
}

export interface Answer {
  status: number;
  text: string;
  json: Body;
  /** The answer when it is a list. */
  list: Body[];
}

export class StandIn {
  readonly process: RunningProcess;
  readonly url: string;

  private constructor(running: RunningProcess, url: string) {
    this.process = running;
    this.url = url;
  }

  /** Resolves when the setup server listens. */
  static async launch(home: Home, env: Record<string, string> = {}): Promise<StandIn> {
    const running = launchProcess(home, env);
    const line = await running.waitForLine(({ text }) => text.startsWith('listening on '));
    return new StandIn(running, line.text.slice('listening on '.length));
  }

  /** Resolves when the server is ready. */
  static async start(home: Home, env: Record<string, string> = {}): Promise<StandIn> {
    const standIn = await StandIn.launch(home, env);
    await standIn.untilHealth('Healthy');
    return standIn;
  }

  /** The body of /health, `refused` when nobody listens. */
  async health(): Promise<string> {
    return (await this.tryCall('GET', '/health'))?.text ?? 'refused';
  }

  untilHealth(wanted: string): Promise<void> {
    return eventually(
      async () => (await this.health()) === wanted,
      () => `not ${wanted}\n${this.process.stderr()}`,
    );
  }

  /** Undefined when the connection is refused or cut. */
  async tryCall(method: string, path: string): Promise<Answer | undefined> {
    try {
      return await this.call(method, path);
    } catch (error) {
      // Not instanceof: fetch's TypeError is not the one of jest's sandbox.
      if ((error as Error).name === 'TypeError') return undefined;
      throw error;
    }
  }

  async call(
    method: string,
    path: string,
    options: { token?: string; body?: unknown } = {},
  ): Promise<Answer> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: {
        connection: 'close',
        authorization: options.token ? `${CLIENT}, Token="${options.token}"` : CLIENT,
        ...(options.body !== undefined && { 'content-type': 'application/json' }),
      },
      ...(options.body !== undefined && { body: JSON.stringify(options.body) }),
    });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.startsWith('application/json') ?? false;
    const json = (isJson ? JSON.parse(text) : {}) as Body;
    return { status: response.status, text, json, list: Array.isArray(json) ? json : [] };
  }

  async completeWizard(): Promise<void> {
    const locale = { UICulture: 'en-US', MetadataCountryCode: 'US', PreferredMetadataLanguage: 'en' };
    const remote = { EnableRemoteAccess: true, EnableAutomaticPortMapping: false };
    await this.call('POST', '/Startup/Configuration', { body: { ServerName: 'films', ...locale } });
    await this.call('GET', '/Startup/User');
    await this.call('POST', '/Startup/User', { body: { Name: 'admin', Password: 'pw' } });
    await this.call('POST', '/Startup/RemoteAccess', { body: remote });
    await this.call('POST', '/Startup/Complete');
  }

  logIn(password = 'pw'): Promise<Answer> {
    return this.call('POST', '/Users/AuthenticateByName', { body: { Username: 'admin', Pw: password } });
  }

  /** A server in use: wizard done, signed in, one library, the first film watched. */
  async setUp(home: Home): Promise<{ token: string; itemId: string; serverId: string }> {
    await this.completeWizard();
    const { AccessToken: token, ServerId: serverId } = (await this.logIn()).json;
    const query = `name=Movies&collectionType=movies&paths=${encodeURIComponent(home.media)}&refreshLibrary=true`;
    await this.call('POST', `/Library/VirtualFolders?${query}`, { token, body: { LibraryOptions: {} } });
    const items = await this.call('GET', '/Items?recursive=true&includeItemTypes=Movie', { token });
    const itemId = items.json.Items[0]?.Id ?? 'no item';
    await this.call('POST', `/UserPlayedItems/${itemId}`, { token });
    return { token, itemId, serverId };
  }

  async stop(): Promise<number | null> {
    this.process.signal('SIGTERM');
    return (await this.process.waitForExit(10_000)).code;
  }
}

export function launchProcess(home: Home, env: Record<string, string> = {}): RunningProcess {
  return startProcess({
    args: ['scripts/stand-in/main.ts'],
    env: { ...home.env(), ...env },
    name: 'stand-in',
  });
}
