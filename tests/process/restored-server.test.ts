import { existsSync, openSync, readSync } from 'node:fs';
import { agentEnv, newHome, restore, runAgent, StandIn, Store } from './support.ts';
import { legacyTarball, uploadLegacyTarball } from '../support/legacy-fixtures.ts';

/** What a person would miss, asked of the server itself. */
async function stateOf(server: StandIn, token: string, itemId: string) {
  const get = (path: string) => server.call('GET', path, { token });
  return {
    info: (({ Id, StartupWizardCompleted }) => ({ Id, StartupWizardCompleted }))(
      (await get('/System/Info/Public')).json,
    ),
    users: (await get('/Users')).list.map(({ Id, Name }) => ({ Id, Name })),
    keys: (await get('/Auth/Keys')).json.Items.map(({ AccessToken }) => AccessToken),
    libraries: (await get('/Library/VirtualFolders')).list.map(({ Name }) => Name),
    played: (await get(`/UserItems/${itemId}/UserData`)).json.Played,
  };
}

function walBytes(file: string): number[] {
  const header = Buffer.alloc(20);
  readSync(openSync(file, 'r'), header, 0, 20, 0);
  return [...header.subarray(18, 20)];
}

test.concurrent('a server that is killed comes back from its backup as it was', async () => {
  const store = await Store.create();
  const home = newHome();
  await restore(store, home);
  const server = await StandIn.start(home);
  const { token, itemId } = await server.setUp(home);
  await server.call('POST', '/Auth/Keys?app=runner', { token });
  const before = await stateOf(server, token, itemId);
  expect(before).toMatchObject({
    info: { StartupWizardCompleted: true },
    libraries: ['Movies'],
    played: true,
  });
  const backup = await runAgent(
    ['backup', '--once'],
    agentEnv(store, home.data, { JELLYFIN_URL: server.url }),
  );
  expect(backup.code).toBe(0);
  await server.process.kill();

  const next = newHome();
  await restore(store, next);
  expect(walBytes(next.database)).toEqual([2, 2]);
  for (const side of ['-wal', '-shm', '-journal']) expect(existsSync(`${next.database}${side}`)).toBe(false);
  const revived = await StandIn.start(next);
  expect(await stateOf(revived, token, itemId)).toEqual(before);
  expect((await revived.logIn()).status).toBe(200);
  expect(await revived.stop()).toBe(0);
});

test.concurrent("the client's own archives lead to the login screen too, not to the wizard", async () => {
  const store = await Store.create();
  const home = newHome();
  const server = await StandIn.start(home);
  await server.setUp(home);
  // What the old sidecar did: tar of the live /data/data, -wal and all, without config/.
  await uploadLegacyTarball(store.client, '20251108030217', await legacyTarball(home.path('data')));
  await server.process.kill();

  const next = newHome();
  await restore(store, next);
  const revived = await StandIn.start(next);
  const info = await revived.call('GET', '/System/Info/Public');
  expect(info.json.StartupWizardCompleted).toBe(true);
  expect((await revived.logIn()).status).toBe(200);
  expect(await revived.stop()).toBe(0);
});
