import { parentPort, workerData } from 'node:worker_threads';
import { runSqlite, type SqliteRequest } from './sqlite-operations.ts';

/** The body of a thread that answers the one request it was started for. */
async function answer(request: SqliteRequest): Promise<void> {
  try {
    parentPort?.postMessage({ result: await runSqlite(request) });
  } catch (error) {
    parentPort?.postMessage({ error: { message: error instanceof Error ? error.message : String(error) } });
  }
}

void answer((workerData as { request: SqliteRequest }).request);
