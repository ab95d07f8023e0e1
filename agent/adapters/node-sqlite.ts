import { Worker } from 'node:worker_threads';
import { AgentError } from '../errors.ts';
import type { DatabaseEngine, DatabaseFacts, DatabaseQuestion } from '../ports.ts';
import type { SqliteRequest } from './sqlite-operations.ts';

/** Where the thread's code is: a module file, or in the bundle its text. */
export type WorkerCode = { file: string } | { source: string };

export interface NodeSqliteOptions {
  /** How long a snapshot waits for a server that holds its database exclusively. @default 10000 */
  busyTimeoutMs?: number;
}

/** A copy of the largest database that fits the disk takes seconds; this ends one that waits for a lock for ever. */
const DEADLINE_MS = 15 * 60_000;

/** Its memory is wanted for the upload that follows. */
const IDLE_MS = 1_000;

/**
 * SQLite through `node:sqlite`, in a thread beside the main one: `quick_check` of a large library takes seconds, and the main
 * thread must hear SIGTERM and answer the liveness probe meanwhile. Not a child process: the platform sends SIGTERM to every
 * process of the container, children too (microsoft/azure-container-apps#1635).
 */
export class NodeSqlite implements DatabaseEngine {
  readonly #code: WorkerCode;
  readonly #options: NodeSqliteOptions;
  /** Waits for the next operation, for a moment. */
  #idle: Worker | undefined;
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(code: WorkerCode, options: NodeSqliteOptions = {}) {
    this.#code = code;
    this.#options = options;
  }

  async snapshot(source: string, target: string, signal?: AbortSignal): Promise<'copied' | 'not_a_database'> {
    return (await this.#run({ operation: 'snapshot', source, target, ...this.#options }, signal)) as
      'copied' | 'not_a_database';
  }

  async inspect(copy: string, questions: readonly DatabaseQuestion[]): Promise<DatabaseFacts> {
    const plain = questions.map(({ name, table, sql }) => ({ name, table, sql }));
    return (await this.#run({ operation: 'inspect', copy, questions: plain })) as DatabaseFacts;
  }

  async settle(copy: string, setWal: boolean): Promise<void> {
    await this.#run({ operation: 'settle', copy, setWal });
  }

  async compare(copy: string, earlier: string, signal?: AbortSignal): Promise<Record<string, number>> {
    return (await this.#run({ operation: 'compare', copy, earlier }, signal)) as Record<string, number>;
  }

  async #run(request: SqliteRequest, signal?: AbortSignal): Promise<unknown> {
    signal?.throwIfAborted();
    const worker = this.#take();
    const what = request.operation === 'snapshot' ? request.source : request.copy;
    const answered = await new Promise<{ result?: unknown; error?: { message: string } }>(
      (resolve, reject) => {
        const failed = (message: string, cause?: unknown) => {
          reject(failure(request, what, message, cause));
          // Whatever it still does, nobody waits for it.
          void worker.terminate();
        };
        const timer = setTimeout(() => {
          failed(`no answer in ${String(DEADLINE_MS / 1000)} s`);
        }, DEADLINE_MS);
        const onAbort = () => {
          reject(signal?.reason as Error);
          void worker.terminate();
        };
        const done = () => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          worker.off('message', onMessage).off('error', onError).off('exit', onExit);
        };
        const onMessage = (answer: { result?: unknown; error?: { message: string } }) => {
          done();
          resolve(answer);
        };
        const onError = (error: Error) => {
          failed(error.message, error);
        };
        const onExit = (code: number) => {
          done();
          failed(`the thread ended with code ${String(code)} before it answered`);
        };
        signal?.addEventListener('abort', onAbort, { once: true });
        worker.on('message', onMessage).on('error', onError).on('exit', onExit);
        worker.postMessage(request);
      },
    );
    this.#giveBack(worker);
    if (answered.error !== undefined) throw failure(request, what, answered.error.message);
    return answered.result;
  }

  #take(): Worker {
    const idle = this.#idle;
    this.#idle = undefined;
    clearTimeout(this.#idleTimer);
    if (idle !== undefined) {
      idle.ref();
      return idle;
    }
    return 'source' in this.#code
      ? new Worker(this.#code.source, { eval: true })
      : new Worker(this.#code.file);
  }

  /** A start asks three questions in a row, a backup more: a thread for each would cost 40 ms of a core, on a quarter of one. */
  #giveBack(worker: Worker): void {
    if (this.#idle !== undefined) {
      void worker.terminate();
      return;
    }
    this.#idle = worker;
    worker.unref();
    this.#idleTimer = setTimeout(() => {
      this.#idle = undefined;
      void worker.terminate();
    }, IDLE_MS).unref();
  }
}

function failure(request: SqliteRequest, what: string, message: string, cause?: unknown): AgentError {
  return new AgentError('source_damaged', `${request.operation} ${what} failed: ${message}`, {
    cause,
    retryable: true,
  });
}
