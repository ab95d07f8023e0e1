import { randomBytes } from 'node:crypto';
import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, inTransaction, oneRow, sqlDate } from './database.ts';
import type { Credentials } from './credentials.ts';
import type { User, Users } from './users.ts';

/** Who sent a request. An API key belongs to nobody and may do everything. */
export interface Caller {
  user: User | undefined;
  isAdministrator: boolean;
}

export interface ApiKey {
  Id: number;
  Name: string;
  AccessToken: string;
  DateCreated: string;
}

export type Client = Required<Omit<Credentials, 'token'>>;

/** Tokens: those of signed-in devices and the API keys. Both are rows, so a restore keeps clients signed in. */
export class Sessions {
  readonly #db: DatabaseSync;
  readonly #users: Users;

  constructor(db: DatabaseSync, users: Users) {
    this.#db = db;
    this.#users = users;
  }

  callerOf(token: string): Caller | undefined {
    if (oneRow(this.#db, 'SELECT 1 FROM ApiKeys WHERE AccessToken = ?', token) !== undefined) {
      return { user: undefined, isAdministrator: true };
    }
    const sql = 'SELECT UserId FROM Devices WHERE AccessToken = ?';
    const device = oneRow<{ UserId: string }>(this.#db, sql, token);
    const user = device && this.#users.byId(device.UserId);
    if (!user || user.IsDisabled) return undefined;
    return { user, isAdministrator: user.IsAdministrator === 1 };
  }

  /** A device that signs in again gets a new token and loses the old one. */
  signIn(user: User, client: Client): string {
    const token = newToken();
    const now = sqlDate();
    inTransaction(this.#db, () => {
      execute(this.#db, 'DELETE FROM Devices WHERE DeviceId = ? AND UserId = ?', client.deviceId, user.Id);
      execute(
        this.#db,
        `INSERT INTO Devices (UserId, AccessToken, AppName, AppVersion, DeviceName, DeviceId, IsActive, DateCreated,
          DateModified, DateLastActivity) VALUES (?, ?, ?, ?, ?, ?, 1, ?, ?, ?)`,
        user.Id,
        token,
        client.client,
        client.version,
        client.device,
        client.deviceId,
        now,
        now,
        now,
      );
      this.#users.noteLogin(user.Id);
    });
    return token;
  }

  signOut(token: string): void {
    execute(this.#db, 'DELETE FROM Devices WHERE AccessToken = ?', token);
  }

  listKeys(): ApiKey[] {
    return allRows<ApiKey>(this.#db, 'SELECT Id, Name, AccessToken, DateCreated FROM ApiKeys ORDER BY Id');
  }

  createKey(name: string): void {
    const now = sqlDate();
    execute(
      this.#db,
      'INSERT INTO ApiKeys (DateCreated, DateLastActivity, Name, AccessToken) VALUES (?, ?, ?, ?)',
      now,
      now,
      name,
      newToken(),
    );
  }

  deleteKey(token: string): void {
    execute(this.#db, 'DELETE FROM ApiKeys WHERE AccessToken = ?', token);
  }
}

const newToken = (): string => randomBytes(16).toString('hex');
