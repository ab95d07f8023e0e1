import picomatch from 'picomatch';
import type { DatabaseQuestion } from './ports.ts';

/** `essential`: small, copied at one point in time with the databases. `bulk`: large and regenerable, read while packing. */
export type Tier = 'essential' | 'bulk';

export interface Measure extends DatabaseQuestion {
  database: string;
}

/** What belongs to an application's state, as data: another SQLite application is another profile. */
export interface Profile {
  readonly name: string;
  /** Globs relative to the data folder, `/` as separator. The first list that matches decides; `excluded` wins. */
  readonly essential: readonly string[];
  readonly bulk: readonly string[];
  readonly excluded: readonly string[];
  /** Folders at the top that may be filled before a restore and are never touched by it. */
  readonly untouched: readonly string[];
  readonly mainDatabase: string;
  /** Tables without which the main database is not this application's. */
  readonly mainTables: readonly string[];
  readonly settingsFile: string;
  readonly measures: readonly Measure[];
  /** A drop below `ratio` of the line's last backup, where that had at least `from`, is a collapse. */
  readonly collapse: readonly { measure: string; from: number; ratio: number }[];
  /** Folders that must exist before the first boot. */
  readonly firstBootDirs: readonly string[];
}

/** The agent's own folder on the volume. Not `.jellyfin-*`: Jellyfin 10.11 refuses to start beside such names. */
export const WORK_DIR = '.agent';

const CONFIGURED_ADMINS = `
  SELECT count(DISTINCT u.Id) AS answer FROM Users u JOIN Permissions p ON p.UserId = u.Id AND p.Kind = 0 AND p.Value = 1
  WHERE (u.Password IS NOT NULL AND u.Password <> '')
     OR u.AuthenticationProviderId <> 'Jellyfin.Server.Implementations.Users.DefaultAuthenticationProvider'`;

/** Jellyfin 10.10, 10.11 and 12; sources for each line in facts/jellyfin.md 1.3, 3.8 and 8. */
export const JELLYFIN: Profile = {
  name: 'jellyfin',
  essential: [
    'data/*',
    'data/{playlists,collections,ScheduledTasks}/**',
    'data/livetv/*.json',
    'config/**',
    'root/**',
    'plugins/**',
  ],
  bulk: ['metadata/**'],
  excluded: [
    '**/*-{wal,shm,journal}',
    // With and without `/**`: the folder itself must match too, or a scan would walk a million trickplay images.
    'data/{backups,SQLiteBackups,trickplay,attachments,subtitles,keyframes,transcodes}',
    'data/{backups,SQLiteBackups,trickplay,attachments,subtitles,keyframes,transcodes}/**',
    'data/library.db.old',
    'data/*.bak*',
    'data/splashscreen.png',
    '**/.jellyfin-*',
    '**/passwordreset*.json',
    `${WORK_DIR}/**`,
  ],
  untouched: ['cache', 'log', 'lost+found', 'transcodes'],
  mainDatabase: 'data/jellyfin.db',
  mainTables: ['__EFMigrationsHistory', 'Users', 'Permissions', 'ApiKeys', 'Devices'],
  settingsFile: 'config/system.xml',
  measures: [
    {
      name: 'users',
      database: 'data/jellyfin.db',
      table: 'Users',
      sql: 'SELECT count(*) AS answer FROM Users',
    },
    { name: 'admins', database: 'data/jellyfin.db', table: 'Permissions', sql: CONFIGURED_ADMINS },
    {
      name: 'items',
      database: 'data/jellyfin.db',
      table: 'BaseItems',
      sql: 'SELECT count(*) AS answer FROM BaseItems',
    },
    // 10.10 keeps the library in a database of its own.
    {
      name: 'items',
      database: 'data/library.db',
      table: 'TypedBaseItems',
      sql: 'SELECT count(*) AS answer FROM TypedBaseItems',
    },
    {
      name: 'migration',
      database: 'data/jellyfin.db',
      table: '__EFMigrationsHistory',
      sql: 'SELECT max(MigrationId) AS answer FROM __EFMigrationsHistory',
    },
  ],
  // An unmounted media share empties the library at the next scan; a lost database shows as lost users.
  collapse: [
    { measure: 'users', from: 3, ratio: 0.5 },
    { measure: 'items', from: 20, ratio: 0.5 },
  ],
  firstBootDirs: ['config', 'data', 'log'],
};

/**
 * The tier of a path, or `undefined` when it is out of scope.
 * @param path Relative to the data folder, `/` as separator.
 */
export function scopeOf(profile: Profile): (path: string) => Tier | undefined {
  const matcher = (globs: readonly string[]) => picomatch([...globs], { dot: true });
  const excluded = matcher(profile.excluded);
  const essential = matcher(profile.essential);
  const bulk = matcher(profile.bulk);
  return (path) => {
    if (excluded(path)) return undefined;
    if (essential(path)) return 'essential';
    return bulk(path) ? 'bulk' : undefined;
  };
}

/** The folders at the top of the volume that a scan must enter. */
export function scopeRoots(profile: Profile): string[] {
  const first = (glob: string) => glob.slice(0, glob.indexOf('/'));
  return [...new Set([...profile.essential, ...profile.bulk].map(first))].sort();
}
