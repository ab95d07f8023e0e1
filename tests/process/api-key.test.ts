import { createServer } from 'node:http';
import { DatabaseSync } from 'node:sqlite';
import { HttpJellyfin } from '../../agent/adapters/http-jellyfin.ts';
import { ensureApiKey, RUNNER_KEY } from '../../agent/api-key.ts';
import { Secret } from '../../agent/secret.ts';
import { countRows, freePort, Home, StandIn } from './support.ts';

const ADMIN = { name: 'admin', password: new Secret('pw') };

async function startUsed() {
  const home = new Home();
  const server = await StandIn.start(home);
  const { token } = await server.setUp(home);
  return { home, server, token, jellyfin: new HttpJellyfin(server.url) };
}

function keysIn({ database }: Home): { Name: string; AccessToken: string }[] {
  const connection = new DatabaseSync(database, { readOnly: true });
  try {
    const rows = connection.prepare('SELECT Name, AccessToken FROM ApiKeys ORDER BY Id').all();
    return rows.map(({ Name, AccessToken }) => ({ Name: String(Name), AccessToken: String(AccessToken) }));
  } finally {
    connection.close();
  }
}

test('the key is made once, found again, valid, and no session stays behind', async () => {
  const { home, server, token, jellyfin } = await startUsed();
  await server.call('POST', '/Auth/Keys?app=phone', { token });
  const devices = countRows(home.database, 'Devices');
  const key = await ensureApiKey(jellyfin, ADMIN);
  expect((await ensureApiKey(jellyfin, ADMIN)).reveal()).toBe(key.reveal());
  expect(keysIn(home)).toEqual([
    { Name: 'phone', AccessToken: expect.any(String) as string },
    { Name: RUNNER_KEY, AccessToken: key.reveal() },
  ]);
  expect(countRows(home.database, 'Devices')).toBe(devices);
  expect(await jellyfin.isKeyValid(key)).toBe(true);
  expect(await jellyfin.isKeyValid(new Secret('0'.repeat(32)))).toBe(false);
});

test('callers that race get one key, and the others are gone', async () => {
  const { home, server } = await startUsed();
  const racers = Array.from({ length: 6 }, () => ensureApiKey(new HttpJellyfin(server.url), ADMIN));
  const tokens = new Set((await Promise.all(racers)).map((key) => key.reveal()));
  expect([...tokens]).toEqual(keysIn(home).map(({ AccessToken }) => AccessToken));
  expect(tokens.size).toBe(1);
});

test('two keys of that name from before: the first is taken, as JellyRoller does, and both stay', async () => {
  const { home, server, token, jellyfin } = await startUsed();
  for (let count = 0; count < 2; count += 1)
    await server.call('POST', `/Auth/Keys?app=${RUNNER_KEY}`, { token });
  const before = keysIn(home);
  expect((await ensureApiKey(jellyfin, ADMIN)).reveal()).toBe(before[0]?.AccessToken);
  expect(keysIn(home)).toEqual(before);
});

test('a wrong password, a user who is no administrator, nobody, and something that is not Jellyfin', async () => {
  const { server, token, jellyfin } = await startUsed();
  await server.call('POST', '/Users/New', { token, body: { Name: 'guest', Password: 'guest' } });
  const wrong = { name: 'admin', password: new Secret('wrong-password') };
  const guest = { name: 'guest', password: new Secret('guest') };
  const refused = {
    code: 'external_failed',
    retryable: false,
    hint: expect.stringContaining('administrator') as string,
  };
  await expect(ensureApiKey(jellyfin, wrong)).rejects.toMatchObject(refused);
  await expect(ensureApiKey(jellyfin, guest)).rejects.toMatchObject(refused);

  const away = { code: 'jellyfin_unavailable', retryable: true };
  const nobody = new HttpJellyfin(`http://127.0.0.1:${String(await freePort())}`);
  await expect(ensureApiKey(nobody, ADMIN)).rejects.toMatchObject(away);
  await expect(nobody.isKeyValid(new Secret('key'))).rejects.toMatchObject(away);

  const page = createServer((_, response) => response.end('<html>welcome</html>'));
  const port = await new Promise<number>((resolve) =>
    page.listen(0, '127.0.0.1', () => {
      resolve((page.address() as { port: number }).port);
    }),
  );
  try {
    const stranger = new HttpJellyfin(`http://127.0.0.1:${String(port)}`);
    await expect(ensureApiKey(stranger, ADMIN)).rejects.toMatchObject(away);
  } finally {
    page.close();
  }
});
