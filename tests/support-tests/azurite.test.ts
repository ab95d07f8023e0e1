import { join } from 'node:path';
import { BlobServiceClient } from '@azure/storage-blob';
import { startAzurite } from '../support/azurite.ts';
import { startProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

test('stores what a client uploads; with a location and a port it comes back after an outage with its blobs', async () => {
  const location = makeTempDir('azurite');
  const before = await startAzurite({ location });
  const [name, other] = [await before.createContainer(), await before.createContainer('x'.repeat(80))];
  expect(other.length).toBeLessThanOrEqual(63);
  expect(name).not.toBe(other);
  const client = BlobServiceClient.fromConnectionString(before.connectionString).getContainerClient(name);
  await client.getBlockBlobClient('a').upload('hello', 5);
  await before.stop();
  expect(isAlive(before.pid)).toBe(false);
  const after = await startAzurite({ location, port: before.port });
  expect((await client.getBlobClient('a').downloadToBuffer()).toString()).toBe('hello');
  await after.stop();
});

test('ends when its parent is killed with SIGKILL', async () => {
  const program = `
    const { startAzurite } = await import(${JSON.stringify(join(process.cwd(), 'tests/support/azurite.ts'))});
    const azurite = await startAzurite();
    console.log(JSON.stringify({ pid: azurite.pid }));
    setInterval(() => {}, 1000);`;
  const parent = startProcess({ args: ['--input-type=module', '-e', program], name: 'parent' });
  const pid = Number((await parent.waitForLine(({ json }) => json !== undefined)).json?.['pid']);
  expect(isAlive(pid)).toBe(true);
  await parent.kill();
  const deadline = Date.now() + 3000;
  while (isAlive(pid) && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  expect(isAlive(pid)).toBe(false);
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
