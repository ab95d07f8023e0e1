import { parseBackupName } from '../../agent/backup-name.ts';
import { listAll, toCatalog } from '../../agent/catalog.ts';
import { EPOCH_BLOB, lineOf, readEpoch, type EpochState } from '../../agent/epoch.ts';
import type { BlobStore } from '../../agent/ports.ts';
import { possible } from './campaign-actions.ts';
import { Choices, type Tape } from './campaign-choices.ts';
import { emptyHistory, type History } from './campaign-history.ts';
import { BEGIN_MS, Replica, type Carried, type ReplicaWorld } from './campaign-replica.ts';
import type { Fate, Step } from './campaign-scheduler.ts';
import type { Effect } from './campaign-store.ts';

/*
 * A few replicas on one store, and everything that may happen to them, one action after the other as the choices have it.
 * Does not prove: what happens within a step (the agent's own disk), and real time.
 */

export interface HistoryOptions {
  /** An empty container of its own. */
  store: BlobStore;
  /** Actions before everything ends. @default 60 */
  length?: number;
  /** How the store lies to a process, for the variants that must be caught. */
  lie?: ReplicaWorld['lie'];
}

export interface Outcome {
  history: History;
  /** One line for each step. */
  trace: string[];
  tape: Tape;
}

/** Until everything has stopped; a history that needs more hangs. */
const MOST_LAST_STEPS = 3_000;

export class World implements ReplicaWorld {
  readonly inner: BlobStore;
  readonly time = { ms: 0 };
  readonly lastModified = new Map<string, Date>();
  readonly stray: { label: string; effect: () => Promise<unknown> }[] = [];
  readonly history = emptyHistory();
  readonly trace: string[] = [];
  readonly replicas: Replica[] = [];
  readonly choices: Choices;
  readonly lie: ReplicaWorld['lie'];
  at = 0;

  constructor(options: HistoryOptions, choices: Choices) {
    this.inner = options.store;
    this.lie = options.lie ?? ((store) => store);
    this.choices = choices;
  }

  /** For the ledger's amounts only: no decision depends on them. */
  random(): number {
    return 0.5;
  }

  readonly note = (line: string): void => {
    this.trace.push(`${String(this.at).padStart(4)} ${line}`);
  };

  serviceNow(): Date {
    return new Date(BEGIN_MS + this.time.ms);
  }

  onEffect(effect: Effect): void {
    const { at, history } = this;
    const replica = Number(/^r(\d+)/.exec(effect.by.name)?.[1]);
    if (effect.kind === 'put' && effect.name === EPOCH_BLOB)
      history.epochs.push({
        at,
        replica,
        state: JSON.parse(Buffer.from(effect.bytes).toString()) as EpochState,
      });
    if (effect.kind === 'remove') history.removals.push({ at, name: effect.name, replica });
    const parsed = effect.kind === 'commit' ? parseBackupName(effect.name) : undefined;
    if (effect.kind !== 'commit' || parsed === undefined) return;
    const { epoch, placement, sequence } = parsed;
    history.commits.push({
      at,
      name: effect.name,
      placement,
      epoch,
      sequence,
      replica,
      ...(effect.carried as Carried),
    });
  }

  get alive(): Replica[] {
    return this.replicas.filter(({ phase }) => phase !== 'gone');
  }

  in(...phases: Replica['phase'][]): Replica[] {
    return this.replicas.filter(({ phase }) => phases.includes(phase));
  }

  get runnable(): Replica[] {
    return this.alive.filter(({ process }) => process?.isRunnable === true);
  }

  async startReplica(): Promise<Replica> {
    const replica = new Replica(this, this.replicas.length + 1);
    this.replicas.push(replica);
    await this.restore(replica, 'starts');
    return replica;
  }

  /** Lets one step of a replica through; a restore that ended well is followed by its sidecar. */
  async step(replica: Replica, fate: Fate): Promise<void> {
    const { process } = replica;
    const step = process?.pending[0];
    if (process === undefined || step === undefined) return;
    this.at += 1;
    const isFaulty = fate !== 'run' && !step.isWait;
    if (isFaulty || !step.isWait) this.note(`${process.name} ${step.label}${isFaulty ? ` [${fate}]` : ''}`);
    await process.release(step, step.isWait ? 'run' : fate);
    await this.#follow(replica);
  }

  /** The init container, on whatever lies on the volume. One that has nothing to do asks the store nothing. */
  async restore(replica: Replica, why: string): Promise<void> {
    this.note(`${replica.name} ${why}`);
    await replica.restore();
    await this.#follow(replica);
  }

  async #follow(replica: Replica): Promise<void> {
    if (replica.process?.isDone === true && replica.phase === 'running') await replica.watch();
  }

  /** Kill -9 of the process; what it had sent may still arrive. */
  async kill(replica: Replica, arrives: 'never' | 'now' | 'later'): Promise<void> {
    const { process } = replica;
    if (process === undefined) return;
    this.at += 1;
    const pending = process.pending.map(({ label }) => label).join(', ');
    this.note(`${process.name} is killed at ${pending}, which arrives ${arrives}`);
    for (const sent of await process.kill()) await this.#deliver(process.name, sent, arrives);
  }

  async #deliver(name: string, { effect, label }: Step, arrives: 'never' | 'now' | 'later'): Promise<void> {
    if (effect === undefined || arrives === 'never') return;
    if (arrives === 'now') await effect().catch(() => undefined);
    else this.stray.push({ label: `${name} ${label}`, effect });
  }

  async arrive(index: number): Promise<void> {
    const [request] = this.stray.splice(index, 1);
    if (request === undefined) return;
    this.at += 1;
    const result = await request.effect().then(
      () => 'and takes effect',
      (error: unknown) => `and is refused: ${String(error)}`,
    );
    this.note(`${request.label} arrives late, ${result}`);
  }

  /** SIGTERM; whether the server writes something more before it closes is decided then. */
  closeServer(replica: Replica, writesMore: boolean): void {
    this.at += 1;
    if (writesMore && replica.server?.worth === 'full') replica.write();
    replica.server?.close();
    this.note(`${replica.name} server closes${writesMore ? ' after a last row' : ''}`);
  }
}

/** Everything that still lives stops or is killed; then a new replica starts, and nothing disturbs it. */
async function finish(world: World): Promise<void> {
  const { choices, history } = world;
  choices.beginBlock();
  for (const replica of world.alive) {
    if (replica.process !== undefined) replica.process.isPaused = false;
    const ends = choices.chance(60) || replica.phase === 'failed';
    if (ends) {
      await world.kill(replica, 'never');
      await replica.remove();
    } else if (replica.phase === 'running') replica.terminate();
  }
  for (let count = 0; world.alive.length > 0; count += 1) {
    if (count > MOST_LAST_STEPS) throw new Error(`${world.alive.map(({ name }) => name).join()} never end`);
    for (const replica of world.in('running')) replica.terminate();
    for (const replica of world.in('stopping'))
      if (replica.server?.isOpen === true && choices.chance(20))
        world.closeServer(replica, choices.chance(50));
    for (const replica of world.in('failed')) await replica.remove();
    if (world.runnable.length > 0) await world.step(choices.pick(world.runnable), 'run');
  }
  while (world.stray.length > 0) {
    if (choices.chance(50)) await world.arrive(0);
    else world.stray.shift();
  }
  world.note('the last start');
  const last = await world.startReplica();
  while (last.phase === 'restoring') await world.step(last, 'run');
  history.final.refusal = last.failure;
  const catalog = toCatalog(await listAll(world.inner, ''));
  const all = [...catalog.line, ...catalog.tails, ...catalog.quarantined];
  history.final.stored = all.map(({ item }) => item.name);
  history.final.line = lineOf(catalog, (await readEpoch(world.inner))?.state).map(({ item }) => item.name);
  await world.kill(last, 'never');
  await last.remove();
}

/** Runs one history to its end. */
export async function runHistory(
  source: { seed: number } | { tape: Tape },
  options: HistoryOptions,
): Promise<Outcome> {
  const choices = new Choices(source);
  const world = new World(options, choices);
  const length = 'tape' in source ? source.tape.length - 1 : (options.length ?? 60);
  try {
    for (let done = 0; done < length; done += 1) {
      choices.beginBlock();
      await choices.weighted(possible(world))(world);
    }
    await finish(world);
  } catch (error) {
    world.note(`the history broke off: ${String((error as Error).stack)}`);
    world.history.bugs.push(String(error));
  } finally {
    for (const replica of world.alive) {
      await replica.process?.kill().catch(() => []);
      await replica.remove();
    }
  }
  return { history: world.history, trace: world.trace, tape: choices.tape };
}
