import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { HttpJellyfin } from '../../agent/adapters/http-jellyfin.ts';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { SystemClock } from '../../agent/adapters/system-clock.ts';
import { bootstrap } from '../../agent/bootstrap.ts';
import { createLogger } from '../../agent/log.ts';
import { Secret } from '../../agent/secret.ts';
import { JellyfinProxy } from './jellyfin-proxy.ts';
import {
  ADMIN,
  expectAllOnce,
  FULL,
  killEverywhere,
  NewServer,
  PASSWORD,
  rows,
  stateOf,
  TWELVE,
} from './new-server.ts';
import { agentEnv, eventually, nextStart, Sidecar, StandIn, startAgent, type Home } from './support.ts';

const saysNoSecret = ({ process }: Sidecar) => {
  const output = process.stdout() + process.stderr();
  expect(output).not.toBe('');
  // As it is and as JSON would show it; and what came of it.
  for (const secret of [PASSWORD, JSON.stringify(PASSWORD).slice(1, -1), '\u{1F3AC}', 'AccessToken'])
    expect(output).not.toContain(secret);
};

const secretsOf = (home: Home) =>
  rows(home, 'SELECT AccessToken FROM ApiKeys UNION SELECT AccessToken FROM Devices').map((row) =>
    String(row['AccessToken']),
  );

test.concurrent(
  'a brand-new server: administrator, wizard closed by the fourth call, libraries by name, one key, a backup',
  async () => {
    const it = await NewServer.create();
    it.addFolders('movies', 'Films', 'TV Shows', 'Pictures', 'incoming', '.trash');
    let argv = '';
    const sidecar = it.sidecar();
    it.proxy.decide = ({ path }) => {
      if (path === '/Startup/Complete')
        argv = readFileSync(`/proc/${String(sidecar.process.pid)}/cmdline`, 'utf8');
      return undefined;
    };
    const stored = await sidecar.nextBackup(0);
    expect(it.state()).toEqual({
      ...FULL,
      libraries: {
        Films: ['movies', '/Films'],
        Movies: ['movies', '/movies'],
        Pictures: ['homevideos', '/Pictures'],
        'TV Shows': ['tvshows', '/TV Shows'],
      },
    });
    expect(sidecar.said('libraries added')).toMatchObject([{ leftOut: ['.trash', 'incoming'] }]);
    expect(it.marker).toMatchObject({ bootstrap: 'done' });
    expect(rows(it.home, 'SELECT Id FROM Devices')).toEqual([]);

    // Nothing stands between the first look and the closed wizard but what it takes.
    const calls = it.proxy.requests.map(({ method, path }) => `${method} ${path}`);
    const look = calls.lastIndexOf('GET /health', calls.indexOf('GET /Startup/User'));
    expect(calls.slice(look, look + 5)).toEqual([
      'GET /health',
      'GET /System/Info/Public',
      'GET /Startup/User',
      'POST /Startup/User',
      'POST /Startup/Complete',
    ]);
    expect(Number(sidecar.said('setup wizard completed')[0]?.['tookMs'])).toBeLessThan(2_000);

    // The next start has it all, without another call of the bootstrap.
    const next = await nextStart(it.store);
    expect(stateOf(next.home, it.home.media)).toEqual(it.state());
    expect(stored.name).toBe((await it.store.newest()).name);
    const [key = 'no key'] = secretsOf(it.home);
    expect(sidecar.process.stdout()).not.toContain(key);
    expect(argv).toMatch(/agent\.mjs.*backup/);
    expect(argv).not.toContain('\u{1F3AC}');
    saysNoSecret(sidecar);
    const signedIn = await it.server.call('POST', '/Users/AuthenticateByName', {
      body: { Username: ADMIN, Pw: PASSWORD },
    });
    expect(signedIn.status).toBe(200);
    await it.end(sidecar);
  },
);

test.concurrent('folders that say nothing: one mixed library of all of it', async () => {
  const it = await NewServer.create();
  it.addFolders('a', 'b, c');
  const sidecar = it.sidecar();
  await sidecar.nextBackup(0);
  expect(it.state()).toEqual({ ...FULL, libraries: { Media: ['mixed', ''] } });
  await it.end(sidecar);
});

/** In this process, abandoned where a kill would end it; with real kills in bootstrap.long.test.ts. */
test.concurrent.each([{}, TWELVE])(
  'ended between each two calls and started again: the same end, everything once (%j)',
  async (version) => {
    const it = await NewServer.create(version);
    it.addFolders('movies', 'music');
    const lines: string[] = [];
    const log = createLogger('backup', (line) => lines.push(line), { level: 'debug' });
    const deps = {
      server: new HttpJellyfin(it.proxy.url),
      disk: new LocalDisk(),
      clock: new SystemClock(),
      log,
    };
    const options = { dataDir: it.home.data, mediaDir: it.home.media };
    const moments = await killEverywhere(it, () => {
      const controller = new AbortController();
      const admin = { name: ADMIN, password: new Secret(PASSWORD) };
      const running = bootstrap(deps, options, admin, controller.signal);
      return {
        finished: running.then((result) => result === 'completed' && !controller.signal.aborted),
        kill: async () => {
          controller.abort();
          await running;
        },
      };
    });
    expectAllOnce(it, moments);
    expect(lines.join('')).not.toContain('taken over');
    await it.server.process.kill();
    it.proxy.close();
  },
);

test.concurrent('Jellyfin 12, somebody else has set a password: loud, nothing touched', async () => {
  const it = await NewServer.create(TWELVE);
  await it.server.call('GET', '/Startup/User');
  await it.server.call('POST', '/Startup/User', { body: { Name: 'stranger', Password: 'x' } });
  const before = it.state();
  const sidecar = it.sidecar();
  const said = await sidecar.until(/^setup taken over/);
  expect(said).toMatchObject({ level: 'error', wizard: 'open', err: { code: 'external_failed' } });
  // Only what the server refused.
  expect(it.proxy.changes).toEqual(['POST /Startup/User', 'POST /Users/AuthenticateByName']);
  expect(it.state()).toEqual(before);
  await sidecar.until(/^no backup: the server is not configured/);
  expect(await it.store.names('backup-')).toEqual([]);
  saysNoSecret(sidecar);
  await it.end(sidecar);
});

test.concurrent('somebody else closes the wizard in between: loud, nothing after that', async () => {
  const it = await NewServer.create();
  it.proxy.decide = async ({ path }) => {
    if (path === '/Startup/Complete') await it.server.completeWizard();
    return undefined;
  };
  const sidecar = it.sidecar();
  expect(await sidecar.until(/^setup taken over/)).toMatchObject({ level: 'error', wizard: 'closed' });
  const changes = it.proxy.changes;
  // The closing call is refused, the sign-in is refused, and that was it.
  expect(changes.slice(changes.indexOf('POST /Startup/Complete'))).toEqual([
    'POST /Startup/Complete',
    'POST /Users/AuthenticateByName',
  ]);
  expect(it.state()).toMatchObject({ users: ['admin'], keys: [], libraries: {} });
  await it.end(sidecar);
});

test.concurrent('a server that a person configured first: no request but GET', async () => {
  const it = await NewServer.create();
  await it.server.completeWizard();
  const sidecar = it.sidecar();
  await sidecar.nextBackup(0);
  expect(it.proxy.changes).toEqual([]);
  expect(it.marker).not.toHaveProperty('bootstrap');
  await it.end(sidecar);
});

test.concurrent(
  'a restored volume: other credentials, even an open wizard, and no request but GET',
  async () => {
    const it = await NewServer.create();
    const first = it.sidecar();
    await first.nextBackup(0);
    await it.end(first);
    const { home } = await nextStart(it.store);
    const file = home.path('config/system.xml');
    writeFileSync(file, home.read('config/system.xml').replace(/(WizardCompleted>)true/, '$1false'));
    const server = await StandIn.start(home);
    const proxy = await JellyfinProxy.start(server.url);
    const env = {
      JELLYFIN_URL: proxy.url,
      JELLYFIN_ADMIN_USER: ADMIN,
      JELLYFIN_ADMIN_PASSWORD: 'another-password',
    };
    const sidecar = new Sidecar(startAgent(['backup'], agentEnv(it.store, home.data, env)));
    expect(await sidecar.until('backup failed')).toMatchObject({ err: { code: 'source_damaged' } });
    expect(proxy.changes).toEqual([]);
    proxy.close();
    await Promise.all([sidecar.process.kill(), server.process.kill()]);
  },
);

test.concurrent(
  'libraries and key refused: the wizard is closed, the backup is stored, the next start goes on',
  async () => {
    const it = await NewServer.create();
    it.addFolders('movies');
    it.proxy.decide = ({ method, path }) => {
      if (path.startsWith('/Environment/')) return 500;
      return method === 'POST' && path.startsWith('/Auth/Keys') ? 403 : undefined;
    };
    const sidecar = it.sidecar();
    await sidecar.nextBackup(0);
    const failed = sidecar.said(/^bootstrap step failed/);
    expect(failed.map((line) => [line['level'], line['step']])).toEqual([
      ['warn', 'libraries'],
      ['warn', 'API key'],
    ]);
    expect(it.state()).toEqual({ ...FULL, keys: [], libraries: {} });
    expect(it.marker).toMatchObject({ bootstrap: 'libraries' });
    saysNoSecret(sidecar);
    await sidecar.process.kill();

    it.proxy.decide = () => undefined;
    const again = it.sidecar();
    await eventually(() => it.marker['bootstrap'] === 'done');
    expect(it.state()).toEqual({ ...FULL, libraries: { Movies: ['movies', '/movies'] } });
    expect(it.proxy.requests.filter(({ path }) => path === '/Startup/Complete')).toHaveLength(1);
    await it.end(again);
  },
);

test.concurrent(
  'the server dies right after the administrator was made: set up when it is back',
  async () => {
    const it = await NewServer.create();
    let hasDied = false;
    it.proxy.decide = async ({ path }) => {
      if (path !== '/Startup/Complete' || hasDied) return undefined;
      hasDied = true;
      await it.server.process.kill();
      // A starting server says that its wizard is open, whatever it is.
      it.server = await StandIn.launch(it.home, { STAND_IN_BOOT_MS: '500' });
      it.proxy.pointTo(it.server.url);
      return 'drop-before';
    };
    const sidecar = it.sidecar();
    await sidecar.nextBackup(0);
    expect(it.state()).toMatchObject(FULL);
    expect(sidecar.process.jsonLines().filter((line) => line['level'] === 'error')).toEqual([]);
    await it.end(sidecar);
  },
);

test.concurrent('no password, no bootstrap: an empty one is one that is not set', async () => {
  const it = await NewServer.create();
  const sidecar = it.sidecar({ JELLYFIN_ADMIN_USER: '', JELLYFIN_ADMIN_PASSWORD: '' });
  await sidecar.until(/^no backup: the server is not configured/);
  expect(it.proxy.changes).toEqual([]);
  expect(existsSync(it.home.path('.agent/volume.json'))).toBe(true);
  const half = it.sidecar({ JELLYFIN_ADMIN_PASSWORD: '' });
  expect(await half.exit()).toBe(2);
  expect(half.process.stderr()).toContain('JELLYFIN_ADMIN_PASSWORD must be set when JELLYFIN_ADMIN_USER is');
  await it.end(sidecar);
});
