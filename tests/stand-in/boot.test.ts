import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Home, launchProcess, StandIn } from './support.ts';

test.concurrent('goes through setup phase, refused connections and 503 before it is Healthy', async () => {
  const standIn = await StandIn.launch(new Home(), { STAND_IN_BOOT_MS: '1000' });
  const seen: string[] = [await standIn.health()];
  const early = await standIn.call('GET', '/System/Info/Public');
  expect(early).toMatchObject({ status: 200, json: { startupWizardCompleted: false } });
  expect((await standIn.call('GET', '/System/Ping')).status).toBe(503);
  while (seen.at(-1) !== 'Healthy') {
    const state = await standIn.health();
    if (state !== seen.at(-1)) seen.push(state);
  }
  expect(seen).toEqual(['Degraded', 'refused', 'Unhealthy', 'Healthy']);
  expect((await standIn.call('GET', '/System/Ping')).json).toBe('Jellyfin Server');
});

test.concurrent(
  'a 12.x setup server does not know its public info until the services are there',
  async () => {
    const standIn = await StandIn.launch(new Home(), {
      STAND_IN_VERSION: '12.0.0',
      STAND_IN_BOOT_MS: '2000',
    });
    expect((await standIn.call('GET', '/System/Info/Public')).status).toBe(503);
  },
);

test.concurrent('a SIGTERM in the setup phase is swallowed', async () => {
  const standIn = await StandIn.launch(new Home(), { STAND_IN_BOOT_MS: '1000' });
  standIn.process.signal('SIGTERM');
  await standIn.untilHealth('Healthy');
  expect(await standIn.stop()).toBe(0);
});

test.concurrent(
  'the port comes from network.xml when no other is given, and a base URL moves every path',
  async () => {
    const home = new Home();
    mkdirSync(home.path('config'), { recursive: true });
    const network = (port: number) =>
      `<NetworkConfiguration><InternalHttpPort>${port}</InternalHttpPort><BaseUrl>films</BaseUrl></NetworkConfiguration>`;
    const first = await StandIn.launch(home);
    const port = Number(new URL(first.url).port);
    await first.process.kill();
    writeFileSync(home.path('config/network.xml'), network(port));

    const standIn = await StandIn.launch(home, { STAND_IN_PORT: '', STAND_IN_BOOT_MS: '2000' });
    expect(standIn.url).toBe(`http://127.0.0.1:${port}`);
    expect((await standIn.call('GET', '/films/health')).text).toBe('Degraded');
    expect((await standIn.call('GET', '/health')).status).toBe(503);
  },
);

test.concurrent('without JELLYFIN_CONFIG_DIR the configuration is outside the data folder', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { JELLYFIN_CONFIG_DIR: '' });
  expect(home.has('config')).toBe(false);
  expect(home.has('../home/.config/jellyfin/system.xml')).toBe(true);
  await standIn.stop();
});

test.concurrent('without JELLYFIN_CONFIG_DIR an existing config folder is used', async () => {
  const home = new Home();
  mkdirSync(home.path('config'), { recursive: true });
  const standIn = await StandIn.start(home, { JELLYFIN_CONFIG_DIR: '' });
  expect(home.has('config/system.xml')).toBe(true);
  await standIn.stop();
});

test.concurrent('a foreign .jellyfin-* file ends the process before it listens', async () => {
  const home = new Home();
  mkdirSync(home.data);
  writeFileSync(home.path('.jellyfin-restored'), '');
  const running = launchProcess(home);
  expect(await running.waitForExit(10_000)).toEqual({ code: 134, signal: null });
  expect(running.stdout()).toBe('');
  expect(running.stderr()).toContain('Expected to find only .jellyfin-data but found');
});

test.concurrent('less than 2 GiB of free space ends the process', async () => {
  const running = launchProcess(new Home(), { STAND_IN_FREE_SPACE_BYTES: '2147483646' });
  expect((await running.waitForExit(10_000)).code).toBe(134);
  expect(running.stderr()).toContain('insufficient free space');
});

test.concurrent('wrong options are reported together', async () => {
  const running = launchProcess(new Home(), { STAND_IN_PORT: '-1', STAND_IN_VERSION: '10.10.7' });
  expect((await running.waitForExit(10_000)).code).toBe(2);
  expect(running.stderr()).toMatch(/STAND_IN_PORT .*"-1"[^]*STAND_IN_VERSION .*"10\.10\.7"/);
});

test.concurrent('a database of a newer server is not started: 503, then the process ends', async () => {
  const home = new Home();
  await (await StandIn.start(home, { STAND_IN_VERSION: '12.0.0' })).stop();
  const standIn = await StandIn.launch(home, { STAND_IN_FAILED_START_MS: '400' });
  await standIn.untilHealth('Unhealthy');
  expect(await standIn.process.waitForExit(10_000)).toEqual({ code: 1, signal: null });
  expect(standIn.process.stderr()).toContain('A downgrade is not possible');
});

test.concurrent('an older database is migrated, and the copy made before is removed', async () => {
  const home = new Home();
  const old = await StandIn.start(home, { STAND_IN_VERSION: '10.11.8' });
  await old.completeWizard();
  await old.stop();
  const standIn = await StandIn.start(home, { STAND_IN_VERSION: '10.11.11' });
  expect(standIn.process.stderr()).toMatch(/Copied the database to .*_jellyfin\.db before the migration/);
  expect(standIn.process.stderr()).toContain(
    "Applying migration '20260524120336_AddUniqueNormalizedUsernameIndex'",
  );
  expect(home.has('data/SQLiteBackups')).toBe(true);
  expect((await standIn.logIn()).status).toBe(200);
  await standIn.stop();
});

describe('a configured database whose system.xml is lost', () => {
  const restartWithoutSettings = async (damage: (home: Home) => void, version: string) => {
    const home = new Home();
    const first = await StandIn.start(home, { STAND_IN_VERSION: version });
    await first.completeWizard();
    await first.stop();
    damage(home);
    const second = await StandIn.start(home, { STAND_IN_VERSION: version });
    const info = await second.call('GET', '/System/Info/Public');
    const takeOver = await second.call('POST', '/Startup/User', {
      body: { Name: 'admin', Password: 'stolen' },
    });
    await second.stop();
    return {
      isCompleted: info.json.StartupWizardCompleted,
      takeOver: takeOver.status,
      xml: home.read('config/system.xml'),
    };
  };
  const remove = (home: Home) => rmSync(home.path('config/system.xml'));
  const truncate = (home: Home) => writeFileSync(home.path('config/system.xml'), '');

  test.concurrent('missing: 10.11 shows the wizard and lets anyone take over the administrator', async () => {
    const { isCompleted, takeOver, xml } = await restartWithoutSettings(remove, '10.11.11');
    expect({ isCompleted, takeOver }).toEqual({ isCompleted: false, takeOver: 204 });
    expect(xml).toContain('<IsStartupWizardCompleted>false<');
  });

  test.concurrent('empty: it is silently replaced by the defaults', async () => {
    expect(await restartWithoutSettings(truncate, '10.11.11')).toMatchObject({ isCompleted: false });
  });

  test.concurrent('missing: 12.0 closes the wizard by itself', async () => {
    const { isCompleted, takeOver } = await restartWithoutSettings(remove, '12.0.0');
    expect({ isCompleted, takeOver }).toEqual({ isCompleted: true, takeOver: 401 });
  });
});

test.concurrent('restarts in the same process', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { STAND_IN_BOOT_MS: '1000' });
  const { token } = await standIn.setUp(home);
  expect((await standIn.call('POST', '/System/Restart', { token })).status).toBe(204);
  await standIn.untilHealth('Degraded');
  await standIn.untilHealth('Healthy');
  expect((await standIn.call('GET', '/Users/Me', { token })).json.Name).toBe('admin');
  expect((await standIn.call('POST', '/System/Shutdown', { token })).status).toBe(204);
  expect((await standIn.process.waitForExit(10_000)).code).toBe(0);
  expect(standIn.process.lines.filter(({ text }) => text.startsWith('listening on '))).toHaveLength(1);
});

test.concurrent('ends by itself', async () => {
  const standIn = await StandIn.start(new Home(), { STAND_IN_EXIT_AFTER_SECONDS: '2' });
  expect((await standIn.process.waitForExit(5_000)).code).toBe(0);
  expect(standIn.process.stderr()).toContain('Ending by itself');
});

test.concurrent('keeps its files where a real server keeps them', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home);
  await standIn.setUp(home);
  await standIn.stop();
  const expected = [
    'config/{system,network,encoding,database}.xml',
    'config/logging.default.json',
    'data/{jellyfin,playback_reporting}.db',
    'data/device.txt',
    'root/default/Movies/{options.xml,media.mblink,movies.collection}',
    'plugins/Playback Reporting_17.0.0.0/meta.json',
    'plugins/configurations/Jellyfin.Plugin.PlaybackReporting.xml',
    '{.,data,root}/.jellyfin-{data,root}',
  ];
  const missing = expected.flatMap(expand).filter((name) => !name.includes('jellyfin-') && !home.has(name));
  expect(missing).toEqual([]);
  expect(
    ['.jellyfin-data', 'data/.jellyfin-data', 'root/.jellyfin-root'].filter((name) => !home.has(name)),
  ).toEqual([]);
  expect(home.has(join('..', 'cache', '.jellyfin-cache'))).toBe(true);
  expect(home.read('data/device.txt')).toMatch(/^\uFEFF[0-9a-f]{32}$/);
});

function expand(pattern: string): string[] {
  const match = /^(.*?)\{(.*?)\}(.*)$/.exec(pattern);
  if (!match) return [pattern];
  const [, before, choices, after] = match;
  return (choices ?? '').split(',').flatMap((choice) => expand(`${before}${choice}${after}`));
}
