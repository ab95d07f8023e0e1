import { cpSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import type { JellyfinHealth, JellyfinServer } from '../../agent/ports.ts';
import { createJellyfinTree, itemId, openAsJellyfin } from '../support/jellyfin-tree.ts';
import { Ledger } from '../support/ledger.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import type { State, Worth } from './campaign-history.ts';

/*
 * The server of one replica, as its sidecar sees it: a real database in WAL mode that stays open, `system.xml`, an answer to
 * `/health`. Each row names the replica that wrote it, so that any database tells its whole ancestry.
 */

/** Enough for a collapse to be seen (`from` in profile.ts). */
const ITEMS = 24;
/** What these histories do not look at; each file more is read, hashed and flushed in every step. */
const LEFT_OUT = [
  'config/branding.xml',
  'config/encoding.xml',
  'config/network.xml',
  'config/logging.default.json',
];
const SETTLED = new Date('2026-01-01T00:00:00Z');

let template: string | undefined;

/** The folder of a server whose wizard nobody has completed yet. */
function unconfiguredTree(): string {
  if (template !== undefined) return template;
  const { databaseFile, dir, pluginDatabaseFile } = createJellyfinTree(makeTempDir('template'), {
    isConfigured: false,
  });
  for (const file of [pluginDatabaseFile, ...LEFT_OUT.map((path) => join(dir, path))]) rmSync(file);
  const database = openAsJellyfin(databaseFile);
  database.exec('CREATE TABLE ancestry (replica INTEGER NOT NULL, n INTEGER NOT NULL)');
  database.close();
  return (template = dir);
}

const databaseOf = (dataDir: string) => join(dataDir, 'data/jellyfin.db');
const settingsOf = (dataDir: string) => join(dataDir, 'config/system.xml');

/**
 * Whose rows a database holds.
 * @throws Error When a row is missing below one that is there.
 */
function readState(database: DatabaseSync): State {
  const rows = database
    .prepare(
      'SELECT replica, count(*) AS rows, max(n) AS last FROM ancestry GROUP BY replica ORDER BY min(rowid)',
    )
    .all();
  return rows.map((row) => {
    const segment = { replica: Number(row['replica']), rows: Number(row['rows']) };
    if (segment.rows !== row['last'])
      throw new Error(
        `of replica ${segment.replica} there are ${segment.rows} rows up to ${String(row['last'])}`,
      );
    return segment;
  });
}

export class Server implements JellyfinServer {
  readonly #dataDir: string;
  readonly #database: DatabaseSync;
  readonly #ledger: Ledger;
  /** What it began with. */
  readonly base: State;
  worth: Worth;
  isOpen = true;
  /** Nobody has completed its wizard ever. */
  isNew: boolean;

  /** Boots on what lies there; on an empty volume it makes its own folder and shows its wizard. */
  constructor(dataDir: string, isNew: boolean, random: () => number) {
    this.#dataDir = dataDir;
    if (isNew) cpSync(unconfiguredTree(), dataDir, { recursive: true, preserveTimestamps: true });
    this.#database = openAsJellyfin(databaseOf(dataDir));
    this.#ledger = new Ledger(this.#database, random);
    this.base = readState(this.#database);
    this.worth = this.#isSetUp() ? 'full' : 'unconfigured';
    this.isNew =
      this.#database.prepare('SELECT 1 FROM BaseItems').get() === undefined && this.worth === 'unconfigured';
  }

  health(): Promise<JellyfinHealth> {
    return Promise.resolve(this.isOpen ? 'healthy' : 'refused');
  }

  publicInfo(): Promise<{ version: string; serverId: string } | undefined> {
    return Promise.resolve(this.isOpen ? { version: '10.11.11', serverId: 'server-1' } : undefined);
  }

  write(replica: number, n: number): void {
    this.#ledger.commit(() => this.#database.prepare('INSERT INTO ancestry VALUES (?, ?)').run(replica, n));
  }

  /** Somebody completes the wizard. */
  setUp(): void {
    this.#database.exec(
      `BEGIN; UPDATE Users SET Username = 'admin', NormalizedUsername = 'ADMIN', Password = '$PBKDF2-SHA512$';
       INSERT INTO BaseItems (Id, Type, Name) VALUES ${Array.from({ length: ITEMS }, (_, i) => `('${itemId(i)}', 'Movie', 'Movie ${i}')`).join()};
       COMMIT`,
    );
    this.#saveSettings('false', 'true');
    this.worth = 'full';
    this.isNew = false;
  }

  /** The media share was not mounted during a scan. */
  loseLibrary(): void {
    this.#database.exec('DELETE FROM BaseItems');
    this.worth = 'lost_library';
  }

  /** `system.xml` was reset: the server would show its wizard over everything that it has. */
  loseSettings(): void {
    this.#saveSettings('true', 'false');
    this.worth = 'unconfigured';
  }

  /** As an orderly stop does: the last connection takes the `-wal` with it. */
  close(): void {
    if (this.isOpen) this.#database.close();
    this.isOpen = false;
  }

  #isSetUp(): boolean {
    return readFileSync(settingsOf(this.#dataDir), 'utf8').includes('<IsStartupWizardCompleted>true<');
  }

  #saveSettings(from: string, to: string): void {
    const file = settingsOf(this.#dataDir);
    const [before, after] = [from, to].map((value) => `<IsStartupWizardCompleted>${value}<`);
    writeFileSync(file, readFileSync(file, 'utf8').replace(before ?? '', after ?? ''));
    // It has stood still for long: the agent would wait for that in real time.
    utimesSync(file, SETTLED, SETTLED);
  }
}

/** A marker or a state that was just written, as if it had stood still for long. */
export function settle(file: string): void {
  utimesSync(file, SETTLED, SETTLED);
}
