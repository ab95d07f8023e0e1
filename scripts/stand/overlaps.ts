import { setTimeout as sleep } from 'node:timers/promises';
import { ENV } from '../../agent/contract.ts';
import { connectionStringFor } from '../../tests/support/azurite.ts';
import { startFaultProxy } from '../../tests/support/fault-proxy.ts';
import type { Replica } from './replica.ts';
import {
  CHANGE_WINDOW_MS,
  coldStart,
  coldStartWithLog,
  keyNames,
  operate,
  signIn,
  stop,
  type Walk,
} from './steps.ts';
import { freePort } from './world.ts';

interface Predecessor {
  kind: string;
  waitedSeconds?: number;
  windowSeconds?: number;
}
interface Tail {
  since: string;
  seconds: number | null;
  rows: number;
}

const predecessorIn = (log: readonly Record<string, unknown>[]) =>
  log.find(({ msg }) => msg === 'restored')?.['predecessor'] as Predecessor | undefined;

/** A replica beside another one has a network of its own; here that is another port. */
async function onAnotherPort(walk: Walk): Promise<Walk> {
  return { ...walk, world: { ...walk.world, jellyfinPort: await freePort() } };
}

async function rollout(walk: Walk): Promise<{ walk: Walk; replica: Replica }> {
  const { report } = walk;
  report.chapter('Rollout: the new revision starts while the old one is in use');
  const old = await coldStart(walk, 10);
  const person = await signIn(walk);
  await person.createApiKey('before the rollout');
  report.event('a person', 'created an API key; it is in no backup yet');
  const next = await onAnotherPort(walk);
  const { replica: newer, log } = await coldStartWithLog(next, 11);
  const predecessor = predecessorIn(log);
  report.check(
    'the new revision asks the old one for a backup, and gets it',
    predecessor?.kind === 'answered',
    `${predecessor?.kind ?? 'nothing'} after ${String(predecessor?.waitedSeconds)} s`,
  );
  const keys = await keyNames(await signIn(next));
  report.check(
    'what was written until then is in the new revision',
    keys.includes('before the rollout'),
    `${String(keys.length)} keys`,
  );
  await person.createApiKey('in the overlap');
  report.event('a person', 'created another one, on the old revision');
  const exitCode = await stop(walk, old);
  report.check(
    'the old revision says that its last write is not on the line',
    exitCode === 7,
    `exit ${String(exitCode)}`,
  );
  const { tailSizes } = await operate<{ tailSizes: Record<string, Tail | null> }>(walk, ['status']);
  const [[name, tail] = []] = Object.entries(tailSizes);
  report.check(
    'that write is kept as a tail, measured in seconds and rows',
    Object.keys(tailSizes).length === 1 && (tail?.rows ?? 0) > 0,
    `${name ?? 'no tail'}: ${String(tail?.seconds)} s, ${String(tail?.rows)} rows`,
  );
  return { walk: next, replica: newer };
}

async function maintenance({ walk, replica: old }: { walk: Walk; replica: Replica }) {
  const { report } = walk;
  report.chapter('Maintenance: the platform replaces a replica of the same revision, both at once');
  await (await signIn(walk)).createApiKey('before the maintenance');
  report.event('a person', 'created an API key; it is in no backup yet');
  const tailsBefore = await tailCount(walk);
  const next = await onAnotherPort(walk);
  const [exitCode, { replica, log }] = await Promise.all([stop(walk, old), coldStartWithLog(next, 12)]);
  const keys = await keyNames(await signIn(next));
  report.check(
    'the replacement has the last write of the one that leaves',
    exitCode === 0 && keys.includes('before the maintenance'),
    `exit ${String(exitCode)}; the old one had ${predecessorIn(log)?.kind ?? 'said nothing'}`,
  );
  report.check(
    'nothing is beside the line',
    (await tailCount(walk)) === tailsBefore,
    `${String(tailsBefore)} tail, as before`,
  );
  return { walk: next, replica };
}

async function tailCount(walk: Walk): Promise<number> {
  return (await operate<{ tails: string[] }>(walk, ['status'])).tails.length;
}

async function graceCutShort({ walk, replica }: { walk: Walk; replica: Replica }): Promise<Replica> {
  const { report } = walk;
  report.chapter('The grace is cut short: SIGTERM, and SIGKILL one second later');
  const person = await signIn(walk);
  await person.createApiKey('long before SIGTERM');
  report.event('a person', 'created an API key');
  await sleep(CHANGE_WINDOW_MS + 2_500);
  await person.createApiKey('just before SIGTERM');
  report.event('a person', 'created another one, and at once');
  await replica.stopShort(1_000);
  report.event('platform', 'SIGTERM to all, SIGKILL after 1 s');
  const { replica: next, log } = await coldStartWithLog(walk, 13, { sidecarEnv: CLOCK_BEHIND });
  const keys = await keyNames(await signIn(walk));
  const isThere = keys.includes('just before SIGTERM');
  report.check(
    'at most the change window is lost when the grace is cut',
    keys.includes('long before SIGTERM'),
    isThere ? 'nothing lost' : 'lost: just before SIGTERM',
  );
  const predecessor = predecessorIn(log);
  const isTold = predecessor?.kind === 'silent' || predecessor?.kind === 'stopped';
  report.check(
    'the start says whether the stop was clean, and the window if not',
    isTold,
    predecessor?.kind === 'silent'
      ? `not clean, at most ${String(predecessor.windowSeconds)} s are missing`
      : (predecessor?.kind ?? 'nothing'),
  );
  return next;
}

const BEHIND_MS = 10 * 60_000;
/** A sidecar whose wall clock is ten minutes behind everybody's: its backups have older names than those before. */
const CLOCK_BEHIND = {
  NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(
    `const Real = Date;
globalThis.Date = class extends Real {
  constructor(...args) { args.length === 0 ? super(Real.now() - ${String(BEHIND_MS)}) : super(...args); }
  static now() { return Real.now() - ${String(BEHIND_MS)}; }
};`,
  )}`,
};

async function clockBackwards(walk: Walk, replica: Replica): Promise<void> {
  const { report } = walk;
  report.chapter('A clock that went backwards: the new replica lives ten minutes ago');
  await (await signIn(walk)).createApiKey('ten minutes ago');
  report.event('a person', 'created an API key');
  await stop(walk, replica);
  const { candidate } = await operate<{ candidate: string }>(walk, ['status']);
  const { backups } = await operate<{ backups: { name: string; place: string }[] }>(walk, ['list']);
  const newestName = backups
    .filter(({ place }) => place === 'line' || place === 'candidate')
    .map(({ name }) => name)
    .sort()
    .at(-1);
  report.check(
    'its backup is the candidate, although others have newer names',
    newestName !== candidate,
    candidate,
  );
}

async function outageDuringStop(walk: Walk): Promise<void> {
  const { report, world } = walk;
  report.chapter('The store is down while the replica stops');
  const proxy = await startFaultProxy(Number(/127\.0\.0\.1:(\d+)/.exec(world.connectionString)?.[1]));
  const sidecarEnv = { [ENV.connectionString]: connectionStringFor(proxy.port) };
  const replica = await coldStart(walk, 14, { sidecarEnv });
  const before = await signIn(walk);
  report.check(
    'what was written by the replica with the wrong clock is there',
    (await keyNames(before)).includes('ten minutes ago'),
    `${String((await before.apiKeys()).length)} keys`,
  );
  await before.createApiKey('in the outage');
  report.event('a person', 'created an API key');
  await proxy.refuseConnections();
  report.event('Blob', 'refuses connections');
  const stopping = stop(walk, replica);
  await sleep(3_000);
  await proxy.acceptConnections();
  report.event('Blob', 'is back');
  const exitCode = await stopping;
  report.check('the stop waited for the store', exitCode === 0, `exit ${String(exitCode)}`);

  const again = await coldStart(walk, 15, { sidecarEnv });
  const keys = await keyNames(await signIn(walk));
  report.check('and nothing is lost', keys.includes('in the outage'), `${String(keys.length)} keys`);
  await stop(walk, again);
}

/** More than one replica, and stops that go wrong: design.md 6 to 8. */
export async function overlaps(walk: Walk): Promise<void> {
  const afterRollout = await rollout(walk);
  const afterMaintenance = await maintenance(afterRollout);
  const behind = await graceCutShort(afterMaintenance);
  await clockBackwards(afterMaintenance.walk, behind);
  await outageDuringStop(afterMaintenance.walk);
}
