import { readFileSync, writeFileSync } from 'node:fs';
import { ENGINE_FILE_NAME } from '../../agent/runner/engine.ts';
import { Secret } from '../../agent/secret.ts';
import { eventually, Home, StandIn } from '../stand-in/support.ts';
import {
  answerWith,
  archivesIn,
  drivers,
  httpEngine,
  mintKey,
  nobody,
  serve,
  untilListed,
  wordsOf,
} from './support.ts';

/** One server for the tests of all drivers that change nothing on it. */
function shared<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
}
const usual = shared(() => serve());
const full = shared(() => serve({ STAND_IN_FREE_SPACE_BYTES: '5368709114' }));
const starting = shared(() => StandIn.launch(new Home(), { STAND_IN_BOOT_MS: '40000' }));

const WRONG_KEY = new Secret('0123456789abcdef0123456789abcdef');
const FILE = 'jellyfin-backup-20260101000000.zip';
const UNAVAILABLE = { code: 'jellyfin_unavailable', retryable: true };

/** Every error of every call, so that a test can say what none of them may hold. */
async function refusals(engine: ReturnType<ReturnType<typeof drivers>[number]['open']>) {
  const caught = (call: Promise<unknown>) =>
    call.then(
      () => undefined,
      (error: unknown) => error as Error & { code: string; retryable: boolean },
    );
  const [list, restore] = await Promise.all([caught(engine.list()), caught(engine.restore(FILE))]);
  return { list, restore };
}

describe.each(drivers())('the engine behind $name', ({ open }) => {
  test.concurrent('lists what it created, in UTC, and nothing else', async () => {
    // Half a day away from UTC: the name holds the server's local time.
    const { home, server, key } = await serve({ TZ: 'Pacific/Auckland' }, '/films');
    const engine = open({ baseUrl: server.url, apiKey: key });
    expect(await engine.list()).toEqual([]);
    const before = Date.now();
    expect(await engine.create()).toEqual({ kind: 'done' });

    const [made, ...others] = await engine.list();
    expect(others).toEqual([]);
    expect(made).toMatchObject({ serverVersion: '10.11.11.0', engineVersion: '0.2.0' });
    expect(made?.fileName).toMatch(ENGINE_FILE_NAME);
    const createdMs = Date.parse(made?.createdUtc ?? '');
    expect(createdMs).toBeGreaterThanOrEqual(before);
    expect(createdMs).toBeLessThanOrEqual(Date.now());
    const local = new Intl.DateTimeFormat('sv', {
      timeZone: 'Pacific/Auckland',
      dateStyle: 'short',
      timeStyle: 'medium',
    });
    expect(made?.fileName).toBe(`jellyfin-backup-${local.format(createdMs).replace(/\D/g, '')}.zip`);

    // Others in the folder: two more archives, one that a person has renamed, one half-written, one that is none.
    const path = (name: string) => home.path(`data/backups/${name}`);
    const archive = readFileSync(path(made?.fileName ?? ''));
    const more = ['jellyfin-backup-20200101000000.zip', 'jellyfin-backup-20300101000000.zip'];
    for (const name of [...more, 'before the holidays.zip']) writeFileSync(path(name), archive);
    writeFileSync(path('jellyfin-backup-20310101000000.zip'), archive.subarray(0, archive.length / 2));
    writeFileSync(path('notes.zip'), 'no zip');
    const names = (await engine.list()).map(({ fileName }) => fileName);
    expect(names.sort()).toEqual([...more, made?.fileName].sort());
  });

  test.concurrent('restores, and finds another key when the restore has replaced them', async () => {
    const { home, server, token, key } = await serve();
    const before = open({ baseUrl: server.url, apiKey: key });
    await before.create();
    const [archive] = await before.list();
    // Not in the archive: the restore makes it void.
    const later = await mintKey(server, token);
    const asked: (string | undefined)[] = [];
    const engine = open({
      baseUrl: server.url,
      apiKey: async (refused) => {
        asked.push(refused?.reveal());
        return refused === undefined ? later : key;
      },
    });
    await engine.restore(archive?.fileName ?? '');
    expect(asked).toEqual([undefined]);
    expect(server.process.isRunning()).toBe(true);
    await server.untilHealth('refused');
    await server.untilHealth('Healthy');
    expect(await engine.list()).toEqual([archive]);
    expect(asked.slice(1)).toEqual([undefined, later.reveal()]);
    expect(await engine.create()).toEqual({ kind: 'done' });
    expect(archivesIn(home).length).toBeGreaterThan(0);
  });

  test.concurrent('a refused key is final, is asked for once more, and is in no message', async () => {
    const { server } = await usual();
    let asked = 0;
    const engine = open({
      baseUrl: server.url,
      apiKey: async () => {
        asked += 1;
        return WRONG_KEY;
      },
    });
    expect(await engine.create()).toMatchObject({ kind: 'refused', isRetryable: false });
    expect(asked).toBe(2);
    const { list, restore } = await refusals(engine);
    for (const error of [list, restore]) {
      expect(error).toMatchObject({ code: 'external_failed', retryable: false });
      expect(wordsOf(error)).toContain('401');
      expect(wordsOf(error)).not.toContain(WRONG_KEY.reveal());
    }
  });

  test.concurrent('a key that may not make backups is refused for good', async () => {
    const { server, token } = await usual();
    const name = `guest ${Math.random()}`;
    await server.call('POST', '/Users/New', { token, body: { Name: name, Password: 'pw' } });
    const guest = await server.call('POST', '/Users/AuthenticateByName', {
      body: { Username: name, Pw: 'pw' },
    });
    const engine = open({ baseUrl: server.url, apiKey: new Secret(guest.json.AccessToken) });
    expect(await engine.create()).toMatchObject({ kind: 'refused', isRetryable: false });
    expect((await refusals(engine)).list).toMatchObject({ code: 'external_failed', retryable: false });
  });

  test.concurrent('an archive that is not there, and a name that cannot be one', async () => {
    const { server, key } = await usual();
    const engine = open({ baseUrl: server.url, apiKey: key });
    await expect(engine.restore(FILE)).rejects.toMatchObject({ code: 'backup_missing', retryable: false });
    for (const name of ['--help', `../${FILE}`, `${FILE}"`, '', 'notes.zip', `${FILE}\n`])
      await expect(engine.restore(name)).rejects.toThrow('must be named jellyfin-backup-<14 digits>.zip');
  });

  test.concurrent('less than 5 GiB of free space is a refusal that may pass', async () => {
    const { home, server, key } = await full();
    const engine = open({ baseUrl: server.url, apiKey: key });
    expect(await engine.create()).toMatchObject({ kind: 'refused', isRetryable: true });
    expect(await engine.list()).toEqual([]);
    expect(archivesIn(home)).toEqual([]);
  });

  test.concurrent('a server that is starting is unavailable, and refuses', async () => {
    const server = await starting();
    const engine = open({ baseUrl: server.url, apiKey: WRONG_KEY });
    expect(await engine.create()).toMatchObject({ kind: 'refused', isRetryable: true });
    const { list, restore } = await refusals(engine);
    expect(list).toMatchObject(UNAVAILABLE);
    expect(restore).toMatchObject(UNAVAILABLE);
  });

  test.concurrent('nobody listens: unavailable, and nothing has begun', async () => {
    const engine = open({ baseUrl: await nobody(), apiKey: WRONG_KEY });
    expect(await engine.create()).toMatchObject({ kind: 'refused', isRetryable: true });
    const { list, restore } = await refusals(engine);
    expect(list).toMatchObject(UNAVAILABLE);
    expect(restore).toMatchObject(UNAVAILABLE);
  });

  test.concurrent(
    'a create whose answer nobody hears: the archive appears later, or the server is gone',
    async () => {
      const { home, server, key } = await serve({ STAND_IN_BACKUP_MS: '2500' });
      const engine = open({ baseUrl: server.url, apiKey: key });
      const stop = new AbortController();
      const reason = new Error('stopped');
      const stopped = engine.create(stop.signal);
      await eventually(() => archivesIn(home).length === 1);
      // On disk, and not in the list: it is still being written.
      expect(await engine.list()).toEqual([]);
      stop.abort(reason);
      expect(await stopped).toMatchObject({ kind: 'unknown' });
      await expect(engine.list(stop.signal)).rejects.toBe(reason);
      await expect(engine.create(stop.signal)).rejects.toBe(reason);
      await untilListed(server, key);
      expect(await engine.list()).toHaveLength(1);

      const cut = engine.create();
      await eventually(() => archivesIn(home).length === 2);
      await server.process.kill();
      // The CLI says the same for "cut" and for "refused"; that nobody listens any more settles it.
      expect((await cut).kind).toBe(engine.driver === 'http' ? 'unknown' : 'refused');
    },
  );

  const ENTRY = {
    ServerVersion: '10.11.11',
    BackupEngineVersion: '0.2.0',
    DateCreated: '2026-08-22T17:14:15.1234567Z',
    Path: `/config/data/backups/${FILE}`,
    Options: { Metadata: true, Trickplay: true, Subtitles: true, Database: true },
  };

  test.concurrent.each([
    ['a page', '<p>hunter2</p>'],
    ['an entry that is none', JSON.stringify([ENTRY, { ...ENTRY, Path: 7, hunter2: 1 }])],
  ])('%s instead of a list is an error, and is not quoted', async (_what, body) => {
    const url = await answerWith((_request, response) => void response.end(body));
    const error: unknown = await open({ baseUrl: url, apiKey: WRONG_KEY })
      .list()
      .catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'external_failed', retryable: false });
    expect(wordsOf(error)).not.toContain('hunter2');
  });

  test.concurrent('an answer without an end is an error', async () => {
    const big = JSON.stringify(Array.from({ length: 25_000 }, () => ENTRY));
    expect(big.length).toBeGreaterThan(5 * 1024 * 1024);
    const url = await answerWith((_request, response) => void response.end(big));
    const listed = open({ baseUrl: url, apiKey: WRONG_KEY }).list();
    await expect(listed).rejects.toMatchObject({
      code: 'external_failed',
      message: expect.stringContaining('more than 4 MiB'),
    });
  });

  test.concurrent('a connection that is cut says nothing about what the server does', async () => {
    const url = await answerWith((request, response) => {
      if (request.url === '/Backup') response.writeHead(200, { 'content-length': '1000' }).write('[');
      setTimeout(() => request.socket.destroy(), 20);
    });
    const engine = open({ baseUrl: url, apiKey: WRONG_KEY });
    expect(await engine.create()).toMatchObject({ kind: 'unknown' });
    const { list, restore } = await refusals(engine);
    expect(list).toMatchObject(UNAVAILABLE);
    // It may have been accepted: not to be sent again without a look.
    expect(restore).toMatchObject({ code: 'jellyfin_unavailable', retryable: false });
  });

  test.concurrent('a server that never answers is given up, and asked for nothing else', async () => {
    const asked: string[] = [];
    const url = await answerWith((request) => void asked.push(`${request.method} ${request.url}`));
    const limits = { callTimeoutMs: 2_500, createTimeoutMs: 2_500 };
    const engine = open({ baseUrl: url, apiKey: WRONG_KEY, ...limits });
    const [created, { list, restore }] = await Promise.all([engine.create(), refusals(engine)]);
    expect(created).toMatchObject({ kind: 'unknown' });
    expect(list).toMatchObject(UNAVAILABLE);
    expect(restore).toMatchObject({ code: 'jellyfin_unavailable', retryable: false });
    expect(asked.filter((call) => call !== 'GET /health').sort()).toEqual([
      'GET /Backup',
      'POST /Backup/Create',
      'POST /Backup/Restore',
    ]);
  });

  test.concurrent.each([
    [502, { kind: 'unknown' }],
    [504, { kind: 'unknown' }],
    [204, { kind: 'unknown' }],
    [404, { kind: 'refused', isRetryable: false }],
    [500, { kind: 'refused', isRetryable: true }],
  ])('create, answered with %i', async (status, expected) => {
    const url = await answerWith((_request, response) => void response.writeHead(status).end('hunter2'));
    const answer = await open({ baseUrl: url, apiKey: WRONG_KEY }).create();
    expect(answer).toMatchObject(expected);
    expect(wordsOf(answer)).toContain(String(status));
    expect(wordsOf(answer)).not.toContain('hunter2');
  });
});

test.concurrent('two at once in one second: "done" proves nothing, the list does', async () => {
  const { home, server, token, key } = await serve({ STAND_IN_BACKUP_MS: '500' });
  const engine = httpEngine({ baseUrl: server.url, apiKey: key });
  const other = () => server.call('POST', '/Backup/Create', { token, body: { Database: true } });
  for (let second = 200; second === 200;) {
    const before = archivesIn(home).length;
    const answer = engine.create();
    await eventually(() => archivesIn(home).length > before);
    // 500: the same name. 200: the second was over, and there are two.
    second = (await other()).status;
    expect(await answer).toEqual({ kind: 'done' });
    if (second === 500) expect(await engine.list()).toHaveLength(before);
  }
});
