import { ensureApiKeyIn } from './api-key.ts';
import { AgentError, hasCode } from './errors.ts';
import { planLibraries } from './libraries.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock, Disk, JellyfinKeys, JellyfinServer, JellyfinSetup } from './ports.ts';
import type { Secret } from './secret.ts';
import { readMarker, writeMarker, type VolumeMarker } from './volume.ts';

export interface Administrator {
  name: string;
  password: Secret;
}

/**
 * `completed`: we closed the wizard, now or before a restart. `nothing_to_do`: not our server to set up, or done before.
 * `taken`: somebody else was faster. `failed`: the wizard is open, or may be; to be tried again.
 */
export type BootstrapResult = 'completed' | 'nothing_to_do' | 'taken' | 'failed';

export interface BootstrapDeps {
  server: JellyfinServer & JellyfinSetup & JellyfinKeys;
  disk: Disk;
  clock: Clock;
  log: Logger;
}

export interface BootstrapOptions {
  dataDir: string;
  /** As the server sees it. */
  mediaDir: string;
}

type Progress = VolumeMarker['bootstrap'];

const ATTEMPTS = 5;
const WAIT_MS = 2_000;
/** For all that comes after the wizard: the first backup waits for it. */
const FURNISH_MS = 60_000;

/**
 * Sets up a brand-new server before anybody else does: until its wizard is closed, whoever reaches the address may become
 * its administrator (facts/jellyfin.md 2.6).
 *
 * So only what safety demands comes before that: the administrator with a password. Libraries and the runner's key follow in
 * the administrator's session. The volume's marker says how far we came: written before the first call that changes
 * anything, so that a start that was killed anywhere goes on, and a wizard that somebody else closed is left alone.
 *
 * Only on a volume that began as a first boot: a wizard that shows on a restored one is a fault, and nobody's to complete.
 *
 * Never throws for the server: a wizard that stays open is loud, and no reason not to back up.
 */
export async function bootstrap(
  deps: BootstrapDeps,
  options: BootstrapOptions,
  admin: Administrator,
  signal: AbortSignal,
): Promise<BootstrapResult> {
  const { clock, log } = deps;
  const startedMs = clock.monotonicMs();
  const marker = await readMarker(deps.disk, options.dataDir);
  if (marker === undefined || marker === 'unreadable' || marker.origin !== 'first_boot')
    return 'nothing_to_do';
  if (marker.bootstrap === 'done') return 'nothing_to_do';
  const record = async (progress: Progress) => {
    const latest = await readMarker(deps.disk, options.dataDir);
    if (latest === undefined || latest === 'unreadable') return;
    await writeMarker(deps.disk, options.dataDir, { ...latest, ...(progress && { bootstrap: progress }) });
  };
  let progress = marker.bootstrap;
  for (let count = 1; count <= ATTEMPTS; count += 1) {
    try {
      const isClosed = await lookAtWizard(deps.server, progress, signal);
      if (isClosed && progress === undefined) return 'nothing_to_do';
      if (!isClosed) {
        if (progress === undefined) await record((progress = 'wizard'));
        await closeWizard(deps.server, admin, signal);
      }
      const session = await deps.server.signIn(admin, signal);
      if (progress === 'wizard') {
        await record('libraries');
        log.info('setup wizard completed', { tookMs: Math.round(clock.monotonicMs() - startedMs) });
      }
      try {
        if (await furnish(deps, options.mediaDir, session, signal)) await record('done');
      } finally {
        await deps.server.signOut(session, signal).catch(() => undefined);
      }
      return 'completed';
    } catch (error) {
      if (signal.aborted) return 'failed';
      if (hasCode(error, 'external_failed')) return await stayAway(deps, progress, record, error, signal);
      if (count === ATTEMPTS) {
        log.error(
          'setup wizard not completed: whoever opens the server may become its administrator',
          errorFields(error),
        );
      } else {
        await clock.sleep(WAIT_MS, signal);
      }
    }
  }
  return 'failed';
}

/** @returns whether the wizard is closed. Asked only of a healthy server: a starting one says no whatever it is. */
async function lookAtWizard(
  server: BootstrapDeps['server'],
  progress: Progress,
  signal: AbortSignal,
): Promise<boolean> {
  const isHealthy = (await server.health(signal)) === 'healthy';
  const isClosed = isHealthy ? await server.wizardCompleted(signal) : undefined;
  if (isClosed === undefined) {
    throw new AgentError('jellyfin_unavailable', 'the server does not say whether its wizard is done', {
      retryable: true,
    });
  }
  if (!isClosed && progress === 'libraries') {
    throw new AgentError('external_failed', 'the wizard that was closed is open again', {
      hint: 'the server lost its system.xml: restart the replica, the last backup has it',
    });
  }
  return isClosed;
}

async function closeWizard(
  server: BootstrapDeps['server'],
  admin: Administrator,
  signal: AbortSignal,
): Promise<void> {
  if (!(await server.createAdministrator(admin, signal))) {
    // Jellyfin 12 lets nobody replace a password: it is ours, from a start that was killed, or somebody was faster.
    const session = await server.signIn(admin, signal);
    await server.signOut(session, signal).catch(() => undefined);
  }
  await server.finishWizard(signal);
}

/** The server refuses us: not one more call that changes anything. */
async function stayAway(
  { log, server }: BootstrapDeps,
  progress: Progress,
  record: (progress: Progress) => Promise<void>,
  error: AgentError,
  signal: AbortSignal,
): Promise<BootstrapResult> {
  const isClosed = await server.wizardCompleted(signal).catch(() => undefined);
  if (progress === 'libraries' && isClosed === true) {
    log.warn('bootstrap not finished: the administrator has another password by now', errorFields(error));
    await record('done');
    return 'nothing_to_do';
  }
  log.error('setup taken over: somebody else is setting this server up', {
    wizard: isClosed === true ? 'closed' : 'open',
    ...errorFields(error),
    hint:
      isClosed === true
        ? 'if that was not you: stop the app, empty the backup container, set allowedIpRanges, start again'
        : 'finish the wizard by hand, or start over with an empty volume and allowedIpRanges',
  });
  if (isClosed === true) await record('done');
  return 'taken';
}

/**
 * What the wizard would have asked for besides the administrator. One step's failure stops no other: a person can do each of
 * them by hand, and the first backup does not wait for ever.
 * @returns whether everything is there; if not, the next start of the sidecar on this volume goes on.
 */
async function furnish(
  { server, clock, log }: BootstrapDeps,
  mediaDir: string,
  session: Secret,
  signal: AbortSignal,
): Promise<boolean> {
  const bounded = AbortSignal.any([signal, AbortSignal.timeout(FURNISH_MS)]);
  const steps: Record<string, () => Promise<unknown>> = {
    'server settings': () => server.configureServer(session, bounded),
    libraries: async () => {
      const folders = await server.folders(session, mediaDir, bounded);
      const { add, leftOut } = planLibraries(mediaDir, folders, await server.libraries(session, bounded));
      for (const library of add) await server.addLibrary(session, library, bounded);
      const names = add.map(({ name }) => name);
      log.info('libraries added', { names, ...(leftOut.length === 0 ? {} : { leftOut }) });
    },
    'API key': () => ensureApiKeyIn(server, session, bounded),
  };
  let isComplete = true;
  for (const [step, run] of Object.entries(steps)) {
    // Twice: each step begins by looking what is there.
    await run()
      .catch(async () => {
        await clock.sleep(WAIT_MS, bounded);
        await run();
      })
      .catch((error: unknown) => {
        isComplete = false;
        if (!signal.aborted)
          log.warn('bootstrap step failed: it is to be done by hand', { step, ...errorFields(error) });
      });
  }
  return isComplete;
}
