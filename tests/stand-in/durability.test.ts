import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, statSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually, Home, StandIn } from './support.ts';

const WRITING = { STAND_IN_WRITE_INTERVAL_MS: '10' };

/** Any other process that looks into the live database. */
function lookFromOutside(home: Home, readOnly: boolean): void {
  const db = new DatabaseSync(home.database, { readOnly });
  db.prepare('SELECT count(*) FROM Users').get();
  db.close();
}

function countOf(home: Home, table: string, where = '1'): number {
  const db = new DatabaseSync(home.database, { readOnly: true });
  const row = db.prepare(`SELECT count(*) AS n FROM ${table} WHERE ${where}`).get();
  db.close();
  return Number(row?.['n']);
}

test.concurrent('an orderly stop removes the -wal, and the next start has everything', async () => {
  const home = new Home();
  const first = await StandIn.start(home, WRITING);
  const { token, itemId, serverId } = await first.setUp(home);
  await first.call('POST', '/Auth/Keys?app=sidecar', { token });
  expect(existsSync(home.wal)).toBe(true);
  expect(await first.stop()).toBe(0);
  expect([home.wal, `${home.database}-shm`].filter((file) => existsSync(file))).toEqual([]);

  const second = await StandIn.start(home);
  expect((await second.call('GET', '/System/Info/Public')).json).toMatchObject({
    StartupWizardCompleted: true,
    Id: serverId,
  });
  expect((await second.call('GET', `/UserItems/${itemId}/UserData`, { token })).json.Played).toBe(true);
  expect((await second.call('GET', '/Library/VirtualFolders', { token })).list[0]?.Name).toBe('Movies');
  expect((await second.call('GET', '/Auth/Keys', { token })).json.Items).toHaveLength(1);
  expect((await second.logIn()).status).toBe(200);
});

test.concurrent('the database is in WAL mode from its creation, and is not put back into it', async () => {
  const home = new Home();
  const journalBytes = () => [...readFileSync(home.database).subarray(18, 20)];
  await (await StandIn.start(home)).stop();
  expect(journalBytes()).toEqual([2, 2]);

  const db = new DatabaseSync(home.database);
  db.exec('PRAGMA journal_mode=DELETE');
  db.close();
  await (await StandIn.start(home)).stop();
  expect(journalBytes()).toEqual([1, 1]);
});

test.concurrent('a late write is committed after the port has closed', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: '1000' });
  standIn.process.signal('SIGTERM');
  await standIn.untilHealth('refused');
  expect(countOf(home, 'ActivityLogs', "Type = 'StandInLateWrite'")).toBe(0);
  await standIn.process.waitForExit(5_000);
  expect(countOf(home, 'ActivityLogs', "Type = 'StandInLateWrite'")).toBe(1);
});

test.concurrent('SIGKILL keeps the committed rows, in the -wal', async () => {
  const home = new Home();
  const first = await StandIn.start(home, WRITING);
  const { token, itemId } = await first.setUp(home);
  await sleep(100);
  const { TotalRecordCount } = (await first.call('GET', '/System/ActivityLog/Entries?limit=1', { token }))
    .json;
  await first.process.kill();
  expect(existsSync(home.wal)).toBe(true);

  const second = await StandIn.start(home);
  const after = (await second.call('GET', '/System/ActivityLog/Entries?limit=1', { token })).json;
  expect(after.TotalRecordCount).toBeGreaterThanOrEqual(TotalRecordCount);
  expect((await second.call('GET', `/UserItems/${itemId}/UserData`, { token })).json.Played).toBe(true);
});

test.concurrent(
  'without the libraries on disk their items go, and the played state waits for them',
  async () => {
    const home = new Home();
    const first = await StandIn.start(home);
    const { token } = await first.setUp(home);
    await first.stop();
    rmSync(home.path('root'), { recursive: true });
    const second = await StandIn.start(home);
    expect((await second.call('GET', '/Items', { token })).json.TotalRecordCount).toBe(0);
    await second.stop();
    expect(countOf(home, 'UserData', 'Played = 1')).toBe(1);
  },
);

test.concurrent('a plugin that is not on disk does not come back', async () => {
  const home = new Home();
  const first = await StandIn.start(home);
  const { token } = await first.setUp(home);
  expect((await first.call('GET', '/Plugins', { token })).json).toHaveLength(1);
  await first.stop();
  rmSync(home.path('plugins'), { recursive: true });
  const second = await StandIn.start(home);
  expect((await second.call('GET', '/Plugins', { token })).json).toEqual([]);
});

describe('a look from another process', () => {
  const look = async (locks: string, readOnly: boolean) => {
    const home = new Home();
    const standIn = await StandIn.start(home, { STAND_IN_LOSE_LOCKS: locks });
    await standIn.completeWizard();
    lookFromOutside(home, readOnly);
    const isWalThere = existsSync(home.wal);
    const loginStatus = (await standIn.logIn()).status;
    await standIn.process.kill();
    return { isWalThere, loginStatus, rowsOfLogin: countOf(home, 'Devices') };
  };
  const harmless = { isWalThere: true, loginStatus: 200, rowsOfLogin: 1 };

  test.concurrent('with the locks held does no harm, read-only or not', async () => {
    expect(await look('0', true)).toEqual(harmless);
    expect(await look('0', false)).toEqual(harmless);
  });

  test.concurrent('with all locks lost does no harm when it is read-only', async () => {
    expect(await look('2', true)).toEqual(harmless);
  });

  test.concurrent(
    'with all locks lost deletes the -wal when it is read-write, and what follows is lost',
    async () => {
      expect(await look('2', false)).toEqual({ isWalThere: false, loginStatus: 200, rowsOfLogin: 0 });
    },
  );
});

describe('the locks on the database file', () => {
  const start = async (env: Record<string, string>, home = new Home()) => {
    const standIn = await StandIn.start(home, env);
    return { home, standIn, hasLock: holdsLock(standIn.process.pid, home.database) };
  };

  test.concurrent('are held by a running server', async () => {
    expect(await start({})).toMatchObject({ hasLock: true });
  });

  test.concurrent(
    'are lost as in issue #18100, which an older SQLite takes for leave to delete the -wal',
    async () => {
      const { home, hasLock } = await start({ STAND_IN_LOSE_LOCKS: '1' });
      expect(hasLock).toBe(false);
      // The one in Node looks at the -shm as well; the command-line tool of a distribution may be older.
      lookFromOutside(home, false);
      expect(existsSync(home.wal)).toBe(true);
      if (!hasOldSqlite()) return;
      execFileSync('sqlite3', [home.database, 'SELECT count(*) FROM Users']);
      expect(existsSync(home.wal)).toBe(false);
    },
  );

  test.concurrent('are lost by an upgrade, because of its copy of the open file', async () => {
    const { home, standIn } = await start({ STAND_IN_VERSION: '10.11.8' });
    await standIn.stop();
    expect(await start({ STAND_IN_VERSION: '10.11.11' }, home)).toMatchObject({ hasLock: false });
  });
});

/** Linux: each POSIX lock is a line of /proc/locks with the process and the inode. */
function holdsLock(pid: number, file: string): boolean {
  const inode = statSync(file).ino;
  const locks = readFileSync('/proc/locks', 'utf8').split('\n');
  return locks.some((line) => new RegExp(`POSIX .* ${pid} \\S+:${inode} `).test(line));
}

function hasOldSqlite(): boolean {
  const { stdout } = spawnSync('sqlite3', ['--version'], { encoding: 'utf8' });
  const minor = /^3\.(\d+)\./.exec(stdout)?.[1];
  return minor !== undefined && Number(minor) <= 45;
}

test.concurrent('system.xml is empty for a moment while it is saved', async () => {
  const home = new Home();
  const standIn = await StandIn.start(home, { STAND_IN_XML_PAUSE_MS: '200' });
  const saved = standIn.call('POST', '/Startup/Complete');
  await eventually(() => home.read('config/system.xml') === '');
  await saved;
  expect(home.read('config/system.xml')).toContain('<IsStartupWizardCompleted>true<');
});
