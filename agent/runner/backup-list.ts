import { AgentError } from '../errors.ts';
import { ENGINE_FILE_NAME, type EngineBackup } from './engine.ts';

/** With its offset: a time without one could be anybody's. .NET prints seven digits of a second. */
const DATE = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;
const VERSION = /^\d+(\.\d+){1,3}$/;
const OPTIONS = ['Metadata', 'Trickplay', 'Subtitles', 'Database'] as const;

function wrong(what: string, reason: string): AgentError {
  return new AgentError('external_failed', `${what} is not what Jellyfin's backup API promises: ${reason}`, {
    hint: 'check that JELLYFIN_URL is the address of a Jellyfin 10.11 or later, with its BaseUrl if it has one',
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** The last part of a path of either kind: the server may run on Windows. */
function fileNameOf(path: string): string {
  return path.split(/[/\\]/).at(-1) ?? '';
}

function parseJson(text: string, what: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, and a text that is not ours may hold anything.
    throw wrong(what, `no JSON in ${String(text.length)} characters`);
  }
}

function toBackup(value: unknown, what: string): EngineBackup {
  if (!isRecord(value)) throw wrong(what, 'an entry is no object');
  const text = (name: string, pattern: RegExp): string => {
    const found = value[name];
    if (typeof found === 'string' && pattern.test(found)) return found;
    throw wrong(what, `${name} is ${found === undefined ? 'missing' : `not a ${typeof found} of its form`}`);
  };
  const options = value['Options'];
  if (!isRecord(options) || !OPTIONS.every((name) => typeof options[name] === 'boolean'))
    throw wrong(what, 'Options are not four booleans');
  const created = new Date(text('DateCreated', DATE));
  if (Number.isNaN(created.getTime())) throw wrong(what, 'DateCreated is no date');
  return {
    fileName: fileNameOf(text('Path', /[^/\\]$/)),
    serverVersion: text('ServerVersion', VERSION),
    engineVersion: text('BackupEngineVersion', VERSION),
    createdUtc: created.toISOString(),
  };
}

/**
 * The answer of `GET /Backup`, or what `jellyroller get-backups -o json` prints of it. Backups that somebody has renamed
 * are left out; an entry that is no backup is an error, not something to pass over.
 * @param what Names the answer in messages.
 * @throws AgentError `external_failed`.
 */
export function parseBackupList(text: string, what: string): EngineBackup[] {
  const list = parseJson(text, what);
  if (!Array.isArray(list)) throw wrong(what, 'no list');
  return list.map((entry) => toBackup(entry, what)).filter(({ fileName }) => ENGINE_FILE_NAME.test(fileName));
}

/**
 * The answer of `POST /Backup/Create`.
 * @throws AgentError `external_failed`.
 */
export function parseCreated(text: string, what: string): EngineBackup {
  return toBackup(parseJson(text, what), what);
}

/**
 * Refuses a name that the engine cannot have given: it would reach a command line, or JSON that is put together without
 * escaping (facts/jellyroller.md 5).
 * @throws AgentError `backup_missing`.
 */
export function checkFileName(fileName: string): void {
  if (ENGINE_FILE_NAME.test(fileName)) return;
  throw new AgentError(
    'backup_missing',
    `${JSON.stringify(fileName)} must be named jellyfin-backup-<14 digits>.zip: Jellyfin names its archives so`,
  );
}
