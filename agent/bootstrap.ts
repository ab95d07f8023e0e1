import { MOUNT } from './contract.ts';
import { AgentError, InterruptedError } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock, JellyfinSetup } from './ports.ts';
import type { Secret } from './secret.ts';

export interface Administrator {
  name: string;
  password: Secret;
}

export type BootstrapResult = 'completed' | 'already_configured' | 'failed';

const ATTEMPTS = 5;
const WAIT_MS = 2_000;
const LIBRARY = { name: 'Media', path: MOUNT.media };

/**
 * Completes the setup wizard of a brand-new server before anybody else does: until then whoever reaches the address may
 * become its administrator (facts/jellyfin.md 2.6).
 *
 * The last call is the one that closes the wizard, so a start that is killed anywhere before it does all of it again, and a
 * configured server is never touched.
 */
async function attempt(
  setup: JellyfinSetup,
  admin: Administrator,
  log: Logger,
  signal: AbortSignal,
): Promise<BootstrapResult> {
  const isDone = await setup.wizardCompleted(signal);
  if (isDone === undefined)
    throw new AgentError('jellyfin_unavailable', 'the server does not say whether its wizard is done');
  if (isDone) return 'already_configured';
  const isOurs = await setup.createAdministrator(admin, signal);
  // Jellyfin 12 lets nobody replace a password: it is ours, from a start that was killed, or somebody was faster.
  if (!isOurs && !(await setup.canSignIn(admin, signal))) {
    throw new AgentError('jellyfin_unavailable', 'the first user already has another password', {
      hint: 'somebody else is setting this server up; finish its wizard by hand or start over with an empty volume',
    });
  }
  if (!(await setup.libraryNames(signal)).includes(LIBRARY.name)) {
    await setup.addLibrary(LIBRARY, signal).catch((error: unknown) => {
      // A library can be added by hand at any time; an open wizard cannot wait.
      log.warn('library not added', { ...LIBRARY, ...errorFields(error) });
    });
  }
  await setup.finishWizard(signal);
  return 'completed';
}

/** Never throws for the server: a wizard that stays open is loud, and no reason not to back up. */
export async function bootstrap(
  deps: { setup: JellyfinSetup; clock: Clock; log: Logger },
  admin: Administrator,
  signal: AbortSignal,
): Promise<BootstrapResult> {
  const { clock, log, setup } = deps;
  for (let count = 1; count <= ATTEMPTS; count += 1) {
    try {
      const result = await attempt(setup, admin, log, signal);
      if (result === 'completed') log.info('setup wizard completed');
      return result;
    } catch (error) {
      if (error instanceof InterruptedError || signal.aborted) return 'failed';
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
