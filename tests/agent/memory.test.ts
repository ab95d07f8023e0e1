import { weigh } from './big-tree.ts';

/** The same with 2 GiB is in memory.long.test.ts; a program that holds what it copies fails here already. */
test('backup and restore of 400 MiB stay under 200 MiB of memory', async () => {
  const found = await weigh(
    { databaseMiB: 140, artworkMiB: 60, artworkFiles: 1_500, largeFiles: 2, largeFileMiB: 100 },
    60_000,
  );
  expect(found.codes).toEqual([0, 0]);
  expect(found.restoredFiles).toBeGreaterThan(1_500);
  expect(found.backupPeakMiB).toBeLessThan(200);
  expect(found.restorePeakMiB).toBeLessThan(200);
}, 120_000);
