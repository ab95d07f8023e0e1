import type { Version } from './versions.ts';

export interface Migration {
  id: string;
  since: Version;
  /** Empty for migrations that change nothing in the tables kept here, and for the ones that are code. */
  sql: readonly string[];
}

const OLD: Version = [10, 11, 0];

/** In the order of their ids, which is the order in which they run. */
export const MIGRATIONS: readonly Migration[] = [
  {
    id: '20200514181226_AddActivityLog',
    since: OLD,
    sql: [
      `CREATE TABLE ActivityLogs (Id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, Name TEXT NOT NULL, Overview TEXT,
        ShortOverview TEXT, Type TEXT NOT NULL, UserId TEXT NOT NULL, ItemId TEXT, DateCreated TEXT NOT NULL,
        LogSeverity INTEGER NOT NULL, RowVersion INTEGER NOT NULL)`,
      'CREATE INDEX IX_ActivityLogs_DateCreated ON ActivityLogs (DateCreated)',
    ],
  },
  {
    id: '20200613202153_AddUsers',
    since: OLD,
    sql: [
      `CREATE TABLE Users (Id TEXT NOT NULL PRIMARY KEY, Username TEXT NOT NULL COLLATE NOCASE UNIQUE, Password TEXT,
        MustUpdatePassword INTEGER NOT NULL, AudioLanguagePreference TEXT, SubtitleMode INTEGER NOT NULL,
        AuthenticationProviderId TEXT NOT NULL, PasswordResetProviderId TEXT NOT NULL,
        InvalidLoginAttemptCount INTEGER NOT NULL, LastActivityDate TEXT, LastLoginDate TEXT,
        InternalId INTEGER NOT NULL, SyncPlayAccess INTEGER NOT NULL, RowVersion INTEGER NOT NULL)`,
      `CREATE TABLE Permissions (Id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        UserId TEXT REFERENCES Users (Id) ON DELETE CASCADE, Kind INTEGER NOT NULL, Value INTEGER NOT NULL,
        RowVersion INTEGER NOT NULL, Permission_Permissions_Guid TEXT)`,
      `CREATE TABLE Preferences (Id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        UserId TEXT REFERENCES Users (Id) ON DELETE CASCADE, Kind INTEGER NOT NULL, Value TEXT NOT NULL,
        RowVersion INTEGER NOT NULL)`,
    ],
  },
  {
    id: '20210814002109_AddDevices',
    since: OLD,
    sql: [
      `CREATE TABLE ApiKeys (Id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, DateCreated TEXT NOT NULL,
        DateLastActivity TEXT NOT NULL, Name TEXT NOT NULL, AccessToken TEXT NOT NULL UNIQUE)`,
      `CREATE TABLE Devices (Id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        UserId TEXT NOT NULL REFERENCES Users (Id) ON DELETE CASCADE, AccessToken TEXT NOT NULL, AppName TEXT NOT NULL,
        AppVersion TEXT NOT NULL, DeviceName TEXT NOT NULL, DeviceId TEXT NOT NULL, IsActive INTEGER NOT NULL,
        DateCreated TEXT NOT NULL, DateModified TEXT NOT NULL, DateLastActivity TEXT NOT NULL)`,
    ],
  },
  { id: '20240928082930_MarkSegmentProviderIdNonNullable', since: OLD, sql: [] },
  {
    id: '20241020103111_LibraryDbMigration',
    since: OLD,
    sql: [
      `CREATE TABLE BaseItems (Id TEXT NOT NULL PRIMARY KEY, Type TEXT NOT NULL, Data TEXT, Path TEXT, Name TEXT,
        SortName TEXT, IsFolder INTEGER NOT NULL, MediaType TEXT, ParentId TEXT, TopParentId TEXT,
        DateCreated TEXT, DateModified TEXT, PresentationUniqueKey TEXT)`,
      'CREATE INDEX IX_BaseItems_TopParentId ON BaseItems (TopParentId)',
      `CREATE TABLE BaseItemImageInfos (Id TEXT NOT NULL PRIMARY KEY,
        ItemId TEXT NOT NULL REFERENCES BaseItems (Id) ON DELETE CASCADE, Path TEXT NOT NULL, ImageType INTEGER NOT NULL,
        DateModified TEXT NOT NULL, Width INTEGER NOT NULL, Height INTEGER NOT NULL)`,
      `CREATE TABLE UserData (ItemId TEXT NOT NULL, UserId TEXT NOT NULL REFERENCES Users (Id) ON DELETE CASCADE,
        CustomDataKey TEXT NOT NULL, Rating REAL, PlaybackPositionTicks INTEGER NOT NULL, PlayCount INTEGER NOT NULL,
        IsFavorite INTEGER NOT NULL, LastPlayedDate TEXT, Played INTEGER NOT NULL,
        PRIMARY KEY (ItemId, UserId, CustomDataKey))`,
    ],
  },
  { id: '20250420200000_MigrateLibraryDb', since: OLD, sql: [] },
  { id: '20250714044826_ResetJournalMode', since: OLD, sql: [] },
  { id: '20250925203415_ExtendPeopleMapKey', since: OLD, sql: [] },
  {
    id: '20260524120336_AddUniqueNormalizedUsernameIndex',
    since: [10, 11, 10],
    sql: [
      'ALTER TABLE Users ADD COLUMN NormalizedUsername TEXT',
      'UPDATE Users SET NormalizedUsername = upper(Username)',
      'CREATE UNIQUE INDEX IX_Users_NormalizedUsername ON Users (NormalizedUsername)',
    ],
  },
  { id: '20260531160000_DisableLegacyAuthorization', since: [12, 0, 0], sql: [] },
  {
    id: '20260728182152_AddPeopleItemMapCoveringIndex',
    since: [12, 0, 0],
    sql: ['CREATE INDEX IX_UserData_UserId ON UserData (UserId)'],
  },
];

/** The tables that the server's own backup dumps, parents before children so that they can be loaded in order. */
export const BACKUP_TABLES = [
  'ActivityLogs',
  'Users',
  'Permissions',
  'Preferences',
  'ApiKeys',
  'Devices',
  'BaseItems',
  'BaseItemImageInfos',
  'UserData',
] as const;
