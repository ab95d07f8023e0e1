import { rmSync } from 'node:fs';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { TarZstd } from '../../agent/adapters/tar-zstd.ts';
import { BackupLine } from '../../agent/backup-line.ts';
import { AgentError, exitCodeOf } from '../../agent/errors.ts';
import { Heartbeat, type HeartbeatDeps } from '../../agent/heartbeat.ts';
import { createLogger } from '../../agent/log.ts';
import type { BlobStore, Clock, DatabaseEngine, Disk } from '../../agent/ports.ts';
import type { RestoreDeps } from '../../agent/plan-restore.ts';
import { JELLYFIN } from '../../agent/profile.ts';
import type { RestoreReport } from '../../agent/restore-report.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { withRetry } from '../../agent/retry.ts';
import { Sidecar } from '../../agent/sidecar.ts';
import { Snapshotter } from '../../agent/snapshot.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import type { History, State, Worth } from './campaign-history.ts';
import { Actor, Killed, type Time } from './campaign-scheduler.ts';
import { Server, settle } from './campaign-server.ts';
import { gatedStore, type StoreWorld } from './campaign-store.ts';
import { MemoryBlobStore } from './support-memory-store.ts';
import { SQLITE_IN_THREAD, volumeAt } from './support-replica.ts';

/* One replica: its volume, its init container, its server, its sidecar. Everything of the agent is the real one. */

export interface ReplicaWorld extends StoreWorld {
  readonly time: Time;
  readonly history: History;
  /** The number of the step. */
  readonly at: number;
  /** How the store lies to this process. */
  lie(store: BlobStore, process: { replica: Replica; role: Role }): BlobStore;
  random(): number;
  readonly note: (line: string) => void;
}

export type Role = 'init' | 'sidecar';

/** What a backup that is committed now holds. */
export interface Carried {
  state: State;
  worth: Worth;
}

/** Virtual time 0 as the wall clocks show it. */
export const BEGIN_MS = Date.UTC(2026, 5, 1);

/**
 * The heartbeat is a second strand of work beside every step, so its calls would have no one order with the others: it speaks to
 * a store of its own, once, and nobody asks it for anything (`handoverWaitMs` is 0). The handover is not part of the campaign.
 */
export function idleHeartbeat(deps: Omit<HeartbeatDeps, 'store'>, dataDir: string) {
  const sleep = (_ms: number, signal?: AbortSignal) =>
    new Promise<void>((resolve) => {
      if (signal === undefined || signal.aborted) resolve();
      else signal.addEventListener('abort', () => resolve(), { once: true });
    });
  const clock = { now: () => deps.clock.now(), monotonicMs: () => deps.clock.monotonicMs(), sleep };
  const store = new MemoryBlobStore();
  return new Heartbeat({ ...deps, store, clock }, { dataDir, pollMs: 1_000, intervalMs: 1_000 });
}

export class Replica {
  readonly id: number;
  readonly dataDir: string;
  /** How wrong its wall clock is, milliseconds. */
  skewMs = 0;
  phase: 'restoring' | 'failed' | 'running' | 'stopping' | 'gone' = 'restoring';
  /** Why its last restore failed. */
  failure: string | undefined;
  epoch = 0;
  server: Server | undefined;
  process: Actor | undefined;
  readonly #world: ReplicaWorld;
  readonly #record: { base: State; rows: number } = { base: [], rows: 0 };
  #hasStarted = false;
  #processes = 0;
  #stop = new AbortController();
  #carried: Carried = { state: [], worth: 'unconfigured' };

  constructor(world: ReplicaWorld, id: number) {
    this.#world = world;
    this.id = id;
    // Half of a history's time went into flushes; no power cut happens here.
    this.dataDir = makeTempDir('campaign');
  }

  get name(): string {
    return `r${this.id}`;
  }

  /** What its server has now. */
  get state(): State {
    const { base, rows } = this.#record;
    return rows === 0 ? base : [...base, { replica: this.id, rows }];
  }

  write(): void {
    this.#record.rows += 1;
    this.server?.write(this.id, this.#record.rows);
  }

  /** The init container, on whatever lies on the volume. */
  async restore(): Promise<void> {
    this.phase = 'restoring';
    const actor = this.#newProcess('init');
    await actor.start(async () => {
      try {
        const options = { dataDir: this.dataDir, imageVersion: '10.11.11' };
        this.#boot(await restoreVolume(this.#depsOf(actor, 'init'), options));
      } catch (error) {
        if (error instanceof Killed) return;
        this.phase = 'failed';
        this.failure = error instanceof AgentError ? `${error.code}: ${error.message}` : String(error);
        this.#world.note(`${this.name} restore failed: ${this.failure}`);
        if (!(error instanceof AgentError))
          this.#world.history.bugs.push(`${actor.name}: ${String((error as Error).stack)}`);
      }
    });
  }

  /** The sidecar, beside the server that runs. */
  async watch(): Promise<void> {
    const { server } = this;
    if (server === undefined) throw new Error(`${this.name} has no server`);
    const { history, note } = this.#world;
    const actor = this.#newProcess('sidecar');
    const stop = (this.#stop = new AbortController());
    const sidecar = this.#sidecarOf(actor, server);
    await actor.start(async () => {
      try {
        const exitCode = await sidecar.run(stop.signal);
        if (!stop.signal.aborted) history.bugs.push(`${actor.name} ended unasked with ${exitCode}`);
        this.#stopped(exitCode);
      } catch (error) {
        if (error instanceof Killed) return;
        if (!(error instanceof AgentError))
          history.bugs.push(`${actor.name}: ${String((error as Error).stack)}`);
        note(`${actor.name} ended: ${String(error)}`);
        this.#stopped(exitCodeOf(error));
      }
    });
  }

  /** SIGTERM to every container; the server closes when it likes. */
  terminate(): void {
    this.phase = 'stopping';
    this.#stop.abort(new Error('SIGTERM'));
  }

  /** The volume goes with the replica. */
  async remove(): Promise<void> {
    this.phase = 'gone';
    this.server?.close();
    rmSync(this.dataDir, { recursive: true, force: true });
  }

  #stopped(exitCode: number): void {
    const { at, history, note } = this.#world;
    history.stops.push({
      at,
      replica: this.id,
      epoch: this.epoch,
      exitCode,
      state: this.state,
      worth: this.server?.worth ?? 'unconfigured',
    });
    note(`${this.name} stopped with exit code ${exitCode}`);
    this.remove().catch(() => undefined);
  }

  #boot(report: RestoreReport): void {
    const { at, history, note } = this.#world;
    const isNew = report.restoredFrom === null && !this.#hasStarted;
    // Looked at before the server opens it: whole, in WAL mode, nothing beside it.
    if (report.action === 'restored') volumeAt(this.dataDir);
    this.server = new Server(this.dataDir, isNew, () => this.#world.random());
    const isFirst = !this.#hasStarted;
    if (isFirst) Object.assign(this.#record, { base: this.server.base, rows: 0 });
    history.replicas.set(this.id, this.#record);
    this.#hasStarted = true;
    this.epoch = report.epoch;
    // A restart right after the last write of a restore finds it complete: for everybody else that is the same start.
    const done = isNew ? 'first_boot' : 'restored';
    const own = history.epochs.filter(
      ({ replica, state }) => replica === this.id && state.epoch === this.epoch,
    );
    history.starts.push({
      at,
      recordedAt: own.at(-1)?.at ?? at,
      replica: this.id,
      epoch: this.epoch,
      action: isFirst ? done : 'kept',
      restoredFrom: report.restoredFrom,
      state: this.server.base,
    });
    this.phase = 'running';
    note(
      `${this.name} ${isFirst ? done : 'kept'} in epoch ${this.epoch} from ${String(report.restoredFrom)}`,
    );
  }

  #newProcess(role: Role): Actor {
    this.#processes += 1;
    return (this.process = new Actor(`${this.name}.${role}${this.#processes}`, this.#world.time));
  }

  #sidecarOf(actor: Actor, server: Server): Sidecar {
    const { dataDir } = this;
    const deps = this.#depsOf(actor, 'sidecar');
    const snapshotter = new Snapshotter(deps, { dataDir, includeBulk: true });
    const retention = { keep: 2, daily: 0, weekly: 0, monthly: 0 };
    const line = new BackupLine({ ...deps, snapshotter, minBackupSizeBytes: 0 }, { dataDir, retention });
    return new Sidecar(
      { ...deps, line, jellyfin: server, heartbeat: idleHeartbeat(deps, dataDir), hurry: () => undefined },
      {
        dataDir,
        intervalMs: 3_600_000,
        onChangeMs: 200,
        startupDelayMs: 0,
        drillIntervalMs: 0,
        shutdownBudgetMs: 110_000,
        failureBackoffMs: 300,
      },
    );
  }

  #depsOf(actor: Actor, role: Role): RestoreDeps {
    const world = this.#world;
    const clock: Clock = {
      now: () => new Date(BEGIN_MS + world.time.ms + this.skewMs),
      monotonicMs: () => world.time.ms,
      sleep: (ms, signal) => actor.sleep(ms, signal),
    };
    const log = createLogger(actor.name, (line) =>
      this.#onLog(actor, JSON.parse(line) as Record<string, unknown>),
    );
    const gated = gatedStore(world, actor, () => this.#carried);
    const store = world.lie(gated, { replica: this, role });
    return {
      store: withRetry(store, { policy: { max: 2, backoffMs: 0 }, clock, log }),
      archiver: new TarZstd(),
      disk: this.#diskOf(actor),
      databases: this.#databasesOf(actor),
      clock,
      log,
      profile: JELLYFIN,
      holder: actor.name,
    };
  }

  #onLog(actor: Actor, { level, msg, backup, unchanged, err }: Record<string, unknown>): void {
    const { at, history, note } = this.#world;
    if (actor.isDead) return;
    if (level !== 'info')
      note(`${actor.name} ${String(level)}: ${String(msg)} ${err === undefined ? '' : JSON.stringify(err)}`);
    if (!String(msg).startsWith('last_backup_utc=') || unchanged === true) return;
    history.acknowledged.push({ at, name: String(backup) });
    note(`${actor.name} acknowledged ${String(backup)}`);
  }

  /** A killed process writes nothing any more, its clean-up included. */
  #diskOf(actor: Actor): Disk {
    return new Proxy(new LocalDisk(), {
      get: (target, key) => {
        const method = Reflect.get(target, key) as (...given: unknown[]) => unknown;
        return (...given: unknown[]): unknown => {
          if (actor.isDead && key === 'read') throw new Killed(actor.name);
          if (actor.isDead) return Promise.reject(new Killed(actor.name));
          const answer = Reflect.apply(method, target, given);
          if (key !== 'replace') return answer;
          // The agent waits in real time for a file to stand still.
          return (answer as Promise<void>).then(() => settle(String(given[0])));
        };
      },
    });
  }

  #databasesOf(actor: Actor): DatabaseEngine {
    return {
      ...SQLITE_IN_THREAD,
      snapshot: async (source, target) => {
        if (actor.isDead) throw new Killed(actor.name);
        // No server writes before the next gate: this is what the copy holds.
        if (source.endsWith('/jellyfin.db'))
          this.#carried = { state: this.state, worth: this.server?.worth ?? 'unconfigured' };
        return SQLITE_IN_THREAD.snapshot(source, target);
      },
    };
  }
}
