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

/**
 * SQLite through `node:sqlite`, each operation in a thread of its own: `quick_check` of a large library takes seconds, and
 * the main thread must hear SIGTERM and answer the liveness probe meanwhile. Not a child process: the platform sends
 * SIGTERM to every process of the container, children too (microsoft/azure-container-apps#1635).
 */
export class NodeSqlite implements DatabaseEngine {
  readonly #code: WorkerCode;
  readonly #options: NodeSqliteOptions;

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

  #run(request: SqliteRequest, signal?: AbortSignal): Promise<unknown> {
    const what = request.operation === 'snapshot' ? request.source : request.copy;
    return new Promise((resolve, reject) => {
      const failed = (message: string, cause?: unknown) => {
        reject(
          new AgentError('source_damaged', `${request.operation} ${what} failed: ${message}`, {
            cause,
            retryable: true,
          }),
        );
      };
      const isText = 'source' in this.#code;
      const worker = new Worker(isText ? this.#code.source : this.#code.file, {
        eval: isText,
        workerData: { request },
      });
      const timer = setTimeout(() => {
        failed(`no answer in ${String(DEADLINE_MS / 1000)} s`);
        void worker.terminate();
      }, DEADLINE_MS);
      const onAbort = () => {
        reject(signal?.reason as Error);
        void worker.terminate();
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      worker.once('message', (answer: { result?: unknown; error?: { message: string } }) => {
        if (answer.error === undefined) resolve(answer.result);
        else failed(answer.error.message);
      });
      worker.once('error', (error: Error) => {
        failed(error.message, error);
      });
      worker.once('exit', (code) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        failed(`the thread ended with code ${String(code)} before it answered`);
      });
    });
  }
}
