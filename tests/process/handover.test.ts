import { SystemClock } from '../../agent/adapters/system-clock.ts';
import { askForBackup } from '../../agent/handover.ts';
import { SILENT } from '../../agent/log.ts';
import { HANDOVER_BLOB, WRITER_BLOB } from '../../agent/writer-state.ts';
import { MemoryBlobStore } from '../agent/support-memory-store.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  agentEnv,
  ask,
  eventually,
  newHome,
  nextStart,
  NEVER,
  Replica,
  restore,
  runAgent,
  Sidecar,
  StandIn,
  startAgent,
  Store,
} from './support.ts';

/** Nothing is stored unless somebody asks for it. */
const ONLY_WHEN_ASKED = { BACKUP_ON_CHANGE_SECONDS: NEVER };

interface Restored {
  predecessor: { kind: string; waitedSeconds?: number; windowSeconds?: number };
  cleanStop: boolean;
  epoch: number;
}

const used = (store: Store, agent: Record<string, string> = ONLY_WHEN_ASKED, server = {}) =>
  Replica.startUsed(store, { agent, server });

describe('a replica that starts while another one runs', () => {
  test.concurrent(
    'gets what the other one wrote until then, and what it writes later is a measured tail',
    async () => {
      const store = await Store.create();
      // Asked long before its window ends; it learns of its successor at its next sign of life, every 3 s.
      const old = await used(store, { BACKUP_ON_CHANGE_SECONDS: '3' });
      await old.write('in no backup yet');
      const { home, activities, report } = await nextStart(store);
      expect(activities.at(-1)).toBe('in no backup yet');
      expect(report).toMatchObject({ predecessor: { kind: 'answered' }, epoch: 2 } satisfies
        Partial<Restored> | object);
      expect((report as Restored).predecessor.waitedSeconds).toBeLessThan(15);
      expect(old.sidecar.said('a backup is asked for')).toHaveLength(1);

      // It lives on, for as long as the platform likes; what it writes is measured.
      await old.write('late one');
      await old.write('late two');
      await old.sidecar.until('a newer replica has taken over');
      const tail = await old.sidecar.until('tail stored');
      expect(tail).toMatchObject({
        rows: 2,
        tables: { ActivityLogs: 2 },
        since: (await store.newest()).name,
      });
      const { backups } = await ask<{ backups: { name: string; tail: object | null }[] }>(store, ['list']);
      expect(backups.find(({ name }) => name === tail['backup'])?.tail).toMatchObject({
        rows: 2,
        since: (await store.newest()).name,
        seconds: expect.any(Number) as number,
      });
      const status = await runAgent(['status'], store.env);
      expect(status.stdout).toMatch(/tails +tail\/backup-\S+ \(\d+ s, 2 rows since backup-\S+\)/);

      // The new one is asked by nobody: its own request must not make it back up.
      const server = await StandIn.launch(home);
      const sidecar = new Sidecar(
        startAgent(['backup'], agentEnv(store, home.data, { JELLYFIN_URL: server.url, ...ONLY_WHEN_ASKED })),
      );
      await sidecar.until('jellyfin is healthy');
      await sleep(2_500);
      expect(sidecar.said('a backup is asked for')).toEqual([]);
    },
  );

  test.concurrent(
    'does not wait for one that is frozen: ready within the bound, and its late backup is a tail',
    async () => {
      const store = await Store.create();
      const old = await used(store, { BACKUP_ON_CHANGE_SECONDS: '1' });
      const candidate = await store.newest();
      old.sidecar.process.signal('SIGSTOP');
      await old.write('nobody hears of it');
      const startedMs = Date.now();
      const { activities, report } = await nextStart(store);
      expect(Date.now() - startedMs).toBeLessThan(20_000);
      expect(activities).not.toContain('nobody hears of it');
      expect(report).toMatchObject({ predecessor: { kind: 'silent' }, restoredFrom: candidate.name });
      old.sidecar.process.signal('SIGCONT');
      const { backup } = await old.sidecar.until('tail stored');
      expect(await store.names('tail/')).toEqual([backup]);
      expect((await store.newest()).name).toBe(candidate.name);
    },
  );

  test.concurrent('waits no longer than it was told for one that cannot back up', async () => {
    const store = await Store.create();
    const old = await used(store, { BACKUP_ON_CHANGE_SECONDS: '1' });
    await old.write('cannot be stored');
    // A table that every backup must have: the snapshot fails its checks from now on.
    old.server.process.signal('SIGSTOP');
    const { DatabaseSync } = await import('node:sqlite');
    const database = new DatabaseSync(old.home.database, { timeout: 5_000 });
    database.exec('ALTER TABLE Users RENAME TO UsersGone');
    database.close();
    const startedMs = Date.now();
    const { report } = await nextStart(store, { HANDOVER_WAIT_SECONDS: '6' });
    expect(Date.now() - startedMs).toBeLessThan(20_000);
    expect(report).toMatchObject({ predecessor: { kind: 'busy' } });
  });

  test.concurrent('asks nobody when the handover is turned off', async () => {
    const store = await Store.create();
    const old = await used(store);
    await old.write('in no backup yet');
    const { activities } = await nextStart(store, { HANDOVER_WAIT_SECONDS: '0' });
    expect(activities).not.toContain('in no backup yet');
    expect(await store.names('state/')).not.toContain('state/handover.json');
  });

  test.concurrent('gets the last write of one that is just being stopped', async () => {
    const store = await Store.create();
    const old = await used(store, ONLY_WHEN_ASKED, {
      STAND_IN_LATE_WRITE: '1',
      STAND_IN_SHUTDOWN_MS: '2500',
    });
    await old.write('just before SIGTERM');
    old.signal('SIGTERM');
    await old.sidecar.until('stopping');
    const { activities, report } = await nextStart(store);
    expect(activities.slice(-2)).toEqual(['just before SIGTERM', 'late write']);
    expect(report).toMatchObject({ predecessor: { kind: 'stopped' }, cleanStop: true });
    expect(await old.sidecar.exit()).toBe(0);
    expect(await store.names('tail/')).toEqual([]);
  });

  test.concurrent('two that start at once are both answered, and each has its own epoch', async () => {
    const store = await Store.create();
    const old = await used(store);
    await old.write('for both');
    const starts = await Promise.all([
      nextStart(store, { RETRY_MAX: '5' }),
      nextStart(store, { RETRY_MAX: '5' }),
    ]);
    for (const { activities } of starts) expect(activities.at(-1)).toBe('for both');
    expect(new Set(starts.map(({ report }) => (report as Restored).epoch)).size).toBe(2);
  });

  test.concurrent('beside an unconfigured one it is a first boot, at once', async () => {
    const store = await Store.create();
    await Replica.start(store, { agent: ONLY_WHEN_ASKED });
    const { stdout } = await restore(store, newHome());
    expect(stdout).toContain('first boot: the store holds no backup');
  });
});

test('a request that is worked on is joined, not replaced', async () => {
  const store = new MemoryBlobStore();
  const writer = {
    format: 1,
    epoch: 1,
    holder: 'old',
    phase: 'running',
    intervalSeconds: 30,
    pollSeconds: 0.5,
  } as const;
  const sign = async (state: 'seen' | 'stored') =>
    store.put(
      WRITER_BLOB,
      Buffer.from(
        JSON.stringify({
          ...writer,
          unsavedSeconds: 1,
          lastBackup: null,
          answer: { id: 'first', state, backup: 'b' },
        }),
      ),
      {},
    );
  await store.put(HANDOVER_BLOB, Buffer.from(JSON.stringify({ format: 1, id: 'first', epoch: 1 })), {});
  await sign('seen');
  const asked = askForBackup({ store, clock: new SystemClock(), log: SILENT }, 5_000);
  await sleep(700);
  expect(Buffer.from((await store.find(HANDOVER_BLOB))?.bytes ?? []).toString()).toContain('"first"');
  await sign('stored');
  expect(await asked).toMatchObject({ kind: 'answered', backup: 'b' });
});

describe('the sign of life', () => {
  test.concurrent('a one-off backup beside the sidecar does not sign for it', async () => {
    const store = await Store.create();
    const old = await used(store);
    await old.sidecar.process.kill();
    const before = await store.readJson('state/writer.json');
    const env = agentEnv(store, old.home.data, { JELLYFIN_URL: old.server.url });
    expect((await runAgent(['backup', '--once'], env)).code).toBe(0);
    expect(await store.readJson('state/writer.json')).toEqual(before);
  });

  test.concurrent('after an orderly stop nobody is asked and nothing is waited for', async () => {
    const store = await Store.create();
    const old = await used(store);
    await old.write('last');
    old.signal('SIGTERM');
    expect(await old.sidecar.exit()).toBe(0);
    expect(await store.readJson('state/writer.json')).toMatchObject({
      phase: 'stopped',
      unsavedSeconds: null,
      lastBackup: (await store.newest()).name,
    });
    const { stdout } = await runAgent(['status'], store.env);
    expect(stdout).toMatch(/replica +stopped, said so \d+ s ago; everything stored/);
    const { report } = await nextStart(store);
    expect(report).toMatchObject({ predecessor: { kind: 'stopped', waitedSeconds: 0 }, cleanStop: true });
  });

  test.concurrent(
    'a kill is told by the next start, with a window that holds all that was lost',
    async () => {
      const store = await Store.create();
      const old = await used(store, { BACKUP_ON_CHANGE_SECONDS: '3' });
      await old.write('lost');
      const writtenMs = Date.now();
      await sleep(400);
      await old.kill();
      const killedMs = Date.now();
      const { activities, report, lines } = await nextStart(store);
      expect(activities).not.toContain('lost');
      expect(report).toMatchObject({ predecessor: { kind: 'silent' }, cleanStop: false });
      const { windowSeconds = 0 } = (report as Restored).predecessor;
      expect(windowSeconds).toBeGreaterThanOrEqual((killedMs - writtenMs) / 1000);
      expect(windowSeconds).toBeLessThan(15);
      expect(lines).toContainEqual(
        expect.objectContaining({
          level: 'warn',
          msg: 'the replica before this one ended without a last backup',
          windowSeconds,
        }),
      );
    },
  );

  test.concurrent(
    'a replica that restored, was used and was killed before its first backup is no clean stop',
    async () => {
      const store = await Store.create();
      const first = await used(store);
      first.signal('SIGTERM');
      expect(await first.sidecar.exit()).toBe(0);
      const second = await Replica.start(store, { agent: ONLY_WHEN_ASKED });
      await second.write('lost');
      await eventually(async () => (await store.readJson('state/writer.json'))['epoch'] === 2);
      await second.kill();
      const { report } = await nextStart(store);
      expect(report).toMatchObject({ predecessor: { kind: 'silent' }, cleanStop: false });
    },
  );

  test.concurrent('a sidecar that cannot write it backs up all the same', async () => {
    const store = await Store.create();
    const home = newHome();
    await restore(store, home);
    await store.client.getBlockBlobClient('state/writer.json').upload('not ours', 8);
    const old = await Replica.start(store, { home, agent: { BACKUP_ON_CHANGE_SECONDS: '1' } });
    await old.server.setUp(home);
    await old.storeAll();
    const { report } = await nextStart(store);
    expect(report).toMatchObject({ predecessor: { kind: 'unknown' } });
  });
});
