import { setTimeout as sleep } from 'node:timers/promises';
import { Mirrored, seedArchive } from './runner-support.ts';
import { eventually, filesIn, Store } from './support.ts';

/** Slow enough that the restart is seen. */
const SERVER = { STAND_IN_BOOT_MS: '500' };
const WITHOUT = ['--without-backup'];

async function withArchive(): Promise<{ world: Mirrored; name: string }> {
  const world = await Mirrored.start({ server: SERVER });
  const { code, stdout } = await world.once();
  expect({ code, stdout }).toMatchObject({ code: 0 });
  const [name = ''] = await world.store.names('jellyroller/');
  return { world, name };
}

const staging = (world: Mirrored): string[] => filesIn(world.home.path('.agent')).sort();

describe('agent jellyroller restore', () => {
  test.concurrent(
    'brings a wiped server back: login screen, users, libraries, watch state, a new key',
    async () => {
      const { world: old, name } = await withArchive();
      await old.server.process.kill();
      const world = await Mirrored.start({ server: SERVER, store: old.store });
      // Another server: another user, another film, another key.
      const stranger = { token: world.token, body: { Name: 'stranger' } };
      expect((await world.server.call('POST', '/Users/New', stranger)).status).toBe(200);
      const { code, stdout, stderr } = await world.restore(name.replace('jellyroller/', ''), WITHOUT);
      expect({ code, stderr }).toMatchObject({ code: 0 });
      const answer = JSON.parse(stdout) as { checks: { what: string; ok: boolean; is: string }[] };
      expect(Object.fromEntries(answer.checks.map(({ what, is }) => [what, is]))).toEqual({
        'first page': 'login screen',
        'API key': 'issued anew',
        users: 'admin',
        libraries: 'Movies',
      });
      const { json: signedIn } = await world.server.logIn();
      const watched = await world.server.call('GET', `/UserItems/${old.itemId}/UserData`, {
        token: signedIn.AccessToken,
      });
      expect(watched.json.Played).toBe(true);
      expect(world.local).toEqual([]);
      expect(staging(world)).toEqual([]);
    },
  );

  test.concurrent('refuses what it cannot do, before it touches anything', async () => {
    const { world, name } = await withArchive();
    const before = { local: world.local, users: (await world.server.logIn()).status };
    const otherVersion = await seedArchive(world.store, '20260101000000', { jellyfin_version: '10.11.3' });
    const damaged = await seedArchive(world.store, '20260102000000');
    const cases = await Promise.all([
      world.restore(otherVersion, WITHOUT),
      world.restore('backup-20200101000000.zip', WITHOUT),
    ]);
    expect(cases.map(({ code }) => code)).toEqual([4, 4]);
    expect(cases[0]?.stderr).toMatch(/made by Jellyfin 10\.11\.3, the server is 10\.11\.11/);
    expect(cases[1]?.stderr).toContain(name);
    const notWhole = await world.restore(damaged, WITHOUT);
    expect(notWhole).toMatchObject({ code: 4, stderr: expect.stringMatching(/another SHA-256/) });
    const nobodyToAsk = await world.restore(name);
    expect(nobodyToAsk).toMatchObject({ code: 5, stderr: expect.stringMatching(/--without-backup/) });
    expect({ local: world.local, users: (await world.server.logIn()).status }).toEqual(before);
    expect(staging(world)).toEqual([]);
  });

  test.concurrent('refuses a server whose wizard has not run', async () => {
    const store = await Store.create();
    const name = await seedArchive(store, '20260101000000');
    const world = await Mirrored.start({ store, isSetUp: false });
    expect(await world.restore(name, WITHOUT)).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/wizard/),
    });
  });

  test.concurrent('killed while it downloads: nothing that the engine could list is left', async () => {
    const store = await Store.createBehindProxy();
    const world = await Mirrored.start({ store, server: SERVER });
    await world.once();
    const [name = ''] = await store.names('jellyroller/');
    const before = world.local;
    store.proxy.on({ operation: 'GetBlob' }, { kind: 'stall', afterBytes: 1_000 }, { times: 1 });
    const killed = world.startRestore(name, WITHOUT);
    await eventually(() => staging(world).includes('jellyroller-restore'));
    await sleep(100);
    await killed.kill();
    expect(world.local).toEqual(before);
    // Its claim holds the engine for half an hour; a second restore says so.
    expect(await world.restore(name, WITHOUT)).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/in use/),
    });
  });
});
