import { request, STATUS_CODES } from 'node:http';
import type { Config } from './jellyroller-config.ts';

export interface Answer {
  status: number;
  reason: string;
  text: string;
}

/** reqwest's default, which no flag of 1.1.5 changes. */
const TIMEOUT_MS = Number(process.env['STAND_IN_JELLYROLLER_TIMEOUT_MS'] ?? 30_000);
/** 1.1.4 misspells the header of every POST. */
const POST_HEADER =
  process.env['STAND_IN_JELLYROLLER_VERSION'] === '1.1.4' ? 'Authoriztion' : 'Authorization';

/** Undefined when there is no answer in time; refused, cut and late are one and the same to it. */
export function send(
  { server_url, api_key }: Config,
  method: 'GET' | 'POST',
  path: string,
  body?: string,
): Promise<Answer | undefined> {
  const headers = {
    [method === 'POST' ? POST_HEADER : 'Authorization']: `MediaBrowser Token="${api_key}"`,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body ?? ''),
  };
  return new Promise((resolve) => {
    const sent = request(`${server_url}${path}`, { agent: false, method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => {
        const status = response.statusCode ?? 0;
        resolve({ status, reason: STATUS_CODES[status] ?? '', text: Buffer.concat(chunks).toString('utf8') });
      });
      response.on('error', () => resolve(undefined));
    });
    sent.on('error', () => resolve(undefined));
    setTimeout(() => sent.destroy(new Error('timed out')), TIMEOUT_MS).unref();
    sent.end(body);
  });
}
