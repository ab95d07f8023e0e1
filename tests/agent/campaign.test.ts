import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { campaign, onAzurite, requireNothingBroken, seedsFrom } from './campaign-run.ts';
import { unfenced } from './campaign-variants.ts';

/*
 * Two or three agents on one store, every call of theirs in an order that the seed decides, with pauses, kills, faults, restarts
 * and wrong clocks. Thousands of histories: campaign.long.test.ts.
 */

const HISTORIES = 24;

let azurite: Azurite;
beforeAll(async () => {
  azurite = await sharedAzurite();
});

test('no history breaks a rule', async () => {
  const { caught, tally } = await campaign(seedsFrom(1, HISTORIES), onAzurite(azurite));
  await requireNothingBroken({ caught });
  // The histories are not empty of what they are about.
  expect(tally.histories).toBe(HISTORIES);
  expect(tally.acknowledged).toBeGreaterThan(2 * HISTORIES);
  expect(tally.starts).toBeGreaterThan(3 * HISTORIES);
  expect(tally.late).toBeGreaterThan(0);
  expect(tally.tails).toBeGreaterThan(HISTORIES / 2);
  expect(tally.removals).toBeGreaterThan(HISTORIES / 4);
  expect(tally.stops).toBeGreaterThan(HISTORIES / 2);
}, 180_000);

test('the same histories catch an agent that neither checks the epoch before it commits nor respects the cut', async () => {
  const { caught } = await campaign(seedsFrom(1, HISTORIES), onAzurite(azurite), unfenced);
  expect(caught?.rules).toEqual(
    expect.arrayContaining([expect.stringMatching(/late writer|acknowledged|exit code 0|single sequence/)]),
  );
}, 180_000);
