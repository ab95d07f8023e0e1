import { stopRounds } from './stop-rounds.ts';

const ROUNDS = 200;
const LANES = 4;

test(
  `the write committed just before SIGTERM is in the next start, in ${String(ROUNDS)} of ${String(ROUNDS)} stops`,
  async () => {
    const lanes = await Promise.all(Array.from({ length: LANES }, () => stopRounds(ROUNDS / LANES, 3_000)));
    expect(lanes.flat().filter(({ isThere, exitCode }) => !isThere || exitCode !== 0)).toEqual([]);
    expect(lanes.flat()).toHaveLength(ROUNDS);
  },
  45 * 60_000,
);

test(
  'the same with a server that closes in up to 30 s',
  async () => {
    const lanes = await Promise.all(Array.from({ length: 4 }, () => stopRounds(2, 30_000)));
    expect(lanes.flat().filter(({ isThere, exitCode }) => !isThere || exitCode !== 0)).toEqual([]);
  },
  15 * 60_000,
);
