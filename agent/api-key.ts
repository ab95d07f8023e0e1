import { AgentError } from './errors.ts';
import type { JellyfinKeys } from './ports.ts';
import type { Secret } from './secret.ts';

/** The name under which `jellyroller initialize` looks for its key: one key serves both (facts/jellyroller.md 2). */
export const RUNNER_KEY = 'JellyRoller';

/**
 * The runner's API key: the first one of its name, made if there is none. Signs in for that and signs out again.
 *
 * The sidecar and the runner may both find none and make one each; the server has no "create if absent". The first in
 * the server's own order stays, for everybody: the order is that of storing, so whoever reads after storing sees the
 * same first key, and JellyRoller takes the first too. A caller that made a key removes the later ones, its own among
 * them; nobody can have been given one of those. Keys that were there before the call are never removed.
 *
 * @throws AgentError `external_failed` when the server refuses the administrator, `jellyfin_unavailable` (retryable) when
 *   it does not answer.
 */
export async function ensureApiKey(
  keys: JellyfinKeys,
  admin: { name: string; password: Secret },
  signal?: AbortSignal,
): Promise<Secret> {
  const session = await keys.signIn(admin, signal);
  try {
    return await ensureApiKeyIn(keys, session, signal);
  } finally {
    // A session that stays is one row more; that is no reason to throw away a key, or the reason of a failure.
    await keys.signOut(session, signal).catch(() => undefined);
  }
}

/** The same, in a session that the caller opened and closes. */
export async function ensureApiKeyIn(
  keys: JellyfinKeys,
  session: Secret,
  signal?: AbortSignal,
): Promise<Secret> {
  const find = async () => (await keys.apiKeys(session, signal)).filter((key) => key.appName === RUNNER_KEY);
  const [existing] = await find();
  if (existing !== undefined) return existing.token;
  await keys.createApiKey(session, RUNNER_KEY, signal);
  const [first, ...later] = await find();
  if (first === undefined) {
    throw new AgentError('jellyfin_unavailable', 'the server made an API key and does not list it', {
      retryable: true,
    });
  }
  for (const { token } of later) await keys.deleteApiKey(session, token, signal);
  return first.token;
}
