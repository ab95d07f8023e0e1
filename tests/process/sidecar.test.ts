import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { flipByte } from '../support/archive-bytes.ts';
import { runProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import {
  agentEnv,
  eventually,
  freePort,
  newHome,
  Replica,
  restore,
  Sidecar,
  StandIn,
  startAgent,
  Store,
  takePort,
  writeRow,
} from './support.ts';

const levelsOf = (sidecar: Sidecar, level: string) =>
  sidecar.process.jsonLines().filter((line) => line['level'] === level);

const timeOf = (line: Record<string, unknown>) => Date.parse(String(line['time']));

test.concurrent(
  'leaves the store alone until the server is Healthy, then waits the start-up delay',
  async () => {
    const store = await Store.createBehindProxy();
    const used = await Replica.startUsed(store);
    used.signal('SIGTERM');
    await used.sidecar.exit();
    const home = newHome();
    await restore(store, home);

    store.proxy.clear();
    const port = await freePort();
    const env = { JELLYFIN_URL: `http://127.0.0.1:${String(port)}`, STARTUP_DELAY_SECONDS: '2' };
    const sidecar = new Sidecar(startAgent(['backup'], agentEnv(store, home.data, env)));
    expect(await sidecar.until('waiting for jellyfin')).toMatchObject({ health: 'refused' });
    // Degraded for 1.2 s, refused for 0.4 s, 503 for 0.4 s.
    await StandIn.launch(home, { STAND_IN_PORT: String(port), STAND_IN_BOOT_MS: '1200' });
    const healthy = await sidecar.until('jellyfin is healthy');
    expect(healthy).toMatchObject({ version: '10.11.11' });
    // Its sign of life, and its look for a request, are all.
    expect(store.proxy.requests.filter(({ name }) => !/^state\//.test(name ?? ''))).toEqual([]);
    await writeRow(home, 'a change');
    const { line } = await sidecar.nextBackup(0);
    expect(timeOf(line) - Number(line['durationMs']) - timeOf(healthy)).toBeGreaterThanOrEqual(1_950);
  },
);

test.concurrent(
  'an unconfigured server: no backup, one line, no error; after the wizard a backup in the window',
  async () => {
    const store = await Store.create();
    const replica = await Replica.start(store, { agent: { BACKUP_ON_CHANGE_SECONDS: '2' } });
    const { sidecar, server } = replica;
    await sidecar.until(/^no backup: the server is not configured yet/);
    // A change that does not configure it is looked at and not told again.
    await replica.write('still in the wizard');
    await sleep(2_500);
    expect(sidecar.said(/^no backup/)).toHaveLength(1);
    expect(await store.names()).toEqual(['state/epoch.json', 'state/writer.json']);

    await server.completeWizard();
    const doneMs = Date.now();
    const stored = await replica.backupAfter(doneMs - 1_000);
    expect(stored.atMs - doneMs).toBeLessThan(4_000);
    expect((await store.newest()).meta).toMatchObject({ wizard: 'completed', users: '1', sequence: '1' });
    expect([...levelsOf(sidecar, 'error'), ...levelsOf(sidecar, 'warn')]).toEqual([]);
  },
);

test.concurrent('what is stored, what is said about it, and nothing more while nothing changes', async () => {
  const store = await Store.create();
  const replica = await Replica.startUsed(store);
  await replica.server.call('POST', '/Users/New', {
    token: replica.token,
    body: { Name: 'guest', Password: 'x' },
  });
  const stored = await replica.storeAll();
  const { sidecar } = replica;
  const count = sidecar.backups.length;

  const newest = await store.newest();
  const bytes = await store.read(newest.name);
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  expect(newest.meta).toEqual({
    source: 'agent',
    format: '1',
    epoch: '1',
    sequence: String(count),
    sha256,
    size: String(bytes.length),
    manifestbytes: expect.stringMatching(/^[1-9]\d*$/) as string,
    unpackedbytes: expect.stringMatching(/^[1-9]\d*$/) as string,
    wizard: 'completed',
    users: '2',
    items: expect.stringMatching(/^[1-9]\d*$/) as string,
    timestamp_utc: stored.utc,
    clean_stop: 'false',
    jellyfin_version: '10.11.11',
    migration: expect.stringMatching(/^20\d{12}_/) as string,
  });
  expect(stored).toMatchObject({ name: newest.name, sizeBytes: bytes.length, line: { sha256 } });
  const stamp = stored.utc.replace(/\D/g, '').slice(0, 14);
  expect(newest.name).toBe(`backup-${stamp}.e1.s${String(count)}.tar.zst`);

  // The system's own tar, without any of our code.
  const file = join(makeTempDir('archive'), 'backup.tar.zst');
  writeFileSync(file, bytes);
  const listing = await runProcess({
    command: 'tar',
    args: ['--zstd', '-tf', file],
    env: { PATH: process.env['PATH'] ?? '' },
  });
  const entries = listing.stdout.trim().split('\n');
  expect(listing).toMatchObject({ code: 0, stderr: '' });
  expect(entries[0]).toBe('manifest.json');
  expect(entries).toEqual(
    expect.arrayContaining(['data/jellyfin.db', 'config/system.xml', 'root/default/Movies/options.xml']),
  );
  expect(entries.filter((name) => /-(wal|shm)$|\.jellyfin-|^\.agent|^log|^cache/.test(name))).toEqual([]);

  // Not an event: that nothing happens is the point. More than two change windows.
  await sleep(2_500);
  expect(sidecar.backups).toHaveLength(count);
  replica.signal('SIGTERM');
  expect(await sidecar.exit()).toBe(0);

  expect(sidecar.process.stderr()).toBe('');
  for (const { text, json } of sidecar.process.lines) {
    expect({ text, json }).toMatchObject({
      json: {
        time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/) as string,
        level: expect.stringMatching(/^(debug|info|warn|error)$/) as string,
        component: 'backup',
        msg: expect.any(String) as string,
      },
    });
  }
});

test.concurrent('without change-driven backups one comes each interval while there are changes', async () => {
  const replica = await Replica.start(await Store.create(), {
    agent: { BACKUP_ON_CHANGE_SECONDS: '0', BACKUP_INTERVAL_SECONDS: '2' },
    server: { STAND_IN_WRITE_INTERVAL_MS: '100' },
  });
  await replica.server.completeWizard();
  const times = [];
  for (const index of [0, 1, 2]) times.push((await replica.sidecar.nth(index)).atMs);
  const [first = 0, second = 0, third = 0] = times;
  for (const gapMs of [second - first, third - second]) {
    expect(gapMs).toBeGreaterThan(1_800);
    expect(gapMs).toBeLessThan(5_000);
  }
});

describe('the liveness answer', () => {
  test.concurrent('is 200 with JSON on localhost, and tells the last backup', async () => {
    const port = await freePort();
    const replica = await Replica.startUsed(await Store.create(), {
      agent: { HEALTH_PORT: String(port) },
    });
    const response = await fetch(`http://127.0.0.1:${String(port)}/`);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('application/json');
    const body = (await response.json()) as Record<string, unknown>;
    expect(body).toMatchObject({ alive: true, phase: 'watching' });
    expect(replica.sidecar.backups.map(({ utc }) => utc)).toContain(body['lastBackupUtc']);
    expect(body['sinceTickMs']).toBeLessThan(10_000);
  });

  test.concurrent('needs a port; without one backups go on', async () => {
    const { port, server } = await takePort();
    const replica = await Replica.startUsed(await Store.create(), {
      agent: { HEALTH_PORT: String(port) },
    });
    expect(levelsOf(replica.sidecar, 'warn')).toMatchObject([
      { msg: 'no liveness answer', port, err: { code: 'Error', message: /EADDRINUSE/ } },
    ]);
    replica.signal('SIGTERM');
    expect(await replica.sidecar.exit()).toBe(0);
    server.close();
  });
});

test.concurrent(
  'the drill records that the candidate is good, and then that it is damaged, loudly',
  async () => {
    const store = await Store.create();
    const replica = await Replica.startUsed(store, { agent: { DRILL_INTERVAL_SECONDS: '1' } });
    const { sidecar } = replica;
    const { name } = await store.newest();
    await sidecar.process.waitForLine(
      ({ json }) => json?.['msg'] === 'drill passed' && json['backup'] === name,
      15_000,
    );
    const { meta } = await store.newest();
    expect(Date.parse(meta['verified_utc'] ?? '')).toBeGreaterThan(Date.now() - 60_000);

    const bytes = await store.read(name);
    const from = sidecar.process.lines.length;
    const damaged = flipByte(bytes, Math.floor(bytes.length / 2));
    await store.client.getBlockBlobClient(name).upload(damaged, damaged.length, { metadata: meta });
    expect(await sidecar.until('drill failed: the candidate is damaged', from)).toMatchObject({
      level: 'error',
      backup: name,
      err: { code: 'backup_damaged' },
    });
    await eventually(async () => (await store.newest()).meta['damaged'] !== undefined);
  },
);

test.concurrent('an outage of the store is told once, survived, and its end is told', async () => {
  const store = await Store.createBehindProxy();
  const replica = await Replica.startUsed(store);
  const { sidecar } = replica;
  await store.proxy.refuseConnections();
  await replica.write('during the outage');
  expect(await sidecar.until('backup failed')).toMatchObject({
    level: 'error',
    consecutiveFailures: 1,
    err: { code: 'store_unreachable' },
  });
  // Not an event: attempts that fail again and say nothing.
  await sleep(1_500);
  const from = sidecar.process.lines.length;
  await store.proxy.acceptConnections();
  const { json: recovered = {} } = await sidecar.process.waitForLine(
    ({ json }) => json?.['msg'] === 'recovered' && json['after'] === 'backup failed',
    30_000,
    from,
  );
  expect(recovered).toMatchObject({ level: 'info' });
  expect(recovered['failures']).toBeGreaterThan(1);
  expect(sidecar.said('backup failed')).toHaveLength(1);
  replica.signal('SIGTERM');
  expect(await sidecar.exit()).toBe(0);
});

test.concurrent('a sidecar that is restarted alone goes on in its epoch, with the next number', async () => {
  const store = await Store.create();
  const replica = await Replica.startUsed(store);
  const before = await store.newest();
  await replica.sidecar.process.kill();
  await replica.write('while no sidecar ran');
  const env = agentEnv(store, replica.home.data, { JELLYFIN_URL: replica.server.url });
  const second = new Sidecar(startAgent(['backup'], env));
  const { name } = await second.nextBackup(0);
  const after = await store.newest();
  expect(after).toMatchObject({ name, epoch: before.epoch, sequence: before.sequence + 1 });
  expect(second.said(/^fenced/)).toEqual([]);
});

test.concurrent(
  'a sidecar that is restarted alone and stopped before it hears the server stores the last write',
  async () => {
    const store = await Store.create();
    const replica = await Replica.startUsed(store);
    await replica.sidecar.process.kill();
    await replica.write('while no sidecar ran');
    await replica.server.process.kill();
    // The volume says that its server was healthy once: what lies there may be more than what is stored.
    const env = { JELLYFIN_URL: replica.server.url, SHUTDOWN_BUDGET_SECONDS: '4' };
    const second = new Sidecar(startAgent(['backup'], agentEnv(store, replica.home.data, env)));
    await second.until('waiting for jellyfin');
    expect(await second.terminate()).toBe(0);
    expect(second.backups).toHaveLength(1);
  },
);
