import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { createLedger } from './ledger.ts';

export interface JellyfinTreeOptions {
  /** @default derived from the folder's name */
  serverId?: string;
  /** @default true: the flag in system.xml, and an administrator with a password */
  isConfigured?: boolean;
  /** @default 10.11.11 */
  version?: string;
  /** The newest migration of the database. @default that of 10.11.10 and 10.11.11 */
  migration?: string;
  /** Library items. @default 40 */
  items?: number;
}

export interface JellyfinTree {
  readonly dir: string;
  /** `DIR/data/jellyfin.db` */
  readonly databaseFile: string;
  /** A plugin's database, in rollback journal mode, as plugins have it: `DIR/data/playback_reporting.db` */
  readonly pluginDatabaseFile: string;
  readonly serverId: string;
}

/** The administrator of a configured tree. Upper case and dashes, as the ORM writes GUIDs. */
export const ADMIN_ID = 'A3F1C0DE-0000-4000-8000-000000000001';
export const API_KEY = '0123456789abcdef0123456789abcdef';
const DEFAULT_AUTHENTICATION = 'Jellyfin.Server.Implementations.Users.DefaultAuthenticationProvider';

/** What a backup must contain, byte for byte, besides the databases; relative to the tree. */
export const TREE_FILES = [
  'config/branding.xml',
  'config/database.xml',
  'config/encoding.xml',
  'config/logging.default.json',
  'config/network.xml',
  'config/system.xml',
  'config/users/root/profile.jpg',
  'data/ScheduledTasks/4ab02cb2-9f5b-4a26-8e6e-1f0d5ee2f6d2.js',
  'data/collections/Trilogy [boxset]/collection.xml',
  'data/device.txt',
  'data/livetv/timers.json',
  'data/playlists/Sunday [playlist]/playlist.xml',
  'metadata/library/ab/abcdef/poster.jpg',
  'plugins/Playback Reporting_17.0.0.0/meta.json',
  'plugins/configurations/Jellyfin.Plugin.PlaybackReporting.xml',
  'root/default/Movies/Movies.mblink',
  'root/default/Movies/movies.collection',
  'root/default/Movies/options.xml',
] as const;

/** What a backup must not contain: regenerable, private to a run, or a copy of the database. */
export const OUT_OF_SCOPE_FILES = [
  'cache/images/a.jpg',
  'data/SQLiteBackups/20260101000000_jellyfin.db',
  'data/backups/jellyfin-backup-20260101000000.zip',
  'data/library.db.old',
  'data/subtitles/a.srt',
  'data/trickplay/a/320.jpg',
  'log/log_20260101.log',
  'passwordreset1234.json',
] as const;

/** Markers that Jellyfin itself puts in its folders. */
const MARKERS = ['.jellyfin-data', 'config/.jellyfin-config', 'log/.jellyfin-log', 'data/.jellyfin-data'];

/** A server's folder as Jellyfin 10.11 leaves it. A folder that has a database already stays as it is. */
export function createJellyfinTree(dir: string, options: JellyfinTreeOptions = {}): JellyfinTree {
  const serverId = options.serverId ?? createHash('md5').update(dir).digest('hex');
  const tree = {
    dir,
    databaseFile: join(dir, 'data/jellyfin.db'),
    pluginDatabaseFile: join(dir, 'data/playback_reporting.db'),
    serverId,
  };
  const existing = readIfThere(join(dir, 'data/device.txt'));
  if (existing !== undefined && readIfThere(tree.databaseFile) !== undefined) {
    return { ...tree, serverId: existing };
  }
  for (const [path, content] of Object.entries(fileContents(serverId, options))) {
    const file = join(dir, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, content);
  }
  createDatabase(tree.databaseFile, options);
  createPluginDatabase(tree.pluginDatabaseFile);
  return tree;
}

/** A connection as Jellyfin 10.11 opens one: it sets these four every time, and never the journal mode. */
export function openAsJellyfin(databaseFile: string, busyTimeoutMs = 30_000): DatabaseSync {
  const database = new DatabaseSync(databaseFile, { timeout: busyTimeoutMs });
  database.exec(
    'PRAGMA locking_mode=NORMAL; PRAGMA journal_size_limit=134217728; PRAGMA synchronous=1; PRAGMA temp_store=2;',
  );
  return database;
}

function readIfThere(file: string): string | undefined {
  try {
    return readFileSync(file, 'latin1').slice(0, 64);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return undefined;
  }
}

function fileContents(serverId: string, options: JellyfinTreeOptions): Record<string, string> {
  const version = options.version ?? '10.11.11';
  const isConfigured = options.isConfigured ?? true;
  const xml = (root: string, body: string) =>
    `<?xml version="1.0" encoding="utf-8"?>\n<${root} xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ` +
    `xmlns:xsd="http://www.w3.org/2001/XMLSchema">\n  ${body}\n</${root}>`;
  const known: Partial<Record<(typeof TREE_FILES)[number], string>> = {
    'config/system.xml': xml(
      'ServerConfiguration',
      `<LogFileRetentionDays>3</LogFileRetentionDays>\n  ` +
        `<IsStartupWizardCompleted>${isConfigured}</IsStartupWizardCompleted>\n  ` +
        `<PreviousVersion>${version}</PreviousVersion>\n  <PreviousVersionStr>${version}</PreviousVersionStr>\n  ` +
        `<ServerName>cinema</ServerName>\n  <UICulture>en-US</UICulture>`,
    ),
    'config/database.xml': xml(
      'DatabaseConfigurationOptions',
      '<DatabaseType>Jellyfin-SQLite</DatabaseType>\n  <LockingBehavior>NoLock</LockingBehavior>',
    ),
    'config/network.xml': xml('NetworkConfiguration', '<InternalHttpPort>8096</InternalHttpPort>'),
    'config/encoding.xml': xml('EncodingOptions', '<EncodingThreadCount>-1</EncodingThreadCount>'),
    'config/branding.xml': xml('BrandingOptions', '<SplashscreenEnabled>false</SplashscreenEnabled>'),
    'data/device.txt': serverId,
    'root/default/Movies/Movies.mblink': '/media/movies',
    'root/default/Movies/movies.collection': '',
    'root/default/Movies/options.xml': xml('LibraryOptions', '<Enabled>true</Enabled>'),
    'plugins/Playback Reporting_17.0.0.0/meta.json': '{"name":"Playback Reporting","version":"17.0.0.0"}',
    'data/livetv/timers.json': '[]',
    'config/logging.default.json': '{"Serilog":{"MinimumLevel":{"Default":"Information"}}}',
  };
  const filler = (path: string) =>
    path.endsWith('.xml') ? xml('Item', `<Path>${path}</Path>`) : `content of ${path}`;
  // A server whose wizard is not done has no library, no playlists and no plugins yet.
  const inScope = isConfigured ? TREE_FILES : TREE_FILES.filter((path) => /^config\/\w+\.|device/.test(path));
  return {
    ...Object.fromEntries(inScope.map((path) => [path, known[path] ?? filler(path)])),
    ...Object.fromEntries([...OUT_OF_SCOPE_FILES, ...MARKERS].map((path) => [path, filler(path)])),
  };
}

const LAST_MIGRATION = '20260524120336_AddUniqueNormalizedUsernameIndex';

function createDatabase(file: string, options: JellyfinTreeOptions): void {
  const isConfigured = options.isConfigured ?? true;
  const database = openAsJellyfin(file);
  // Once, when the file is created; a restored file that is not in WAL mode stays so.
  database.exec('PRAGMA journal_mode=WAL');
  database.exec('BEGIN');
  database.exec(SCHEMA);
  const migrations = ['20200514181226_AddActivityLog', '20241020103111_LibraryDbMigration'];
  const insertMigration = database.prepare('INSERT INTO __EFMigrationsHistory VALUES (?, ?)');
  for (const id of [...migrations, options.migration ?? LAST_MIGRATION]) insertMigration.run(id, '9.0.11');

  // Showing the wizard is enough for a user named after the system's, without a password, to exist.
  const password = isConfigured
    ? `$PBKDF2-SHA512$iterations=210000$${'AB'.repeat(16)}$${'CD'.repeat(64)}`
    : null;
  database
    .prepare(
      `INSERT INTO Users (Id, Username, NormalizedUsername, Password, AuthenticationProviderId,
         PasswordResetProviderId, InternalId, MustUpdatePassword, RowVersion) VALUES (?, ?, ?, ?, ?, ?, 1, 0, 1)`,
    )
    .run(
      ADMIN_ID,
      ...(isConfigured ? ['admin', 'ADMIN'] : ['root', 'ROOT']),
      password,
      DEFAULT_AUTHENTICATION,
      'Jellyfin.Server.Implementations.Users.DefaultPasswordResetProvider',
    );
  const insertPermission = database.prepare(
    'INSERT INTO Permissions (UserId, Kind, Value, RowVersion) VALUES (?, ?, ?, 1)',
  );
  for (const [kind, value] of [
    [0, 1],
    [1, 0],
    [2, 0],
  ] as const) {
    insertPermission.run(ADMIN_ID, kind, value);
  }
  if (isConfigured) addLibrary(database, options.items ?? 40);
  createLedger(database);
  database.exec('COMMIT');
  database.close();
}

function addLibrary(database: DatabaseSync, items: number): void {
  const now = '2026-11-01 12:00:00.0000000';
  database
    .prepare('INSERT INTO ApiKeys (Name, AccessToken, DateCreated, DateLastActivity) VALUES (?, ?, ?, ?)')
    .run('sidecar', API_KEY, now, now);
  database
    .prepare(
      `INSERT INTO Devices (UserId, AccessToken, AppName, AppVersion, DeviceName, DeviceId, IsActive, DateCreated,
         DateModified, DateLastActivity) VALUES (?, ?, 'Jellyfin Web', '10.11.11', 'Firefox', 'device-1', 1, ?, ?, ?)`,
    )
    .run(ADMIN_ID, 'fedcba9876543210fedcba9876543210', now, now, now);
  const insertItem = database.prepare(
    `INSERT INTO BaseItems (Id, Type, Name, Path, Data, DateCreated, DateLastSaved) VALUES (?, ?, ?, ?, ?, ?, ?)`,
  );
  const insertUserData = database.prepare(
    `INSERT INTO UserData (ItemId, UserId, CustomDataKey, Played, PlayCount, PlaybackPositionTicks, IsFavorite)
     VALUES (?, ?, ?, 0, 0, 0, 0)`,
  );
  for (let i = 0; i < items; i++) {
    const id = itemId(i);
    const path = `/media/movies/Movie ${i} (2026)/Movie ${i}.mkv`;
    insertItem.run(id, 'MediaBrowser.Controller.Entities.Movies.Movie', `Movie ${i}`, path, '{}', now, now);
    insertUserData.run(id, ADMIN_ID, id);
  }
}

export function itemId(index: number): string {
  return `B0000000-0000-4000-8000-${index.toString(16).toUpperCase().padStart(12, '0')}`;
}

function createPluginDatabase(file: string): void {
  const database = new DatabaseSync(file);
  database.exec(
    `CREATE TABLE PlaybackActivity (DateCreated DATETIME NOT NULL, UserId TEXT, ItemId TEXT, PlayDuration INT);
     INSERT INTO PlaybackActivity VALUES ('2026-11-01 12:00:00', '${ADMIN_ID}', '${itemId(0)}', 60);`,
  );
  database.close();
}

/** The tables that matter here, of the 10.11 schema, with the columns that matter. */
const SCHEMA = `
  CREATE TABLE "__EFMigrationsHistory" ("MigrationId" TEXT NOT NULL PRIMARY KEY, "ProductVersion" TEXT NOT NULL);
  CREATE TABLE "Users" ("Id" TEXT NOT NULL PRIMARY KEY, "Username" TEXT NOT NULL COLLATE NOCASE,
    "NormalizedUsername" TEXT NOT NULL, "Password" TEXT NULL, "AuthenticationProviderId" TEXT NOT NULL,
    "PasswordResetProviderId" TEXT NOT NULL, "InternalId" INTEGER NOT NULL, "MustUpdatePassword" INTEGER NOT NULL,
    "LastLoginDate" TEXT NULL, "LastActivityDate" TEXT NULL, "RowVersion" INTEGER NOT NULL);
  CREATE UNIQUE INDEX "IX_Users_NormalizedUsername" ON "Users" ("NormalizedUsername");
  CREATE TABLE "Permissions" ("Id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "UserId" TEXT NULL
    REFERENCES "Users" ("Id") ON DELETE CASCADE, "Kind" INTEGER NOT NULL, "Value" INTEGER NOT NULL,
    "RowVersion" INTEGER NOT NULL);
  CREATE TABLE "ApiKeys" ("Id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "Name" TEXT NOT NULL,
    "AccessToken" TEXT NOT NULL, "DateCreated" TEXT NOT NULL, "DateLastActivity" TEXT NOT NULL);
  CREATE TABLE "Devices" ("Id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "UserId" TEXT NOT NULL
    REFERENCES "Users" ("Id") ON DELETE CASCADE, "AccessToken" TEXT NOT NULL, "AppName" TEXT NOT NULL,
    "AppVersion" TEXT NOT NULL, "DeviceName" TEXT NOT NULL, "DeviceId" TEXT NOT NULL, "IsActive" INTEGER NOT NULL,
    "DateCreated" TEXT NOT NULL, "DateModified" TEXT NOT NULL, "DateLastActivity" TEXT NOT NULL);
  CREATE TABLE "BaseItems" ("Id" TEXT NOT NULL PRIMARY KEY, "Type" TEXT NOT NULL, "Name" TEXT NULL, "Path" TEXT NULL,
    "Data" TEXT NULL, "DateCreated" TEXT NULL, "DateLastSaved" TEXT NULL);
  CREATE INDEX "IX_BaseItems_Path" ON "BaseItems" ("Path");
  CREATE TABLE "UserData" ("ItemId" TEXT NOT NULL REFERENCES "BaseItems" ("Id") ON DELETE CASCADE,
    "UserId" TEXT NOT NULL REFERENCES "Users" ("Id") ON DELETE CASCADE, "CustomDataKey" TEXT NOT NULL,
    "Played" INTEGER NOT NULL, "PlayCount" INTEGER NOT NULL, "PlaybackPositionTicks" INTEGER NOT NULL,
    "IsFavorite" INTEGER NOT NULL, "LastPlayedDate" TEXT NULL, PRIMARY KEY ("ItemId", "UserId", "CustomDataKey"));
  CREATE INDEX "IX_UserData_Played" ON "UserData" ("ItemId", "UserId", "Played");
  CREATE TABLE "ActivityLogs" ("Id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "Name" TEXT NOT NULL,
    "Type" TEXT NOT NULL, "UserId" TEXT NOT NULL, "DateCreated" TEXT NOT NULL, "LogSeverity" INTEGER NOT NULL);
`;
