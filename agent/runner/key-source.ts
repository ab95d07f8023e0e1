import { ensureApiKey } from '../api-key.ts';
import type { Administrator } from '../bootstrap.ts';
import type { JellyfinKeys } from '../ports.ts';
import type { Secret } from '../secret.ts';
import type { ApiKeySource } from './engine.ts';

/**
 * The key that was given, or the one that the administrator finds or makes on the server. A key that the server refuses is
 * replaced where there are credentials for it: a restore replaces the table of keys (facts/jellyroller.md 0.10).
 * @throws AgentError As `ensureApiKey`.
 */
export function keySource(
  keys: JellyfinKeys,
  given: Secret | undefined,
  admin: Administrator | undefined,
): ApiKeySource {
  let current = given;
  return async (refused, signal) => {
    const isRefused = refused !== undefined && refused.reveal() === current?.reveal();
    if (admin !== undefined && (current === undefined || isRefused))
      current = await ensureApiKey(keys, admin, signal);
    if (current === undefined) throw new Error('neither a key nor an administrator: checked by the command');
    return current;
  };
}
