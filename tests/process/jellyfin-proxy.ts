import { createServer, request as httpRequest, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Who stands between the agent and a server, and may answer in its place. */
export interface ProxiedRequest {
  method: string;
  /** With the query. */
  path: string;
  body: string;
  atMs: number;
}

/**
 * What happens to a request. A number: answered with that status, the server never hears of it. `drop-before`,
 * `drop-after`: the connection is cut, the server did nothing, or did it all. Undefined: passed on.
 */
export type Verdict = number | 'drop-before' | 'drop-after' | undefined;

/** In front of a stand-in: what was asked, in order, and a say in every answer. */
export class JellyfinProxy {
  readonly requests: ProxiedRequest[] = [];
  /** Asked before the server sees the request; may take its time. */
  decide: (request: ProxiedRequest) => Verdict | Promise<Verdict> = () => undefined;
  readonly #server: Server;
  #target: string;

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((incoming, outgoing) => {
      const chunks: Buffer[] = [];
      incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
      incoming.on('end', () => {
        const body = Buffer.concat(chunks);
        const { method = 'GET', url: path = '/' } = incoming;
        const seen = { method, path, body: body.toString(), atMs: Date.now() };
        this.requests.push(seen);
        void Promise.resolve(this.decide(seen)).then((verdict) => {
          if (verdict === 'drop-before') return incoming.socket.destroy();
          if (typeof verdict === 'number') return outgoing.writeHead(verdict).end();
          const onward = httpRequest(
            `${this.#target}${path}`,
            { method, headers: incoming.headers, agent: false },
            (answer) => {
              if (verdict === 'drop-after') {
                answer.resume().on('end', () => incoming.socket.destroy());
                return;
              }
              outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
              answer.pipe(outgoing);
            },
          );
          onward.on('error', () => incoming.socket.destroy());
          onward.end(body);
          return undefined;
        });
      });
    });
  }

  static async start(target: string): Promise<JellyfinProxy> {
    const proxy = new JellyfinProxy(target);
    // A test that failed closes nothing.
    proxy.#server.unref();
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  /** Another server takes its place, as after a restart of the container. */
  pointTo(target: string): void {
    this.#target = target;
  }

  /** `METHOD /path` of all that may change something. */
  get changes(): string[] {
    return this.requests
      .filter(({ method }) => method !== 'GET')
      .map(({ method, path }) => `${method} ${path.split('?')[0] ?? ''}`);
  }

  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}
