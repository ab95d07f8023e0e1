import { join } from 'node:path';
import { parseStackConfig, type StackConfig } from '../../components/stack-config.ts';
import { configDefaults } from '../../scripts/project-config.ts';

export const PROJECT_DIR = join(__dirname, '..', '..');
export const DEFAULTS: Readonly<Record<string, string>> = {
  ...configDefaults(PROJECT_DIR),
  'azure-native:location': 'westeurope',
};
/** What must be said, besides the key itself, to turn JellyRoller on. */
export const JELLYROLLER = { jellyrollerEnabled: 'true', jellyrollerSha256: 'ab'.repeat(32) };

/** The configuration of a stack that sets only `overrides` and a region. */
export function stackConfig(
  overrides: Record<string, string | undefined> = {},
  secretKeys: string[] = [],
): StackConfig {
  const values: Record<string, string | undefined> = { ...DEFAULTS, ...overrides };
  return parseStackConfig(
    (key) => values[key],
    (key) => secretKeys.includes(key),
  );
}
