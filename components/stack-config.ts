import * as pulumi from '@pulumi/pulumi';
import { readKeys, type ConfigKeys } from './config-keys.ts';
import { ConfigError, ConfigReader, type Get } from './config-reader.ts';
import { checkCombinations, checkJellyrollerVersion, checkSizes } from './config-rules.ts';
import { jellyfinVersionOf, parseImageRef } from './image-ref.ts';
import { totalOf, type Size } from './sizing.ts';

/** Everything a stack can say, checked. Meaning and defaults: `Pulumi.yaml`; this file has none. */
export type StackConfig = Readonly<ConfigKeys> & {
  /** The Jellyfin version that the image's tag names: the version gate of a restore. */
  readonly jellyfinVersion: string;
  /** Sum over the app containers, the runner included when it is on. */
  readonly total: Size;
};

/**
 * Checks a whole configuration and returns it frozen.
 *
 * @param get the text of a key, `undefined` when it is not set; `azure-native:location` with its namespace
 * @param isSecret whether the stack file holds the key encrypted
 * @throws ConfigError with every problem at once: key, rule, reason and value (never the value of a secret)
 */
export function parseStackConfig(get: Get, isSecret: (key: string) => boolean): StackConfig {
  const read = new ConfigReader(get);
  const keys = readKeys(read, get, isSecret);
  const sizes = [keys.jellyfin, keys.agent, ...(keys.jellyrollerEnabled ? [keys.jellyroller] : [])];
  const total = totalOf(sizes);
  checkSizes(read, keys, total);
  checkCombinations(read, keys);
  const image = parseImageRef(keys.jellyfinImage);
  const jellyfinVersion = image === undefined ? undefined : jellyfinVersionOf(image);
  checkJellyrollerVersion(read, keys, jellyfinVersion);
  if (read.problems.length > 0) throw new ConfigError(read.problems);
  return deepFreeze({ ...keys, jellyfinVersion: jellyfinVersion ?? '', total });
}

// The SDK has it but does not declare it; a version without it reads every key as secret, which only drops one check.
const { isConfigSecret } = pulumi.runtime as { isConfigSecret?: (key: string) => boolean };

/** The one reader of `pulumi.Config`. The API key is the only secret key and comes back as a secret output. */
export function readStackConfig(): {
  config: StackConfig;
  jellyfinApiKey: pulumi.Output<string> | undefined;
} {
  const project = pulumi.getProject();
  const fullKey = (key: string): string => (key.includes(':') ? key : `${project}:${key}`);
  // Not Config.get: it warns about secret keys, and this only tests the value; the secret itself is read below.
  const config = asRunError(() =>
    parseStackConfig(
      (key) => pulumi.runtime.getConfig(fullKey(key)),
      (key) => isConfigSecret?.(fullKey(key)) ?? true,
    ),
  );
  return {
    config,
    jellyfinApiKey: config.hasApiKey ? new pulumi.Config().requireSecret('jellyfinApiKey') : undefined,
  };
}

/** The CLI prints a RunError as its message alone; anything else with a stack, which says nothing to an operator. */
function asRunError<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof ConfigError) throw new pulumi.RunError(error.message);
    throw error;
  }
}

function deepFreeze<T extends object>(value: T): T {
  for (const child of Object.values(value))
    if (typeof child === 'object' && child !== null) deepFreeze(child as object);
  return Object.freeze(value);
}
