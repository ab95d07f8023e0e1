// Proves what mocks hide: parents, protection, dependencies and secret markers of the whole program, as the SDK puts them
// on the wire. The engine is ours, so this proves nothing about Azure or about Pulumi's own diff.
import { parseConfig } from '../../agent/config.ts';
import {
  COMMAND_ENV,
  COMMAND_MOUNTS,
  CONTAINER,
  ENV,
  MOUNT,
  SECRET_ENV,
  VOLUME,
  type Command,
  type EnvKey,
} from '../../agent/contract.ts';
import { deployedApp, environmentOf, type ContainerSpec } from '../../scripts/deployed-app.ts';
import {
  evaluateProgram,
  isSecretValue,
  mask,
  reveal,
  type Evaluation,
  type RecordedResource,
} from '../../scripts/local-engine.ts';

const LOCATION = { 'azure-native:location': 'westeurope' };
const JELLYROLLER = { jellyrollerEnabled: 'true', jellyrollerSha256: 'ab'.repeat(32) };
const STACK = 'urn:pulumi:dev::jellyfin-on-azure::pulumi:pulumi:Stack::jellyfin-on-azure-dev';

function one(evaluation: Evaluation, type: string, name?: string): RecordedResource {
  const found = evaluation.resources.filter(
    (r) => r.type.endsWith(`:${type}`) && (name === undefined || r.name === name),
  );
  expect(found).toHaveLength(1);
  return found[0] as RecordedResource;
}

const COMMAND_OF: Readonly<Record<string, Command>> = {
  [CONTAINER.restore]: 'restore',
  [CONTAINER.backup]: 'backup',
  [CONTAINER.jellyroller]: 'jellyroller',
};

/** The one place where the agent's own parser joins in. */
function expectAgentAccepts(command: Command, env: Record<string, string>): void {
  expect(parseConfig(command, env)).toMatchObject({
    credential: { kind: 'managedIdentity' },
    container: 'jellyfin-backups',
    dataDir: MOUNT.data,
  });
  const allowed = COMMAND_ENV[command].map((key: EnvKey): string => ENV[key]);
  expect(Object.keys(env).filter((name) => !allowed.includes(name))).toEqual([]);
  expect(Object.values(env).filter((value) => value === '')).toEqual([]);
}

let plain: Evaluation;
let full: Evaluation;
beforeAll(async () => {
  plain = await evaluateProgram({ config: LOCATION });
  full = await evaluateProgram({
    config: { ...LOCATION, ...JELLYROLLER },
    secrets: { jellyfinApiKey: '0123456789abcdef0123456789abcdef' },
    preview: false,
  });
});

describe('the program with its default configuration', () => {
  it('creates exactly this', () => {
    const lines = plain.resources.map(
      ({ type, name }) => `${type.replace(/^azure-native:|^jellyfin-on-azure:/, '')} ${name}`,
    );
    expect(lines.toSorted()).toEqual([
      'app:AppEnvironment environment',
      'app:ContainerApp app',
      'app:JellyfinApp app',
      'app:ManagedEnvironment environment',
      'app:ManagedEnvironmentsStorage environment-media',
      'authorization:RoleAssignment app-data-role',
      'authorization:RoleAssignment app-pull-role',
      'containerregistry:Registry image',
      'containerregistry:TaskRun image-agent',
      'image:AgentImage image',
      'managedidentity:UserAssignedIdentity app-data',
      'managedidentity:UserAssignedIdentity app-pull',
      'monitor:BackupAlert alert',
      'monitor:DiagnosticSetting environment-diagnostics',
      'monitor:ScheduledQueryRule alert',
      'operationalinsights:Workspace environment-logs',
      'random:index/randomPassword:RandomPassword app-admin-password',
      'random:index/randomString:RandomString suffix',
      'resources:ResourceGroup jellyfin',
      'storage:BackupStorage backup',
      'storage:Blob image-context-archive',
      'storage:BlobContainer backup-container',
      'storage:BlobContainer image-context',
      'storage:BlobServiceProperties backup-blobs',
      'storage:FileServiceProperties media-files',
      'storage:FileShare media-share',
      'storage:ManagementPolicy backup-lifecycle',
      'storage:MediaStorage media',
      'storage:StorageAccount backup',
      'storage:StorageAccount media',
    ]);
  });

  it('hangs every resource below a component, and only these below the stack', () => {
    const urns = new Set(plain.resources.map(({ urn }) => urn));
    for (const { parent } of plain.resources) expect(parent === STACK || urns.has(parent)).toBe(true);
    const roots = plain.resources
      .filter(({ parent, custom }) => parent === STACK && custom)
      .map(({ name }) => name);
    expect(roots.toSorted()).toEqual(['jellyfin', 'suffix']);
  });

  it('protects what holds data, and the suffix that names it, and nothing else', () => {
    const locked = plain.resources
      .filter(({ protect }) => protect)
      .map(({ type, name }) => `${type.split(':').at(-1) ?? ''} ${name}`);
    expect(locked.toSorted()).toEqual([
      'BlobContainer backup-container',
      'FileShare media-share',
      'RandomString suffix',
      'StorageAccount backup',
      'StorageAccount media',
    ]);
  });

  it('creates the app after its roles, its image and its share', () => {
    const { dependencies } = one(plain, 'ContainerApp');
    for (const name of ['app-data-role', 'app-pull-role', 'image-agent', 'environment-media']) {
      expect(dependencies.some((urn) => urn.endsWith(`::${name}`))).toBe(true);
    }
  });

  it('puts no secret on the wire unwrapped, and none into the template', () => {
    const app = one(plain, 'ContainerApp');
    expect(isSecretValue(app.inputs['configuration'])).toBe(true);
    expect(reveal(app.inputs['template'])).toEqual(app.inputs['template']);
    const held = [...deployedApp(plain).secrets];
    const key = (
      reveal(one(plain, 'ManagedEnvironmentsStorage').inputs['properties']) as {
        azureFile: { accountKey: string };
      }
    ).azureFile.accountKey;
    const visible = JSON.stringify(mask([plain.resources, plain.outputs]));
    for (const secret of [
      key,
      ...held.filter(([name]) => name.includes('password')).map(([, value]) => value),
    ]) {
      expect(secret.length).toBeGreaterThan(10);
      expect(visible).not.toContain(secret);
    }
    expect(visible).not.toContain('sig=local');
    expect(isSecretValue(plain.outputs['adminPassword'])).toBe(true);
  });

  it('tells a person what to do next, without masking the address', () => {
    expect(plain.outputs).toMatchObject({
      url: expect.stringMatching(/^https:\/\/ca-jellyfin-[a-z0-9]{8}\./),
      adminUser: 'admin',
      resourceGroup: expect.stringMatching(/^rg-jellyfin-/),
      images: {
        agent: expect.stringMatching(/\/jellyfin-agent:[0-9a-f]{16}$/),
        jellyfin: 'ghcr.io/jellyfin/jellyfin:10.11.11',
      },
      commands: expect.objectContaining({ backupLogs: expect.any(String), listBackups: expect.any(String) }),
    });
    expect(plain.logs).toEqual([]);
  });
});

describe('the contract, on the evaluated app', () => {
  it.each(['restore-db', 'backup-agent', 'jellyroller-runner'])(
    '%s gets an environment that its command accepts, by reference where it is secret',
    (name) => {
      const app = deployedApp(full);
      const container = [...app.template.initContainers, ...app.template.containers].find(
        (c) => c.name === name,
      ) as ContainerSpec;
      const command = COMMAND_OF[name] as Command;
      expectAgentAccepts(command, environmentOf(app, container));
      const secretNames: string[] = SECRET_ENV.map((key) => ENV[key]);
      for (const entry of container.env)
        expect(entry.secretRef !== undefined).toBe(secretNames.includes(entry.name));
      expect(container.volumeMounts).toEqual(
        COMMAND_MOUNTS[command].map((key) => ({ volumeName: VOLUME[key], mountPath: MOUNT[key] })),
      );
    },
  );

  it('keeps the containers sorted', () => {
    const names = deployedApp(full).template.containers.map(({ name }) => name);
    expect(names).toEqual(names.toSorted());
    expect(names).toHaveLength(3);
  });
});

describe('turning a key', () => {
  it('jellyrollerEnabled changes the runner, its secret, its image and the total size, and nothing else', () => {
    const before = new Map(
      plain.resources.map((resource) => [resource.urn, JSON.stringify(resource.inputs)]),
    );
    const changed = full.resources.filter(
      ({ urn, inputs, custom }) => custom && before.get(urn) !== JSON.stringify(inputs),
    );
    expect(changed.map(({ name }) => name).toSorted()).toEqual(['app', 'image-jellyroller']);
    const [off, on] = [deployedApp(plain), deployedApp(full)];
    expect(on.template.containers.filter(({ name }) => name !== CONTAINER.jellyroller)).toEqual(
      off.template.containers,
    );
    expect({ ...on.template, containers: [] }).toEqual({ ...off.template, containers: [] });
    expect([...on.secrets.keys()].filter((name) => !off.secrets.has(name))).toEqual(['jellyfin-api-key']);
    const strip = ({ inputs }: RecordedResource): unknown => {
      const { configuration } = reveal(inputs) as { configuration: { secrets: unknown } };
      return { ...configuration, secrets: [] };
    };
    expect(strip(one(full, 'ContainerApp'))).toEqual(strip(one(plain, 'ContainerApp')));
  });

  it('protectData=false frees everything, imageBuild=prebuilt leaves the registry out', async () => {
    const evaluation = await evaluateProgram({
      config: {
        ...LOCATION,
        protectData: 'false',
        imageBuild: 'prebuilt',
        agentImage: 'ghcr.io/me/agent:1.0.0',
        alertsEnabled: 'false',
      },
    });
    expect(evaluation.resources.filter(({ protect }) => protect)).toEqual([]);
    expect(
      evaluation.resources.filter(({ type }) => /containerregistry|monitor:(?!Diag)/.test(type)),
    ).toEqual([]);
    expect(evaluation.outputs['images']).toEqual({
      agent: 'ghcr.io/me/agent:1.0.0',
      jellyfin: 'ghcr.io/jellyfin/jellyfin:10.11.11',
    });
  });

  it('reports every problem of the configuration at once, before anything is registered', async () => {
    await expect(evaluateProgram({ config: { minReplicas: '5', logLevel: 'loud' } })).rejects.toThrow(
      /has 3 problems:[\s\S]*azure-native:location must be[\s\S]*minReplicas must be[\s\S]*logLevel must be/,
    );
  });
});

describe('a preview and an update', () => {
  it('register the same resources with the same inputs', async () => {
    const preview = await evaluateProgram({
      config: { ...LOCATION, ...JELLYROLLER },
      secrets: { jellyfinApiKey: '0123456789abcdef0123456789abcdef' },
      preview: true,
    });
    const shape = ({ resources }: Evaluation): string[] =>
      resources.map(({ urn, inputs }) => `${urn} ${JSON.stringify(inputs)}`).toSorted();
    expect(shape(preview)).toEqual(shape(full));
  });
});
