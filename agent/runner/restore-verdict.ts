import type { ArchiveContent } from './archive-content.ts';

/** What the server says once it is back. */
export interface ServerContent {
  wizardCompleted: boolean;
  key: 'still valid' | 'issued anew' | 'refused';
  users: readonly string[];
  libraries: readonly string[];
}

export interface RestoreCheck {
  what: string;
  ok: boolean;
  is: string;
}

/**
 * Whether a server holds what an archive holds. More than the archive is no failure for libraries: a restore lays files over
 * what is there and deletes none (facts/jellyfin.md 4.4). Users are rows of a table that it empties first.
 */
export function judgeRestored(archive: ArchiveContent, server: ServerContent): RestoreCheck[] {
  const missing = archive.libraries.filter((name) => !server.libraries.includes(name));
  const sameUsers = archive.users.join('\n') === [...server.users].sort().join('\n');
  const list = (names: readonly string[]) => (names.length === 0 ? 'none' : names.join(', '));
  return [
    {
      what: 'first page',
      ok: server.wizardCompleted,
      is: server.wizardCompleted ? 'login screen' : 'setup wizard',
    },
    {
      what: 'API key',
      ok: server.key !== 'refused',
      is:
        server.key === 'refused'
          ? 'refused, and there are no administrator credentials to make another'
          : server.key,
    },
    {
      what: 'users',
      ok: sameUsers,
      is: sameUsers ? list(server.users) : `${list(server.users)} instead of ${list(archive.users)}`,
    },
    {
      what: 'libraries',
      ok: missing.length === 0,
      is:
        missing.length === 0 ? list(server.libraries) : `${list(server.libraries)}, without ${list(missing)}`,
    },
  ];
}
