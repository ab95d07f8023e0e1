/*
 * What a history decides, as numbers on a tape: drawn from a seed, or played back. A block of the tape is one action, so
 * leaving a block out leaves an action out, and 0 is always the harmless choice: that is all that shrinking needs.
 */

export type Tape = readonly (readonly number[])[];

const LIMIT = 2 ** 32;

/** Numbers from 0 (included) to 2^32 (not included), the same for the same seed. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
}

/** The decisions of one history. */
export class Choices {
  /** What was drawn so far: played back, it makes the same decisions. */
  readonly tape: number[][] = [];
  readonly #next: (block: number, position: number) => number;
  #current: number[] = [];

  constructor(source: { seed: number } | { tape: Tape }) {
    if ('seed' in source) this.#next = mulberry32(source.seed);
    else this.#next = (block, position) => source.tape[block]?.[position] ?? 0;
  }

  /** The decisions from here on belong to the next action. */
  beginBlock(): void {
    this.tape.push((this.#current = []));
  }

  /** A whole number from 0 to `limit - 1`. */
  below(limit: number): number {
    const drawn = this.#next(this.tape.length - 1, this.#current.length);
    this.#current.push(drawn);
    return Math.floor((drawn / LIMIT) * limit);
  }

  /** The first one is the harmless one. */
  pick<T>(from: readonly T[]): T {
    const picked = from[this.below(from.length)];
    if (picked === undefined) throw new Error('nothing to pick from');
    return picked;
  }

  /** The first one is the harmless one; whole numbers as weights, 0 for "not now". */
  weighted<T>(from: readonly (readonly [weight: number, value: T])[]): T {
    let left = this.below(from.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, value] of from) if ((left -= weight) < 0) return value;
    throw new Error('nothing to pick from');
  }

  /** True `percent` times out of a hundred; false is the harmless one. */
  chance(percent: number): boolean {
    return this.below(100) >= 100 - percent;
  }
}

/**
 * A shorter tape that still fails: leaves out runs of blocks, long ones first, then makes the decisions of each block
 * harmless, until nothing helps any more or the time is up.
 * @param timeMs Checked between two tries.
 */
export async function shrink(
  tape: Tape,
  stillFails: (tape: Tape) => Promise<boolean>,
  timeMs: number,
): Promise<Tape> {
  const endMs = performance.now() + timeMs;
  let best = tape;
  const attempt = async (candidate: Tape) => {
    if (performance.now() >= endMs || !(await stillFails(candidate))) return false;
    best = candidate;
    return true;
  };
  for (let run = Math.ceil(best.length / 2); run >= 1; run = run === 1 ? 0 : Math.ceil(run / 2)) {
    for (let at = best.length - run; at >= 0; at -= run) {
      if (at + run > best.length) continue;
      await attempt([...best.slice(0, at), ...best.slice(at + run)]);
    }
  }
  for (let at = 0; at < best.length; at += 1) {
    const [first = 0, ...rest] = best[at] ?? [];
    if (rest.some((value) => value !== 0)) await attempt(best.with(at, [first]));
  }
  return best;
}
