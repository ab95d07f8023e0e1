import { execFileSync } from 'node:child_process';
import { startSharedAzurite } from './azurite.ts';

/** Once for the whole run: the bundle that the tests start is the bundle of these sources, and one Azurite for all. */
export default async function setUp(): Promise<void> {
  execFileSync(process.execPath, ['scripts/build.ts'], { stdio: 'ignore' });
  await startSharedAzurite();
}
