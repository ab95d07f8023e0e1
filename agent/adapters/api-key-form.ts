import { AgentError } from '../errors.ts';
import type { Secret } from '../secret.ts';

/**
 * Jellyfin makes keys of 32 hex digits; nothing of this needs an escape in a header, in TOML or in a URL,
 * and it is long enough to be taken out of an output without harm.
 */
const KEY = /^[\w.~+/=-]{8,256}$/;

/**
 * The key, when it can stand in a header and in a configuration file as it is.
 * @throws AgentError `configuration_invalid` without the value.
 */
export function checkedKey(key: Secret): string {
  const value = key.reveal();
  if (KEY.test(value)) return value;
  throw new AgentError(
    'configuration_invalid',
    'the API key must be 8 to 256 letters, digits or . _ ~ + / = - (it goes into a header as it is); got [redacted]',
  );
}
