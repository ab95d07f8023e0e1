import { AgentError } from '../errors.ts';
import type { ZipReader } from '../ports.ts';
import { MANIFEST_ENTRY, parseEngineManifest, type EngineManifest } from './archive.ts';

/** What a restored server must show. */
export interface ArchiveContent {
  manifest: EngineManifest;
  /** Sorted. */
  users: string[];
  /** Sorted; a library is a folder below `root/default` (facts/jellyfin.md 2.4). */
  libraries: string[];
}

const USERS_ENTRY = 'Database/Users.json';
const LIBRARY = /^Root\/default\/([^/]+)\/./i;

/**
 * Reads an archive whole.
 * @param name Names it in messages.
 * @throws AgentError `backup_damaged`.
 */
export async function readArchiveContent(
  zip: ZipReader,
  file: string,
  name: string,
  signal: AbortSignal,
): Promise<ArchiveContent> {
  const examined = await zip.examine(file, [MANIFEST_ENTRY, USERS_ENTRY], signal).catch((error: unknown) => {
    if (!(error instanceof AgentError)) throw error;
    throw new AgentError(error.code, error.message.replace(file, name), { cause: error.cause });
  });
  const manifest = parseEngineManifest(examined, name);
  const users = usersOf(examined.kept.get(USERS_ENTRY), name);
  const libraries = new Set(examined.paths.flatMap((path) => LIBRARY.exec(path)?.[1] ?? []));
  return { manifest, users, libraries: [...libraries].sort() };
}

function usersOf(bytes: Uint8Array | undefined, name: string): string[] {
  const wrong = (reason: string, cause?: unknown) =>
    new AgentError('backup_damaged', `${name}: ${USERS_ENTRY} ${reason}`, { cause });
  if (bytes === undefined) throw wrong('is missing');
  let rows: unknown;
  try {
    rows = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    // The parser's message quotes the text, and this one holds password hashes.
    throw wrong('is no JSON');
  }
  if (!Array.isArray(rows)) throw wrong('is no list');
  const names = rows.flatMap((row: { Username?: unknown } | null) =>
    typeof row?.Username === 'string' ? [row.Username] : [],
  );
  // A server without users would show nobody's login screen.
  if (names.length === 0) throw wrong('names no user');
  return names.sort();
}
