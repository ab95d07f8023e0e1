import { expectWhole, KILL_STEPS, killedAt } from './runner-kill.ts';
import { Mirrored } from './runner-support.ts';
import { eventually, StandIn } from './support.ts';

/** The shortest that the configuration takes, in seconds; a run that brought nothing ends after it. */
const SHORTEST = { JELLYROLLER_TIMEOUT_SECONDS: '60' };
const said = (lines: readonly Record<string, unknown>[], msg: string) =>
  lines.find((line) => line['msg'] === msg);

describe('kill -9 of the runner, at every step', () => {
  test.each(KILL_STEPS)('$name', async (step) => {
    const world = await killedAt(step);
    const { code, stdout } = await world.once();
    expect({ code, stdout }).toMatchObject({ code: 0 });
    await expectWhole(world);
  });
});

test('a server that is killed during its backup: the run ends, the half file goes, the next run makes a whole one', async () => {
  const world = await Mirrored.start({ server: { STAND_IN_BACKUP_MS: '60000' } });
  const runner = world.run({ BACKUP_INTERVAL_SECONDS: '1' });
  await runner.until('create starts');
  await eventually(() => world.local.length > 0);
  await world.server.process.kill();
  await runner.until('jellyfin went away during its backup');
  const port = new URL(world.server.url).port;
  await StandIn.start(world.home, { STAND_IN_PORT: port });
  await runner.until('half-written archive removed', 0, 60_000);
  await runner.until('backup failed');
  await runner.until(/^last_backup_utc=/, 0, 60_000);
  expect(await world.archives()).toHaveLength(1);
  expect(await runner.terminate()).not.toBe(1);
});

test('a claim whose owner died before it asked: no second one is asked for until the time is up', async () => {
  const world = await Mirrored.start({ server: { STAND_IN_BACKUP_MS: '60000' } });
  const runner = world.run();
  // The request may not have left yet: whoever starts next cannot know.
  await runner.until('create starts');
  await runner.process.kill();
  await world.server.process.kill();
  await eventually(() => world.claim !== undefined);
  const port = new URL(world.server.url).port;
  await StandIn.start(world.home, { STAND_IN_PORT: port, STAND_IN_EXIT_AFTER_SECONDS: '200' });
  const startedMs = Date.parse(String(world.claim?.['startedUtc']));
  const second = await world.onceFor(SHORTEST, 90_000);
  expect(second.code).toBe(6);
  expect(Date.now() - startedMs).toBeGreaterThan(59_000);
  expect(said(second.jsonLines, 'create starts')).toBeUndefined();
  expect(world.claim).toBeUndefined();
  expect((await world.once()).code).toBe(0);
  expect(await world.archives()).toHaveLength(1);
});

test('three intervals: as many archives as are to be kept, the newest ones, one of them here', async () => {
  const world = await Mirrored.start();
  const runner = world.run({ BACKUP_INTERVAL_SECONDS: '1', RETENTION_KEEP: '2' });
  const stored: string[] = [];
  for (let count = 0; count < 4; count += 1) stored.push((await runner.nth(count)).name);
  expect(await runner.terminate()).toBeDefined();
  expect(await world.store.names('jellyroller/')).toEqual(expect.arrayContaining(stored.slice(-2)));
  expect(await world.store.names('jellyroller/')).not.toContain(stored[0]);
  expect(new Set(stored).size).toBe(4);
});
