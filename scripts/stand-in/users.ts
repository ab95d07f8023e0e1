import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, inTransaction, oneRow, sqlDate } from './database.ts';
import { newGuid } from './guids.ts';

const PROVIDER = 'Jellyfin.Server.Implementations.Users';

/** Values of the column `Permissions.Kind`. */
const PERMISSION = { isAdministrator: 0, isHidden: 1, isDisabled: 2, enableAllFolders: 17 } as const;

export interface User {
  Id: string;
  Username: string;
  Password: string | null;
  LastLoginDate: string | null;
  IsAdministrator: 0 | 1;
  IsDisabled: 0 | 1;
}

const SELECT_USER = `
  SELECT u.Id, u.Username, u.Password, u.LastLoginDate,
    EXISTS (SELECT 1 FROM Permissions p WHERE p.UserId = u.Id AND p.Kind = ${PERMISSION.isAdministrator} AND p.Value) AS IsAdministrator,
    EXISTS (SELECT 1 FROM Permissions p WHERE p.UserId = u.Id AND p.Kind = ${PERMISSION.isDisabled} AND p.Value) AS IsDisabled
  FROM Users u`;

export class Users {
  readonly #db: DatabaseSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  list(): User[] {
    return allRows<User>(this.#db, `${SELECT_USER} ORDER BY u.InternalId`);
  }

  first(): User | undefined {
    return this.list()[0];
  }

  byId(id: string): User | undefined {
    return oneRow<User>(this.#db, `${SELECT_USER} WHERE u.Id = ?`, id);
  }

  byName(name: string): User | undefined {
    return oneRow<User>(this.#db, `${SELECT_USER} WHERE u.Username = ? COLLATE NOCASE`, name);
  }

  hasConfiguredAdministrator(): boolean {
    return this.list().some((user) => user.IsAdministrator && user.Password);
  }

  create(name: string, isAdministrator: boolean): User {
    const id = newGuid();
    inTransaction(this.#db, () => {
      const last = oneRow<{ id: number }>(this.#db, 'SELECT coalesce(max(InternalId), 0) AS id FROM Users');
      execute(
        this.#db,
        `INSERT INTO Users (Id, Username, MustUpdatePassword, SubtitleMode, AuthenticationProviderId,
          PasswordResetProviderId, InvalidLoginAttemptCount, InternalId, SyncPlayAccess, RowVersion)
         VALUES (?, ?, 0, 0, '${PROVIDER}.DefaultAuthenticationProvider', '${PROVIDER}.DefaultPasswordResetProvider', 0, ?, 0, 0)`,
        id,
        name,
        (last?.id ?? 0) + 1,
      );
      this.#normalize(id, name);
      this.#grant(id, PERMISSION.isAdministrator, isAdministrator);
      this.#grant(id, PERMISSION.isHidden, true);
      this.#grant(id, PERMISSION.isDisabled, false);
      this.#grant(id, PERMISSION.enableAllFolders, true);
    });
    return this.byId(id) as User;
  }

  rename(id: string, name: string): void {
    execute(this.#db, 'UPDATE Users SET Username = ?, RowVersion = RowVersion + 1 WHERE Id = ?', name, id);
    this.#normalize(id, name);
  }

  setPasswordHash(id: string, hash: string): void {
    execute(this.#db, 'UPDATE Users SET Password = ?, RowVersion = RowVersion + 1 WHERE Id = ?', hash, id);
  }

  noteLogin(id: string): void {
    const now = sqlDate();
    execute(this.#db, 'UPDATE Users SET LastLoginDate = ?, LastActivityDate = ? WHERE Id = ?', now, now, id);
  }

  #grant(userId: string, kind: number, isGranted: boolean): void {
    execute(
      this.#db,
      'INSERT INTO Permissions (UserId, Kind, Value, RowVersion) VALUES (?, ?, ?, 0)',
      userId,
      kind,
      isGranted ? 1 : 0,
    );
  }

  /** The column exists from 10.11.10 on. */
  #normalize(id: string, name: string): void {
    const sql = `SELECT 1 FROM pragma_table_info('Users') WHERE name = 'NormalizedUsername'`;
    if (oneRow(this.#db, sql) === undefined) return;
    execute(this.#db, 'UPDATE Users SET NormalizedUsername = ? WHERE Id = ?', name.toUpperCase(), id);
  }
}
