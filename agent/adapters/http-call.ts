import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';

const MAX_BODY_BYTES = 4 * 1024 * 1024;
/** Finds out about a peer that has vanished during an answer that takes hours. */
const KEEP_ALIVE_MS = 30_000;

export interface HttpCall {
  method: 'GET' | 'POST';
  headers: Readonly<Record<string, string>>;
  body?: unknown;
  timeoutMs: number;
}

export type HttpOutcome =
  /** `body` is undefined when it is longer than 4 MiB. */
  | { kind: 'answered'; status: number; body: string | undefined; retryAfterMs: number | undefined }
  /** No connection came about: nobody has seen the request. */
  | { kind: 'nobody'; cause: Error }
  /** The connection was there: what became of the request is not known. */
  | { kind: 'lost'; why: 'timeout' | 'aborted' | 'connection lost'; cause: Error };

/** Nobody listens on the port. `localhost` is tried on both address families: one error each. */
export function isRefused(error: unknown): boolean {
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isRefused);
  return (error as NodeJS.ErrnoException).code === 'ECONNREFUSED';
}

function retryAfterMs(header: string | undefined): number | undefined {
  return header !== undefined && /^\d{1,6}$/.test(header) ? Number(header) * 1000 : undefined;
}

/**
 * One request on a connection of its own; never throws. Not `fetch`, which gives up after 300 s without headers: Jellyfin
 * answers when its archive is complete.
 */
export function call(url: string, options: HttpCall, signal?: AbortSignal): Promise<HttpOutcome> {
  const { method, body, timeoutMs } = options;
  const send = url.startsWith('https:') ? httpsRequest : httpRequest;
  const payload = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
  const headers = {
    ...options.headers,
    ...(method === 'POST' ? { 'content-length': payload?.byteLength ?? 0 } : {}),
    ...(payload === undefined ? {} : { 'content-type': 'application/json' }),
  };
  const timeout = AbortSignal.timeout(timeoutMs);
  const either = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
  return new Promise((resolve) => {
    let isConnected = false;
    const fail = (cause: Error) => {
      const why = signal?.aborted === true ? 'aborted' : timeout.aborted ? 'timeout' : 'connection lost';
      resolve(isConnected ? { kind: 'lost', why, cause } : { kind: 'nobody', cause });
    };
    const request = send(url, { agent: false, method, headers, signal: either }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      const answer = (text: string | undefined) =>
        resolve({
          kind: 'answered',
          status: response.statusCode ?? 0,
          body: text,
          retryAfterMs: retryAfterMs(response.headers['retry-after']),
        });
      response.on('data', (chunk: Buffer) => {
        bytes += chunk.byteLength;
        if (bytes <= MAX_BODY_BYTES) return void chunks.push(chunk);
        answer(undefined);
        response.destroy();
      });
      // Also when the server closes in the middle of a body.
      response.on('error', fail);
      response.on('end', () => answer(Buffer.concat(chunks).toString('utf8')));
    });
    request.on('socket', (socket) => {
      socket.once('connect', () => {
        isConnected = true;
        socket.setKeepAlive(true, KEEP_ALIVE_MS);
      });
    });
    request.on('error', fail);
    request.end(payload);
  });
}
