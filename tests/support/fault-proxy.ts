import { Agent, createServer, request as httpRequest } from 'node:http';
import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { connectionStringFor } from './azurite.ts';
import { describeRequest, type BlobOperation, type BlobRequest } from './blob-request.ts';
import { errorXml, pageOf, PROXY_MARKER, reSigned, withPage, type ListPage } from './blob-wire.ts';
import { onCleanUp } from './clean-up.ts';

export type { BlobOperation, BlobRequest } from './blob-request.ts';

/** Before: the store never hears of the request. After: the store did the work, the client does not learn of it. */
export type When = 'before' | 'after';

export type Fault =
  | { kind: 'status'; status: number; code?: string; retryAfterSeconds?: number; when?: When }
  | { kind: 'delay'; ms: number; when?: When }
  /** No answer until the client gives up. */
  | { kind: 'hang'; when?: When }
  | { kind: 'reset'; when: When }
  /** The client's connection is reset at once, and the store gets the request `ms` later: a write from the grave. */
  | { kind: 'late'; ms: number }
  /** The whole Content-Length is promised, `afterBytes` arrive, the connection closes. */
  | { kind: 'truncate'; afterBytes: number }
  /** The same, but the connection stays open. */
  | { kind: 'stall'; afterBytes: number }
  /** One byte of the body flipped. @default the one in the middle */
  | { kind: 'corrupt'; offset?: number }
  | ListFault
  /** For killing a process exactly here. `drop`: go no further, the client's connection is reset. */
  | { kind: 'hook'; when: When; run: (request: BlobRequest) => HookResult | Promise<HookResult> };
type HookResult = 'drop' | void;

/** What a listing may look like although the blobs are the same. Do not limit it by `times`: it spans pages. */
export interface ListFault {
  kind: 'list';
  /** Forces paging, with the store's own markers. */
  pageSize?: number;
  /** Every page begins with the entries of the page before. */
  duplicatePages?: boolean;
  reversePages?: boolean;
  /** Before every page comes an empty one with a marker, as the service may answer at any time. */
  emptyPages?: boolean;
  /** Anything else: gets and returns the `<Blob>…</Blob>` texts of a page. */
  entries?: (entries: readonly string[]) => readonly string[];
}

export type Match =
  | ((request: BlobRequest) => boolean)
  | {
      operation?: BlobOperation | readonly BlobOperation[];
      /** The blob's name. */
      name?: string | RegExp;
      container?: string;
      /** Only the n-th request that fits the rest, from 1. */
      nth?: number;
    };

/** A fault, some of them in this order, or a decision per request (`undefined`: this rule does not want it). */
export type FaultChoice = Fault | readonly Fault[] | ((request: BlobRequest) => Fault | undefined);

export interface Rule {
  readonly match: Match;
  readonly fault: FaultChoice;
  readonly times: number;
  /** Requests that fitted, whether or not their turn was the one. */
  readonly seen: number;
  /** Requests that got the fault. */
  readonly hits: number;
  remove(): void;
}

export interface FaultProxy {
  readonly port: number;
  /** Azurite's account, reached through this proxy. */
  readonly connectionString: string;
  readonly rules: readonly Rule[];
  /** Every request so far, in the order of arrival. */
  readonly requests: readonly BlobRequest[];
  /** Adds a rule. The first rule that wants a request gets it. @default times Infinity */
  on(match: Match, fault: FaultChoice, options?: { times?: number }): Rule;
  /** Removes all rules and forgets the requests. */
  clear(): void;
  count(match: Match): number;
  /** The next request that fits, from now on, at its arrival (before any fault and before it is forwarded). */
  nextRequest(match: Match, timeoutMs?: number): Promise<BlobRequest>;
  /** An outage in which nobody listens: ECONNREFUSED until `acceptConnections`. */
  refuseConnections(): Promise<void>;
  acceptConnections(): Promise<void>;
  /** Resolves when nothing is under way between proxy and store, late requests included. */
  idle(): Promise<void>;
  stop(): Promise<void>;
}

const DEFAULT_CODE: Readonly<Record<number, string>> = {
  400: 'InvalidHeaderValue',
  403: 'AuthorizationPermissionMismatch',
  404: 'BlobNotFound',
  409: 'BlobAlreadyExists',
  412: 'ConditionNotMet',
  429: 'TooManyRequests',
  500: 'InternalError',
  503: 'ServerBusy',
};

interface RuleState extends Rule {
  seen: number;
  hits: number;
  /** What was on the page that ended with this marker. */
  pages: Map<string, readonly string[]>;
}

/** The client's connection is gone (its doing or ours): nothing more to do for this exchange. */
const GONE = Symbol('gone');

/** A loopback HTTP proxy in front of Azurite's `targetPort` that breaks requests by rule. */
export async function startFaultProxy(targetPort: number): Promise<FaultProxy> {
  let rules: RuleState[] = [];
  const requests: BlobRequest[] = [];
  const waiting = new Set<(request: BlobRequest) => void>();
  const underWay = new Set<Promise<unknown>>();
  let arrived = 0;
  // Azurite drops idle connections after 5 s; ours go first, so that no request meets a closing one.
  const agent = new Agent({ keepAlive: true, timeout: 2000 });

  const choose = (request: BlobRequest): { rule: RuleState; faults: readonly Fault[] } | undefined => {
    let chosen: { rule: RuleState; faults: readonly Fault[] } | undefined;
    for (const rule of rules) {
      if (!fits(rule.match, request)) continue;
      rule.seen += 1;
      const nth = typeof rule.match === 'function' ? undefined : rule.match.nth;
      if (chosen || rule.hits >= rule.times || (nth !== undefined && nth !== rule.seen)) continue;
      const fault = typeof rule.fault === 'function' ? rule.fault(request) : rule.fault;
      if (fault === undefined) continue;
      rule.hits += 1;
      chosen = { rule, faults: Array.isArray(fault) ? (fault as readonly Fault[]) : [fault as Fault] };
    }
    return chosen;
  };

  /** Sends the request on; `body` instead of the client's stream where the client is not waited for. */
  const forward = (
    request: BlobRequest,
    incoming: IncomingMessage,
    page: ListPage | undefined,
    body?: Buffer,
  ): Promise<IncomingMessage> => {
    const { path, headers } = page ? reSigned(incoming, page) : plain(incoming);
    const answer = new Promise<IncomingMessage>((resolve, reject) => {
      const options = { port: targetPort, host: '127.0.0.1', method: request.method, path, headers, agent };
      const outgoing = httpRequest(options, (response) => {
        request.storeStatus = response.statusCode;
        resolve(response);
      });
      outgoing.on('error', reject);
      request.isForwarded = true;
      if (body) return void outgoing.end(body);
      // A client that dies in the middle of its body: the store must see a cut-off request, not a complete one.
      incoming.on('close', () => {
        if (!incoming.complete) outgoing.destroy(new Error('the client went away'));
      });
      incoming.pipe(outgoing);
    });
    const settled = answer.catch(() => undefined).finally(() => underWay.delete(settled));
    underWay.add(settled);
    return answer;
  };

  const exchange = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const request = describeRequest(incoming, ++arrived);
    requests.push(request);
    for (const listener of [...waiting]) listener(request);
    const chosen = choose(request);
    const faults = chosen?.faults ?? [];
    request.faults = faults.map(({ kind }) => kind);

    if ((await apply('before', faults, request, incoming, response)) === GONE) return;
    const late = faults.find((fault) => fault.kind === 'late');
    if (late?.kind === 'late') return sendLate(late.ms, request, incoming, response);
    // Killed or timed out while we waited: what had not left for the store does not leave.
    if (response.destroyed || incoming.socket.destroyed) return;

    const list = faults.find((fault) => fault.kind === 'list');
    const isList = request.operation === 'ListBlobs';
    const page = isList ? pageOf(request, list) : undefined;
    const upstream = await forward(request, incoming, page);
    if ((await apply('after', faults, request, incoming, response)) === GONE) return void upstream.resume();

    request.status = upstream.statusCode;
    if (page && upstream.statusCode === 200) {
      const remembered = chosen?.rule.pages ?? new Map<string, readonly string[]>();
      const body = Buffer.from(withPage(await text(upstream), page, list, remembered));
      const headers = { ...upstream.headers, 'content-length': String(body.length) };
      delete (headers as OutgoingHttpHeaders)['transfer-encoding'];
      response.writeHead(200, headers).end(body);
    } else {
      await sendBody(upstream, response, faults);
    }
  };

  const sendLate = async (
    ms: number,
    request: BlobRequest,
    incoming: IncomingMessage,
    response: ServerResponse,
  ) => {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const sent = sleep(ms)
      .then(() => forward(request, incoming, undefined, Buffer.concat(chunks)))
      .then((upstream) => void upstream.resume())
      .finally(() => underWay.delete(sent));
    sent.catch(() => undefined);
    underWay.add(sent);
    cutOff(response);
  };

  const server = createServer((incoming, response) => {
    incoming.on('error', () => {});
    response.on('error', () => {});
    // The store is gone, or the client in the middle of its request: the client sees a broken connection either way.
    exchange(incoming, response).catch(() => cutOff(response));
  });
  // A proxy that closes idle connections by itself would inject resets that no rule asked for.
  server.keepAliveTimeout = 0;
  server.requestTimeout = 0;
  server.headersTimeout = 0;
  const listen = (port: number) =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject).listen(port, '127.0.0.1', () => {
        server.off('error', reject);
        resolve();
      });
    });
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve());
      server.closeAllConnections();
    });

  await listen(0);
  const { port } = server.address() as AddressInfo;
  const stop = async () => {
    forget();
    rules = [];
    if (server.listening) await close();
    agent.destroy();
  };
  const forget = onCleanUp('servers', stop);

  return {
    port,
    connectionString: connectionStringFor(port),
    get rules() {
      return rules;
    },
    requests,
    on(match, fault, options = {}) {
      const rule: RuleState = {
        match,
        fault,
        times: options.times ?? Infinity,
        seen: 0,
        hits: 0,
        pages: new Map(),
        remove: () => void (rules = rules.filter((other) => other !== rule)),
      };
      rules.push(rule);
      return rule;
    },
    clear() {
      rules = [];
      requests.length = 0;
    },
    count: (match) => requests.filter((request) => fits(match, request)).length,
    nextRequest: (match, timeoutMs = 10_000) =>
      new Promise((resolve, reject) => {
        const look = (request: BlobRequest) => {
          if (!fits(match, request)) return;
          waiting.delete(look);
          clearTimeout(timer);
          resolve(request);
        };
        const timer = setTimeout(() => {
          waiting.delete(look);
          reject(new Error(`no such request within ${timeoutMs} ms, of ${requests.length} in all`));
        }, timeoutMs);
        waiting.add(look);
      }),
    refuseConnections: close,
    acceptConnections: () => listen(port),
    async idle() {
      while (underWay.size > 0) await Promise.allSettled([...underWay]);
    },
    stop,
  };
}

/** The faults that do not need the store's answer. Returns GONE if there is nobody left to answer. */
async function apply(
  when: When,
  faults: readonly Fault[],
  request: BlobRequest,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<typeof GONE | undefined> {
  for (const fault of faults) {
    if (!('when' in fault ? (fault.when ?? 'before') === when : when === 'before')) continue;
    switch (fault.kind) {
      case 'delay':
        await sleep(fault.ms);
        break;
      case 'hook':
        if ((await fault.run(request)) === 'drop') {
          cutOff(response);
          return GONE;
        }
        break;
      case 'status':
        await answer(fault, request, incoming, response);
        return GONE;
      case 'hang':
        incoming.resume();
        return GONE;
      case 'reset':
        cutOff(response);
        return GONE;
      default:
        // Works on the body or the listing, later.
        break;
    }
  }
  return undefined;
}

async function answer(
  fault: Extract<Fault, { kind: 'status' }>,
  request: BlobRequest,
  incoming: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  // An answer before the body has been read would break the connection, which is another fault.
  if (!incoming.complete) {
    incoming.resume();
    await new Promise((resolve) => incoming.once('end', resolve).once('close', resolve));
  }
  request.status = fault.status;
  const code = fault.code ?? DEFAULT_CODE[fault.status] ?? 'InternalError';
  const body = Buffer.from(errorXml(code, request.index));
  response.writeHead(fault.status, {
    'content-type': 'application/xml',
    'content-length': String(body.length),
    'x-ms-error-code': code,
    'x-ms-request-id': `fault-proxy-${request.index}`,
    'x-ms-version': '2025-11-05',
    ...(fault.retryAfterSeconds !== undefined ? { 'retry-after': String(fault.retryAfterSeconds) } : {}),
  });
  response.end(incoming.method === 'HEAD' ? undefined : body);
}

async function sendBody(
  upstream: IncomingMessage,
  response: ServerResponse,
  faults: readonly Fault[],
): Promise<void> {
  response.writeHead(upstream.statusCode ?? 502, withoutConnection(upstream.rawHeaders));
  response.flushHeaders();
  const promised = Number(upstream.headers['content-length'] ?? Infinity);
  let flipAt = -1;
  let cutAt = Infinity;
  let isStalled = false;
  for (const fault of faults) {
    // A fault beyond the end of the body would be none, and the test would not notice: keep it inside.
    if (fault.kind === 'corrupt') flipAt = Math.min(fault.offset ?? Math.floor(promised / 2), promised - 1);
    if (fault.kind !== 'truncate' && fault.kind !== 'stall') continue;
    cutAt = Math.max(0, Math.min(fault.afterBytes, promised - 1));
    isStalled = fault.kind === 'stall';
  }
  const cut = () => {
    upstream.destroy();
    // Not a reset: what was sent must arrive before the end does.
    if (!isStalled) response.socket?.destroySoon();
  };
  if (cutAt === 0) return cut();

  let sent = 0;
  try {
    for await (const data of upstream) {
      const chunk = data as Buffer;
      if (flipAt >= sent && flipAt < sent + chunk.length)
        chunk[flipAt - sent] = (chunk[flipAt - sent] ?? 0) ^ 0xff;
      const part = chunk.subarray(0, cutAt - sent);
      sent += part.length;
      if (!response.write(part) && !response.destroyed) {
        await new Promise((resolve) => response.once('drain', resolve).once('close', resolve));
      }
      if (response.destroyed) return void upstream.destroy();
      if (sent >= cutAt) return cut();
    }
  } catch {
    // The store broke off in the middle: pass exactly that on.
    response.destroy();
  }
  response.end();
}

function fits(match: Match, request: BlobRequest): boolean {
  if (typeof match === 'function') return match(request);
  const { operation, name, container } = match;
  if (operation !== undefined && ![operation].flat().includes(request.operation)) return false;
  if (container !== undefined && container !== request.container) return false;
  if (name === undefined) return true;
  return typeof name === 'string' ? name === request.name : name.test(request.name ?? '');
}

function plain(incoming: IncomingMessage): { path: string; headers: string[] } {
  return { path: incoming.url ?? '/', headers: withoutConnection(incoming.rawHeaders) };
}

/** Headers that belong to one connection, not to the message. The rest stays as signed, `Host` too. */
function withoutConnection(raw: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (!/^(connection|keep-alive)$/i.test(raw[i] ?? '')) kept.push(raw[i] ?? '', raw[i + 1] ?? '');
  }
  return kept;
}

function cutOff(response: ServerResponse): void {
  response.socket?.resetAndDestroy();
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

// The marker prefix is part of what a test may see in `requests`.
export { PROXY_MARKER };
