import type { AgentConfig } from '../config.ts';
import type { Logger } from '../log.ts';
import type { ApiKeySource, BackupEngine } from '../runner/engine.ts';
import { findBinary } from './find-binary.ts';
import { HttpBackupEngine } from './http-engine.ts';
import { JellyrollerEngine } from './jellyroller-engine.ts';

/** Where a PATH that is not set leads. */
const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

/**
 * The driver that the configuration asks for: `cli` is JellyRoller, or Jellyfin's API where there is no such program.
 * Says once which, and why.
 * @param outside.homeDir A folder of our own for JellyRoller's configuration.
 */
export async function chooseEngine(
  config: Pick<
    AgentConfig,
    'jellyfinUrl' | 'jellyrollerDriver' | 'jellyrollerBin' | 'jellyrollerTimeoutSeconds'
  >,
  outside: { apiKey: ApiKeySource; homeDir: string; path: string | undefined; log: Logger },
): Promise<BackupEngine> {
  const { jellyfinUrl: baseUrl, jellyrollerBin: bin } = config;
  const { apiKey, homeDir, log, path = DEFAULT_PATH } = outside;
  const createTimeoutMs = config.jellyrollerTimeoutSeconds * 1000;
  const http = () => new HttpBackupEngine({ baseUrl, apiKey, createTimeoutMs });
  const msg = 'backup engine chosen';
  if (config.jellyrollerDriver === 'http') {
    log.info(msg, { driver: 'http', reason: 'configured' });
    return http();
  }
  const binary = await findBinary(bin, path);
  if (binary === undefined) {
    log.warn(msg, { driver: 'http', reason: 'no jellyroller binary', bin, path });
    return http();
  }
  log.info(msg, { driver: 'jellyroller', reason: 'configured', binary });
  return new JellyrollerEngine({ binary, baseUrl, apiKey, homeDir, path, createTimeoutMs }, log);
}
