import { createServer, type Server } from 'node:http';
import type { Logger } from '../log.ts';
import { errorFields } from '../log.ts';
import type { SidecarStatus } from '../sidecar.ts';

/** The loop comes round every few seconds, but not while it uploads; a restart in the middle of that would help nobody. */
const HUNG_AFTER_MS = 30 * 60_000;

/**
 * The sidecar's liveness: 200 while the loop comes round, 503 when it hangs. A port that is taken is logged, not fatal:
 * backups matter more than the probe.
 */
export async function serveHealth(
  address: { host: string; port: number },
  status: () => SidecarStatus,
  log: Logger,
): Promise<{ close: () => void }> {
  const server: Server = createServer((_request, response) => {
    const now = status();
    const isAlive = now.sinceTickMs < HUNG_AFTER_MS;
    response.writeHead(isAlive ? 200 : 503, { 'content-type': 'application/json', connection: 'close' });
    response.end(`${JSON.stringify({ alive: isAlive, ...now })}\n`);
  });
  await new Promise<void>((resolve) => {
    // `on`: a later error without a listener would end the process, backups and all.
    server.on('error', (error) => {
      log.warn('no liveness answer', { ...address, ...errorFields(error) });
      resolve();
    });
    server.listen(address.port, address.host, () => {
      resolve();
    });
  });
  server.unref();
  return {
    close: () => {
      server.close();
    },
  };
}
