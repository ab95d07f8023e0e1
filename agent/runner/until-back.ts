import { AgentError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { Clock, JellyfinServer } from '../ports.ts';

/** The server is gone half a second after it accepted; a busy one takes its time to close. */
const GOING_DOWN_WITHIN_MS = 2 * 60_000;
/** A failed restore shows itself as ten minutes of an error page (facts/jellyroller.md 5); a large database takes its time. */
const BACK_WITHIN_MS = 20 * 60_000;
/** Short: a small server is back within a second, and was never seen to go. */
const POLL_MS = 50;
const PROGRESS_EVERY_MS = 30_000;
/**
 * Resolves when the server went down, or said `Degraded`, and is `Healthy` again.
 * @param startedMs When it was asked, on the clock's monotonic scale.
 * @throws AgentError `jellyfin_unavailable` when it was never seen to go (within 2 minutes), or is not back within 20.
 */
export async function untilBack(
  { clock, log, server }: { clock: Clock; log: Logger; server: JellyfinServer },
  startedMs: number,
  signal: AbortSignal,
): Promise<void> {
  let signsOfDown = 0;
  let last = '';
  let progressAtMs = startedMs + PROGRESS_EVERY_MS;
  for (;;) {
    const health = await server.health(signal);
    signal.throwIfAborted();
    const elapsedMs = Math.round(clock.monotonicMs() - startedMs);
    // Nobody listens: it is down. One late answer says only that it is busy.
    if (health !== 'healthy') signsOfDown += health === 'refused' ? 2 : 1;
    const wentDown = signsOfDown > 1;
    if (health !== last || clock.monotonicMs() >= progressAtMs) {
      progressAtMs = clock.monotonicMs() + PROGRESS_EVERY_MS;
      log.info('restore goes on', { server: health, elapsedMs });
    }
    last = health;
    if (wentDown && health === 'healthy') return;
    const hint =
      "Jellyfin's log says why; a failed restore may leave its database empty: restart the replica, and it starts from the newest tar backup";
    if (!wentDown && elapsedMs > GOING_DOWN_WITHIN_MS)
      throw new AgentError('jellyfin_unavailable', 'the server accepted the restore, but did not restart', {
        hint,
      });
    if (elapsedMs > BACK_WITHIN_MS)
      throw new AgentError(
        'jellyfin_unavailable',
        `the server did not come back within ${String(BACK_WITHIN_MS / 60_000)} minutes`,
        { hint },
      );
    await clock.sleep(POLL_MS, signal);
  }
}
