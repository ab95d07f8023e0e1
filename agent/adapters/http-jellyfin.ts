import { get as httpGet } from 'node:http';
import { get as httpsGet } from 'node:https';
import type { JellyfinHealth, JellyfinServer } from '../ports.ts';

const TIMEOUT_MS = 5_000;
const MAX_BODY_BYTES = 1024 * 1024;
/** Refused, or the name does not resolve: nobody listens there. */
const NOBODY = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

function isNobody(error: unknown): boolean {
  // `localhost` is tried on both address families: one error each.
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isNobody);
  return NOBODY.has((error as NodeJS.ErrnoException).code ?? '');
}

/** `fetch` would refuse some ports by its own list (the "bad ports" of the web), and keep connections open. */
function get(url: string, signal: AbortSignal): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const request = (url.startsWith('https:') ? httpsGet : httpGet)(
      url,
      { agent: false, signal },
      (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          body += chunk;
          if (body.length > MAX_BODY_BYTES) response.destroy(new Error('answer too long'));
        });
        response.on('error', reject);
        response.on('end', () => {
          resolve({ status: response.statusCode ?? 0, body });
        });
      },
    );
    request.on('error', reject);
  });
}

export class HttpJellyfin implements JellyfinServer {
  readonly #baseUrl: string;

  /** @param baseUrl With the server's BaseUrl if it has one, without a trailing slash. */
  constructor(baseUrl: string) {
    this.#baseUrl = baseUrl;
  }

  async health(signal?: AbortSignal): Promise<JellyfinHealth> {
    try {
      const { status, body } = await this.#get('/health', signal);
      return status === 200 && body.trim() === 'Healthy' ? 'healthy' : 'starting';
    } catch (error) {
      return isNobody(error) ? 'refused' : 'starting';
    }
  }

  async publicInfo(signal?: AbortSignal): Promise<{ version: string; serverId: string } | undefined> {
    try {
      const { status, body } = await this.#get('/System/Info/Public', signal);
      if (status !== 200) return undefined;
      const { Version, Id } = JSON.parse(body) as { Version?: unknown; Id?: unknown };
      return typeof Version === 'string' && typeof Id === 'string'
        ? { version: Version, serverId: Id }
        : undefined;
    } catch {
      // No answer, and an answer that is not JSON, say the same: not known now. The backup goes on without a version.
      return undefined;
    }
  }

  #get(path: string, signal: AbortSignal | undefined): Promise<{ status: number; body: string }> {
    const timeout = AbortSignal.timeout(TIMEOUT_MS);
    return get(
      `${this.#baseUrl}${path}`,
      signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
    );
  }
}
