import { constants } from 'node:fs';
import { access, realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { AgentError } from '../errors.ts';

/**
 * The program that `bin` names: an absolute path, or a name that is looked for in the folders of `path`.
 * @returns its absolute path; `undefined` when there is none that can be executed.
 */
export async function findBinary(bin: string, path: string): Promise<string | undefined> {
  const folders = path.split(':').filter((dir) => isAbsolute(dir));
  const candidates = isAbsolute(bin) ? [bin] : folders.map((dir) => join(dir, bin));
  for (const candidate of candidates) {
    try {
      if (!(await stat(candidate)).isFile()) continue;
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not there, or not for us: the next one, as a shell does it.
    }
  }
  return undefined;
}

/**
 * Refuses a binary beside which a `jellyroller.config` lies: JellyRoller would read that one, another server's address and
 * key perhaps, and never ours (facts/jellyroller.md 2).
 * @throws AgentError `configuration_invalid`, `external_failed` when the binary is gone.
 */
export async function checkNothingBeside(binary: string): Promise<void> {
  const real = await realpath(binary).catch((error: unknown) => {
    throw new AgentError('external_failed', `${binary} is not there any more`, { cause: error });
  });
  const beside = join(dirname(real), 'jellyroller.config');
  const isThere = await stat(beside).then(
    () => true,
    () => false,
  );
  if (!isThere) return;
  throw new AgentError(
    'configuration_invalid',
    `${beside} must not exist: JellyRoller would read it and not the configuration that the agent writes`,
  );
}
