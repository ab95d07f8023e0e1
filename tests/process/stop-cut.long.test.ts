import { isBroken, stopCuts } from './stop-cuts.ts';

const ROUNDS = 200;
const LANES = 2;

test(
  `a grace that is cut at any moment loses no more than the change window, in ${String(ROUNDS)} of ${String(ROUNDS)} cuts`,
  async () => {
    const lanes = await Promise.all(
      // Half of them early: that is where the first backup of the stop sequence is cut.
      Array.from({ length: LANES }, (_, lane) => stopCuts(ROUNDS / LANES, lane % 2 === 0 ? 4_000 : 1_000)),
    );
    expect(lanes.flat().filter(isBroken)).toEqual([]);
    expect(lanes.flat()).toHaveLength(ROUNDS);
    // Some were cut in the middle of a write: a test in which nothing is ever lost measures nothing.
    expect(lanes.flat().some(({ lostMs }) => lostMs > 0)).toBe(true);
  },
  45 * 60_000,
);
