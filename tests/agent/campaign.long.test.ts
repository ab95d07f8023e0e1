import type { StoredBackup } from '../../agent/catalog.ts';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { campaign, inMemory, onAzurite, requireNothingBroken, seedsFrom } from './campaign-run.ts';
import { unfenced, withoutRelisting } from './campaign-variants.ts';

/*
 * CAMPAIGN_HISTORIES=5000 CAMPAIGN_SEED=1 npm run test:long -- campaign
 * One history takes about a third of a second. Every tenth runs on Azurite, the others on a store in memory.
 */

const HISTORIES = Number(process.env['CAMPAIGN_HISTORIES'] ?? 1_000);
const FIRST_SEED = Number(process.env['CAMPAIGN_SEED'] ?? 10_000);
const MOST_UNTIL_CAUGHT = 400;

/** By the stamp in the name, which is the clock of whoever wrote it. */
let mockOrder: 'epoch' | 'clock' = 'epoch';
jest.mock('../../agent/catalog.ts', () => {
  const actual = jest.requireActual<typeof import('../../agent/catalog.ts')>('../../agent/catalog.ts');
  const byClock = (a: StoredBackup, b: StoredBackup) => b.stamp.localeCompare(a.stamp);
  return {
    ...actual,
    readCatalog: async (...given: Parameters<typeof actual.readCatalog>) => {
      const catalog = await actual.readCatalog(...given);
      return mockOrder === 'epoch' ? catalog : { ...catalog, line: catalog.line.toSorted(byClock) };
    },
  };
});

let azurite: Azurite;
beforeAll(async () => {
  azurite = await sharedAzurite();
});
afterEach(() => {
  mockOrder = 'epoch';
});

test('no history breaks a rule', async () => {
  let made = 0;
  const mixed = async () => ((made += 1) % 10 === 1 ? onAzurite(azurite)() : inMemory());
  const result = await campaign(seedsFrom(FIRST_SEED, HISTORIES), mixed);
  await requireNothingBroken(result);
  expect(result.tally.histories).toBe(HISTORIES);
}, 7_200_000);

test.each([
  ['does not check the epoch before it commits, nor respects the cut', unfenced, 'epoch'],
  ['does not list again after it took the epoch', withoutRelisting, 'epoch'],
  ['goes by the clock instead of by epoch and sequence', undefined, 'clock'],
] as const)('an agent is caught that %s', async (_name, lie, order) => {
  mockOrder = order;
  const { caught } = await campaign(seedsFrom(1, MOST_UNTIL_CAUGHT), inMemory, lie);
  expect(caught?.rules).not.toEqual([]);
  expect(caught).toBeDefined();
});
