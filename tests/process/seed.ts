import { DatabaseSync } from 'node:sqlite';
import { ADMIN_ID, createJellyfinTree, type JellyfinTreeOptions } from '../support/jellyfin-tree.ts';
import type { FinishedProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { agentEnv, runAgent, Store } from './support.ts';

/** A server's folder without a server: `backup --once` finds the port refused and backs up what lies there. */
export class Tree {
  readonly store: Store;
  readonly dir = makeTempDir('tree');
  readonly #databaseFile: string;

  constructor(store: Store, options: JellyfinTreeOptions = {}) {
    this.store = store;
    this.#databaseFile = createJellyfinTree(this.dir, options).databaseFile;
  }

  sql(text: string): void {
    const database = new DatabaseSync(this.#databaseFile);
    database.exec(text);
    database.close();
  }

  /** A row that tells one backup from the next. */
  write(label: string): void {
    writeTreeRow(this.#databaseFile, label);
  }

  addUsers(count: number): void {
    for (let index = 1; index <= count; index += 1) {
      this.sql(
        `INSERT INTO Users VALUES ('guest-${String(index)}', 'g${String(index)}', 'G${String(index)}', NULL, 'p', 'p', ${String(
          index + 10,
        )}, 0, NULL, NULL, 0)`,
      );
    }
  }

  removeGuests(): void {
    this.sql("DELETE FROM Users WHERE Id LIKE 'guest-%'");
  }

  backUp(env: Record<string, string> = {}): Promise<FinishedProcess> {
    // A port where nobody listens, and nobody is asked to listen by the system either.
    return runAgent(
      ['backup', '--once'],
      agentEnv(this.store, this.dir, { JELLYFIN_URL: 'http://127.0.0.1:9', ...env }),
    );
  }

  /** The name of a backup that was made now and is on the line. */
  async stored(label: string): Promise<string> {
    this.write(label);
    const { code, jsonLines, stdout } = await this.backUp();
    const name = jsonLines.find(({ backup }) => typeof backup === 'string')?.['backup'];
    if (code !== 0 || typeof name !== 'string') throw new Error(`no backup\n${stdout}`);
    return name;
  }
}

/** The same on a volume that such a backup was restored to. */
export function writeTreeRow(databaseFile: string, label: string): void {
  const database = new DatabaseSync(databaseFile);
  database
    .prepare(
      `INSERT INTO ActivityLogs (Name, Type, UserId, DateCreated, LogSeverity) VALUES (?, 'Test', ?, '2026-01-01', 2)`,
    )
    .run(label, ADMIN_ID);
  database.close();
}
