import type { DatabaseSync } from 'node:sqlite';
import { allRows, execute, oneRow, sqlDate } from './database.ts';

export interface ActivityEntry {
  Id: number;
  Name: string;
  ShortOverview: string | null;
  Type: string;
  UserId: string;
  DateCreated: string;
}

const NOBODY = '00000000-0000-0000-0000-000000000000';

export class ActivityLog {
  readonly #db: DatabaseSync;

  constructor(db: DatabaseSync) {
    this.#db = db;
  }

  /** The row is committed when this returns; the number is its id. */
  record(type: string, name: string, userId: string = NOBODY): number {
    return execute(
      this.#db,
      `INSERT INTO ActivityLogs (Name, ShortOverview, Type, UserId, DateCreated, LogSeverity, RowVersion)
       VALUES (?, NULL, ?, ?, ?, 2, 0)`,
      name,
      type,
      userId,
      sqlDate(),
    );
  }

  count(): number {
    return oneRow<{ n: number }>(this.#db, 'SELECT count(*) AS n FROM ActivityLogs')?.n ?? 0;
  }

  newest(startIndex: number, limit: number): ActivityEntry[] {
    const sql = `SELECT Id, Name, ShortOverview, Type, UserId, DateCreated FROM ActivityLogs
      ORDER BY Id DESC LIMIT ? OFFSET ?`;
    return allRows<ActivityEntry>(this.#db, sql, limit, startIndex);
  }
}
