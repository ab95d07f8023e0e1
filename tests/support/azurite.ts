import { join } from 'node:path';
import { BlobServiceClient, StorageSharedKeyCredential, type ContainerClient } from '@azure/storage-blob';
import { onCleanUp } from './clean-up.ts';
import { startProcess } from './processes.ts';

/** Azurite's published development account: not a secret, the same everywhere. */
export const AZURITE_ACCOUNT = {
  name: 'devstoreaccount1',
  key: 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==',
} as const;

export interface AzuriteOptions {
  /** Keep the blobs in this folder, so that they outlive the process. @default in memory */
  location?: string;
  /** @default 16384: Azurite's own limit is half of the machine, and beyond it answers 409 in odd places */
  memoryLimitMiB?: number;
  /** For coming back on the same address after an outage. @default a free one */
  port?: number;
}

export interface Azurite {
  readonly port: number;
  /** With the account in the path: `http://127.0.0.1:PORT/devstoreaccount1` */
  readonly endpoint: string;
  readonly connectionString: string;
  readonly accountName: string;
  readonly accountKey: string;
  /** -1 for a shared one. */
  readonly pid: number;
  /** A client without retries, past any fault proxy: for arranging and for looking at what is really stored. */
  readonly service: BlobServiceClient;
  container(name: string): ContainerClient;
  /** Creates a container with a name that nobody had before and returns the name. */
  createContainer(prefix?: string): Promise<string>;
  stop(): Promise<void>;
}

/** Where the Azurite of the whole jest run listens, if there is one. */
const SHARED_PORT_ENV = 'TEST_AZURITE_PORT';

/**
 * Azurite for a test that neither stops it nor needs it empty: the one of the whole jest run if `globalSetup` names
 * this folder's `azurite-global-setup.ts`, otherwise one of its own. Its `stop` leaves a shared one alone.
 */
export async function sharedAzurite(): Promise<Azurite> {
  const port = Number(process.env[SHARED_PORT_ENV] ?? 0);
  return port > 0 ? handle(port, -1, async () => {}) : startAzurite();
}

/** For `globalSetup`: one start (about two seconds of a core) instead of one per test file. */
export async function startSharedAzurite(): Promise<void> {
  process.env[SHARED_PORT_ENV] = String((await startAzurite()).port);
}

/** Azurite's blob service as a child process on a free port. It ends with us, however we end. */
export async function startAzurite(options: AzuriteOptions = {}): Promise<Azurite> {
  const child = startProcess({
    name: 'azurite',
    args: [
      join(process.cwd(), 'node_modules/azurite/dist/src/blob/main.js'),
      ...['--blobHost', '127.0.0.1', '--blobPort', String(options.port ?? 0)],
      // It phones home by default, and it is older than the API version of the current SDK.
      ...['--disableTelemetry', '--skipApiVersionCheck', '--silent'],
      ...(options.location !== undefined
        ? ['--location', options.location]
        : ['--inMemoryPersistence', '--extentMemoryLimit', String(options.memoryLimitMiB ?? 16_384)]),
    ],
    env: { PATH: process.env['PATH'] ?? '', HOME: process.env['HOME'] ?? '/tmp' },
  });
  const listening = /listens on http:\/\/127\.0\.0\.1:(\d+)/;
  const line = await child.waitForLine(({ text }) => listening.test(text), 60_000);
  const port = Number(listening.exec(line.text)?.[1]);
  // A program that forgets to stop it can still end; Azurite notices and ends too.
  child.unref();
  const stop = async () => {
    forget();
    // Only a folder needs the clean close: SIGTERM makes Azurite write its metadata down.
    if (options.location !== undefined && child.signal('SIGTERM')) {
      await child.waitForExit(5_000).catch(() => undefined);
    }
    await child.kill();
  };
  const forget = onCleanUp('servers', stop);
  return handle(port, child.pid, stop);
}

/** Names must differ between test files and jest's workers: each of them has a module of its own. */
const NAME_BASE = `${Date.now().toString(36)}${process.pid.toString(36)}`;
let containersCreated = 0;

function handle(port: number, pid: number, stop: () => Promise<void>): Azurite {
  const endpoint = `http://127.0.0.1:${port}/${AZURITE_ACCOUNT.name}`;
  const service = new BlobServiceClient(
    endpoint,
    new StorageSharedKeyCredential(AZURITE_ACCOUNT.name, AZURITE_ACCOUNT.key),
    { retryOptions: { maxTries: 1 } },
  );
  return {
    port,
    endpoint,
    connectionString: connectionStringFor(port),
    accountName: AZURITE_ACCOUNT.name,
    accountKey: AZURITE_ACCOUNT.key,
    pid,
    service,
    container: (name) => service.getContainerClient(name),
    async createContainer(prefix = 'test') {
      for (;;) {
        const name = `${prefix.slice(0, 40)}-${NAME_BASE}-${++containersCreated}`;
        const { succeeded } = await service.getContainerClient(name).createIfNotExists();
        if (succeeded) return name;
      }
    },
    stop,
  };
}

/** How a client reaches the emulator's account behind `port` (Azurite's own, or a fault proxy's). */
export function connectionStringFor(port: number): string {
  return (
    `DefaultEndpointsProtocol=http;AccountName=${AZURITE_ACCOUNT.name};AccountKey=${AZURITE_ACCOUNT.key};` +
    `BlobEndpoint=http://127.0.0.1:${port}/${AZURITE_ACCOUNT.name};`
  );
}
