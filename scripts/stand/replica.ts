import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CONTAINER, ENV, MOUNT } from '../../agent/contract.ts';
import {
  runProcess,
  startProcess,
  type FinishedProcess,
  type ProcessExit,
  type RunningProcess,
} from '../../tests/support/processes.ts';
import { environmentOf, type ContainerSpec, type DeployedApp } from '../deployed-app.ts';
import type { World } from './world.ts';

const INIT_TIMEOUT_MS = 60_000;
const EXEC_TIMEOUT_MS = 120_000;

/**
 * Executes a deployed replica with processes for containers and folders for volumes.
 *
 * What differs from Azure, and nothing else: mount paths become folders, the managed identity becomes Azurite's connection
 * string, ports become free ones.
 */
export class Replica {
  readonly number: number;
  readonly #app: DeployedApp;
  readonly #world: World;
  readonly #dir: string;
  readonly #running = new Map<string, RunningProcess>();

  constructor(app: DeployedApp, world: World, number: number) {
    this.#app = app;
    this.#world = world;
    this.number = number;
    this.#dir = join(world.dir, `replica-${String(number)}`);
  }

  /** The folder that is the EmptyDir at `/data`. */
  get dataDir(): string {
    return join(this.#dir, 'data-volume');
  }

  container(name: string): RunningProcess {
    const found = this.#running.get(name);
    if (found === undefined) throw new Error(`container ${name} was not started`);
    return found;
  }

  /** Runs the init containers in order; answers the exit of the first that fails, or of the last. */
  async init(
    overrides: Readonly<Record<string, string>> = {},
  ): Promise<{ exit: ProcessExit; log: Record<string, unknown>[] }> {
    for (const volume of this.#app.template.volumes) {
      if (volume.storageType === 'EmptyDir') await mkdir(join(this.#dir, volume.name), { recursive: true });
    }
    let last: { exit: ProcessExit; log: Record<string, unknown>[] } = {
      exit: { code: 0, signal: null },
      log: [],
    };
    for (const container of this.#app.template.initContainers) {
      const child = this.#start(container, overrides);
      last = { exit: await child.waitForExit(INIT_TIMEOUT_MS), log: child.jsonLines() };
      if (last.exit.code !== 0) return last;
    }
    return last;
  }

  /**
   * Starts all containers at once, as the platform does.
   * @param overrides Variables by container, over what the app says.
   */
  async start(overrides: Readonly<Record<string, Readonly<Record<string, string>>>> = {}): Promise<void> {
    if (this.#world.jellyfin.kind === 'real') await this.#seedPort();
    for (const container of this.#app.template.containers)
      this.#running.set(container.name, this.#start(container, overrides[container.name]));
  }

  /**
   * A command of the agent as a person runs it in a container of the running replica.
   * @param overrides Variables over what the app says.
   * @throws When it does not end in two minutes.
   */
  async exec(
    containerName: string,
    args: readonly string[],
    overrides: Readonly<Record<string, string>> = {},
  ): Promise<FinishedProcess> {
    const container = this.#app.template.containers.find(({ name }) => name === containerName);
    if (container === undefined) throw new Error(`the app has no container ${containerName}`);
    return runProcess({
      name: `agent ${args.join(' ')}`,
      args: ['dist/agent.mjs', ...args],
      env: { ...this.#envOf(container), ...overrides },
      timeoutMs: EXEC_TIMEOUT_MS,
    });
  }

  /** SIGTERM to every container at once, and SIGKILL `graceMs` later whatever the grace period says. */
  async stopShort(graceMs: number): Promise<void> {
    for (const child of this.#running.values()) child.signal('SIGTERM');
    await sleep(graceMs);
    await this.kill();
  }

  /** SIGTERM to every container at once, SIGKILL after the grace period. */
  async stop(): Promise<Map<string, ProcessExit>> {
    for (const child of this.#running.values()) child.signal('SIGTERM');
    return this.#exits(this.#app.template.terminationGracePeriodSeconds * 1000);
  }

  /** The node is gone: SIGKILL to everything at once. */
  async kill(): Promise<Map<string, ProcessExit>> {
    for (const child of this.#running.values()) child.signal('SIGKILL');
    return this.#exits(10_000);
  }

  async #exits(graceMs: number): Promise<Map<string, ProcessExit>> {
    const entries = [...this.#running].map(async ([name, child]) => {
      const exit = await child.waitForExit(graceMs).catch(() => child.kill());
      return [name, exit] as const;
    });
    return new Map(await Promise.all(entries));
  }

  #start(container: ContainerSpec, overrides: Readonly<Record<string, string>> = {}): RunningProcess {
    const env = { ...this.#envOf(container), ...overrides };
    const name = `${container.name} of replica ${String(this.number)}`;
    if (container.name !== CONTAINER.jellyfin) {
      return startProcess({ name, args: ['dist/agent.mjs', ...(container.args ?? [])], env });
    }
    const { jellyfin, jellyfinPort } = this.#world;
    const port = String(jellyfinPort);
    if (jellyfin.kind === 'real') {
      // Without ffmpeg a start would fail; nothing is played here (facts/jellyfin.md 6.2).
      const real = {
        ...env,
        PATH: process.env['PATH'] ?? '',
        HOME: this.#dir,
        JELLYFIN_FFMPEG__NOVALIDATION: 'true',
      };
      return startProcess({ name, command: jellyfin.bin, args: ['--nowebclient'], env: real });
    }
    return startProcess({
      name,
      args: ['scripts/stand-in/main.ts'],
      env: {
        ...env,
        PATH: process.env['PATH'] ?? '',
        HOME: this.#dir,
        STAND_IN_PORT: port,
        STAND_IN_LATE_WRITE: '1',
        STAND_IN_VERSION: versionOf(container),
      },
    });
  }

  #envOf(container: ContainerSpec): Record<string, string> {
    const env: Record<string, string> = {};
    const identity: string[] = [ENV.storageAccount, ENV.clientId];
    for (const [name, value] of Object.entries(environmentOf(this.#app, container))) {
      if (!identity.includes(name)) env[name] = this.#toFolder(value, container);
    }
    if (container.env.some(({ name }) => name === ENV.storageAccount)) {
      env[ENV.connectionString] = this.#world.connectionString;
      env[ENV.container] = this.#world.containerName;
      // Two replicas on one machine would ask for one port.
      if (container.args?.[0] === 'backup') env[ENV.healthPort] = '0';
    }
    // The image has it on its PATH.
    if (container.name === CONTAINER.jellyroller) env[ENV.jellyrollerBin] = this.#world.jellyroller.bin;
    // A path of Jellyfin's container, which is the one that mounts it.
    if (env[ENV.mediaDir] === MOUNT.media) env[ENV.mediaDir] = this.#world.mediaDir;
    if (env[ENV.jellyfinUrl] !== undefined)
      env[ENV.jellyfinUrl] = `http://127.0.0.1:${String(this.#world.jellyfinPort)}`;
    return env;
  }

  #toFolder(value: string, container: ContainerSpec): string {
    for (const { mountPath, volumeName } of container.volumeMounts) {
      if (value !== mountPath && !value.startsWith(`${mountPath}/`)) continue;
      const volume = this.#app.template.volumes.find((one) => one.name === volumeName);
      const folder = volume?.storageType === 'AzureFile' ? this.#world.mediaDir : join(this.#dir, volumeName);
      return `${folder}${value.slice(mountPath.length)}`;
    }
    return value;
  }

  /** A real server takes its port from network.xml only; it is part of the settings that come back with a restore. */
  async #seedPort(): Promise<void> {
    const file = join(this.dataDir, 'config/network.xml');
    if (existsSync(file)) {
      // Two replicas at once have a network each on Azure, and one here.
      const settings = await readFile(file, 'utf8');
      const port = `<InternalHttpPort>${String(this.#world.jellyfinPort)}</InternalHttpPort>`;
      await writeFile(file, settings.replace(/<InternalHttpPort>\d+<\/InternalHttpPort>/, port));
      return;
    }
    await mkdir(join(this.dataDir, 'config'), { recursive: true });
    await writeFile(
      file,
      `<?xml version="1.0" encoding="utf-8"?>
<NetworkConfiguration>
  <InternalHttpPort>${String(this.#world.jellyfinPort)}</InternalHttpPort>
  <LocalNetworkAddresses><string>127.0.0.1</string></LocalNetworkAddresses>
  <AutoDiscovery>false</AutoDiscovery>
</NetworkConfiguration>
`,
    );
  }
}

function versionOf(container: ContainerSpec): string {
  return /:(\d+(?:\.\d+)+)/.exec(container.image)?.[1] ?? '10.11.11';
}
