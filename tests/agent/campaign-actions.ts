import { EPOCH_BLOB, readEpoch } from '../../agent/epoch.ts';
import { writeRequest } from '../../agent/restore-request.ts';
import type { Replica } from './campaign-replica.ts';
import type { World } from './campaign-world.ts';

/* Everything that may happen to the replicas, with how often. */

const MOST_ALIVE = 3;
const MOST_STARTS = 8;
const HOUR_MS = 3_600_000;

type Action = (world: World) => Promise<void> | void;

/** What may happen now, with how often; the first is what the harmless choice means. */
export function possible(world: World): (readonly [number, Action])[] {
  const { choices } = world;
  const has = (list: readonly unknown[], weight: number) => (list.length > 0 ? weight : 0);
  const running = world.in('running');
  const stopping = world.in('stopping').filter(({ server }) => server?.isOpen === true);
  const configured = running.filter(({ server }) => server?.worth !== 'unconfigured');
  const isNew = running.filter(({ server }) => server?.isNew === true);
  const restoring = world.in('restoring');
  const paused = world.alive.filter(({ process }) => process?.isPaused === true);
  const canStart = world.alive.length < MOST_ALIVE && world.replicas.length < MOST_STARTS;
  const stored = world.history.commits.filter(
    ({ name }) => !world.history.removals.some((removal) => removal.name === name),
  );
  const arrives = () => choices.pick(['never', 'now', 'later'] as const);
  return [
    [has(world.runnable, 40), steps],
    [canStart ? (world.alive.length === 0 ? 40 : 4) : 0, async () => void (await world.startReplica())],
    [has(isNew, 40), () => act(world, isNew, 'is set up', ({ server }) => server?.setUp())],
    [has(configured, 12), () => act(world, configured, 'writes a row', (replica) => replica.write())],
    [has(running, 3), () => act(world, running, 'gets SIGTERM', (replica) => replica.terminate())],
    [has(stopping, 14), () => world.closeServer(choices.pick(stopping), choices.chance(50))],
    [
      has(world.alive, 2),
      async () => {
        const replica = choices.pick(world.alive);
        await world.kill(replica, arrives());
        await replica.remove();
      },
    ],
    [
      has(restoring, 3),
      async () => {
        const replica = choices.pick(restoring);
        await world.kill(replica, arrives());
        await world.restore(replica, 'restarts its init container');
      },
    ],
    [
      has(running, 1),
      async () => {
        const replica = choices.pick(running);
        await world.kill(replica, arrives());
        world.note(`${replica.name} gets a new sidecar`);
        await replica.watch();
      },
    ],
    [
      has(running, 1),
      async () => {
        const replica = choices.pick(running);
        await world.kill(replica, arrives());
        replica.server?.close();
        await world.restore(replica, 'restarts on its volume');
      },
    ],
    [
      has(world.in('failed'), 8),
      async () => {
        await world.restore(choices.pick(world.in('failed')), 'tries again');
      },
    ],
    [
      has(world.alive, 2),
      () => act(world, world.alive, 'is paused', ({ process }) => process && (process.isPaused = true)),
    ],
    [
      has(paused, 2),
      () => act(world, paused, 'goes on', ({ process }) => process && (process.isPaused = false)),
    ],
    [has(world.stray, 3), () => world.arrive(choices.below(world.stray.length))],
    [
      2,
      () => {
        const ms = choices.pick([1_000, 10_000, 2 * HOUR_MS]);
        world.time.ms += ms;
        world.note(`${ms / 1000} s pass`);
      },
    ],
    [
      has(world.alive, 1),
      () =>
        act(world, world.alive, 'has another clock', (replica) => {
          replica.skewMs += (choices.below(100) - 50) * HOUR_MS;
        }),
    ],
    [
      has(stored, 1),
      async () => {
        const { name } = choices.pick(stored);
        world.at += 1;
        await writeRequest(world.inner, name, world.serviceNow());
        world.note(`somebody asks for ${name}`);
      },
    ],
    [
      choices.chance(10) ? 1 : 0,
      async () => {
        const held = await readEpoch(world.inner);
        if (held === undefined) return;
        world.at += 1;
        await world.inner.remove(EPOCH_BLOB, held.etag);
        world.history.epochDeletions.push(world.at);
        world.note(`somebody deletes ${EPOCH_BLOB}`);
      },
    ],
    [
      has(configured, choices.chance(30) ? 1 : 0),
      () => act(world, configured, 'loses its library', ({ server }) => server?.loseLibrary()),
    ],
    [
      has(configured, choices.chance(30) ? 1 : 0),
      () => act(world, configured, 'loses its settings', ({ server }) => server?.loseSettings()),
    ],
  ];
}

function act(
  world: World,
  among: readonly Replica[],
  what: string,
  action: (replica: Replica) => void,
): void {
  const replica = world.choices.pick(among);
  world.at += 1;
  world.note(`${replica.name} ${what}`);
  action(replica);
}

/** One replica for a while: progress, and now and then a fault. */
async function steps(world: World): Promise<void> {
  const { choices } = world;
  // A sidecar that has nothing to do only looks at its folder again and again.
  const often = world.runnable.flatMap((one) =>
    one.process?.pending[0]?.isWait === true ? [one] : [one, one, one],
  );
  const replica = choices.pick(often);
  const count = choices.pick([3, 1, 1, 2, 5, 8]);
  const faultAt = choices.chance(25) ? choices.below(count) : -1;
  const fate = choices.pick(['fail_before', 'lost_answer', 'late'] as const);
  for (let done = 0; done < count && replica.process?.isRunnable === true; done += 1)
    await world.step(replica, done === faultAt ? fate : 'run');
}
