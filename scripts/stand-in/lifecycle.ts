import { setTimeout as sleep } from 'node:timers/promises';
import { BackgroundWriter } from './background-writer.ts';
import { restoreBackup } from './backup-restore.ts';
import { readNetwork } from './configuration.ts';
import { openDatabase } from './database.ts';
import { checkSpaceToBoot } from './free-space.ts';
import type { Log } from './log.ts';
import { MainServer } from './main-server.ts';
import type { StandInOptions } from './options.ts';
import type { Paths } from './paths.ts';
import { Server } from './server.ts';
import { SetupServer } from './setup-server.ts';
import { loadServerId } from './server-id.ts';
import { StopRequests } from './stop-requests.ts';
import { formatVersion, isTwelve } from './versions.ts';

/** Of the boot time: how long nobody listens between the setup server and the main one. */
const GAP = 1 / 3;
/** Of the boot time: how long the main server listens before it is ready. */
const WARM_UP = 1 / 3;

/** The process: starts a server, and again after each restart, until it is told to stop. Resolves to an exit code. */
export class Lifecycle {
  readonly #options: StandInOptions;
  readonly #paths: Paths;
  readonly #log: Log;
  readonly #onListening: (port: number) => void;
  readonly #stops: StopRequests;
  #port: number | undefined;
  #archive: string | undefined;

  constructor(options: StandInOptions, paths: Paths, log: Log, onListening: (port: number) => void) {
    this.#options = options;
    this.#paths = paths;
    this.#log = log;
    this.#onListening = onListening;
    this.#stops = new StopRequests(log);
  }

  async run(): Promise<number> {
    this.#stops.listenToSignals();
    for (;;) {
      const setup = await this.#openSetupServer();
      let server: Server | undefined;
      try {
        server = await this.#start(setup);
      } catch (error) {
        return await this.#stayFailed(setup, error);
      }
      await setup.close();
      if (server && (await this.#serve(server)) === 'shutdown') return 0;
    }
  }

  /** Ends an overdue process like a SIGTERM would; false when it is in a state that swallows one. */
  stopOverdue(): boolean {
    return this.#stops.request('shutdown');
  }

  async #openSetupServer(): Promise<SetupServer> {
    const network = readNetwork(this.#paths);
    const isFirst = this.#port === undefined;
    const setup = await SetupServer.open(this.#port ?? this.#options.port ?? network.port, network.baseUrl);
    this.#port = setup.port;
    if (isFirst) {
      this.#onListening(setup.port);
      // Outside of what the setup server guards: too little space ends the process without any page to read.
      checkSpaceToBoot(this.#paths, this.#options);
    }
    return setup;
  }

  /** Undefined after a restore: the start begins anew on the restored data. */
  async #start(setup: SetupServer): Promise<Server | undefined> {
    const { bootMs, version } = this.#options;
    if (this.#archive !== undefined) {
      this.#restore(this.#archive);
      return undefined;
    }
    const introduce = (name: string): void =>
      setup.introduce({
        id: loadServerId(this.#paths.serverIdFile),
        serverName: name,
        version: formatVersion(version),
      });
    if (!isTwelve(version)) introduce('');
    const server = new Server(this.#options, this.#paths, this.#log, {
      shutdown: () => void this.#stops.request('shutdown'),
      restart: () => void this.#stops.request('restart'),
      restoreAndRestart: (archive) => {
        this.#archive = archive;
        setTimeout(() => this.#stops.request('restart'), 500);
      },
    });
    await sleep(bootMs / 2);
    introduce(server.configuration.serverName);
    await sleep(bootMs / 2);
    return server;
  }

  #restore(archive: string): void {
    this.#archive = undefined;
    const db = openDatabase(this.#paths.databaseFile);
    try {
      restoreBackup(archive, db, this.#paths, this.#options.version, this.#log);
    } finally {
      db.close();
    }
  }

  async #serve(server: Server): Promise<'shutdown' | 'restart'> {
    const { bootMs, writeIntervalMs } = this.#options;
    await sleep(bootMs * GAP);
    const main = await MainServer.open(this.#port ?? 0, server);
    const requested = this.#stops.next();
    await sleep(bootMs * WARM_UP);
    server.runStartupTasks();
    main.becomeReady();
    this.#log.info('Startup complete');
    const writer = new BackgroundWriter(server.activity, server.plugins, this.#log, writeIntervalMs);

    const stop = await requested;
    this.#log.info(`Received ${stop}, closing`);
    await this.#close(server, main, writer);
    return stop;
  }

  /** The port refuses at once, while the database is still written to: a closed port does not mean a quiet database. */
  async #close(server: Server, main: MainServer, writer: BackgroundWriter): Promise<void> {
    const { shutdownMs, lateWrite } = this.#options;
    const drained = main.close(shutdownMs);
    await sleep(shutdownMs * 0.8);
    if (lateWrite) {
      const id = server.activity.record('StandInLateWrite', 'late write');
      server.plugins.notePlayback('late write');
      this.#log.info(`Late write committed as activity ${id}`);
    }
    await sleep(shutdownMs * 0.2);
    await drained;
    writer.stop();
    server.close();
    this.#log.info('Closed the database');
  }

  /** The process stays, unhealthy, so that a person can read the page; then it ends. */
  async #stayFailed(setup: SetupServer, error: unknown): Promise<number> {
    this.#log.error('Error while starting server', error);
    setup.fail();
    await sleep(this.#options.failedStartMs);
    await setup.close();
    return 1;
  }
}
