import type { ActivityLog } from './activity.ts';
import type { Log } from './log.ts';
import type { Plugins } from './plugins.ts';

/** The small writes that a real server makes all the time, in its own database and in a plugin's. */
export class BackgroundWriter {
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(activity: ActivityLog, plugins: Plugins, log: Log, intervalMs: number) {
    if (intervalMs === 0) return;
    this.#timer = setInterval(() => {
      try {
        activity.record('StandInHeartbeat', 'background write');
        plugins.notePlayback('background write');
      } catch (error) {
        // A full disk or a lock that somebody holds does not end a server.
        log.error('Background write failed', error);
      }
    }, intervalMs);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
