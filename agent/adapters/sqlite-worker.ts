import { parentPort } from 'node:worker_threads';
import { runSqlite, type SqliteRequest } from './sqlite-operations.ts';

/** The body of a thread that answers one request after the other, until it is ended. */
async function answer(request: SqliteRequest): Promise<void> {
  try {
    parentPort?.postMessage({ result: await runSqlite(request) });
  } catch (error) {
    parentPort?.postMessage({ error: { message: error instanceof Error ? error.message : String(error) } });
  }
}

parentPort?.on('message', (request: SqliteRequest) => void answer(request));
