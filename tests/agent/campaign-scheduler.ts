import { setTimeout as delay } from 'node:timers/promises';

/*
 * One process at a time: every call of every agent to the store, and every wait, stops at a gate, and the scheduler lets
 * exactly one of them through. What an agent does between two gates (its own disk) happens as one step.
 */

/**
 * What becomes of a call: it works; it fails and nothing happened; it works and the answer is lost; it fails, and works at
 * some later moment (a request that hung in a proxy).
 */
export type Fate = 'run' | 'fail_before' | 'lost_answer' | 'late';

/** What a process that was killed meets everywhere. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

export interface Step {
  readonly label: string;
  /** A wait has no fate but to end. */
  readonly isWait: boolean;
  /** Virtual milliseconds. */
  wakeAtMs: number;
  /** Changes the store; it may still arrive when its sender is dead. */
  readonly effect: (() => Promise<unknown>) | undefined;
  readonly resume: (fate: Fate) => void;
  readonly refuse: (error: Error) => void;
}

const STUCK_MS = 30_000;
/** After this long, what has not come to a gate is taken for a strand of work that ended by itself. */
const STRAND_ENDED_MS = 100;

/** The virtual time of a history, the same for all; wall clocks are wrong on top of it. */
export interface Time {
  ms: number;
}

/** One process: a restore or a sidecar. */
export class Actor {
  readonly name: string;
  readonly pending: Step[] = [];
  isPaused = false;
  isDead = false;
  isDone = false;
  readonly #time: Time;
  /** Strands of work that are not at a gate. */
  #running = 0;
  #news: () => void = () => undefined;

  constructor(name: string, time: Time) {
    this.name = name;
    this.#time = time;
  }

  get isRunnable(): boolean {
    return !this.isPaused && this.pending.length > 0;
  }

  /** Starts the process and lets it run up to its first gate. */
  async start(work: () => Promise<void>): Promise<void> {
    this.#running = 1;
    void work().finally(() => {
      this.isDone = true;
      this.#news();
    });
    await this.#settled();
  }

  /** Waits for its turn. @throws Killed */
  gate(label: string, effect?: () => Promise<unknown>): Promise<Fate> {
    return this.#arrive(label, { isWait: false, wakeAtMs: this.#time.ms, effect });
  }

  /** Waits until the virtual time has come, or the signal. @throws Killed */
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted === true) return;
    const wakeAtMs = this.#time.ms + ms;
    const wait = { isWait: true, wakeAtMs, effect: undefined };
    const arrived = this.#arrive(`sleep ${String(ms)}`, wait);
    const step = this.pending.at(-1);
    const wake = () => {
      if (step !== undefined) step.wakeAtMs = this.#time.ms;
    };
    signal?.addEventListener('abort', wake, { once: true });
    await arrived.finally(() => signal?.removeEventListener('abort', wake));
  }

  /** Lets one step through, and the process run up to its next gate. */
  async release(step: Step, fate: Fate): Promise<void> {
    this.#leave(step);
    this.#time.ms = Math.max(this.#time.ms, step.wakeAtMs);
    step.resume(fate);
    await this.#settled();
  }

  /** Kill -9: whatever it still tries does nothing. Answers what it had sent to the store and not heard of. */
  async kill(): Promise<Step[]> {
    this.isDead = true;
    const sent = this.pending.filter((step) => step.effect !== undefined);
    for (const step of [...this.pending]) {
      this.#leave(step);
      step.refuse(new Killed(this.name));
    }
    while (!this.isDone) await this.#newsWithin(STUCK_MS);
    return sent;
  }

  #arrive(label: string, what: Pick<Step, 'isWait' | 'wakeAtMs' | 'effect'>): Promise<Fate> {
    if (this.isDead) return Promise.reject(new Killed(this.name));
    return new Promise((resume, refuse) => {
      this.pending.push({ label, ...what, resume, refuse });
      this.#running = Math.max(0, this.#running - 1);
      this.#news();
    });
  }

  #leave(step: Step): void {
    this.pending.splice(this.pending.indexOf(step), 1);
    this.#running += 1;
  }

  async #settled(): Promise<void> {
    while (!this.isDone && this.#running > 0) {
      const hasNews = await this.#newsWithin(this.pending.length > 0 ? STRAND_ENDED_MS : STUCK_MS);
      if (!hasNews && this.pending.length > 0) this.#running = 0;
    }
  }

  async #newsWithin(ms: number): Promise<boolean> {
    const timer = new AbortController();
    const news = new Promise<true>((resolve) => (this.#news = () => resolve(true)));
    const late = delay(ms, false, { signal: timer.signal }).catch(() => false);
    const hasNews = await Promise.race([news, late]);
    timer.abort();
    if (!hasNews && ms === STUCK_MS) throw new Error(`${this.name} neither waits nor ends`);
    return hasNews;
  }
}
