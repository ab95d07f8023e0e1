import { AgentError } from '../errors.ts';
import { checkFileName, parseBackupList, parseCreated } from '../runner/backup-list.ts';
import type { ApiKeySource, BackupEngine, CreateAnswer, EngineBackup } from '../runner/engine.ts';
import { isUnsettled } from '../runner/server-status.ts';
import type { Secret } from '../secret.ts';
import { checkedKey } from './api-key-form.ts';
import { call, type HttpOutcome } from './http-call.ts';

/** All of what the engine offers, as `jellyroller create-backup` asks without flags. The database is in it whatever it says. */
const EVERYTHING = { Metadata: true, Trickplay: true, Subtitles: true, Database: true };

export interface HttpEngineOptions {
  /** With the server's BaseUrl if it has one, without a trailing slash. */
  baseUrl: string;
  apiKey: ApiKeySource;
  /** How long `create` waits for its answer, which comes when the archive is complete. */
  createTimeoutMs: number;
  /** @default 30,000 */
  callTimeoutMs?: number;
}

type Answered = Extract<HttpOutcome, { kind: 'answered' }>;
interface Question {
  method: 'GET' | 'POST';
  path: string;
  body?: unknown;
  timeoutMs: number;
}

/** Jellyfin's backup engine over its REST API (facts/jellyfin.md 4.1). */
export class HttpBackupEngine implements BackupEngine {
  readonly driver = 'http';
  readonly #baseUrl: string;
  readonly #apiKey: ApiKeySource;
  readonly #createTimeoutMs: number;
  readonly #callTimeoutMs: number;

  constructor({ baseUrl, apiKey, createTimeoutMs, callTimeoutMs }: HttpEngineOptions) {
    this.#baseUrl = baseUrl;
    this.#apiKey = apiKey;
    this.#createTimeoutMs = createTimeoutMs;
    this.#callTimeoutMs = callTimeoutMs ?? 30_000;
  }

  async list(signal?: AbortSignal): Promise<EngineBackup[]> {
    const what = 'GET /Backup';
    const question: Question = { method: 'GET', path: '/Backup', timeoutMs: this.#callTimeoutMs };
    const answer = answered(await this.#ask(question, signal), what, true, signal);
    if (answer.status === 200) return parseBackupList(textOf(answer, what), what);
    throw failed(what, answer);
  }

  async create(signal?: AbortSignal): Promise<CreateAnswer> {
    const what = 'POST /Backup/Create';
    const outcome = await this.#ask(
      { method: 'POST', path: '/Backup/Create', body: EVERYTHING, timeoutMs: this.#createTimeoutMs },
      signal,
    );
    if (outcome.kind === 'nobody') {
      signal?.throwIfAborted();
      return { kind: 'refused', why: `nobody listens: ${outcome.cause.message}`, isRetryable: true };
    }
    if (outcome.kind === 'lost') return { kind: 'unknown', why: `${what}: ${outcome.why}` };
    if (outcome.status === 200) {
      parseCreated(textOf(outcome, what), what);
      return { kind: 'done' };
    }
    const why = `${what} answered ${String(outcome.status)}`;
    if (isUnsettled(outcome.status)) return { kind: 'unknown', why };
    return { kind: 'refused', why, isRetryable: outcome.status >= 500 };
  }

  async restore(fileName: string, signal?: AbortSignal): Promise<void> {
    checkFileName(fileName);
    const what = 'POST /Backup/Restore';
    const body = { ArchiveFileName: fileName };
    const question: Question = {
      method: 'POST',
      path: '/Backup/Restore',
      body,
      timeoutMs: this.#callTimeoutMs,
    };
    const answer = answered(await this.#ask(question, signal), what, false, signal);
    if (answer.status === 204) return;
    if (answer.status === 404)
      throw new AgentError('backup_missing', `${fileName} is not in Jellyfin's backup folder`);
    throw failed(what, answer);
  }

  /** A refused key is asked for once more: a restore may have replaced all keys. What was refused has begun nothing. */
  async #ask(question: Question, signal: AbortSignal | undefined): Promise<HttpOutcome> {
    signal?.throwIfAborted();
    const key = await this.#apiKey(undefined, signal);
    const outcome = await this.#send(question, key, signal);
    if (outcome.kind !== 'answered' || outcome.status !== 401) return outcome;
    const other = await this.#apiKey(key, signal);
    return other.reveal() === key.reveal() ? outcome : this.#send(question, other, signal);
  }

  #send({ path, ...question }: Question, key: Secret, signal: AbortSignal | undefined): Promise<HttpOutcome> {
    // The one form that Jellyfin 12 still takes: it switches the older headers off (facts/jellyfin.md 6.1).
    const headers = { authorization: `MediaBrowser Token="${checkedKey(key)}"` };
    return call(`${this.#baseUrl}${path}`, { ...question, headers }, signal);
  }
}

/** @param isRepeatable Whether asking again does no harm when the answer to the first was lost. */
function answered(
  outcome: HttpOutcome,
  what: string,
  isRepeatable: boolean,
  signal: AbortSignal | undefined,
): Answered {
  if (outcome.kind === 'answered') return outcome;
  signal?.throwIfAborted();
  if (outcome.kind === 'nobody') {
    throw new AgentError('jellyfin_unavailable', `${what}: nobody listens`, {
      cause: outcome.cause,
      retryable: true,
    });
  }
  throw new AgentError('jellyfin_unavailable', `${what}: ${outcome.why}`, {
    cause: outcome.cause,
    retryable: isRepeatable,
  });
}

function textOf({ body }: Answered, what: string): string {
  if (body === undefined) throw new AgentError('external_failed', `${what} answered more than 4 MiB`);
  return body;
}

/** The answer's body is not repeated: on an error it is a page, and it may quote what was sent. */
function failed(what: string, { status, retryAfterMs }: Answered): AgentError {
  const message = `${what} answered ${String(status)}`;
  if (status === 401 || status === 403)
    return new AgentError('external_failed', message, { hint: 'the API key is not valid on this server' });
  if (status >= 500) {
    return new AgentError('jellyfin_unavailable', message, {
      retryable: true,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
  return new AgentError('external_failed', message, {
    hint: 'check JELLYFIN_URL (with its BaseUrl if the server has one) and that Jellyfin is 10.11 or later',
  });
}
