import {
  COMMAND_ENV,
  COMMAND_MOUNTS,
  CONTAINER,
  ENV,
  HEALTH_PATH,
  HEALTH_PORT,
  JELLYFIN_DIRS,
  MOUNT,
  SECRET_ENV,
  SHUTDOWN,
  VOLUME,
  type Command,
  type EnvKey,
} from '../../agent/contract.ts';
import { agentEnv } from '../../components/agent-env.ts';
import { appTemplate, type AppTemplate, type InitContainer } from '../../components/app-template.ts';
import { JELLYROLLER, stackConfig } from '../support/stack-config.ts';

function template(overrides: Record<string, string> = {}, secretKeys: string[] = []): AppTemplate {
  return appTemplate({
    config: stackConfig(overrides, secretKeys),
    agentImage: 'registry.example/agent:1',
    jellyrollerImage: 'registry.example/runner:1',
    backupAccount: 'jellyfinbackup1',
    backupContainer: 'jellyfin-backups',
    dataClientId: '11111111-2222-3333-4444-555555555555',
    mediaStorage: 'jellyfin-media',
  });
}

function container(of: AppTemplate, name: string): InitContainer {
  const found = [...of.initContainers, ...of.containers].find((candidate) => candidate.name === name);
  if (found === undefined) throw new Error(`no container ${name}`);
  return found;
}

const COMMAND_OF: Record<string, Command> = {
  [CONTAINER.restore]: 'restore',
  [CONTAINER.backup]: 'backup',
  [CONTAINER.jellyroller]: 'jellyroller',
};
const KEY = { jellyfinApiKey: '0123456789abcdef0123456789abcdef' };
const FULL = template({ ...JELLYROLLER, ...KEY }, ['jellyfinApiKey']);

describe('appTemplate', () => {
  it('is this, for the default configuration', () => {
    const { volumes, scale, terminationGracePeriodSeconds, initContainers, containers } = template();
    expect(initContainers.map(({ name }) => name)).toEqual(['restore-db']);
    expect(containers.map(({ name }) => name)).toEqual(['backup-agent', 'jellyfin']);
    expect(volumes).toEqual([
      { name: 'cache-volume', storageType: 'EmptyDir' },
      { name: 'data-volume', storageType: 'EmptyDir' },
      { name: 'media-volume', storageType: 'AzureFile', storageName: 'jellyfin-media' },
    ]);
    expect(scale).toEqual({
      minReplicas: 0,
      maxReplicas: 1,
      cooldownPeriod: 1800,
      pollingInterval: 30,
      rules: [{ name: 'http', http: { metadata: { concurrentRequests: '100' } } }],
    });
    expect(terminationGracePeriodSeconds).toBeGreaterThan(SHUTDOWN.budgetSeconds);
  });

  it('gives Jellyfin all four directories, the pinned image and nothing of the store', () => {
    const jellyfin = container(template(), 'jellyfin');
    expect(jellyfin.env).toEqual([
      { name: 'JELLYFIN_DATA_DIR', value: '/data' },
      { name: 'JELLYFIN_CONFIG_DIR', value: '/data/config' },
      { name: 'JELLYFIN_CACHE_DIR', value: '/cache' },
      { name: 'JELLYFIN_LOG_DIR', value: '/data/log' },
    ]);
    expect(jellyfin.image).toBe('ghcr.io/jellyfin/jellyfin:10.11.11');
    expect(jellyfin.volumeMounts).toEqual([
      { volumeName: 'cache-volume', mountPath: '/cache' },
      { volumeName: 'data-volume', mountPath: '/data' },
      { volumeName: 'media-volume', mountPath: '/media' },
    ]);
    expect(
      Object.values(JELLYFIN_DIRS).every((dir) =>
        [MOUNT.data, MOUNT.cache].some((mount) => dir.startsWith(mount)),
      ),
    ).toBe(true);
  });

  it('runs the agent by its commands', () => {
    expect(FULL.initContainers.map(({ args }) => args)).toEqual([['restore']]);
    expect(Object.fromEntries(FULL.containers.map(({ name, args }) => [name, args]))).toEqual({
      'backup-agent': ['backup'],
      jellyfin: undefined,
      'jellyroller-runner': ['jellyroller'],
    });
  });

  it("hands the restore the image's version, which is the gate against a downgrade", () => {
    expect(container(template(), 'restore-db').env).toContainEqual({
      name: 'JELLYFIN_VERSION',
      value: '10.11.11',
    });
    const next = template({ jellyfinImage: 'ghcr.io/jellyfin/jellyfin:12.0' });
    expect(container(next, 'restore-db').env).toContainEqual({ name: 'JELLYFIN_VERSION', value: '12.0' });
  });

  it('probes Jellyfin and the sidecar explicitly, within the documented bounds', () => {
    const probes = Object.fromEntries(FULL.containers.map(({ name, probes: list }) => [name, list]));
    expect(probes['jellyfin']?.map(({ type, httpGet }) => [type, httpGet])).toEqual([
      ['Startup', { path: '/health', port: 8096 }],
      ['Readiness', { path: '/health', port: 8096 }],
      ['Liveness', { path: '/health', port: 8096 }],
    ]);
    expect(probes['backup-agent']?.map(({ type, httpGet }) => [type, httpGet])).toEqual([
      ['Liveness', { path: HEALTH_PATH, port: HEALTH_PORT }],
    ]);
    expect(probes['jellyroller-runner']).toEqual([]);
    for (const probe of FULL.containers.flatMap(({ probes: list }) => list)) {
      expect(probe.initialDelaySeconds).toBeGreaterThanOrEqual(1);
      expect(probe.initialDelaySeconds).toBeLessThanOrEqual(60);
      expect(probe.periodSeconds).toBeLessThanOrEqual(240);
      expect(probe.failureThreshold).toBeLessThanOrEqual(10);
      expect(probe.timeoutSeconds).toBeLessThanOrEqual(probe.periodSeconds);
    }
    const backup = container(FULL, 'backup-agent').env;
    expect(backup).toContainEqual({ name: 'HEALTH_HOST', value: '0.0.0.0' });
    expect(backup).toContainEqual({ name: 'HEALTH_PORT', value: String(HEALTH_PORT) });
  });

  it('waits for a slow start as long as it is told to', () => {
    for (const seconds of [50, 120, 301, 2400]) {
      const jellyfin = template({ startupTimeoutSeconds: String(seconds) }).containers.find(
        ({ name }) => name === 'jellyfin',
      );
      const startup = jellyfin?.probes[0];
      expect((startup?.periodSeconds ?? 0) * (startup?.failureThreshold ?? 0)).toBeGreaterThanOrEqual(
        seconds,
      );
    }
  });

  it('adds exactly the runner when JellyRoller is on', () => {
    const off = template();
    const on = template(JELLYROLLER);
    expect(on.containers.filter(({ name }) => name !== CONTAINER.jellyroller)).toEqual(off.containers);
    expect({ ...on, containers: [] }).toEqual({ ...off, containers: [] });
    expect(on.containers.map(({ name }) => name)).toEqual(['backup-agent', 'jellyfin', 'jellyroller-runner']);
    expect(container(on, 'jellyroller-runner').image).toBe('registry.example/runner:1');
    expect(container(on, 'jellyroller-runner').env).toContainEqual({
      name: 'JELLYROLLER_ENABLED',
      value: 'true',
    });
  });

  it('keeps credentials away from a stack that turned the bootstrap off', () => {
    const env = container(template({ bootstrapAdmin: 'false' }), 'backup-agent').env;
    expect(env.filter((entry) => 'secretRef' in entry)).toEqual([]);
    expect(env.map(({ name }) => name)).not.toContain('JELLYFIN_ADMIN_USER');
  });
});

describe('the contract, from the side of the infrastructure', () => {
  const agents = [...FULL.initContainers, ...FULL.containers].filter(
    ({ name }) => name !== CONTAINER.jellyfin,
  );
  const deliberatelyAbsent: EnvKey[] = [
    'storageKey',
    'connectionString',
    'jellyrollerBin',
    'jellyrollerTimeoutSeconds',
  ];

  it.each(agents.map((agent) => ({ agent, name: agent.name })))(
    'gives $name every variable that its command may see and no other',
    ({ agent }) => {
      const command = COMMAND_OF[agent.name] as Command;
      const expected = COMMAND_ENV[command]
        .filter((key: EnvKey) => !deliberatelyAbsent.includes(key))
        .map((key: EnvKey) => ENV[key]);
      expect(agent.env.map(({ name }) => name)).toEqual(expected);
    },
  );

  it('passes every secret by reference, and nothing else', () => {
    const secretNames = SECRET_ENV.map((key) => ENV[key]) as string[];
    for (const entry of agents.flatMap(({ env }) => env)) {
      expect({ name: entry.name, byReference: 'secretRef' in entry }).toEqual({
        name: entry.name,
        byReference: secretNames.includes(entry.name),
      });
    }
  });

  it('mounts whatever a command uses, where the contract says', () => {
    for (const agent of agents) {
      const command = COMMAND_OF[agent.name] as Command;
      expect(agent.volumeMounts).toEqual(
        COMMAND_MOUNTS[command].map((key) => ({ volumeName: VOLUME[key], mountPath: MOUNT[key] })),
      );
    }
    const declared = FULL.volumes.map(({ name }) => name);
    const used = [...agents, container(FULL, 'jellyfin')].flatMap(({ volumeMounts }) =>
      volumeMounts.map(({ volumeName }) => volumeName),
    );
    expect([...new Set(used)].toSorted()).toEqual(declared);
  });

  it('does not compile when a variable is forgotten, is not for the command, or is a secret in plain text', () => {
    const restore = {
      storageAccount: 'a',
      clientId: 'b',
      storageKey: undefined,
      connectionString: undefined,
      container: 'c',
      retryMax: '5',
      retryBackoffSeconds: '15',
      logLevel: 'info',
      dataDir: '/data',
      minBackupSizeBytes: '1',
      handoverWaitSeconds: '45',
    };
    const checks = [
      // @ts-expect-error jellyfinVersion is forgotten
      () => agentEnv('restore', restore),
      // @ts-expect-error a restore must not see the interval of the sidecar
      () => agentEnv('restore', { ...restore, jellyfinVersion: '1.0', backupIntervalSeconds: '60' }),
      // @ts-expect-error a key in plain text
      () => agentEnv('restore', { ...restore, jellyfinVersion: '1.0', storageKey: 'plain' }),
    ];
    expect(checks).toHaveLength(3);
    expect(agentEnv('restore', { ...restore, jellyfinVersion: '1.0' })).toHaveLength(10);
  });
});
