import { existsSync } from 'node:fs';
import type { DatabaseSync } from 'node:sqlite';
import { ActivityLog } from './activity.ts';
import { Backups } from './backups.ts';
import { ServerConfiguration } from './configuration.ts';
import { closeDatabase, loseLocks, openDatabase } from './database.ts';
import { ItemLists } from './item-lists.ts';
import { Items } from './items.ts';
import { Libraries } from './libraries.ts';
import type { Log } from './log.ts';
import { migrate } from './migrations.ts';
import type { StandInOptions } from './options.ts';
import type { Paths } from './paths.ts';
import { Plugins } from './plugins.ts';
import { Scanner } from './scanner.ts';
import { ScheduledTasks } from './scheduled-tasks.ts';
import { loadServerId } from './server-id.ts';
import { Sessions } from './sessions.ts';
import { Users } from './users.ts';
import { isTwelve } from './versions.ts';

/** What a person or a client can ask the process to do with itself. */
export interface Control {
  shutdown(): void;
  restart(): void;
  restoreAndRestart(archive: string): void;
}

/** One started server, from the open database up to, but without, its port. A restart makes a new one. */
export class Server {
  readonly options: StandInOptions;
  readonly paths: Paths;
  readonly log: Log;
  readonly control: Control;
  readonly configuration: ServerConfiguration;
  readonly id: string;
  readonly db: DatabaseSync;
  readonly users: Users;
  readonly sessions: Sessions;
  readonly activity: ActivityLog;
  readonly libraries: Libraries;
  readonly items: Items;
  readonly lists: ItemLists;
  readonly scanner: Scanner;
  readonly tasks: ScheduledTasks;
  readonly plugins: Plugins;
  readonly backups: Backups;

  constructor(options: StandInOptions, paths: Paths, log: Log, control: Control) {
    this.options = options;
    this.paths = paths;
    this.log = log;
    this.control = control;
    this.configuration = new ServerConfiguration(paths, log, options.xmlPauseMs);
    this.id = loadServerId(paths.serverIdFile);
    this.plugins = new Plugins(paths);
    if (options.plugin && !existsSync(paths.databaseFile)) this.plugins.install();

    this.db = openDatabase(paths.databaseFile);
    migrate(this.db, options.version, paths, log);
    loseLocks(paths.databaseFile, options.loseLocks);
    this.plugins.load();

    this.users = new Users(this.db);
    this.sessions = new Sessions(this.db, this.users);
    this.activity = new ActivityLog(this.db);
    this.libraries = new Libraries(paths.librariesDir);
    this.items = new Items(this.db);
    this.lists = new ItemLists(this.items, paths);
    this.scanner = new Scanner(this.db, this.libraries, paths);
    this.tasks = new ScheduledTasks(this.db, this.scanner, paths);
    this.backups = new Backups(this.db, paths, options, log);
  }

  /** The last step of a start. From 12.0 on, a database with a configured administrator closes the wizard. */
  runStartupTasks(): void {
    this.scanner.removeOrphans();
    const isClosedByDatabase = isTwelve(this.options.version) && this.users.hasConfiguredAdministrator();
    if (!this.configuration.isWizardCompleted && isClosedByDatabase) {
      this.configuration.updateSystem({ IsStartupWizardCompleted: 'true' });
    }
  }

  isDatabaseReachable(): boolean {
    try {
      return this.db.prepare('SELECT 1').get() !== undefined;
    } catch (error) {
      this.log.error('The database cannot be reached', error);
      return false;
    }
  }

  close(): void {
    this.plugins.close();
    closeDatabase(this.db, this.options.version);
  }
}
