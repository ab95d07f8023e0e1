import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { ADMIN_ID, createJellyfinTree, TREE_FILES } from '../support/jellyfin-tree.ts';
import { checkLedger, startLiveWriter, type LiveWriter } from '../support/live-writer-client.ts';
import { runProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const PATH = { PATH: process.env['PATH'] ?? '' };

/** A copy as our agent makes it: read-only and in one step. */
async function copyOf(writer: LiveWriter): Promise<string> {
  const copy = join(makeTempDir('copy'), 'jellyfin.db');
  const source = new DatabaseSync(writer.databaseFile, { readOnly: true });
  await backup(source, copy, { rate: 2 ** 31 - 1 });
  source.close();
  return copy;
}

test('writes like a server: WAL, heavily, with maintenance in between, and keeps the invariant', async () => {
  const dir = makeTempDir('writer');
  const writer = await startLiveWriter(dir, {
    initialMiB: 3,
    commitsPerSecond: 0,
    truncateCheckpointEveryMs: 100,
    vacuumEveryMs: 150,
  });
  expect(writer.journalMode).toBe('wal');
  for (let i = 0; i < 5; i++) {
    const before = await writer.lastSeq();
    const check = checkLedger(await copyOf(writer));
    expect(check).toMatchObject({ ok: true, problems: [], integrity: 'ok', isWal: true });
    expect(check.lastSeq).toBeGreaterThanOrEqual(before);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const stats = await writer.stats();
  expect(stats.commits).toBeGreaterThan(500);
  expect(Math.min(stats.vacuums, stats.checkpoints)).toBeGreaterThan(0);
  expect(stats.medianCommitMs).toBeLessThan(10);
  expect(stats.p99CommitMs).toBeLessThanOrEqual(stats.maxCommitMs);

  const last = await writer.stop();
  expect(existsSync(`${writer.databaseFile}-wal`)).toBe(false);
  expect(checkLedger(writer.databaseFile)).toMatchObject({ ok: true, lastSeq: last });
  // What Jellyfin's own checks look for.
  const database = new DatabaseSync(writer.databaseFile, { readOnly: true });
  expect(
    database
      .prepare(
        `SELECT u.Id FROM Users u JOIN Permissions p ON p.UserId = u.Id AND p.Kind = 0 AND p.Value = 1
         WHERE u.Password IS NOT NULL AND u.Password <> ''`,
      )
      .all(),
  ).toEqual([{ Id: ADMIN_ID }]);
  database.close();
  for (const path of TREE_FILES) expect([path, existsSync(join(dir, path))]).toEqual([path, true]);
});

test('pauses, commits on demand, is killed, and goes on where its database was', async () => {
  const dir = makeTempDir('writer');
  const writer = await startLiveWriter(dir, { startPaused: true });
  expect(await writer.lastSeq()).toBe(0);
  await writer.resume();
  const paused = await writer.pause();
  expect(await writer.commit(7)).toBe(paused + 7);
  await writer.kill();
  const again = await startLiveWriter(dir, { startPaused: true, closeDelayMs: 100 });
  expect([await again.lastSeq(), again.serverId]).toEqual([paused + 7, writer.serverId]);
  await again.resume();
  const last = await again.terminate();
  expect(last).toBeGreaterThan(paused + 7);
  expect(await again.process.exit).toEqual({ code: 0, signal: null });
  expect(checkLedger(again.databaseFile)).toMatchObject({ ok: true, lastSeq: last });
});

test('keeps about the rate that it was given', async () => {
  const writer = await startLiveWriter(makeTempDir('writer'), { commitsPerSecond: 200 });
  await writer.resetStats();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const { commits } = await writer.stats();
  expect(commits).toBeGreaterThan(50);
  expect(commits).toBeLessThan(200);
  await writer.stop();
});

test('ends by itself when its stdin closes and when its life is over', async () => {
  const [orphan, old] = await Promise.all([
    startLiveWriter(makeTempDir('writer')),
    startLiveWriter(makeTempDir('writer'), { maxLifetimeMs: 200 }),
  ]);
  orphan.process.endInput();
  expect(await orphan.process.waitForExit(5000)).toEqual({ code: 0, signal: null });
  expect(await old.process.waitForExit(5000)).toEqual({ code: 0, signal: null });
});

test.each([
  ['with its locks', undefined, true],
  // SQLite 3.51 and later look at the lock on the -shm as well; 3.40 takes the -wal away here.
  ['without the lock on the database', 'database', true],
  ['without any lock', 'all', false],
] as const)(
  '%s, a stranger of today opens the database for writing: -wal kept = %s, %s',
  async (_, which, isKept) => {
    const writer = await startLiveWriter(makeTempDir('writer'), { startPaused: true });
    await writer.commit(10);
    if (which) await writer.loseLocks(which);
    const stranger = new DatabaseSync(writer.databaseFile);
    stranger.prepare('SELECT count(*) FROM Users').get();
    stranger.close();
    expect((await writer.stats()).walExists).toBe(isKept);
    // Without a -wal, what is written from here on goes to a deleted file and is lost.
    const last = await writer.commit(5);
    await writer.kill();
    expect(checkLedger(writer.databaseFile, { recoverWal: true }).lastSeq).toBe(isKept ? last : 10);
  },
);

test('an unconfigured server has the flag false and a user without a password', () => {
  const tree = createJellyfinTree(makeTempDir('tree'), { isConfigured: false });
  const database = new DatabaseSync(tree.databaseFile, { readOnly: true });
  expect(database.prepare('SELECT Username, Password FROM Users').all()).toEqual([
    { Username: 'root', Password: null },
  ]);
  database.close();
  expect(checkLedger(tree.databaseFile)).toMatchObject({ ok: true, lastSeq: 0, isWal: true });
});

test('the check sees a broken invariant, a missing table, a damaged page and a missing file', async () => {
  const tree = createJellyfinTree(makeTempDir('tree'));
  const run = (sql: string) => {
    const database = new DatabaseSync(tree.databaseFile);
    database.exec(sql);
    database.close();
    return checkLedger(tree.databaseFile);
  };
  expect(run('UPDATE ledger_accounts SET balance = balance + 1 WHERE id = 3').problems).toEqual([
    'not true: the balances add up to what was there in the beginning (20001, not 20000)',
    'not true: every account has what the transfers left it (19, not 20)',
  ]);
  expect(run('DROP TABLE ledger_state')).toMatchObject({ ok: false, lastSeq: -1, integrity: 'ok' });
  expect(checkLedger('/nowhere/jellyfin.db').problems).toEqual([expect.stringContaining('ENOENT')]);
});

test('plain tar of the live folder is caught: copies are torn, or miss what was committed before', async () => {
  const writer = await startLiveWriter(makeTempDir('writer'), {
    initialMiB: 12,
    commitsPerSecond: 0,
    truncateCheckpointEveryMs: 70,
    vacuumEveryMs: 300,
  });
  const broken = [];
  for (let i = 0; i < 20 && broken.length < 2; i++) {
    const copy = join(makeTempDir('tar'), 'copy');
    mkdirSync(copy);
    const before = await writer.lastSeq();
    const command = `tar -cf - -C "${join(writer.dir, 'data')}" . | tar -xf - -C "${copy}"`;
    await runProcess({ command: 'sh', args: ['-c', command], env: PATH });
    const check = checkLedger(join(copy, 'jellyfin.db'), { recoverWal: true });
    if (!check.ok || check.lastSeq < before) broken.push(check);
  }
  await writer.stop();
  expect(broken.length).toBe(2);
});
