import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { runAgent, agentEnv, eventually, Store, type Sidecar } from './support.ts';
import { Mirrored, seedArchive, type Driver } from './runner-support.ts';

const HEALTH_LINE = /^last_backup_utc=\d{4}-\d\d-\d\dT[\d:.]+Z size_bytes=\d+$/;
const GARBAGE = 'jellyfin-backup-20250101000000.zip';

const failureOf = (jsonLines: readonly Record<string, unknown>[]) =>
  jsonLines.find(({ msg }) => msg === 'backup failed');

describe('a run', () => {
  test.concurrent.each(['http', 'cli'] satisfies Driver[])(
    'mirrors an archive with its metadata, and reads it back: %s',
    async (driver) => {
      const world = await Mirrored.start({ driver });
      const { code, jsonLines, stdout, stderr } = await world.once();
      expect({ code, stdout, stderr }).toMatchObject({ code: 0 });
      const [local] = world.local;
      const bytes = readFileSync(world.localFile(local ?? ''));
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      const [archive, ...others] = await world.archives();
      expect(others).toEqual([]);
      expect(archive).toMatchObject({
        name: expect.stringMatching(/^jellyroller\/backup-\d{14}\.zip$/),
        properties: { contentType: 'application/zip', contentLength: bytes.byteLength },
        metadata: {
          source: 'jellyroller',
          size: String(bytes.byteLength),
          sha256,
          jellyfin_version: '10.11.11',
          timestamp_utc: expect.stringMatching(/^\d{4}-.*Z$/),
          verified_utc: expect.stringMatching(/^\d{4}-.*Z$/),
        },
      });
      expect(jsonLines.filter(({ msg }) => HEALTH_LINE.test(String(msg)))).toHaveLength(1);
      expect(world.claim).toBeUndefined();
      expect(world.created).toBe(1);
      expect(stdout).not.toMatch(/"pw"|Token=|sig=/);
    },
  );

  test.concurrent(
    'waits for an archive that comes after the CLI has given up, and asks for no second',
    async () => {
      const world = await Mirrored.start({ driver: 300, server: { STAND_IN_BACKUP_MS: '2500' } });
      const { code, jsonLines } = await world.once();
      expect(code).toBe(0);
      expect(jsonLines).toContainEqual(
        expect.objectContaining({ msg: 'create answered', answer: 'unknown' }),
      );
      expect(world.created).toBe(1);
      expect(await world.archives()).toHaveLength(1);
    },
  );

  test.concurrent(
    'a lost answer to the commit and a byte flipped on the way back cost nothing; nothing is stored twice',
    async () => {
      const store = await Store.createBehindProxy();
      const world = await Mirrored.start({ store });
      store.proxy.on({ operation: 'PutBlockList' }, { kind: 'reset', when: 'after' }, { times: 1 });
      store.proxy.on({ operation: 'GetBlob' }, { kind: 'corrupt' }, { times: 1 });
      const { code, stdout } = await world.once({ RETRY_MAX: '1' });
      expect({ code, stdout }).toMatchObject({ code: 0 });
      expect(await world.archives()).toMatchObject([{ metadata: { verified_utc: expect.any(String) } }]);
      expect(store.proxy.count({ operation: 'GetBlob' })).toBe(2);
    },
  );

  test.concurrent(
    'an archive that is too small is not stored, and the tar backup does not care',
    async () => {
      const world = await Mirrored.start();
      const { code, jsonLines } = await world.once({ MIN_BACKUP_SIZE_BYTES: '1000000' });
      expect(code).toBe(4);
      const size = String(readFileSync(world.localFile(world.local[0] ?? '')).byteLength);
      expect(JSON.stringify(failureOf(jsonLines))).toMatch(
        new RegExp(`has ${size} bytes, MIN_BACKUP_SIZE_BYTES is 1000000`),
      );
      expect(await world.archives()).toEqual([]);
      expect(world.claim).toBeUndefined();
      const tar = await runAgent(
        ['backup', '--once'],
        agentEnv(world.store, world.home.data, { JELLYFIN_URL: world.server.url }),
      );
      expect(tar.code).toBe(0);
    },
  );

  test.concurrent('the store is down: exit 3; the next run stores the same archive', async () => {
    const store = await Store.createBehindProxy();
    const world = await Mirrored.start({ store });
    store.proxy.on({ operation: 'PutBlock' }, { kind: 'status', status: 503 }, { times: 1 });
    const failed = await world.once();
    expect(failed.code).toBe(3);
    expect(world.claim).toMatchObject({ kind: 'backup' });
    const second = await world.once();
    expect({ code: second.code, stdout: second.stdout }).toMatchObject({ code: 0 });
    expect(world.created).toBe(1);
    expect(await world.archives()).toHaveLength(1);
    expect(world.claim).toBeUndefined();
  });
});

describe('the loop', () => {
  test.concurrent(
    'keeps the newest verified archives and one local copy, touches nothing else, and ends with 0 between runs',
    async () => {
      const world = await Mirrored.start();
      const { store } = world;
      const old = await Promise.all(
        ['20260101000000', '20260102000000', '20260103000000'].map((stamp) => seedArchive(store, stamp)),
      );
      const unverified = await seedArchive(store, '20260102120000', { verified_utc: '' });
      await store.client.getBlockBlobClient('jellyroller/notes.txt').upload('mine', 4);
      await store.client.getBlockBlobClient('backup-20260101000000.tar.gz').upload('tar', 3);
      // Half-written by an engine that was killed: no archive, so never stored and never deleted.
      await world.once();
      const [first = ''] = world.local;
      writeFileSync(world.localFile(GARBAGE), 'PK\u0003\u0004 half');
      const runner = world.run({ RETENTION_KEEP: '3' });
      await runner.until(HEALTH_LINE);
      expect(await runner.terminate()).toBe(0);
      const stored = await store.names('jellyroller/');
      expect(stored).toEqual([
        old[2],
        expect.stringMatching(/^jellyroller\/backup-2/),
        expect.stringMatching(/^jellyroller\/backup-2/),
        'jellyroller/notes.txt',
      ]);
      expect(stored).not.toContain(unverified);
      expect(await store.names('backup-')).toHaveLength(1);
      expect(world.local).toEqual([GARBAGE, expect.not.stringMatching(first)]);
    },
  );

  test.concurrent(
    'SIGTERM in the middle: 143 at once, nothing half stored; the next start goes on',
    async () => {
      const world = await Mirrored.start({ server: { STAND_IN_BACKUP_MS: '2500' } });
      const runner = world.run();
      await runner.until('create starts');
      await eventually(() => world.local.length > 0);
      const stoppedMs = Date.now();
      expect(await runner.terminate()).toBe(143);
      expect(Date.now() - stoppedMs).toBeLessThan(4_000);
      expect(await world.store.names()).toEqual([]);
      expect(world.claim).toMatchObject({ kind: 'backup', before: [] });
      const { code, jsonLines } = await world.once();
      expect(code).toBe(0);
      expect(jsonLines).toContainEqual(
        expect.objectContaining({ msg: 'a run is under way: waiting for its archive' }),
      );
      expect(world.created).toBe(1);
      expect(await world.archives()).toHaveLength(1);
    },
  );

  test.concurrent('an archive made by hand is stored before a new one is made', async () => {
    const world = await Mirrored.start();
    await world.server.call('POST', '/Backup/Create', { token: world.token, body: {} });
    const [byHand = ''] = world.local;
    const { code, jsonLines } = await world.once();
    expect(code).toBe(0);
    const said = jsonLines.map(({ msg }) => msg);
    expect(said.indexOf('an archive is not stored yet')).toBeLessThan(said.indexOf('create starts'));
    expect(jsonLines).toContainEqual(expect.objectContaining({ msg: 'upload starts', archive: byHand }));
    expect(await world.archives()).toHaveLength(2);
    expect(world.local).toHaveLength(1);
    expect(world.local).not.toContain(byHand);
  });

  test.concurrent('waits for the wizard, says so once, and ends with 0', async () => {
    const world = await Mirrored.start({ isSetUp: false });
    const runner: Sidecar = world.run();
    await runner.until('the setup wizard is not completed: nothing to back up yet');
    await sleep(100);
    expect(await runner.terminate()).toBe(0);
    expect(world.local).toEqual([]);
  });
});

describe('the gate', () => {
  const base = {
    AZURE_STORAGE_CONNECTION_STRING: 'UseDevelopmentStorage=true',
    JELLYFIN_URL: 'http://127.0.0.1:9',
    RETRY_MAX: '0',
  };
  test.concurrent.each([
    [{}, 2, /JELLYROLLER_ENABLED must be "true".*got "false"/],
    [{ JELLYROLLER_ENABLED: 'true' }, 2, /JELLYFIN_API_KEY must be set, or JELLYFIN_ADMIN_USER/],
    [{ JELLYROLLER_ENABLED: 'true', JELLYFIN_API_KEY: 'k' }, 6, /jellyfin is not healthy/],
  ])('with %j the exit code is %i', async (env, expected, says) => {
    const { code, stdout, stderr } = await runAgent(['jellyroller', '--once'], { ...base, ...env });
    expect(code).toBe(expected);
    expect(stdout + stderr).toMatch(says);
  });
});
