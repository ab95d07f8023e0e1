import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { JellyfinProxy } from './jellyfin-proxy.ts';
import {
  agentEnv,
  filesIn,
  newHome,
  restore,
  Sidecar,
  StandIn,
  startAgent,
  Store,
  type Home,
} from './support.ts';

export const ADMIN = 'owner';
/** What JSON, headers and shells stumble over. */
export const PASSWORD = `a"b'c\\d %41&;$(x) \u00e4\u00f6\u00fc \u{1F3AC} `;
export const TWELVE = { STAND_IN_VERSION: '12.0.0' };

/** A brand-new server behind a proxy, on a volume that the init container made a first boot. */
export class NewServer {
  readonly store: Store;
  readonly home: Home;
  readonly proxy: JellyfinProxy;
  server: StandIn;

  private constructor(store: Store, home: Home, server: StandIn, proxy: JellyfinProxy) {
    this.store = store;
    this.home = home;
    this.server = server;
    this.proxy = proxy;
  }

  static async create(env: Record<string, string> = {}): Promise<NewServer> {
    const store = await Store.create();
    const home = newHome();
    await restore(store, home);
    const server = await StandIn.start(home, env);
    return new NewServer(store, home, server, await JellyfinProxy.start(server.url));
  }

  addFolders(...names: string[]): void {
    for (const name of names) mkdirSync(join(this.home.media, name));
  }

  sidecar(env: Record<string, string> = {}): Sidecar {
    const own = {
      JELLYFIN_URL: this.proxy.url,
      JELLYFIN_ADMIN_USER: ADMIN,
      JELLYFIN_ADMIN_PASSWORD: PASSWORD,
      MEDIA_DIR: this.home.media,
      LOG_LEVEL: 'debug',
    };
    return new Sidecar(startAgent(['backup'], agentEnv(this.store, this.home.data, { ...own, ...env })));
  }

  get marker(): Record<string, unknown> {
    return JSON.parse(readFileSync(this.home.path('.agent/volume.json'), 'utf8')) as Record<string, unknown>;
  }

  async isWizardOpen(): Promise<boolean> {
    return !(await this.server.call('GET', '/System/Info/Public')).json.StartupWizardCompleted;
  }

  async end(sidecar: Sidecar): Promise<void> {
    await Promise.all([sidecar.process.kill(), this.server.process.kill()]);
    this.proxy.close();
  }

  state() {
    return stateOf(this.home);
  }
}

export function rows(home: Home, sql: string): Record<string, unknown>[] {
  const database = new DatabaseSync(home.database, { readOnly: true });
  try {
    return database.prepare(sql).all();
  } finally {
    database.close();
  }
}

/** What a person finds: users with a password, keys, sessions that nobody ended, libraries with type and folders. */
export function stateOf(home: Home, media = home.media) {
  const root = home.path('root/default');
  return {
    users: rows(home, 'SELECT Username FROM Users WHERE Password IS NOT NULL').map((row) => row['Username']),
    everyone: rows(home, 'SELECT Id FROM Users').length,
    keys: rows(home, 'SELECT Name FROM ApiKeys').map((row) => row['Name']),
    isClosed: home.read('config/system.xml').includes('<IsStartupWizardCompleted>true<'),
    libraries: Object.fromEntries(
      filesIn(root).map((name) => {
        const files = filesIn(join(root, name));
        const type = files.find((file) => file.endsWith('.collection'))?.split('.')[0] ?? 'mixed';
        const links = files.filter((file) => file.endsWith('.mblink'));
        const paths = links.map((file) => readFileSync(join(root, name, file), 'utf8').replace(media, ''));
        return [name, [type, ...paths.sort()]];
      }),
    ),
  };
}

export const FULL = { users: [ADMIN], everyone: 1, keys: ['JellyRoller'], isClosed: true };

/** One start of the bootstrap: `end` says how it ends by itself, `kill` ends it at once. */
export interface Start {
  finished: Promise<boolean>;
  kill(): Promise<void>;
}

/**
 * Starts again and again, each killed at the first moment that none was killed at: before and after each call but the looks at
 * the server's health. Answers the moments.
 */
export async function killEverywhere({ proxy }: NewServer, start: () => Start): Promise<string[]> {
  const moments = new Set<string>();
  for (let number = 1; number <= 60; number += 1) {
    const dying = new Promise<false>((resolve) => {
      let isDead = false;
      proxy.decide = ({ method, path }) => {
        if (isDead) return 'drop-before';
        if (/^\/(health|System)/.test(path)) return undefined;
        const call = `${method} ${path.replace(/paths=.*|path=[^&]*/, '')}`;
        const moment = [`before ${call}`, `after ${call}`].find((one) => !moments.has(one));
        if (moment === undefined) return undefined;
        moments.add(moment);
        isDead = true;
        // The server finishes what it was asked; nobody hears of it.
        setTimeout(resolve, 30, false);
        return moment.startsWith('before') ? 'drop-before' : 'drop-after';
      };
    });
    const running = start();
    if (await Promise.race([running.finished, dying])) return [...moments];
    await running.kill();
  }
  throw new Error(`no end after ${[...moments].join(', ')}`);
}

/** What every way of getting there must end in. */
export function expectAllOnce(server: NewServer, moments: readonly string[]): void {
  expect(moments.filter((moment) => moment.includes('/Startup/Complete'))).toHaveLength(2);
  expect(moments.length).toBeGreaterThanOrEqual(20);
  expect(server.state()).toEqual({
    ...FULL,
    libraries: { Movies: ['movies', '/movies'], Music: ['music', '/music'] },
  });
  expect(server.marker).toMatchObject({ bootstrap: 'done' });
}
