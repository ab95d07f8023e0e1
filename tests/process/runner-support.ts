import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { BlobItem } from '@azure/storage-blob';
import { jellyrollerBinIn } from '../../scripts/stand-in/jellyroller-bin.ts';
import type { FinishedProcess, RunningProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { agentEnv, filesIn, Home, runAgent, Sidecar, StandIn, startAgent, Store } from './support.ts';

/** `cli` is the stand-in of JellyRoller; its time-out in milliseconds instead of the real 30 s. */
export type Driver = 'http' | 'cli' | number;

/** A server that is set up, and the container of its mirror. */
export class Mirrored {
  readonly store: Store;
  readonly home: Home;
  readonly server: StandIn;
  readonly token: string;
  /** The film that was watched. */
  readonly itemId: string;
  readonly #env: Record<string, string>;

  private constructor(
    store: Store,
    home: Home,
    server: StandIn,
    { token, itemId }: { token: string; itemId: string },
    driver: Driver,
  ) {
    this.store = store;
    this.home = home;
    this.server = server;
    this.token = token;
    this.itemId = itemId;
    const cli = makeTempDir('jellyroller');
    this.#env = agentEnv(store, home.data, {
      JELLYFIN_URL: server.url,
      JELLYFIN_ADMIN_USER: 'admin',
      JELLYFIN_ADMIN_PASSWORD: 'pw',
      JELLYROLLER_ENABLED: 'true',
      BACKUP_INTERVAL_SECONDS: '86400',
      TMPDIR: cli,
      ...(driver === 'http'
        ? { JELLYROLLER_DRIVER: 'http' }
        : {
            JELLYROLLER_DRIVER: 'cli',
            JELLYROLLER_BIN: jellyrollerBinIn(
              join(cli, 'bin'),
              typeof driver === 'number' ? { timeoutMs: driver } : {},
            ),
          }),
    });
    for (const key of ['BACKUP_ON_CHANGE_SECONDS', 'DRILL_INTERVAL_SECONDS', 'HEALTH_PORT'])
      Reflect.deleteProperty(this.#env, key);
  }

  static async start(
    options: { driver?: Driver; server?: Record<string, string>; store?: Store; isSetUp?: boolean } = {},
  ): Promise<Mirrored> {
    const store = options.store ?? (await Store.create());
    const home = new Home();
    mkdirSync(home.data, { recursive: true });
    const server = await StandIn.start(home, options.server);
    const used = options.isSetUp === false ? { token: '', itemId: '' } : await server.setUp(home);
    return new Mirrored(store, home, server, used, options.driver ?? 'http');
  }

  env(overrides: Record<string, string> = {}): Record<string, string> {
    return { ...this.#env, ...overrides };
  }

  /** The container `jellyroller-runner`. */
  run(env: Record<string, string> = {}): Sidecar {
    return new Sidecar(startAgent(['jellyroller'], this.env(env)));
  }

  once(env: Record<string, string> = {}): Promise<FinishedProcess> {
    return runAgent(['jellyroller', '--once'], this.env(env));
  }

  /** Where a run is waited for longer than usual. */
  async onceFor(env: Record<string, string>, timeoutMs: number) {
    const running = startAgent(['jellyroller', '--once'], this.env(env));
    const { code } = await running.waitForExit(timeoutMs);
    return { code, jsonLines: running.jsonLines() };
  }

  restore(name: string, args: readonly string[] = [], env: Record<string, string> = {}) {
    return runAgent(['jellyroller', 'restore', name, '--json', ...args], this.env(env));
  }

  startRestore(name: string, args: readonly string[] = []): RunningProcess {
    return startAgent(['jellyroller', 'restore', name, ...args], this.env());
  }

  /** What is stored, oldest first. */
  archives(): Promise<BlobItem[]> {
    return this.store.blobs('jellyroller/');
  }

  get local(): string[] {
    return filesIn(this.home.path('data/backups'));
  }

  localFile(name: string): string {
    return this.home.path(`data/backups/${name}`);
  }

  /** How often the server completed a backup. */
  get created(): number {
    const logs = filesIn(this.home.path('log')).map((name) => this.home.read(`log/${name}`));
    return logs.join('').match(/Backup created: /g)?.length ?? 0;
  }

  get claim(): Record<string, unknown> | undefined {
    const name = '.agent/jellyroller.json';
    return this.home.has(name) ? (JSON.parse(this.home.read(name)) as Record<string, unknown>) : undefined;
  }
}

/** An archive of an earlier time, as the runner stores it; answers its name. Metadata that is empty is left out. */
export async function seedArchive(
  store: Store,
  stamp: string,
  metadata: Record<string, string> = {},
): Promise<string> {
  const name = `jellyroller/backup-${stamp}.zip`;
  const [, y, mo, d, h, mi, s] = /(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)/.exec(stamp) ?? [];
  const all = {
    source: 'jellyroller',
    size: '3',
    sha256: stamp,
    jellyfin_version: '10.11.11',
    timestamp_utc: `${y}-${mo}-${d}T${h}:${mi}:${s}.000Z`,
    verified_utc: '2026-02-01T00:00:00.000Z',
    ...metadata,
  };
  const kept = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== ''));
  await store.client.getBlockBlobClient(name).upload('zip', 3, { metadata: kept });
  return name;
}
