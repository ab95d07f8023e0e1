import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { ContainerClient } from '@azure/storage-blob';
import { configText, writeConfig } from '../../agent/adapters/jellyroller-config.ts';
import { LOG_MESSAGE } from '../../agent/contract.ts';
import { backupsDirOf } from '../../agent/runner/backup-folder.ts';
import { Secret } from '../../agent/secret.ts';
import { formatBytes } from '../../agent/table.ts';
import { runProcess, type OutputLine, type RunningProcess } from '../../tests/support/processes.ts';
import type { Report } from './report.ts';
import type { World } from './world.ts';

/** One run of the runner, by its own log. */
export interface Run {
  /** Of Jellyfin, in its folder. */
  fileName: string;
  /** The blob. */
  name: string;
  lines: readonly OutputLine[];
}

const RUN_WITHIN_MS = 60_000;
const messageOf = ({ json }: OutputLine): string => {
  const message = json?.['msg'];
  return typeof message === 'string' ? message : '';
};

/** The first run that begins from line `from` on, when it is over. @throws When it ends without an archive. */
export async function nextRun(report: Report, runner: RunningProcess, from: number): Promise<Run> {
  const isOver = (line: OutputLine) =>
    messageOf(line).startsWith(LOG_MESSAGE.backupStored) || messageOf(line) === LOG_MESSAGE.backupFailed;
  const begun = await runner.waitForLine((line) => messageOf(line) === 'run starts', RUN_WITHIN_MS, from);
  const first = runner.lines.indexOf(begun);
  const end = await runner.waitForLine(isOver, RUN_WITHIN_MS, first);
  const { archive, backup, err } = end.json ?? {};
  if (typeof archive !== 'string' || typeof backup !== 'string')
    throw new Error(`the runner made no archive: ${JSON.stringify(err)}`);
  const size = Number(/size_bytes=(\d+)/.exec(messageOf(end))?.[1]);
  report.event('runner', `${backup} stored, ${formatBytes(size)}, in ${String(end.json?.['durationMs'])} ms`);
  return {
    fileName: archive,
    name: backup,
    lines: runner.lines.slice(first, runner.lines.indexOf(end) + 1),
  };
}

/** Size and hash of a file; `undefined` where there is none. */
export async function fileOf(file: string): Promise<{ sizeBytes: number; sha256: string } | undefined> {
  if (!existsSync(file)) return undefined;
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return { sizeBytes: (await stat(file)).size, sha256: hash.digest('hex') };
}

export const localFile = (dataDir: string, { fileName }: Run): string =>
  join(backupsDirOf(dataDir), fileName);

/** What JellyRoller itself lists, asked with a key of the server. */
export async function getBackups(
  { dir, jellyfinPort, jellyroller }: World,
  key: string,
): Promise<{ fileName: string; serverVersion: string }[]> {
  const home = join(dir, 'home-of-jellyroller');
  await writeConfig(home, configText(`http://127.0.0.1:${String(jellyfinPort)}`, new Secret(key)));
  const { code, stdout, stderr } = await runProcess({
    command: jellyroller.bin,
    args: ['get-backups', '-o', 'json'],
    env: { HOME: home, XDG_CONFIG_HOME: home, PATH: '/usr/bin:/bin' },
  });
  if (code !== 0) throw new Error(`jellyroller get-backups exited ${String(code)}: ${stderr}`);
  return (JSON.parse(stdout) as { Path: string; ServerVersion: string }[]).map((backup) => ({
    fileName: backup.Path.split('/').at(-1) ?? '',
    serverVersion: backup.ServerVersion,
  }));
}

/** The archive as the store gives it back, in a file, with what the store says of it. */
export async function download(
  store: ContainerClient,
  name: string,
  file: string,
): Promise<{ sizeBytes: number; sha256: string; metadata: Record<string, string> }> {
  const { metadata = {} } = await store.getBlobClient(name).downloadToFile(file);
  return { ...((await fileOf(file)) ?? { sizeBytes: 0, sha256: '' }), metadata };
}

/** What is missing of the client's metadata, or is not as it should be. */
export function wrongMetadata(
  metadata: Readonly<Record<string, string>>,
  { sizeBytes, sha256 }: { sizeBytes: number; sha256: string },
  jellyfinVersion: string,
): string[] {
  const expected = {
    source: 'jellyroller',
    size: String(sizeBytes),
    sha256,
    jellyfin_version: jellyfinVersion,
  };
  const wrong = Object.entries(expected).flatMap(([key, value]) => (metadata[key] === value ? [] : [key]));
  return /^\d{4}-\d\d-\d\dT[\d:.]+Z$/.test(metadata['timestamp_utc'] ?? '')
    ? wrong
    : [...wrong, 'timestamp_utc'];
}

/** Each line that the client asks for, with the fields that it must have. */
const LOGGED: readonly (readonly [message: string, fields: readonly string[]])[] = [
  ['run starts', []],
  ['create starts', []],
  ['archive is complete', ['archive', 'sizeBytes', 'sha256', 'durationMs']],
  ['upload starts', ['archive', 'url']],
  ['stored and read back', ['url', 'sizeBytes', 'sha256', 'durationMs']],
  ['retention', ['kept', 'deleted']],
];

/** What the log of a run does not say, in the order in which it should. */
export function missingInLog(lines: readonly OutputLine[]): string[] {
  let from = 0;
  return LOGGED.flatMap(([message, fields]) => {
    const at = lines.findIndex((line, index) => index >= from && messageOf(line) === message);
    const line = lines[at];
    if (line === undefined) return [message];
    from = at;
    return fields.filter((field) => line.json?.[field] === undefined).map((field) => `${message}: ${field}`);
  });
}

/** Where a message stands among the lines of a run, -1 where it does not. */
export const placeOf = (lines: readonly OutputLine[], message: string): number =>
  lines.findIndex((line) => messageOf(line) === message);

/** Time between two lines of a log, in milliseconds; NaN where one is missing. */
export function betweenMs(lines: readonly OutputLine[], earlier: string, later: string): number {
  const timeOf = (message: string) => Date.parse(String(lines[placeOf(lines, message)]?.json?.['time']));
  return timeOf(later) - timeOf(earlier);
}

/** The runner's health line, word for word as the client greps it. */
export function healthLine(lines: readonly OutputLine[]): string | undefined {
  return lines
    .map(messageOf)
    .find((message) => /^last_backup_utc=\d{4}-\d\d-\d\dT[\d:.]+Z size_bytes=\d+$/.test(message));
}
