import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DatabaseSync } from 'node:sqlite';
import { execute, openDatabase, sqlDate } from './database.ts';
import type { Paths } from './paths.ts';

const PLAYBACK_REPORTING = {
  category: 'General',
  guid: '5c534381-91a3-43cb-907a-35aa02eb9d2c',
  name: 'Playback Reporting',
  description: 'Collect and show user play statistics',
  owner: 'stand-in',
  targetAbi: '10.11.0.0',
  version: '17.0.0.0',
  status: 'Active',
  autoUpdate: true,
  assemblies: [],
};
const FOLDER = `${PLAYBACK_REPORTING.name}_${PLAYBACK_REPORTING.version}`;
const CONFIGURATION = `<?xml version="1.0" encoding="utf-8"?>
<PluginConfiguration>
  <MaxDataAge>3</MaxDataAge>
  <IgnoreSmallerThan>0</IgnoreSmallerThan>
</PluginConfiguration>
`;

/** One plugin with a folder, a settings file and a database of its own: the things a backup tends to forget. */
export class Plugins {
  readonly #paths: Paths;
  #db: DatabaseSync | undefined;

  constructor(paths: Paths) {
    this.#paths = paths;
  }

  /** Only for a brand-new server; a plugin that a restore lost must stay lost, or the loss could not be seen. */
  install(): void {
    const folder = join(this.#paths.pluginsDir, FOLDER);
    mkdirSync(folder, { recursive: true });
    mkdirSync(this.#paths.pluginConfigurationsDir, { recursive: true });
    writeFileSync(join(folder, 'meta.json'), JSON.stringify(PLAYBACK_REPORTING, undefined, 2));
    writeFileSync(join(folder, 'Jellyfin.Plugin.PlaybackReporting.dll'), Buffer.alloc(4096, 'MZ'));
    const settings = join(this.#paths.pluginConfigurationsDir, 'Jellyfin.Plugin.PlaybackReporting.xml');
    writeFileSync(settings, CONFIGURATION);
  }

  load(): void {
    if (this.list().length === 0) return;
    this.#db = openDatabase(join(this.#paths.dataDir, 'playback_reporting.db'));
    this.#db.exec(
      `CREATE TABLE IF NOT EXISTS PlaybackActivity (DateCreated DATETIME NOT NULL, UserId TEXT, ItemId TEXT,
        ItemType TEXT, ItemName TEXT, PlaybackMethod TEXT, ClientName TEXT, DeviceName TEXT, PlayDuration INT)`,
    );
  }

  list(): { Name: string; Version: string; Id: string; Status: string }[] {
    const meta = join(this.#paths.pluginsDir, FOLDER, 'meta.json');
    if (!existsSync(meta)) return [];
    const { name, version, guid, status } = JSON.parse(
      readFileSync(meta, 'utf8'),
    ) as typeof PLAYBACK_REPORTING;
    return [{ Name: name, Version: version, Id: guid.replaceAll('-', ''), Status: status }];
  }

  notePlayback(itemName: string, itemId?: string, userId?: string): void {
    if (!this.#db) return;
    execute(
      this.#db,
      `INSERT INTO PlaybackActivity VALUES (?, ?, ?, 'Movie', ?, 'DirectPlay', 'stand-in', 'stand-in', 60)`,
      sqlDate(),
      userId ?? null,
      itemId ?? null,
      itemName,
    );
  }

  close(): void {
    this.#db?.close();
    this.#db = undefined;
  }
}
