import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Secret } from '../secret.ts';

const MAX_BODY_BYTES = 1024 * 1024;
/** Refused, or the name does not resolve: nobody listens there. */
const NOBODY = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH']);

export function isNobody(error: unknown): boolean {
  // `localhost` is tried on both address families: one error each.
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isNobody);
  return NOBODY.has((error as NodeJS.ErrnoException).code ?? '');
}

export interface HttpAnswer {
  status: number;
  body: string;
}

export interface HttpQuestion {
  method: 'GET' | 'POST' | 'DELETE';
  body?: unknown;
  /** The token of a session or an API key. */
  token?: Secret;
  /** Only signing in tells devices apart. */
  deviceId?: string;
  timeoutMs?: number;
}

/** All four fields are required to sign in (facts/jellyfin.md 6.1); 12 knows no other header for the token. */
function authorizationOf({ token, deviceId = 'agent' }: HttpQuestion): string {
  const client = `MediaBrowser Client="agent", Device="agent", DeviceId="${deviceId}", Version="1.0.0"`;
  return token === undefined ? client : `${client}, Token="${token.reveal()}"`;
}

/** `fetch` would refuse some ports by its own list (the "bad ports" of the web), and keep connections open. */
export function ask(url: string, question: HttpQuestion, signal: AbortSignal): Promise<HttpAnswer> {
  const { method, body } = question;
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = {
    authorization: authorizationOf(question),
    // A POST without a body still says so; some proxies answer 411 otherwise.
    ...(method === 'POST' ? { 'content-length': payload?.byteLength ?? 0 } : {}),
    ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
  };
  return new Promise((resolve, reject) => {
    const request = send(url, { agent: false, method, headers, signal }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > MAX_BODY_BYTES) response.destroy(new Error('answer too long'));
      });
      response.on('error', reject);
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: text });
      });
    });
    request.on('error', reject);
    request.end(payload);
  });
}
