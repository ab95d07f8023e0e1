import { isBroken, stopCuts } from './stop-cuts.ts';

test('a grace that is cut at any moment loses no more than the change window, in 2 of 2 cuts', async () => {
  const lanes = await Promise.all([stopCuts(1, 4_000), stopCuts(1, 1_000)]);
  expect(lanes.flat().filter(isBroken)).toEqual([]);
  expect(lanes.flat()).toHaveLength(2);
});
