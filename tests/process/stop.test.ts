import { setTimeout as sleep } from 'node:timers/promises';
import {
  activitiesIn,
  agentEnv,
  newHome,
  nextStart,
  NEVER,
  Replica,
  restore,
  Sidecar,
  StandIn,
  startAgent,
  Store,
  writeRow,
} from './support.ts';
import { stopRounds } from './stop-rounds.ts';

/** Nothing is stored before the stop: whatever is found later was stored by the stop sequence. */
const ONLY_AT_STOP = { BACKUP_ON_CHANGE_SECONDS: NEVER };

const CLOSING = { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: '400' };

const startUsed = async (
  options: { agent?: Record<string, string>; server?: Record<string, string>; store?: Store } = {},
) => {
  const store = options.store ?? (await Store.create());
  return Replica.startUsed(store, { ...options, agent: { ...ONLY_AT_STOP, ...options.agent } });
};

describe('SIGTERM to both', () => {
  test.concurrent.each([0, 1_000])(
    'stores what the server writes last when it closes in %i ms, and calls the stop clean',
    async (closingMs) => {
      const replica = await startUsed({
        server: { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: String(closingMs) },
      });
      await replica.write('just before SIGTERM');
      replica.signal('SIGTERM');
      expect(await replica.sidecar.exit()).toBe(0);
      const { meta } = await replica.store.newest();
      expect(meta).toMatchObject({ clean_stop: 'true', wizard: 'completed' });
      const { activities, report } = await nextStart(replica.store);
      expect(activities.slice(-2)).toEqual(['just before SIGTERM', 'late write']);
      expect(report).toMatchObject({ cleanStop: true });
    },
  );

  test.concurrent('stores a last write that comes after more than five quiet seconds', async () => {
    const replica = await startUsed({
      server: { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: '8000' },
    });
    replica.signal('SIGTERM');
    expect(await replica.sidecar.exit()).toBe(0);
    expect((await nextStart(replica.store)).activities.at(-1)).toBe('late write');
  });

  test.concurrent('stores the last write of a server that had only read since its start', async () => {
    const first = await startUsed();
    first.signal('SIGTERM');
    expect(await first.sidecar.exit()).toBe(0);
    // Its -wal is there and empty: it has the database open and has written nothing.
    const second = await Replica.start(first.store, {
      agent: ONLY_AT_STOP,
      server: { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: '1500' },
    });
    second.signal('SIGTERM');
    expect(await second.sidecar.exit()).toBe(0);
    expect((await nextStart(first.store)).activities.at(-1)).toBe('late write');
    expect((await first.store.newest()).meta).toMatchObject({ epoch: '2', clean_stop: 'true' });
  });

  test.concurrent('stores what changed at once, while the server still closes', async () => {
    const replica = await startUsed({ server: { STAND_IN_SHUTDOWN_MS: '10000' } });
    await replica.write('just before SIGTERM');
    const stored = replica.sidecar.nextBackup();
    replica.signal('SIGTERM');
    expect((await stored).line).toMatchObject({ cleanStop: false });
    expect(replica.server.process.isRunning()).toBe(true);
    // The platform cuts the grace short.
    await replica.kill();
    expect((await nextStart(replica.store)).activities.at(-1)).toBe('just before SIGTERM');
  });

  test.concurrent('uploads nothing twice: without a change the stored backup is marked clean', async () => {
    const first = await startUsed();
    first.signal('SIGTERM');
    await first.sidecar.exit();
    // The first stop wrote the statistics of `PRAGMA optimize`; the second one has nothing to write.
    const { name } = await first.store.newest();
    const second = await Replica.start(first.store);
    // The alert looks for this line, also where a replica has nothing to store.
    expect(await second.sidecar.nth(0)).toMatchObject({ name, line: { unchanged: true } });
    second.signal('SIGTERM');
    expect(await second.sidecar.exit()).toBe(0);
    expect(await first.store.line()).toMatchObject([{ name, meta: { epoch: '1', clean_stop: 'true' } }]);
  });

  test.concurrent('what was restored and is stored no longer is stored again', async () => {
    const first = await startUsed();
    first.signal('SIGTERM');
    await first.sidecar.exit();
    const { name } = await first.store.newest();
    const second = await Replica.start(first.store, { agent: { STARTUP_DELAY_SECONDS: '1' } });
    await first.store.client.deleteBlob(name);
    expect((await second.sidecar.nth(0)).name).toMatch(/\.e2\.s1\./);
  });

  test.concurrent('twice has the same result as once', async () => {
    const replica = await startUsed({
      server: { STAND_IN_LATE_WRITE: '1', STAND_IN_SHUTDOWN_MS: '1000' },
    });
    replica.signal('SIGTERM');
    await replica.sidecar.until('stopping');
    replica.sidecar.process.signal('SIGTERM');
    await replica.sidecar.until('SIGTERM again: still stopping');
    expect(await replica.sidecar.exit()).toBe(0);
    expect((await nextStart(replica.store)).activities.at(-1)).toBe('late write');
  });

  test.concurrent(
    'lets a backup that runs at that moment finish, and stores what came after it',
    async () => {
      const store = await Store.createBehindProxy();
      const replica = await Replica.startUsed(store, { agent: { BACKUP_ON_CHANGE_SECONDS: '1' } });
      store.proxy.on({ operation: 'PutBlockList' }, { kind: 'delay', ms: 1_200 }, { times: 1 });
      const uploading = store.proxy.nextRequest({ operation: 'PutBlockList' });
      await replica.write('in the running backup');
      await uploading;
      const from = replica.sidecar.process.lines.length;
      await replica.write('after its snapshot');
      replica.signal('SIGTERM');
      const finished = await replica.sidecar.nextBackup(from);
      expect(await replica.sidecar.exit()).toBe(0);
      expect(replica.sidecar.backups.at(-1)?.name).not.toBe(finished.name);
      expect((await nextStart(store)).activities.slice(-2)).toEqual([
        'in the running backup',
        'after its snapshot',
      ]);
    },
  );
});

describe('a server that does not stop in order', () => {
  test.concurrent(
    'killed at the same moment: its last commits are stored, but not as a clean stop',
    async () => {
      const replica = await startUsed({ agent: { SHUTDOWN_BUDGET_SECONDS: '5' } });
      await replica.write('just before SIGKILL');
      replica.server.process.signal('SIGKILL');
      expect(await replica.sidecar.terminate()).toBe(0);
      expect((await replica.store.newest()).meta).toMatchObject({ clean_stop: 'false' });
      const { activities, report } = await nextStart(replica.store);
      expect(activities.at(-1)).toBe('just before SIGKILL');
      expect(report).toMatchObject({ cleanStop: false });
    },
  );

  test.concurrent(
    'still running and writing when the budget ends: all until then is stored, exit 7',
    async () => {
      const replica = await startUsed({
        agent: { SHUTDOWN_BUDGET_SECONDS: '3' },
        server: { STAND_IN_WRITE_INTERVAL_MS: '100' },
      });
      await replica.write('just before SIGTERM');
      replica.sidecar.process.signal('SIGTERM');
      const { atMs } = await replica.sidecar.process.waitForLine(({ json }) => json?.['msg'] === 'stopping');
      expect(await replica.sidecar.exit()).toBe(7);
      expect(Date.now() - atMs).toBeLessThan(5_000);
      expect(replica.sidecar.said('final backup failed')).toMatchObject([
        { level: 'error', err: { code: 'final_backup_failed', message: /still ran/ } },
      ]);
      expect((await nextStart(replica.store)).activities).toContain('just before SIGTERM');
      expect((await replica.store.newest()).meta).toMatchObject({ clean_stop: 'false' });
    },
  );

  test.concurrent('hangs without an answer: all is stored within the budget, exit 7', async () => {
    const replica = await startUsed({ agent: { SHUTDOWN_BUDGET_SECONDS: '3' } });
    await replica.write('just before it hung');
    replica.server.process.signal('SIGSTOP');
    expect(await replica.sidecar.terminate()).toBe(7);
    expect((await nextStart(replica.store)).activities.at(-1)).toBe('just before it hung');
  });

  test.concurrent('never healthy: exit 0 and nothing is published', async () => {
    const store = await Store.create();
    const home = newHome();
    await restore(store, home);
    const server = await StandIn.launch(home, { STAND_IN_BOOT_MS: '60000' });
    const env = agentEnv(store, home.data, { JELLYFIN_URL: server.url });
    const sidecar = new Sidecar(startAgent(['backup'], env));
    await sidecar.until('waiting for jellyfin');
    expect(await sidecar.terminate()).toBe(0);
    expect(sidecar.said(/^stopped: jellyfin never became healthy/)).toHaveLength(1);
    expect(await store.names('backup-')).toEqual([]);
    // The next start asks nobody and finds nothing missing.
    expect(await store.readJson('state/writer.json')).toMatchObject({ phase: 'stopped' });
  });

  test.concurrent('never set up: exit 0 and nothing is published', async () => {
    const replica = await Replica.start(await Store.create());
    replica.signal('SIGTERM');
    expect(await replica.sidecar.exit()).toBe(0);
    expect(await replica.store.names()).toEqual(['state/epoch.json', 'state/writer.json']);
    expect(replica.sidecar.process.jsonLines().filter(({ level }) => level === 'error')).toEqual([]);
  });
});

describe('a store that does not answer', () => {
  test.concurrent('and comes back within the budget: all is stored, exit 0', async () => {
    const store = await Store.createBehindProxy();
    const replica = await startUsed({ store, agent: { SHUTDOWN_BUDGET_SECONDS: '7' } });
    await store.proxy.refuseConnections();
    await replica.write('just before SIGTERM');
    replica.signal('SIGTERM');
    await replica.sidecar.until('stopping');
    // Not an event: how long the outage lasts is the point. Doubling waits would now sleep past the end of the budget.
    await sleep(4_000);
    await store.proxy.acceptConnections();
    expect(await replica.sidecar.exit()).toBe(0);
    expect(replica.sidecar.said('recovered').filter(({ after }) => after === 'backup failed')).toHaveLength(
      1,
    );
    expect((await nextStart(store)).activities.at(-1)).toBe('just before SIGTERM');
  });

  test.concurrent('and is down for the whole budget: says so, exit 7', async () => {
    const store = await Store.createBehindProxy();
    const replica = await startUsed({ store, agent: { SHUTDOWN_BUDGET_SECONDS: '3' } });
    await store.proxy.refuseConnections();
    replica.signal('SIGTERM');
    const startedMs = Date.now();
    expect(await replica.sidecar.exit()).toBe(7);
    expect(Date.now() - startedMs).toBeLessThan(5_000);
    expect(replica.sidecar.said('final backup failed')).toMatchObject([
      { level: 'error', exitCodeOfCause: 3, err: { code: 'store_unreachable' } },
    ]);
  });

  test.concurrent('in the middle of a running backup: the budget counts from SIGTERM, exit 7', async () => {
    const store = await Store.createBehindProxy();
    const replica = await Replica.startUsed(store, {
      agent: { BACKUP_ON_CHANGE_SECONDS: '1', SHUTDOWN_BUDGET_SECONDS: '3' },
    });
    store.proxy.on({ operation: 'PutBlock' }, { kind: 'hang' });
    const uploading = store.proxy.nextRequest({ operation: 'PutBlock' });
    await replica.write('in the running backup');
    await uploading;
    replica.signal('SIGTERM');
    const startedMs = Date.now();
    expect(await replica.sidecar.exit()).toBe(7);
    expect(Date.now() - startedMs).toBeLessThan(4_000);
    expect(replica.sidecar.said('final backup failed')).toMatchObject([
      { err: { code: 'final_backup_failed' } },
    ]);
  });
});

test.concurrent('SIGINT twice ends at once with 130', async () => {
  const replica = await startUsed();
  replica.sidecar.process.signal('SIGINT');
  await replica.sidecar.until('stopping');
  replica.sidecar.process.signal('SIGINT');
  expect(await replica.sidecar.exit(3_000)).toBe(130);
});

test.concurrent('a sidecar that is killed during the stop leaves the newest whole backup', async () => {
  const store = await Store.create();
  let running: Replica = await Replica.startUsed(store, { server: CLOSING });
  for (let round = 1; round <= 3; round += 1) {
    const label = `before kill ${String(round)}`;
    await running.write(label);
    await running.storeAll();
    running.signal('SIGTERM');
    await running.sidecar.until('stopping');
    // Not an event: any moment of the stop is meant.
    const killedAfterMs = Math.random() * 700;
    await sleep(killedAfterMs);
    await running.kill();
    const newest = await store.newest();
    const next = newHome();
    const report = (await restore(store, next)).jsonLines.find(({ msg }) => msg === 'restored');
    expect({ killedAfterMs, report }).toMatchObject({
      report: { restoredFrom: newest.name, passedOver: [] },
    });
    expect(activitiesIn(next.database)).toContain(label);
    running = await Replica.start(store, { home: next, server: CLOSING });
  }
});

test.concurrent('the write committed just before SIGTERM is in the next start, in 8 of 8 stops', async () => {
  const lanes = await Promise.all([stopRounds(4, 1_000), stopRounds(4, 1_000)]);
  expect(lanes.flat().filter(({ isThere, exitCode }) => !isThere || exitCode !== 0)).toEqual([]);
  expect(lanes.flat()).toHaveLength(8);
});

test.concurrent(
  'what is written in the moment before the sidecar knows of the server is stored',
  async () => {
    const store = await Store.create();
    const first = await Replica.startUsed(store, { agent: ONLY_AT_STOP });
    first.signal('SIGTERM');
    expect(await first.sidecar.exit()).toBe(0);
    const home = newHome();
    await restore(store, home, { JELLYFIN_VERSION: '10.11.11' });
    const server = await StandIn.launch(home, CLOSING);
    await server.untilHealth('Healthy');
    await writeRow(home, 'in the first second');
    await server.stop();
    // It comes up while everything ends already.
    const sidecar = new Sidecar(
      startAgent(['backup'], agentEnv(store, home.data, { JELLYFIN_URL: server.url })),
    );
    await sidecar.until('waiting for jellyfin');
    expect(await sidecar.terminate()).toBe(0);
    expect((await nextStart(store)).activities).toContain('in the first second');
  },
);
