/** Pure: the probes. Nothing is left to the platform: its defaults are not applied on Consumption profiles. */
import { HEALTH_PATH, HEALTH_PORT } from '../agent/contract.ts';

/** Jellyfin's own port, and the ingress target. */
export const JELLYFIN_PORT = 8096;

export interface Probe {
  readonly type: 'Startup' | 'Readiness' | 'Liveness';
  readonly httpGet: { readonly path: string; readonly port: number };
  readonly initialDelaySeconds: number;
  readonly periodSeconds: number;
  readonly timeoutSeconds: number;
  readonly failureThreshold: number;
  readonly successThreshold: number;
}

// The API's specification says 1 to 10; only a longer period makes a longer window that is always accepted.
const MOST_FAILURES = 10;

/**
 * Startup: `/health` answers within seconds even while Jellyfin 10.11+ migrates ("Degraded", 200); a failed start
 * answers 503 for ten minutes and is restarted by this probe instead. Readiness keeps the ingress away until then.
 * Liveness is generous: a transcode that takes every core must not cost the viewer the film.
 *
 * @param startupTimeoutSeconds how long until the platform gives up on a start
 */
export function jellyfinProbes(startupTimeoutSeconds: number): Probe[] {
  const httpGet = { path: '/health', port: JELLYFIN_PORT };
  return [
    {
      type: 'Startup',
      httpGet,
      initialDelaySeconds: 5,
      periodSeconds: Math.ceil(startupTimeoutSeconds / MOST_FAILURES),
      timeoutSeconds: 5,
      failureThreshold: MOST_FAILURES,
      successThreshold: 1,
    },
    {
      type: 'Readiness',
      httpGet,
      initialDelaySeconds: 1,
      periodSeconds: 5,
      timeoutSeconds: 5,
      failureThreshold: 6,
      successThreshold: 1,
    },
    {
      type: 'Liveness',
      httpGet,
      initialDelaySeconds: 30,
      periodSeconds: 30,
      timeoutSeconds: 10,
      failureThreshold: 6,
      successThreshold: 1,
    },
  ];
}

/** The sidecar answers while its loop lives; five silent minutes mean that nothing is backed up any more. */
export function sidecarProbes(): Probe[] {
  return [
    {
      type: 'Liveness',
      httpGet: { path: HEALTH_PATH, port: HEALTH_PORT },
      initialDelaySeconds: 10,
      periodSeconds: 30,
      timeoutSeconds: 10,
      failureThreshold: 10,
      successThreshold: 1,
    },
  ];
}
