import { randomUUID } from 'node:crypto';
import { chmod, lstat, mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../errors.ts';
import type { Secret } from '../secret.ts';
import { checkedKey } from './api-key-form.ts';

/** A basic string of TOML: the escapes that it has for quotes, backslashes and control characters. */
function tomlString(value: string): string {
  const escaped = value.replace(/["\\\p{Cc}]/gu, (character) =>
    character === '"' || character === '\\'
      ? `\\${character}`
      : `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return `"${escaped}"`;
}

/**
 * The address as JellyRoller wants it: it appends each path as it is, so without a trailing slash.
 * @throws AgentError `configuration_invalid`.
 */
export function checkedServerUrl(url: string): string {
  const stripped = url.replace(/\/+$/, '');
  if (!/["'\\\s\p{Cc}]/u.test(stripped)) return stripped;
  throw new AgentError(
    'configuration_invalid',
    `JELLYFIN_URL must be without quotes, backslashes and blanks (JellyRoller strips some and sends the others); got ${JSON.stringify(url)}`,
  );
}

/**
 * The six keys of `jellyroller.toml`. Without `status` it asks on the terminal; without `token` it makes a second
 * administrator's key on every run (facts/jellyroller.md 2).
 */
export function configText(serverUrl: string, key: Secret): string {
  return [
    'status = "configured"',
    'comfy = true',
    `server_url = ${tomlString(checkedServerUrl(serverUrl))}`,
    'os = "linux"',
    `api_key = ${tomlString(checkedKey(key))}`,
    'token = "apiKey"',
    '',
  ].join('\n');
}

/** Ours alone: what JellyRoller itself would write there takes the mode of its umask. */
async function makePrivate(dir: string): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const stat = await lstat(dir);
  if (!stat.isDirectory() || stat.uid !== process.getuid?.()) {
    throw new AgentError('target_unsafe', `${dir} must be a folder of our own: the API key is written there`);
  }
  await chmod(dir, 0o700);
}

/**
 * Lays the configuration down where JellyRoller looks for it when `homeDir` is both HOME and XDG_CONFIG_HOME.
 * A reader sees the old file or the new one.
 * @throws AgentError `target_unsafe` when the folder is somebody else's.
 */
export async function writeConfig(homeDir: string, text: string): Promise<void> {
  const dir = join(homeDir, 'jellyroller');
  await makePrivate(homeDir);
  await makePrivate(dir);
  const temporary = join(dir, `${randomUUID()}.tmp`);
  await writeFile(temporary, text, { mode: 0o600, flag: 'wx' });
  await rename(temporary, join(dir, 'jellyroller.toml'));
}
