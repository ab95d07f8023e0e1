import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { flipByte } from '../support/archive-bytes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { Tree } from './seed.ts';
import { activitiesIn, agentEnv, ask, countRows, newHome, restore, runAgent, Store } from './support.ts';

interface Row {
  name: string;
  place: string;
}

/** A line of two backups. */
async function seeded(): Promise<{ store: Store; tree: Tree; older: string; newer: string }> {
  const store = await Store.create();
  const tree = new Tree(store);
  const older = await tree.stored('one');
  const newer = await tree.stored('two');
  return { store, tree, older, newer };
}

const agent = (store: Store, args: readonly string[], env: Record<string, string> = {}) =>
  runAgent(args, { ...store.env, RETRY_MAX: '0', ...env });

/** Table cells: columns are two or more blanks apart. */
const cellsOf = (table: string) =>
  table
    .trimEnd()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/));

const stampOf = (name: string) => {
  const [, y, mo, d, h, mi, s] = /(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)/.exec(name) ?? [];
  return { day: `${y}-${mo}-${d}`, text: `${y}-${mo}-${d} ${h}:${mi}:${s}` };
};

async function damage(store: Store, name: string): Promise<void> {
  const bytes = await store.read(name);
  const { metadata } = await store.client.getBlobClient(name).getProperties();
  const broken = flipByte(bytes, Math.floor(bytes.length / 2));
  await store.client
    .getBlockBlobClient(name)
    .upload(broken, broken.length, metadata === undefined ? {} : { metadata });
}

describe('with a line of two backups', () => {
  let store: Store;
  let older: string;
  let newer: string;
  let empty: Store;
  beforeAll(async () => {
    [{ store, older, newer }, empty] = await Promise.all([seeded(), Store.create()]);
  });

  test('list: a table, newest first', async () => {
    const { code, stdout, stderr } = await agent(store, ['list']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const size = expect.stringMatching(/^\d+(\.\d+)? [KM]iB$/) as string;
    expect(cellsOf(stdout)).toEqual([
      ['NAME', 'PLACE', 'SIZE', 'MADE (UTC)', 'JELLYFIN', 'USERS', 'ITEMS', 'STOP', 'DRILL', 'HOLD'],
      [newer, 'candidate', size, stampOf(newer).text, '-', '1', '40', '-', '-', '-'],
      [older, 'line', size, stampOf(older).text, '-', '1', '40', '-', '-', '-'],
    ]);
  });

  test('list --json: everything a script needs of each', async () => {
    const { backups, store: described } = await ask<{ store: string; backups: Row[] }>(store, ['list']);
    expect(described).toMatch(new RegExp(`/${store.name}$`));
    const common = {
      sizeBytes: expect.any(Number) as number,
      timeUtc: expect.stringMatching(/^\d{4}-.*Z$/) as string,
      jellyfinVersion: null,
      users: 1,
      items: 40,
      cleanStop: false,
      verifiedUtc: null,
      damaged: null,
      tail: null,
      versionHold: null,
    };
    expect(backups).toEqual([
      { name: newer, place: 'candidate', ...common },
      { name: older, place: 'line', ...common },
    ]);
  });

  test('list of an empty container says so', async () => {
    const { code, stdout } = await agent(empty, ['list']);
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(new RegExp(`/${empty.name} holds no backup\n$`)) as string,
    });
  });

  test('status: what the next start restores', async () => {
    const { stdout } = await agent(store, ['status']);
    const cells = Object.fromEntries(cellsOf(stdout)) as Record<string, string>;
    expect(cells).toMatchObject({
      WHAT: 'IS',
      epoch: expect.stringMatching(/^1, taken 20\d\d-/) as string,
      'next start restores': newer,
      'server had closed': 'no (running, or stopped without notice)',
      'backups on the line': '2',
      tails: 'none',
      quarantined: 'none',
      replica: 'no sign of life',
    });
    expect(await ask(store, ['status'])).toEqual({
      store: cells['store'],
      epoch: 1,
      epochTakenUtc: expect.stringMatching(/Z$/) as string,
      requested: null,
      candidate: newer,
      candidateMadeUtc: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/) as string,
      cleanStop: false,
      onLine: 2,
      tails: [],
      tailSizes: {},
      writer: null,
      quarantined: [],
      olderFormats: 0,
      jellyrollerArchives: 0,
    });
    expect((await agent(empty, ['status'])).stdout).toContain('nothing: first boot');
  });

  test('verify: the candidate, or one by name', async () => {
    expect((await agent(store, ['verify'])).stdout).toMatch(
      new RegExp(`^${newer} is good: \\d+ entries, .+iB, 1 users, 40 items, Jellyfin unknown\n$`),
    );
    expect(await ask(store, ['verify', older])).toMatchObject({
      name: older,
      ok: true,
      counts: { users: 1, admins: 1, items: 40 },
    });
  });

  test('prune --dry-run: keeps and deletes, and deletes nothing', async () => {
    const { stdout, code } = await agent(store, ['prune', '--dry-run']);
    expect(code).toBe(0);
    expect(cellsOf(stdout).slice(1)).toEqual([
      ['keep', newer, 'newest 1 of 30'],
      ['keep', older, 'newest 2 of 30'],
    ]);
    expect(await ask(store, ['prune', '--dry-run'], { RETENTION_KEEP: '1' })).toEqual({
      verdicts: [
        { name: newer, keep: true, reason: 'newest 1 of 1' },
        { name: older, keep: true, reason: 'a restore may be reading it' },
      ],
    });
    expect((await agent(store, ['prune'])).code).toBe(2);
    expect(await store.names('backup-')).toHaveLength(2);
  });

  test('export: the archive as it is, never over a file', async () => {
    const file = join(makeTempDir('export'), 'one.tar.zst');
    const { code, stdout } = await agent(store, ['export', older, '--to', file]);
    const bytes = readFileSync(file);
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^${file}: .+iB, sha256 ${sha256}\n$`));
    expect(bytes.equals(await store.read(older))).toBe(true);
    const again = await agent(store, ['export', older, '--to', file]);
    expect(again).toMatchObject({ code: 5, stderr: `error: --to ${file} exists already\n` });
    expect(readFileSync(file).equals(bytes)).toBe(true);
  });

  test('restore --from NAME --to DIR: that one, without an epoch', async () => {
    const dir = join(makeTempDir('to'), 'new');
    const dry = await agent(store, ['restore', '--from', older, '--to', dir, '--dry-run']);
    expect(dry).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(
        new RegExp(`^would restore ${older} \\(.+iB\\) into ${dir}\n$`),
      ) as string,
    });
    expect(existsSync(dir)).toBe(false);

    const { code, stdout } = await agent(store, ['restore', '--from', older, '--to', dir]);
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`^restored ${older} into ${dir}: \\d+ files, .+iB\n$`));
    expect(activitiesIn(join(dir, 'data/jellyfin.db'))).toEqual(['one']);
    expect(existsSync(join(dir, '.agent'))).toBe(false);
    expect(await ask(store, ['status'])).toMatchObject({ epoch: 1 });

    const newest = join(makeTempDir('to'), 'new');
    expect(await ask(store, ['restore', '--to', newest])).toMatchObject({
      action: 'restore',
      from: newer,
      to: newest,
    });
    expect(activitiesIn(join(newest, 'data/jellyfin.db'))).toEqual(['one', 'two']);
  });

  test('restore --to a folder with files in it: refused, nothing touched', async () => {
    const dir = makeTempDir('to');
    writeFileSync(join(dir, 'mine.txt'), 'mine');
    const { code, stderr, stdout } = await agent(store, ['restore', '--to', dir]);
    expect({ code, stdout }).toEqual({ code: 5, stdout: '' });
    expect(stderr).toMatch(/^error: --to .* must be an empty or a new folder/);
    expect(readFileSync(join(dir, 'mine.txt'), 'utf8')).toBe('mine');
    expect(existsSync(join(dir, 'data'))).toBe(false);
  });

  test('restore --dry-run: the plan for DATA_DIR, and nothing else', async () => {
    const home = newHome();
    const { code, stdout } = await agent(store, ['restore', '--dry-run'], { DATA_DIR: home.data });
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: `would restore ${newer}\nif it fails its checks: ${older}\n`,
    });
    expect(await ask(store, ['restore', '--dry-run'], { DATA_DIR: home.data })).toEqual({
      dryRun: true,
      action: 'restore',
      candidates: [newer, older],
      cleanFirst: false,
    });
    expect(await ask(empty, ['restore', '--dry-run'], { DATA_DIR: home.data })).toEqual({
      dryRun: true,
      action: 'first_boot',
    });
    expect(existsSync(join(home.data, '.agent'))).toBe(false);
    mkdirSync(join(home.data, 'data'));
    writeFileSync(join(home.data, 'data/foreign.db'), 'x');
    const refused = await agent(store, ['restore', '--dry-run'], { DATA_DIR: home.data });
    expect(refused).toMatchObject({
      code: 5,
      stderr: expect.stringMatching(/^error: volume is not safe/) as string,
    });
    expect(await ask(store, ['status'])).toMatchObject({ epoch: 1 });
  });

  test.each([
    ['verify', ['verify', 'backup-1.tar.zst']],
    ['export', ['export', 'backup-1.tar.zst', '--to', '/nowhere/x']],
    ['restore', ['restore', '--from', 'backup-1.tar.zst', '--to', '/nowhere/x']],
    ['release', ['release', 'backup-1.tar.zst']],
  ])('%s of a name that nobody has: exit 4, and which there are', async (_name, args) => {
    const { code, stderr, stdout } = await agent(store, args);
    expect({ code, stdout, stderr }).toEqual({
      code: 4,
      stdout: '',
      stderr: `error: no backup is called "backup-1.tar.zst"\nhint: agent list shows all 2; the newest: ${newer}, ${older}\n`,
    });
  });

  test('release of what is on the line and not held: exit 4, there is nothing to release', async () => {
    expect(await agent(store, ['release', older])).toMatchObject({
      code: 4,
      stderr: `error: ${older} is on the line and not held as the last of an older Jellyfin version: there is nothing to release\n`,
    });
  });

  test.each([
    ['no command', []],
    ['an unknown command', ['bakup']],
    ['an unknown option', ['list', '--all']],
    ['too many arguments', ['list', 'everything']],
    ['--from without --to', ['restore', '--from', 'x']],
    ['export without --to', ['export', 'x']],
    ['prune without --dry-run', ['prune']],
    ['release without a name', ['release']],
  ])('%s: exit 2, said on stderr', async (_what, args) => {
    const { code, stdout, stderr } = await agent(store, args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^error: |^Usage: agent/);
    if (args.includes('--from')) {
      expect(stderr).toBe(
        'error: --from needs --to DIR: on DATA_DIR the newest good backup is restored, always\n',
      );
    }
  });

  test('help: exit 0 on stdout, every command in it', async () => {
    for (const args of [['--help'], ['help']]) {
      const { code, stdout, stderr } = await agent(store, args);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      for (const command of ['restore', 'backup', 'list', 'status', 'verify', 'prune', 'export', 'release'])
        expect(stdout).toMatch(new RegExp(`^  ${command} `, 'm'));
    }
    const { code, stdout } = await agent(store, ['restore', '--help']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/--from <name>[\s\S]*--to <dir>[\s\S]*--dry-run/);
  });

  test('a container that is not there: exit 3 and what to check', async () => {
    const { code, stderr } = await agent(store, ['list'], { BLOB_CONTAINER: 'never-made' });
    expect(code).toBe(3);
    expect(stderr).toMatch(
      /^error: list .*never-made failed: 404 ContainerNotFound\nhint: .*BLOB_CONTAINER\n$/,
    );
  });

  test('a store that is not there, a key that is not its key: exit 3', async () => {
    const nobody = store.env['AZURE_STORAGE_CONNECTION_STRING']?.replace(/:\d+\//, ':9/') ?? '';
    expect(await agent(store, ['status'], { AZURE_STORAGE_CONNECTION_STRING: nobody })).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('ECONNREFUSED') as string,
    });
    const wrongKey =
      store.env['AZURE_STORAGE_CONNECTION_STRING']?.replace(/AccountKey=..../, 'AccountKey=AAAA') ?? '';
    const denied = await agent(store, ['status'], { AZURE_STORAGE_CONNECTION_STRING: wrongKey });
    expect(denied).toMatchObject({ code: 3, stderr: expect.stringMatching(/ 403 /) as string });
    expect(denied.stderr).not.toContain(/AccountKey=([^;]+)/.exec(wrongKey)?.[1]);
  });
});

test.concurrent('a damaged backup: verify exits 4, and a start passes it over', async () => {
  const { store, older, newer } = await seeded();
  await damage(store, newer);
  const { code, stderr, stdout } = await agent(store, ['verify', newer]);
  expect({ code, stdout }).toEqual({ code: 4, stdout: '' });
  expect(stderr).toMatch(new RegExp(`^error: .*${newer.replaceAll('.', '\\.')}`));
  const { jsonLines } = await restore(store, newHome());
  expect(jsonLines).toEqual(
    expect.arrayContaining([
      expect.objectContaining({ level: 'error', msg: 'backup passed over', backup: newer }),
      expect.objectContaining({ msg: 'restored', restoredFrom: older, passedOver: [newer] }),
    ]),
  );
  await damage(store, older);
  const home = newHome();
  const refused = await runAgent(['restore'], agentEnv(store, home.data));
  expect(refused.code).toBe(4);
  expect(refused.jsonLines.at(-1)).toMatchObject({
    level: 'error',
    msg: 'restore refused',
    exitCode: 4,
    err: { code: 'backup_damaged', message: /none of 2 backups passes its checks/ },
  });
  expect(existsSync(home.database)).toBe(false);
});

test.concurrent(
  'users that vanish: quarantined, the next start restores the one before, until a person releases it',
  async () => {
    const store = await Store.create();
    const tree = new Tree(store);
    tree.addUsers(3);
    const good = await tree.stored('four users');
    tree.removeGuests();
    const collapsed = await tree.backUp();
    expect(collapsed.code).toBe(4);
    expect(collapsed.jsonLines.find(({ msg }) => msg === 'backup quarantined')).toMatchObject({
      level: 'error',
      reason: 'users fell from 4 to 1',
      hint: expect.stringMatching(/agent release quarantine\/backup-/) as string,
    });
    const [quarantined = 'none'] = await store.names('quarantine/');
    expect(await ask(store, ['status'])).toMatchObject({ candidate: good, quarantined: [quarantined] });
    expect((await ask<{ backups: Row[] }>(store, ['list'])).backups).toMatchObject([
      { name: good, place: 'candidate' },
      { name: quarantined, place: 'quarantine' },
    ]);

    const cautious = newHome();
    await restore(store, cautious);
    expect(countRows(cautious.database, 'Users')).toBe(4);

    expect(await agent(store, ['release', quarantined])).toMatchObject({
      code: 0,
      stdout: `${quarantined} is on the line: the next start restores it\n`,
    });
    expect(await ask(store, ['status'])).toMatchObject({
      candidate: quarantined,
      quarantined: [],
      onLine: 2,
    });
    const released = newHome();
    await restore(store, released);
    expect(countRows(released.database, 'Users')).toBe(1);
  },
);

test.concurrent('a tail or a quarantined one that is no longer the newest is not released', async () => {
  const store = await Store.create();
  const tree = new Tree(store);
  tree.addUsers(3);
  await tree.stored('four users');
  tree.removeGuests();
  await tree.backUp();
  const [quarantined = 'none'] = await store.names('quarantine/');
  tree.addUsers(3);
  const newest = await tree.stored('four users again');
  expect(await agent(store, ['release', quarantined])).toMatchObject({
    code: 4,
    stderr: `error: ${quarantined} is older than ${newest}, which the next start restores\nhint: agent restore --from NAME --to DIR brings it back into a folder\n`,
  });
});
