import { AgentError } from '../errors.ts';
import type { ServerInventory } from '../ports.ts';
import type { Secret } from '../secret.ts';
import { checkedKey } from './api-key-form.ts';
import { call } from './http-call.ts';

const TIMEOUT_MS = 15_000;

/** What a server holds, asked with an API key. */
export class HttpInventory implements ServerInventory {
  readonly #baseUrl: string;

  /** @param baseUrl With the server's BaseUrl if it has one, without a trailing slash. */
  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl;
  }

  userNames(key: Secret, signal?: AbortSignal): Promise<string[]> {
    return this.#names('/Users', key, signal);
  }

  libraryNames(key: Secret, signal?: AbortSignal): Promise<string[]> {
    return this.#names('/Library/VirtualFolders', key, signal);
  }

  async #names(path: string, key: Secret, signal: AbortSignal | undefined): Promise<string[]> {
    const headers = { authorization: `MediaBrowser Token="${checkedKey(key)}"` };
    const outcome = await call(
      `${this.#baseUrl}${path}`,
      { method: 'GET', headers, timeoutMs: TIMEOUT_MS },
      signal,
    );
    signal?.throwIfAborted();
    const what = `GET ${path}`;
    if (outcome.kind !== 'answered')
      throw new AgentError('jellyfin_unavailable', `${what}: no answer`, {
        cause: outcome.cause,
        retryable: true,
      });
    if (outcome.status !== 200 || outcome.body === undefined) {
      const isRefused = outcome.status === 401 || outcome.status === 403;
      throw new AgentError(
        isRefused ? 'external_failed' : 'jellyfin_unavailable',
        `${what} answered ${String(outcome.status)}`,
        { retryable: !isRefused },
      );
    }
    try {
      return (JSON.parse(outcome.body) as { Name: unknown }[]).map(({ Name }) => String(Name)).sort();
    } catch (cause) {
      throw new AgentError('external_failed', `${what} answered something else than Jellyfin does`, {
        cause,
      });
    }
  }
}
