import { setTimeout as sleep } from 'node:timers/promises';
import {
  activitiesIn,
  agentEnv,
  ask,
  newHome,
  nextStart,
  Replica,
  restore,
  runAgent,
  Store,
} from './support.ts';
import { Tree, writeTreeRow } from './seed.ts';

interface Status {
  epoch: number;
  candidate: string;
  tails: string[];
}
interface List {
  backups: { name: string; place: string }[];
}

test.concurrent(
  'after a second start what the first replica writes is a tail: kept, loud, never the candidate',
  async () => {
    const store = await Store.create();
    const first = await Replica.startUsed(store);
    const { sidecar } = first;
    const restored = await store.newest();
    const second = newHome();
    await restore(store, second);

    await first.write('after the second start');
    const fenced = await sidecar.until(/^fenced/);
    expect(fenced).toMatchObject({ level: 'error', epoch: 1, err: { message: /the current one is 2/ } });
    const { backup: tail } = await sidecar.until('tail stored');
    expect(await store.names('tail/')).toEqual([tail]);
    expect(tail).toMatch(/^tail\/backup-\d{14}\.e1\.s\d+\.tar\.zst$/);
    expect(await ask<Status>(store, ['status'])).toMatchObject({
      epoch: 2,
      candidate: restored.name,
      tails: [tail],
    });
    const { backups } = await ask<List>(store, ['list']);
    expect(backups.find(({ name }) => name === tail)).toMatchObject({ place: 'tail' });
    expect(backups.find(({ place }) => place === 'candidate')).toMatchObject({ name: restored.name });

    // Its next one takes the place of the tail before, and nothing is told twice.
    const from = sidecar.process.lines.length;
    await first.write('later still');
    const { backup: newer } = await sidecar.until('tail stored', from);
    expect(await store.names('tail/')).toEqual([newer]);
    expect(newer).not.toBe(tail);
    expect(sidecar.said(/^fenced/)).toHaveLength(1);
    expect((await store.newest()).name).toBe(restored.name);
    expect(activitiesIn(second.database)).not.toContain('after the second start');

    first.signal('SIGTERM');
    expect(await sidecar.exit()).toBe(7);
    const [last, ...others] = await store.names('tail/');
    expect(others).toEqual([]);
    expect(sidecar.said(/^the last write is stored, but/)).toMatchObject([{ level: 'error', backup: last }]);
    // By name a person gets it back.
    const target = newHome();
    const { code } = await runAgent(['restore', '--from', String(last), '--to', target.data], store.env);
    expect(code).toBe(0);
    expect(activitiesIn(target.database)).toEqual(
      expect.arrayContaining(['after the second start', 'later still']),
    );
  },
);

test.concurrent('a tail that was stored long before the stop is still why the stop exits 7', async () => {
  const store = await Store.create();
  const replica = await Replica.startUsed(store, { agent: { SHUTDOWN_BUDGET_SECONDS: '4' } });
  await restore(store, newHome());
  await replica.write('after the second start');
  await replica.sidecar.until('tail stored');
  // Not an event: the attempt ends a moment after its line, and the stop must not meet it.
  await sleep(500);
  // Killed: its files stay as they are in the tail, and the stop finds nothing to store.
  await replica.server.process.kill();
  expect(await replica.sidecar.terminate()).toBe(7);
  expect(replica.sidecar.said('tail stored')).toHaveLength(1);
  expect(replica.sidecar.said(/^the last write is stored, but/)).toHaveLength(1);
});

test.concurrent(
  'state/epoch.json that was deleted is written anew, and the earlier backups stay',
  async () => {
    const store = await Store.create();
    const tree = new Tree(store);
    const earlier = [await tree.stored('one'), await tree.stored('two')];
    const home = newHome();
    await restore(store, home);
    const env = agentEnv(store, home.data, { JELLYFIN_URL: 'http://127.0.0.1:9' });
    await store.client.deleteBlob('state/epoch.json');
    writeTreeRow(home.database, 'after the deletion');

    const { code, jsonLines } = await runAgent(['backup', '--once'], env);
    expect(code).toBe(0);
    expect(jsonLines.filter(({ level }) => level === 'warn')).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ msg: 'the epoch was missing or set back: written anew', epoch: 2 }),
      ]),
    );
    expect(await store.readJson('state/epoch.json')).toMatchObject({
      epoch: 2,
      line: [{ epoch: 1, upTo: null }],
    });
    const { backups } = await ask<List>(store, ['list']);
    const newest = await store.newest();
    expect(newest).toMatchObject({ epoch: 2, sequence: 1 });
    expect(backups.map(({ name, place }) => [name, place])).toEqual([
      [newest.name, 'candidate'],
      ...earlier.toReversed().map((name) => [name, 'line']),
    ]);
  },
);

test.concurrent.each([1, 2])('two starts at once: both come up, each in its own epoch (%i)', async () => {
  const store = await Store.create();
  const tree = new Tree(store);
  await tree.stored('before both');
  const homes = [newHome(), newHome()];
  const results = await Promise.all(
    homes.map((home) => runAgent(['restore'], agentEnv(store, home.data, { RETRY_MAX: '5' }))),
  );
  expect(results.map(({ code }) => code)).toEqual([0, 0]);
  const reports = results.map(({ jsonLines }) => jsonLines.find(({ msg }) => msg === 'restored'));
  const [one, two] = reports.map((report) => Number(report?.['epoch']));
  expect(one).not.toBe(two);
  expect(reports[0]?.['restoredFrom']).toBe(reports[1]?.['restoredFrom']);
  expect(homes.map(({ database }) => activitiesIn(database))).toEqual([['before both'], ['before both']]);
  // One of them may publish, the other one may not.
  for (const { database } of homes) writeTreeRow(database, 'after the start');
  const backups = await Promise.all(
    homes.map(({ data }) =>
      runAgent(['backup', '--once'], agentEnv(store, data, { JELLYFIN_URL: 'http://127.0.0.1:9' })),
    ),
  );
  expect(backups.map(({ code }) => code).sort()).toEqual([0, 5]);
});

describe('a volume that no restore has prepared', () => {
  test.concurrent('becomes the line of an empty store', async () => {
    const store = await Store.create();
    const tree = new Tree(store);
    const { code, jsonLines } = await tree.backUp();
    expect(code).toBe(0);
    expect(jsonLines.map(({ msg }) => msg)).toContain('volume adopted: the store was empty');
    expect(await store.newest()).toMatchObject({ epoch: 1, sequence: 1 });
    expect((await nextStart(store)).report).toMatchObject({ epoch: 2 });
  });

  test.concurrent('is refused where there are backups, and nothing is written', async () => {
    const store = await Store.create();
    await new Tree(store).stored('of the first server');
    const before = await store.names();
    const { code, jsonLines } = await new Tree(store).backUp();
    expect(code).toBe(5);
    expect(jsonLines.at(-1)).toMatchObject({
      level: 'error',
      msg: 'backup failed',
      exitCode: 5,
      err: {
        code: 'target_unsafe',
        message: /was not restored by this agent, and the store holds 1 backups/,
      },
    });
    expect(await store.names()).toEqual(before);
  });

  test.concurrent('is refused by the sidecar too, which says so and exits 7', async () => {
    const store = await Store.create();
    await new Tree(store).stored('of the first server');
    const before = await store.names();
    const replica = await Replica.start(store, {
      home: newHome(),
      agent: { SHUTDOWN_BUDGET_SECONDS: '3' },
    });
    await replica.server.completeWizard();
    expect(await replica.sidecar.until('backup failed')).toMatchObject({ err: { code: 'target_unsafe' } });
    replica.signal('SIGTERM');
    expect(await replica.sidecar.exit()).toBe(7);
    expect(await store.names()).toEqual(before);
  });
});
