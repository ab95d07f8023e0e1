import { sharedAzurite } from '../support/azurite.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { containerWith, runAgent, usedServer, volumeAt } from './support-replica.ts';

/* The same as in faults.test.ts with real blobs: Azurite takes half a minute for the uploads. */

test('the newest backup is behind more than 5,000 other blobs', async () => {
  const azurite = await sharedAzurite();
  const used = await usedServer();
  const container = await containerWith(azurite, used.blobs);
  const names = Array.from({ length: 5_100 }, (_, index) => `a/${String(index).padStart(5, '0')}`);
  const upload = async () => {
    for (let name = names.pop(); name !== undefined; name = names.pop())
      await container.getBlockBlobClient(name).upload('x', 1);
  };
  await Promise.all(Array.from({ length: 8 }, upload));
  const dataDir = makeTempDir('volume');
  const run = { connectionString: azurite.connectionString, container: container.containerName, dataDir };
  expect((await runAgent(['restore'], run)).code).toBe(0);
  expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
}, 180_000);
