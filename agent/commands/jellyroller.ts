import type { AgentConfig } from '../config.ts';
import { ENV } from '../contract.ts';
import { AgentError } from '../errors.ts';

/**
 * The gate of the loop: who starts it by hand on a stack without JellyRoller learns so, before anything is asked of the
 * server. Restoring an archive is a person's own wish and has no gate.
 * @throws AgentError `configuration_invalid`.
 */
export function requireEnabled(config: Pick<AgentConfig, 'jellyrollerEnabled'>): void {
  if (config.jellyrollerEnabled) return;
  throw new AgentError(
    'configuration_invalid',
    `${ENV.jellyrollerEnabled} must be "true" (JellyRoller is optional, and off by default); got "false"`,
    { hint: 'the tar backups of the container backup-agent do not need it' },
  );
}

/** @throws AgentError `configuration_invalid` when there is no way to an API key. */
export function requireKey(config: Pick<AgentConfig, 'jellyfinApiKey' | 'admin'>): void {
  if (config.jellyfinApiKey !== undefined || config.admin !== undefined) return;
  throw new AgentError(
    'configuration_invalid',
    `${ENV.jellyfinApiKey} must be set, or ${ENV.adminUser} and ${ENV.adminPassword} (Jellyfin's backup engine obeys administrators only); none is`,
  );
}
