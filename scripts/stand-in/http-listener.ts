import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface ApiResult {
  status: number;
  type?: string;
  body?: string | Buffer;
  headers?: Record<string, string>;
}
export type HttpHandler = (request: IncomingMessage, url: URL) => Promise<ApiResult> | ApiResult;

export const json = (value: unknown, status = 200): ApiResult => ({
  status,
  type: 'application/json; charset=utf-8',
  body: JSON.stringify(value),
});
export const text = (body: string, status = 200): ApiResult => ({ status, type: 'text/plain', body });
export const html = (body: string, status = 200): ApiResult => ({ status, type: 'text/html', body });
export const noContent: ApiResult = { status: 204 };

/** Loopback only: the stand-in has no business on any other interface. */
const HOST = '127.0.0.1';

/** A port that can be opened and closed; both of the server's faces, the setup one and the main one, are such a port. */
export class HttpListener {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async open(port: number, handler: HttpHandler): Promise<HttpListener> {
    const server = createServer((request, response) => void answer(request, response, handler));
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, HOST, resolve);
    });
    return new HttpListener(server);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** The port refuses at once; requests that are being answered get `graceMs` to finish. */
  async close(graceMs: number): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeIdleConnections();
    const deadline = setTimeout(() => this.#server.closeAllConnections(), graceMs);
    await closed;
    clearTimeout(deadline);
  }
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  handler: HttpHandler,
): Promise<void> {
  const { status, type, body, headers } = await handler(request, urlOf(request));
  if (response.destroyed) return;
  response.writeHead(status, {
    ...(type && { 'content-type': type }),
    ...headers,
    'content-length': byteLength(body),
  });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** A target that is no URL is treated as a path that does not exist. */
function urlOf(request: IncomingMessage): URL {
  const base = `http://${HOST}`;
  const target = request.url ?? '/';
  return URL.canParse(target, base) ? new URL(target, base) : new URL('/unparsable-target', base);
}

const byteLength = (body: string | Buffer | undefined): number =>
  body === undefined ? 0 : Buffer.byteLength(body);
