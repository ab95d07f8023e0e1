import { weigh } from './big-tree.ts';

test('backup and restore of 2 GiB stay under 200 MiB of memory', async () => {
  const found = await weigh(
    { databaseMiB: 700, artworkMiB: 600, artworkFiles: 12_000, largeFiles: 3, largeFileMiB: 250 },
    400_000,
  );
  expect(found.treeBytes).toBeGreaterThan(2_000 * 1024 * 1024);
  expect(found.codes).toEqual([0, 0]);
  expect(found.restoredFiles).toBeGreaterThan(12_000);
  expect(found.backupPeakMiB).toBeLessThan(200);
  expect(found.restorePeakMiB).toBeLessThan(200);
}, 900_000);
