import { spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { backup, DatabaseSync } from 'node:sqlite';
import { setTimeout as delay } from 'node:timers/promises';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { NodeSqlite } from '../../agent/adapters/node-sqlite.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { snapshotDirOf } from '../../agent/snapshot.ts';
import {
  createJellyfinTree,
  itemId,
  openAsJellyfin,
  OUT_OF_SCOPE_FILES,
  TREE_FILES,
} from '../support/jellyfin-tree.ts';
import { checkLedger, startLiveWriter, type LiveWriter } from '../support/live-writer-client.ts';
import { startProcess, type RunningProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { liveAgent, SQLITE_IN_PROCESS, SQLITE_WORKER, type LiveAgent } from './live-agent.ts';

/** For trees that stand still: the thread is tested with the trees that do not. */
const still = (dir: string) => liveAgent(dir, { databases: SQLITE_IN_PROCESS });

function newTree(options: Parameters<typeof createJellyfinTree>[1] = {}) {
  return createJellyfinTree(makeTempDir('tree'), options);
}

function edit(databaseFile: string, sql: string): void {
  const database = openAsJellyfin(databaseFile);
  database.exec(sql);
  database.close();
}

/** What any other process reads in the live database now. */
function lastSeqSeenByOthers(databaseFile: string): number {
  const reader = new DatabaseSync(databaseFile, { readOnly: true });
  try {
    return Number(reader.prepare('SELECT last_seq FROM ledger_state').get()?.['last_seq']);
  } finally {
    reader.close();
  }
}

/** All rows of all tables. */
function contentOf(databaseFile: string): Record<string, unknown[]> {
  const database = new DatabaseSync(`file:${databaseFile}?immutable=1`, { readOnly: true });
  try {
    const tables = database
      .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
      .all();
    return Object.fromEntries(
      tables.map(({ name }) => [name, database.prepare(`SELECT * FROM "${String(name)}"`).all()]),
    ) as Record<string, unknown[]>;
  } finally {
    database.close();
  }
}

async function restored(agent: LiveAgent): Promise<string> {
  const outcome = await agent.backUp();
  if (outcome.kind !== 'published') throw new Error(`not published: ${outcome.kind}`);
  const dir = join(makeTempDir('restored'), 'data');
  await agent.restore(outcome.backup.name, dir);
  return dir;
}

/**
 * `node:sqlite`'s own backup with a number of pages a step, in a process that can be given up. Into memory: a copy on the
 * disk would slow down the writer's own writes, and it is the writer that must not pause.
 */
function stepwiseBackup(source: string, rate: number): RunningProcess {
  const program = `const { DatabaseSync, backup } = require('node:sqlite');
    const [source, rate] = process.argv.slice(1);
    const live = new DatabaseSync(source, { readOnly: true });
    console.log('begins');
    backup(live, ':memory:', { rate: Number(rate) }).then(() => console.log('finished'));`;
  return startProcess({ name: `backup by ${rate}`, args: ['-e', program, source, String(rate)] });
}

const FINISHED = ({ text }: { text: string }) => text === 'finished';

describe('a server that never pauses', () => {
  let writer: LiveWriter;
  let agent: LiveAgent;
  beforeAll(async () => {
    writer = await startLiveWriter(makeTempDir('busy'), {
      // No maintenance: a checkpoint waits for the disk, and in such a pause even small steps get through.
      commitsPerSecond: 500,
      initialMiB: 96,
      autoCheckpointPages: 0,
      passiveCheckpointEveryMs: 0,
      truncateCheckpointEveryMs: 0,
      vacuumEveryMs: 0,
    });
    agent = await liveAgent(writer.dir);
  });
  afterAll(() => writer.kill());

  test('a snapshot finishes; 100 pages a step, the default of Node, do not in twenty times that', async () => {
    await agent.snapshot();
    const before = await writer.lastSeq();
    const startedMs = performance.now();
    await SQLITE_IN_PROCESS.snapshot(writer.databaseFile, join(makeTempDir('copy'), 'copy.db'));
    const limitMs = Math.min(20 * (performance.now() - startedMs), 12_000);
    await agent.snapshotter.discard();

    // On a crowded machine the writer itself may get no time for a moment, and small steps slip through: not thrice.
    let steps: RunningProcess | undefined;
    let isFinished = true;
    for (let attempt = 0; attempt < 3 && isFinished; attempt += 1) {
      steps = stepwiseBackup(writer.databaseFile, 100);
      await steps.waitForLine(({ text }) => text === 'begins');
      isFinished = await steps.waitForLine(FINISHED, limitMs).then(
        () => true,
        () => false,
      );
    }
    expect(isFinished).toBe(false);
    expect(await writer.lastSeq()).toBeGreaterThan(before);
    // It was the writer: as soon as it pauses, the very same process gets through.
    await writer.pause();
    await steps?.waitForLine(FINISHED, 20_000);
    await writer.resume();
  });

  test('a plugin database under another name is copied through SQLite, however busy it is', async () => {
    const file = join(writer.dir, 'plugins/Busy_1.0.0.0/state.sqlite');
    mkdirSync(dirname(file), { recursive: true });
    const program = `const { DatabaseSync } = require('node:sqlite');
      const database = new DatabaseSync(process.argv[1], { timeout: 5000 });
      database.exec('PRAGMA synchronous = OFF; CREATE TABLE pairs (a, b); INSERT INTO pairs VALUES (0, 0)');
      console.log('ready');
      let count = 0;
      setInterval(() => {
        count += 1;
        database.exec('BEGIN IMMEDIATE; UPDATE pairs SET a = ' + count + '; UPDATE pairs SET b = ' + count + '; COMMIT');
      }, 1);`;
    const plugin = startProcess({ name: 'plugin', args: ['-e', program, file] });
    await plugin.waitForLine(({ text }) => text === 'ready');
    const copiedAsFiles: string[] = [];
    class WatchedDisk extends LocalDisk {
      override copyStable(...[source, target]: Parameters<LocalDisk['copyStable']>) {
        copiedAsFiles.push(source);
        return super.copyStable(source, target);
      }
    }
    const watched = await liveAgent(writer.dir, { disk: new WatchedDisk() });
    const snapshot = await watched.snapshot();
    // Such a copy would wait for the file to stand still, which it may never do.
    expect(copiedAsFiles.filter((path) => !/\.(xml|json|jpg|js|txt|mblink|collection)$/.test(path))).toEqual(
      [],
    );
    expect(contentOf(snapshot.sourceOf('plugins/Busy_1.0.0.0/state.sqlite'))).toEqual({
      pairs: [{ a: expect.any(Number), b: expect.any(Number) }],
    });
    expect(plugin.isRunning()).toBe(true);
    await plugin.kill();
    await watched.snapshotter.discard();
  });
});

describe('the live -wal', () => {
  interface Case {
    opener: 'a snapshot' | 'an opener that may write';
    lost: 'no lock' | 'database' | 'all';
    isKept: boolean;
  }
  /** SQLite of today looks at the locks on the `-shm` too, so that only `all` exposes an opener that may write. */
  const CASES: Case[] = [
    { opener: 'a snapshot', lost: 'no lock', isKept: true },
    { opener: 'a snapshot', lost: 'database', isKept: true },
    { opener: 'a snapshot', lost: 'all', isKept: true },
    { opener: 'an opener that may write', lost: 'all', isKept: false },
  ];
  test.each(CASES)(
    'after $opener of a server that lost $lost: kept $isKept',
    async ({ opener, lost, isKept }) => {
      const writer = await startLiveWriter(makeTempDir('locks'), { startPaused: true });
      const wal = `${writer.databaseFile}-wal`;
      const committed = await writer.commit(50);
      if (lost !== 'no lock') await writer.loseLocks(lost);
      const inode = statSync(wal).ino;
      if (opener === 'a snapshot') {
        const agent = await liveAgent(writer.dir);
        const snapshot = await agent.snapshot();
        expect(checkLedger(snapshot.sourceOf('data/jellyfin.db'))).toMatchObject({
          ok: true,
          lastSeq: committed,
        });
      } else {
        const database = new DatabaseSync(writer.databaseFile);
        await backup(database, join(makeTempDir('rw'), 'copy.db'), { rate: 2 ** 31 - 1 });
        database.close();
      }
      expect(existsSync(wal) && statSync(wal).ino === inode).toBe(isKept);
      const last = await writer.commit(10);
      expect(lastSeqSeenByOthers(writer.databaseFile)).toBe(isKept ? last : committed);
      await writer.kill();
      expect(checkLedger(writer.databaseFile, { recoverWal: true })).toMatchObject({
        ok: true,
        lastSeq: isKept ? last : committed,
      });
    },
  );

  test('a busy server that lost every lock lives through snapshots, and no torn copy passes the checks', async () => {
    const writer = await startLiveWriter(makeTempDir('locks'), {
      commitsPerSecond: 0,
      truncateCheckpointEveryMs: 70,
    });
    await writer.loseLocks('all');
    const agent = await still(writer.dir);
    let snapshots = 0;
    for (let round = 0; round < 25; round += 1) {
      // Without locks a copy can be torn: then it must be refused.
      const snapshot = await agent.snapshot().catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'source_damaged' });
      });
      if (snapshot === undefined) continue;
      snapshots += 1;
      expect(checkLedger(snapshot.sourceOf('data/jellyfin.db')).problems).toEqual([]);
    }
    expect(snapshots).toBeGreaterThan(5);
    // Before the -shm was opened read-only, the server died of SIGBUS here.
    expect(writer.process.isRunning()).toBe(true);
    expect((await writer.stats()).walExists).toBe(true);
    await writer.stop();
  });
});

describe('a server that does not run', () => {
  test('closed: no -wal, and the restored copy has the same rows', async () => {
    const writer = await startLiveWriter(makeTempDir('closed'));
    await writer.commit(100);
    const last = await writer.stop();
    expect(existsSync(`${writer.databaseFile}-wal`)).toBe(false);
    const content = contentOf(writer.databaseFile);
    const dir = await restored(await still(writer.dir));
    expect(contentOf(join(dir, 'data/jellyfin.db'))).toEqual(content);
    expect(checkLedger(join(dir, 'data/jellyfin.db'))).toMatchObject({
      ok: true,
      lastSeq: last,
      isWal: true,
    });
    // Nothing that a later start could take for the leftovers of a kill.
    expect(statSync(`${writer.databaseFile}-wal`, { throwIfNoEntry: false })?.size ?? 0).toBe(0);
  });

  test('killed with everything in the -wal: every committed row is there', async () => {
    const writer = await startLiveWriter(makeTempDir('killed'), {
      startPaused: true,
      autoCheckpointPages: 0,
      passiveCheckpointEveryMs: 0,
      truncateCheckpointEveryMs: 0,
      vacuumEveryMs: 0,
    });
    const last = await writer.commit(300);
    await writer.kill();
    // Without the -wal these rows do not exist.
    expect(checkLedger(writer.databaseFile).lastSeq).toBe(0);
    const wal = readFileSync(`${writer.databaseFile}-wal`);
    const dir = await restored(await still(writer.dir));
    expect(checkLedger(join(dir, 'data/jellyfin.db'))).toMatchObject({
      ok: true,
      lastSeq: last,
      isWal: true,
    });
    expect(readdirSync(join(dir, 'data')).filter((name) => /-(wal|shm|journal)$/.test(name))).toEqual([]);
    // It is still there for the server's own recovery.
    expect(readFileSync(`${writer.databaseFile}-wal`).equals(wal)).toBe(true);
  });

  test('killed in the middle of a transaction of a plugin: its database is rolled back, in the copy', async () => {
    const { dir, pluginDatabaseFile } = newTree();
    const program = `const { DatabaseSync } = require('node:sqlite');
      const database = new DatabaseSync(process.argv[1]);
      database.exec("PRAGMA cache_size = 1; CREATE TABLE filler (text); BEGIN");
      for (let i = 0; i < 2000; i += 1) database.exec("INSERT INTO filler VALUES (hex(randomblob(500)))");
      console.log('in the middle');
      setInterval(() => undefined, 1000);`;
    const plugin = startProcess({ name: 'plugin', args: ['-e', program, pluginDatabaseFile] });
    await plugin.waitForLine(({ text }) => text === 'in the middle');
    await plugin.kill();
    const journal = readFileSync(`${pluginDatabaseFile}-journal`);
    const target = await restored(await still(dir));
    expect(contentOf(join(target, 'data/playback_reporting.db'))).toEqual({
      PlaybackActivity: [expect.objectContaining({ PlayDuration: 60 })],
      filler: [],
    });
    expect(existsSync(join(target, 'data/playback_reporting.db-journal'))).toBe(false);
    // The live one is the plugin's own business.
    expect(readFileSync(`${pluginDatabaseFile}-journal`).equals(journal)).toBe(true);
  });
});

describe('a database that nobody else may read', () => {
  test('in EXCLUSIVE locking mode: one clear error, soon, and nothing published', async () => {
    const { dir, databaseFile } = newTree();
    const program = `const { DatabaseSync } = require('node:sqlite');
      const database = new DatabaseSync(process.argv[1]);
      database.exec("PRAGMA locking_mode = EXCLUSIVE; UPDATE ledger_state SET total = total");
      console.log('held');
      setInterval(() => undefined, 1000);`;
    const server = startProcess({ name: 'server', args: ['-e', program, databaseFile] });
    await server.waitForLine(({ text }) => text === 'held');
    const agent = await liveAgent(dir, { databases: new NodeSqlite(SQLITE_WORKER, { busyTimeoutMs: 300 }) });
    const startedMs = performance.now();
    await expect(agent.backUp()).rejects.toMatchObject({
      code: 'source_damaged',
      message: expect.stringMatching(/jellyfin\.db failed: database is locked/),
    });
    expect(performance.now() - startedMs).toBeLessThan(5_000);
    expect(await agent.blobNames()).toEqual(['state/epoch.json']);
    await server.kill();
    expect(await agent.backUp()).toMatchObject({ kind: 'published' });
  });

  test.each([
    [
      'lockingmode',
      '<CustomProviderOptions><Options><CustomDatabaseOption><Key>lockingmode</Key>\n<Value>EXCLUSIVE</Value></CustomDatabaseOption></Options></CustomProviderOptions>',
      /EXCLUSIVE/,
    ],
    [
      'a pragma',
      '<CustomProviderOptions><Options><CustomDatabaseOption><Key>#PRAGMA:locking_mode</Key><Value>exclusive</Value></CustomDatabaseOption></Options></CustomProviderOptions>',
      /EXCLUSIVE/,
    ],
    ['another engine', '<DatabaseType>Jellyfin-PgSql</DatabaseType>', /Jellyfin-PgSql/],
  ])('database.xml says so by %s: refused before anything is read', async (_name, body, message) => {
    const { dir } = newTree();
    const file = join(dir, 'config/database.xml');
    writeFileSync(file, `<DatabaseConfigurationOptions>${body}</DatabaseConfigurationOptions>`);
    const agent = await still(dir);
    await expect(agent.backUp()).rejects.toMatchObject({
      code: 'source_unsupported',
      message: expect.stringMatching(message),
    });
    expect(await agent.blobNames()).toEqual(['state/epoch.json']);
  });
});

describe('files', () => {
  test('what is in scope is there byte for byte, what is not is absent', async () => {
    const { dir, serverId } = newTree();
    const target = await restored(await still(dir));
    for (const path of TREE_FILES) {
      expect([path, readFileSync(join(target, path), 'latin1')]).toEqual([
        path,
        readFileSync(join(dir, path), 'latin1'),
      ]);
    }
    for (const path of OUT_OF_SCOPE_FILES)
      expect([path, existsSync(join(target, path))]).toEqual([path, false]);
    expect(readFileSync(join(target, 'data/device.txt'), 'utf8')).toBe(serverId);
    // Jellyfin refuses to start beside a marker in the wrong folder; it makes its own.
    const names = readdirSync(target, { recursive: true, encoding: 'utf8' });
    expect(names.filter((name) => name.includes('.jellyfin-'))).toEqual([]);
    expect(names.filter((name) => name.startsWith('.agent'))).toEqual([]);
  });

  test.each(['config/system.xml', 'config/network.xml', 'root/default/Movies/options.xml'])(
    'a snapshot in the middle of a save never holds the truncated %s',
    async (path) => {
      const { dir } = newTree();
      const agent = await still(dir);
      const file = join(dir, path);
      const saved = readFileSync(file, 'utf8').replace('</', '<Saved>again</Saved></');
      truncateSync(file);
      const saving = delay(300).then(() => {
        writeFileSync(file, saved);
      });
      const snapshot = await agent.snapshot();
      await saving;
      expect(readFileSync(snapshot.sourceOf(path), 'utf8')).toBe(saved);
    },
  );

  test('a system.xml that stays truncated is never published', async () => {
    const { dir } = newTree();
    truncateSync(join(dir, 'config/system.xml'), 60);
    const agent = await still(dir);
    await expect(agent.backUp()).rejects.toMatchObject({
      code: 'source_damaged',
      message: expect.stringMatching(/system\.xml is not well-formed/),
    });
    expect(await agent.blobNames()).toEqual(['state/epoch.json']);
  });

  test('databases of any kind and name, and files that only look like one', async () => {
    const { dir, pluginDatabaseFile } = newTree();
    const odd = join(dir, 'plugins/x/state.sqlite');
    mkdirSync(dirname(odd));
    // In WAL mode and under another name: copied as a file it would lack what is in its -wal.
    const open = new DatabaseSync(odd);
    open.exec('PRAGMA journal_mode = WAL; CREATE TABLE state (value); INSERT INTO state VALUES (7)');
    writeFileSync(join(dir, 'data/notes.db'), 'no database, only called one');
    writeFileSync(join(dir, 'data/empty.db'), '');
    const target = await restored(await still(dir));
    open.close();
    expect(contentOf(join(target, 'plugins/x/state.sqlite'))).toEqual({ state: [{ value: 7 }] });
    expect(readdirSync(join(target, 'plugins/x'))).toEqual(['state.sqlite']);
    expect(contentOf(join(target, 'data/playback_reporting.db'))).toEqual(contentOf(pluginDatabaseFile));
    // Rollback mode stays rollback mode: the plugin chose it.
    expect(readFileSync(join(target, 'data/playback_reporting.db')).subarray(18, 20)).toEqual(
      Buffer.from([1, 1]),
    );
    expect(readFileSync(join(target, 'data/notes.db'), 'utf8')).toBe('no database, only called one');
    expect(statSync(join(target, 'data/empty.db')).size).toBe(0);
  });

  test('links are not followed: skipped, with a warning that names them', async () => {
    const { dir } = newTree();
    const outside = join(makeTempDir('outside'), 'secret.txt');
    writeFileSync(outside, 'secret');
    symlinkSync(outside, join(dir, 'config/link.xml'));
    symlinkSync(dirname(outside), join(dir, 'root/default/Linked'));
    const agent = await still(dir);
    const target = await restored(agent);
    const present = ['config/link.xml', 'root/default/Linked'].filter((path) =>
      lstatSync(join(target, path), { throwIfNoEntry: false }),
    );
    expect(present).toEqual([]);
    expect(agent.logged).toContainEqual(
      expect.objectContaining({ level: 'warn', paths: ['config/link.xml', 'root/default/Linked'] }),
    );
  });
});

describe('what must not be published', () => {
  test('a server that is not configured: no backup, no error; then configured: a backup', async () => {
    const { dir, databaseFile } = newTree({ isConfigured: false });
    const agent = await still(dir);
    expect(await agent.backUp()).toMatchObject({
      kind: 'unconfigured',
      why: expect.stringMatching(/wizard/),
    });
    expect(await agent.blobNames()).toEqual(['state/epoch.json']);
    expect(agent.logged.filter(({ level }) => level === 'error')).toEqual([]);
    const settings = join(dir, 'config/system.xml');
    writeFileSync(settings, readFileSync(settings, 'utf8').replace('>false<', '>true<'));
    edit(databaseFile, "UPDATE Users SET Password = '$PBKDF2-SHA512$'");
    expect(await agent.backUp()).toMatchObject({ kind: 'published' });
  });

  /** Each breaks a configured server in its own way, after a good backup. */
  const BREAKS: { name: string; damage: (tree: ReturnType<typeof newTree>) => void; why: RegExp }[] = [
    {
      name: 'the wizard flag fell back to false',
      damage: ({ dir }) => {
        const file = join(dir, 'config/system.xml');
        writeFileSync(file, readFileSync(file, 'utf8').replace('>true<', '>false<'));
      },
      why: /wizard is not completed, but the line has configured backups/,
    },
    {
      name: 'system.xml is gone',
      damage: ({ dir }) => rmSync(join(dir, 'config/system.xml')),
      why: /system\.xml is missing/,
    },
    {
      name: 'the database is gone',
      damage: ({ databaseFile }) => rmSync(databaseFile),
      why: /jellyfin\.db is missing/,
    },
    {
      name: 'a table is gone',
      damage: ({ databaseFile }) => edit(databaseFile, 'DROP TABLE Devices'),
      why: /no table Devices/,
    },
    {
      name: 'the administrator has no password',
      damage: ({ databaseFile }) => edit(databaseFile, 'UPDATE Users SET Password = NULL'),
      why: /no administrator/,
    },
    {
      name: 'pages of the closed database are damaged',
      damage: ({ databaseFile }) => {
        edit(databaseFile, 'PRAGMA wal_checkpoint(TRUNCATE)');
        const bytes = readFileSync(databaseFile);
        for (let page = 4096; page < bytes.length; page += 4096) bytes.fill(0xff, page, page + 64);
        writeFileSync(databaseFile, bytes);
      },
      why: /jellyfin\.db/,
    },
  ];
  test.each(BREAKS)('$name: refused, the line stays as it is', async ({ damage, why }) => {
    const tree = newTree();
    const agent = await still(tree.dir);
    expect(await agent.backUp()).toMatchObject({ kind: 'published' });
    const before = await agent.blobNames();
    damage(tree);
    await expect(agent.backUp()).rejects.toMatchObject({
      name: 'AgentError',
      message: expect.stringMatching(why),
    });
    expect(await agent.blobNames()).toEqual(before);
    expect(existsSync(snapshotDirOf(tree.dir))).toBe(false);
  });

  test.each([
    ['items', "DELETE FROM BaseItems WHERE Id > '" + itemId(9) + "'", /items fell from 40 to 10/],
    ['users', "DELETE FROM Users WHERE Username LIKE 'guest%'", /users fell from 4 to 1/],
  ])(
    '%s collapse: kept in quarantine, and the next start restores the one before',
    async (_name, sql, reason) => {
      const { dir, databaseFile } = newTree();
      const guests = ['a', 'b', 'c'].map(
        (
          name,
        ) => `INSERT INTO Users SELECT 'guest-${name}', 'guest${name}', 'GUEST${name}', Password, AuthenticationProviderId,
        PasswordResetProviderId, InternalId, MustUpdatePassword, NULL, NULL, 1 FROM Users WHERE Username = 'admin';`,
      );
      edit(databaseFile, guests.join(''));
      const agent = await still(dir);
      const good = await agent.backUp();
      edit(databaseFile, sql);
      const collapsed = await agent.backUp();
      expect(collapsed).toMatchObject({
        kind: 'beside_line',
        placement: 'quarantine',
        reason: expect.stringMatching(reason),
      });
      expect(agent.logged).toContainEqual(
        expect.objectContaining({ level: 'error', msg: 'backup quarantined' }),
      );
      const { line, quarantined } = await agent.catalog();
      expect([line.length, quarantined.length]).toEqual([1, 1]);
      const fresh = join(makeTempDir('fresh'), 'data');
      mkdirSync(fresh);
      const report = await restoreVolume(agent.deps, { dataDir: fresh, imageVersion: '10.11.11' });
      expect(report.restoredFrom).toBe(good.kind === 'published' ? good.backup.name : 'nothing');
    },
  );

  test('an archive below MIN_BACKUP_SIZE_BYTES is not made visible', async () => {
    const { dir } = newTree();
    const agent = await liveAgent(dir, { databases: SQLITE_IN_PROCESS, minBackupSizeBytes: 10_000_000 });
    await expect(agent.backUp()).rejects.toMatchObject({
      code: 'source_damaged',
      message: expect.stringMatching(/MIN_BACKUP_SIZE_BYTES is 10000000/),
    });
    expect((await agent.catalog()).line).toEqual([]);
  });

  test('a disk without room for the copies: said before anything is staged', async () => {
    const { dir } = newTree();
    const written: string[] = [];
    class SmallDisk extends LocalDisk {
      override freeBytes() {
        return Promise.resolve(70_000_000);
      }
      override create(...[path, content]: Parameters<LocalDisk['create']>) {
        written.push(path);
        return super.create(path, content);
      }
    }
    const agent = await liveAgent(dir, { databases: SQLITE_IN_PROCESS, disk: new SmallDisk() });
    writeFileSync(join(dir, 'data/large.bin'), Buffer.alloc(8_000_000));
    await expect(agent.backUp()).rejects.toMatchObject({
      code: 'no_space',
      message: expect.stringMatching(/70000000 are free/),
    });
    expect(written).toEqual([]);
    expect(existsSync(snapshotDirOf(dir))).toBe(false);
    rmSync(join(dir, 'data/large.bin'));
    expect(await agent.backUp()).toMatchObject({ kind: 'published' });
  });
});

test('unchanged state is not uploaded again; a single new row is', async () => {
  const { dir, databaseFile } = newTree();
  const agent = await still(dir);
  const first = await agent.backUp();
  expect(first.kind).toBe('published');
  const names = await agent.blobNames();
  const second = await agent.backUp();
  expect(second).toMatchObject({
    kind: 'unchanged',
    mark: first.mark,
    backup: { name: names.find((name) => name.startsWith('backup-')) },
  });
  expect(await agent.blobNames()).toEqual(names);
  edit(databaseFile, 'UPDATE UserData SET Played = 1 WHERE rowid = 1');
  expect(await agent.backUp()).toMatchObject({ kind: 'published' });
  expect((await agent.catalog()).line).toHaveLength(2);
});

describe('owners and modes', () => {
  const isRoot = process.getuid?.() === 0;
  const uid = isRoot ? 1000 : (process.getuid?.() ?? 0);
  const gid = isRoot ? 1000 : (process.getgid?.() ?? 0);

  function dressedTree(): string {
    const { dir } = newTree();
    for (const name of ['data', 'config', 'root', 'plugins', 'metadata']) {
      for (const entry of [
        name,
        ...readdirSync(join(dir, name), { recursive: true, encoding: 'utf8' }).map((path) =>
          join(name, path),
        ),
      ]) {
        const path = join(dir, entry);
        if (isRoot) chownSync(path, uid, gid);
        chmodSync(path, statSync(path).isDirectory() ? 0o755 : 0o640);
      }
    }
    chmodSync(join(dir, 'config/system.xml'), 0o600);
    chmodSync(join(dir, 'data/jellyfin.db'), 0o600);
    chmodSync(join(dir, 'config/users'), 0o700);
    return dir;
  }

  function attributes(dir: string): Record<string, string> {
    return Object.fromEntries(
      [
        'data',
        'config',
        'config/users',
        'root',
        'data/jellyfin.db',
        'data/playback_reporting.db',
        ...TREE_FILES,
      ].map((path) => {
        const stat = statSync(join(dir, path));
        return [
          path,
          `${(stat.mode & 0o7777).toString(8)} ${stat.uid}:${stat.gid} ${Math.floor(stat.mtimeMs / 1000)}`,
        ];
      }),
    );
  }

  test('come back exactly', async () => {
    const dir = dressedTree();
    const agent = await still(dir);
    const wanted = attributes(dir);
    expect(wanted['config/system.xml']).toContain(`600 ${uid}:${gid}`);
    const fresh = join(makeTempDir('fresh'), 'data');
    mkdirSync(fresh);
    expect((await agent.backUp()).kind).toBe('published');
    await restoreVolume(agent.deps, { dataDir: fresh, imageVersion: undefined });
    expect(attributes(fresh)).toEqual(wanted);
  });

  test('come back exactly when the restore itself runs as that user', async () => {
    const dir = dressedTree();
    const agent = await still(dir);
    const wanted = attributes(dir);
    expect((await agent.backUp()).kind).toBe('published');
    const home = makeTempDir('user');
    chmodSync(home, 0o755);
    // A checkout below /root is closed to other users: the program and its Node are taken out of it.
    const program = join(home, 'agent.mjs');
    const node = join(home, 'node');
    copyFileSync('dist/agent.mjs', program);
    copyFileSync(process.execPath, node);
    const dataDir = join(home, 'data');
    mkdirSync(dataDir);
    if (isRoot) chownSync(dataDir, uid, gid);
    const child = spawn(node, [program, 'restore'], {
      ...(isRoot ? { uid, gid } : {}),
      cwd: home,
      stdio: ['ignore', 'pipe', 'inherit'],
      env: {
        AZURE_STORAGE_CONNECTION_STRING: agent.connectionString,
        BLOB_CONTAINER: agent.containerName,
        DATA_DIR: dataDir,
        RETRY_MAX: '0',
      },
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect([code, output]).toEqual([0, expect.stringContaining('"msg":"restored"')]);
    expect(output).not.toContain('owners not kept');
    expect(attributes(dataDir)).toEqual(wanted);
    expect(statSync(join(dataDir, 'config/system.xml')).uid).toBe(uid);
  });
});
