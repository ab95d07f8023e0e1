import type { IncomingMessage } from 'node:http';
import type { Credentials } from './credentials.ts';
import { HttpError } from './http-error.ts';
import type { Caller } from './sessions.ts';

const BODY_LIMIT_BYTES = 30_000_000;

/** A request as the routes see it. Names of parameters and JSON properties are not case-sensitive. */
export class ApiRequest {
  readonly caller: Caller | undefined;
  readonly credentials: Credentials;
  readonly #params: ReadonlyMap<string, string>;
  readonly #query: URLSearchParams;
  readonly #contentType: string;
  readonly #body: Buffer;

  constructor(parts: {
    caller: Caller | undefined;
    credentials: Credentials;
    params: ReadonlyMap<string, string>;
    url: URL;
    contentType: string;
    body: Buffer;
  }) {
    this.caller = parts.caller;
    this.credentials = parts.credentials;
    this.#params = parts.params;
    this.#query = lowerCaseNames(parts.url.searchParams);
    this.#contentType = parts.contentType;
    this.#body = parts.body;
  }

  param(name: string): string {
    return this.#params.get(name) ?? '';
  }

  query(name: string): string | undefined {
    return this.#query.get(name.toLowerCase()) ?? undefined;
  }

  queryAll(name: string): string[] {
    return this.#query.getAll(name.toLowerCase());
  }

  /** A list is either repeated or separated by commas. */
  queryList(name: string): string[] {
    return this.queryAll(name)
      .flatMap((value) => value.split(','))
      .filter((value) => value !== '');
  }

  queryInteger(name: string, fallback: number): number {
    const value = this.query(name);
    if (value === undefined) return fallback;
    if (!/^\d+$/.test(value)) throw new HttpError(400, `The value '${value}' is not valid for ${name}.`);
    return Number(value);
  }

  get bytes(): Buffer {
    return this.#body;
  }

  json(): unknown {
    if (this.#body.length === 0) throw new HttpError(400, 'A non-empty request body is required.');
    if (!/^application\/(json|[\w.+-]*\+json)/i.test(this.#contentType)) {
      throw new HttpError(415, 'Unsupported Media Type');
    }
    try {
      return JSON.parse(this.#body.toString('utf8'));
    } catch (error) {
      throw new HttpError(400, (error as Error).message);
    }
  }

  jsonObject(): JsonObject {
    const value = this.json();
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new HttpError(400, 'The request body must be a JSON object.');
    }
    return new JsonObject(value as Record<string, unknown>);
  }
}

export class JsonObject {
  readonly #values: ReadonlyMap<string, unknown>;

  constructor(values: Record<string, unknown>) {
    this.#values = new Map(Object.entries(values).map(([name, value]) => [name.toLowerCase(), value]));
  }

  has(name: string): boolean {
    return this.#values.has(name.toLowerCase());
  }

  text(name: string): string | undefined {
    return this.#typed(name, 'string') as string | undefined;
  }

  flag(name: string): boolean | undefined {
    return this.#typed(name, 'boolean') as boolean | undefined;
  }

  number(name: string): number | undefined {
    return this.#typed(name, 'number') as number | undefined;
  }

  texts(name: string): string[] {
    const value = this.#values.get(name.toLowerCase());
    return Array.isArray(value) ? value.map(String) : [];
  }

  #typed(name: string, type: 'string' | 'boolean' | 'number'): unknown {
    const value = this.#values.get(name.toLowerCase());
    if (value === undefined || value === null) return undefined;
    if (typeof value !== type) throw new HttpError(400, `The JSON value of ${name} could not be converted.`);
    return value;
  }
}

export async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > BODY_LIMIT_BYTES) throw new HttpError(413, 'Request body too large.');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

export function lowerCaseNames(parameters: URLSearchParams): URLSearchParams {
  const lowered = new URLSearchParams();
  for (const [name, value] of parameters) lowered.append(name.toLowerCase(), value);
  return lowered;
}
