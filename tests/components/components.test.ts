// Proves children, names, inputs and secrets of every component. Does not prove that Azure accepts the inputs.
import * as pulumi from '@pulumi/pulumi';
import { AgentImage } from '../../components/agent-image.ts';
import { AppEnvironment } from '../../components/app-environment.ts';
import { BackupAlert } from '../../components/backup-alert.ts';
import { BackupStorage } from '../../components/backup-storage.ts';
import { JellyfinApp, type JellyfinAppArgs } from '../../components/jellyfin-app.ts';
import { MediaStorage } from '../../components/media-storage.ts';
import { ROLE, roleDefinitionId } from '../../components/roles.ts';
import { installMocks, inventory, only, recordingOf, valueOf } from '../support/pulumi-mocks.ts';
import { JELLYROLLER, stackConfig } from '../support/stack-config.ts';

beforeAll(() => installMocks());

const GROUP = { resourceGroupName: 'rg-test' };
const SUB = '/subscriptions/00000000-0000-4000-8000-000000000000';

describe('MediaStorage', () => {
  it('is an account with shared keys for Azure Files and one share, and nothing public', async () => {
    const { result, resources } = await recordingOf(
      () =>
        new MediaStorage('media', { ...GROUP, accountName: 'jellyfinmedia1', shareName: 'jellyfin-media' }),
    );
    expect(inventory(resources)).toEqual([
      'jellyfin-on-azure:storage:MediaStorage media',
      'storage:FileServiceProperties media-files',
      'storage:FileShare media-share',
      'storage:StorageAccount media',
    ]);
    expect(only(resources, 'azure-native:storage:StorageAccount').inputs).toEqual({
      ...GROUP,
      accountName: 'jellyfinmedia1',
      kind: 'StorageV2',
      sku: { name: 'Standard_LRS' },
      allowSharedKeyAccess: true,
      allowBlobPublicAccess: false,
      allowCrossTenantReplication: false,
      minimumTlsVersion: 'TLS1_2',
      enableHttpsTrafficOnly: true,
    });
    expect(only(resources, 'azure-native:storage:FileShare').inputs).toEqual({
      ...GROUP,
      accountName: 'jellyfinmedia1',
      shareName: 'jellyfin-media',
      shareQuota: 90,
      accessTier: 'Hot',
      enabledProtocols: 'SMB',
    });
    expect(only(resources, 'azure-native:storage:FileServiceProperties').inputs).toMatchObject({
      shareDeleteRetentionPolicy: { enabled: true, days: 14 },
    });
    expect(await pulumi.isSecret(result.accountKey)).toBe(true);
    expect(await valueOf(result.accountKey)).not.toBe('');
  });
});

describe('BackupStorage', () => {
  it('accepts no keys, keeps versions and deleted blobs, and never expires a current one', async () => {
    const { resources } = await recordingOf(
      () => new BackupStorage('backup', { ...GROUP, accountName: 'jellyfinbackup1' }),
    );
    expect(inventory(resources)).toEqual([
      'jellyfin-on-azure:storage:BackupStorage backup',
      'storage:BlobContainer backup-container',
      'storage:BlobServiceProperties backup-blobs',
      'storage:ManagementPolicy backup-lifecycle',
      'storage:StorageAccount backup',
    ]);
    expect(only(resources, 'azure-native:storage:StorageAccount').inputs).toEqual({
      ...GROUP,
      accountName: 'jellyfinbackup1',
      kind: 'StorageV2',
      sku: { name: 'Standard_GRS' },
      accessTier: 'Hot',
      allowSharedKeyAccess: false,
      defaultToOAuthAuthentication: true,
      allowBlobPublicAccess: false,
      allowCrossTenantReplication: false,
      minimumTlsVersion: 'TLS1_2',
      enableHttpsTrafficOnly: true,
    });
    expect(only(resources, 'azure-native:storage:BlobContainer').inputs).toEqual({
      ...GROUP,
      accountName: 'jellyfinbackup1',
      containerName: 'jellyfin-backups',
      publicAccess: 'None',
    });
    expect(only(resources, 'azure-native:storage:BlobServiceProperties').inputs).toMatchObject({
      isVersioningEnabled: true,
      deleteRetentionPolicy: { enabled: true, days: 14 },
      containerDeleteRetentionPolicy: { enabled: true, days: 14 },
    });
    const { policy } = only(resources, 'azure-native:storage:ManagementPolicy').inputs as {
      policy: { rules: { definition: { actions: object } }[] };
    };
    expect(policy.rules.map((rule) => Object.keys(rule.definition.actions).toSorted())).toEqual([
      ['snapshot', 'version'],
    ]);
  });
});

const CONTEXT = { hash: 'c0ffee'.repeat(10), archiveFile: 'Pulumi.yaml', directory: 'agent' };
const REGISTRY = {
  ...GROUP,
  registryName: 'jellyfincr1',
  context: CONTEXT,
  contextAccountName: 'jellyfinmedia1',
};
const RELEASE = { url: 'https://example.com/j.tar.gz', sha256: 'ab'.repeat(32) };

describe('AgentImage', () => {
  it('lets Azure build from a private blob, in a registry without passwords', async () => {
    const { result, resources } = await recordingOf(
      () => new AgentImage('image', { build: 'acr-task', ...REGISTRY }),
    );
    expect(inventory(resources)).toEqual([
      'containerregistry:Registry image',
      'containerregistry:TaskRun image-agent',
      'jellyfin-on-azure:image:AgentImage image',
      'storage:Blob image-context-archive',
      'storage:BlobContainer image-context',
    ]);
    expect(only(resources, 'azure-native:containerregistry:Registry').inputs).toEqual({
      ...GROUP,
      registryName: 'jellyfincr1',
      sku: { name: 'Basic' },
      adminUserEnabled: false,
      anonymousPullEnabled: false,
      // Filled in by the SDK.
      networkRuleBypassOptions: 'AzureServices',
      publicNetworkAccess: 'Enabled',
      zoneRedundancy: 'Disabled',
    });
    expect(only(resources, 'azure-native:storage:BlobContainer').inputs).toMatchObject({
      publicAccess: 'None',
    });
    expect(only(resources, 'azure-native:storage:Blob').inputs).toMatchObject({
      blobName: `${CONTEXT.hash}.tar.gz`,
    });
    const run = only(resources, 'azure-native:containerregistry:TaskRun');
    const image = await valueOf(result.agent);
    expect(image).toMatch(/^jellyfincr1\.azurecr\.io\/jellyfin-agent:[0-9a-f]{16}$/);
    expect(run.inputs['forceUpdateTag']).toBe(image.split(':')[1]);
    expect(run.secretInputs).toEqual(['runRequest']);
    expect(run.inputs['runRequest']).toMatchObject({
      type: 'DockerBuildRequest',
      imageNames: [image.split('/')[1]],
      isPushEnabled: true,
      target: 'agent',
      platform: { os: 'Linux', architecture: 'amd64' },
      arguments: [],
    });
    expect((run.inputs['runRequest'] as { sourceLocation: string }).sourceLocation).toMatch(
      /^https:\/\/jellyfinmedia1\.blob\.core\.windows\.net\/image-context\/(?:c0ffee)+\.tar\.gz\?sv=.*sp=r/,
    );
    expect(result.jellyroller).toBeUndefined();
  });

  it('adds exactly one run for JellyRoller, with the release pinned by hash', async () => {
    const off = await recordingOf(() => new AgentImage('image', { build: 'acr-task', ...REGISTRY }));
    const on = await recordingOf(
      () => new AgentImage('image', { build: 'acr-task', ...REGISTRY, jellyroller: RELEASE }),
    );
    const added = inventory(on.resources).filter((line) => !inventory(off.resources).includes(line));
    expect(added).toEqual(['containerregistry:TaskRun image-jellyroller']);
    expect(
      only(on.resources, 'azure-native:containerregistry:TaskRun', 'image-jellyroller').inputs['runRequest'],
    ).toMatchObject({
      target: 'jellyroller',
      arguments: [
        { name: 'JELLYROLLER_SHA256', value: RELEASE.sha256 },
        { name: 'JELLYROLLER_URL', value: RELEASE.url },
      ],
    });
    expect(await valueOf(on.result.agent)).toBe(await valueOf(off.result.agent));
  });

  it('builds with the local daemon only during an update', async () => {
    const { result, resources } = await recordingOf(
      () => new AgentImage('image', { build: 'docker-build', ...REGISTRY }),
    );
    expect(inventory(resources)).toEqual([
      'containerregistry:Registry image',
      'docker-build:index:Image image-agent',
      'jellyfin-on-azure:image:AgentImage image',
    ]);
    expect(only(resources, 'docker-build:index:Image').inputs).toMatchObject({
      buildOnPreview: false,
      push: true,
      target: 'agent',
      platforms: ['linux/amd64'],
      tags: [await valueOf(result.agent)],
    });
  });

  it('creates nothing for prebuilt images', async () => {
    const { result, resources } = await recordingOf(
      () => new AgentImage('image', { build: 'prebuilt', agentImage: 'ghcr.io/me/agent:1.0.0' }),
    );
    expect(inventory(resources)).toEqual(['jellyfin-on-azure:image:AgentImage image']);
    expect(await valueOf(result.agent)).toBe('ghcr.io/me/agent:1.0.0');
    expect(result.registry).toBeUndefined();
  });
});

const MEDIA = { accountName: 'jellyfinmedia1', accountKey: 'plain-key', shareName: 'jellyfin-media' };

describe('AppEnvironment', () => {
  it('has the Consumption profile, keyless logs and the share, read-only and with a secret key', async () => {
    const { resources } = await recordingOf(
      () =>
        new AppEnvironment('env', {
          ...GROUP,
          environmentName: 'cae-1',
          workspaceName: 'log-1',
          media: MEDIA,
        }),
    );
    expect(inventory(resources)).toEqual([
      'app:ManagedEnvironment env',
      'app:ManagedEnvironmentsStorage env-media',
      'jellyfin-on-azure:app:AppEnvironment env',
      'monitor:DiagnosticSetting env-diagnostics',
      'operationalinsights:Workspace env-logs',
    ]);
    expect(only(resources, 'azure-native:app:ManagedEnvironment').inputs).toEqual({
      ...GROUP,
      environmentName: 'cae-1',
      workloadProfiles: [{ name: 'Consumption', workloadProfileType: 'Consumption' }],
      appLogsConfiguration: { destination: 'azure-monitor' },
      zoneRedundant: false,
    });
    const share = only(resources, 'azure-native:app:ManagedEnvironmentsStorage');
    expect(share.inputs['properties']).toEqual({ azureFile: { ...MEDIA, accessMode: 'ReadOnly' } });
    expect(share.secretInputs).toEqual(['properties']);
    expect(only(resources, 'azure-native:operationalinsights:Workspace').inputs).toMatchObject({
      workspaceCapping: { dailyQuotaGb: 0.5 },
      features: { disableLocalAuth: true },
    });
    expect(only(resources, 'azure-native:monitor:DiagnosticSetting').inputs).toMatchObject({
      logs: [{ categoryGroup: 'allLogs', enabled: true }],
    });
  });
});

function appArgs(
  overrides: Record<string, string> = {},
  more: Partial<JellyfinAppArgs> = {},
): JellyfinAppArgs {
  return {
    ...GROUP,
    config: stackConfig(overrides, ['jellyfinApiKey']),
    appName: 'ca-1',
    pullIdentityName: 'id-pull',
    dataIdentityName: 'id-data',
    environment: { id: `${SUB}/env`, defaultDomain: 'red.example.io', mediaStorageName: 'jellyfin-media' },
    backup: {
      accountName: 'jellyfinbackup1',
      containerName: 'jellyfin-backups',
      containerId: `${SUB}/container`,
    },
    image: {
      agent: 'jellyfincr1.azurecr.io/jellyfin-agent:1',
      jellyroller: 'jellyfincr1.azurecr.io/jellyroller-runner:1',
      registry: { id: `${SUB}/registry`, loginServer: 'jellyfincr1.azurecr.io' },
    },
    ...more,
  };
}

interface Configuration {
  secrets: { name: string; value: string }[];
  ingress: Record<string, unknown>;
  registries: Record<string, string>[];
  identitySettings: Record<string, string>[];
}

describe('JellyfinApp', () => {
  it('gives two identities one narrow role each', async () => {
    const { resources } = await recordingOf(() => new JellyfinApp('app', appArgs()));
    expect(inventory(resources)).toEqual([
      'app:ContainerApp app',
      'authorization:RoleAssignment app-data-role',
      'authorization:RoleAssignment app-pull-role',
      'jellyfin-on-azure:app:JellyfinApp app',
      'managedidentity:UserAssignedIdentity app-data',
      'managedidentity:UserAssignedIdentity app-pull',
      'random:index/randomPassword:RandomPassword app-admin-password',
    ]);
    const roles = resources
      .filter(({ type }) => type.endsWith(':RoleAssignment'))
      .map(({ inputs }) => inputs);
    expect(
      roles.map(({ scope, roleDefinitionId: id, principalType }) => ({ scope, id, principalType })),
    ).toEqual(
      expect.arrayContaining([
        {
          scope: `${SUB}/container`,
          id: `${SUB}/providers/Microsoft.Authorization/roleDefinitions/${ROLE.storageBlobDataContributor}`,
          principalType: 'ServicePrincipal',
        },
        {
          scope: `${SUB}/registry`,
          id: `${SUB}/providers/Microsoft.Authorization/roleDefinitions/${ROLE.acrPull}`,
          principalType: 'ServicePrincipal',
        },
      ]),
    );
    const again = await recordingOf(() => new JellyfinApp('app', appArgs()));
    const namesOf = (list: typeof resources): unknown[] =>
      list
        .filter(({ type }) => type.endsWith(':RoleAssignment'))
        .map(({ inputs }) => inputs['roleAssignmentName']);
    expect(namesOf(again.resources).toSorted()).toEqual(namesOf(resources).toSorted());
    expect(new Set(namesOf(resources)).size).toBe(2);
  });

  it('is reachable over https only, on one revision, and pulls with an identity that no container sees', async () => {
    const { result, resources } = await recordingOf(() => new JellyfinApp('app', appArgs()));
    const app = only(resources, 'azure-native:app:ContainerApp');
    const configuration = app.inputs['configuration'] as Configuration;
    expect(configuration).toMatchObject({ activeRevisionsMode: 'Single', maxInactiveRevisions: 5 });
    expect(configuration.ingress).toEqual({
      external: true,
      targetPort: 8096,
      transport: 'auto',
      allowInsecure: false,
      traffic: [{ latestRevision: true, weight: 100 }],
      ipSecurityRestrictions: [],
    });
    const [data, pull] = (app.inputs['identity'] as { userAssignedIdentities: string[] })
      .userAssignedIdentities;
    expect([data, pull]).toEqual([expect.stringContaining('/id-data'), expect.stringContaining('/id-pull')]);
    expect(configuration.registries).toEqual([{ server: 'jellyfincr1.azurecr.io', identity: pull }]);
    expect(configuration.identitySettings).toEqual([
      { identity: data, lifecycle: 'All' },
      { identity: pull, lifecycle: 'None' },
    ]);
    expect(app.inputs['workloadProfileName']).toBe('Consumption');
    expect(app.inputs['template']).not.toHaveProperty('revisionSuffix');
    expect(await valueOf(result.url)).toBe('https://ca-1.red.example.io');
    expect(await pulumi.isSecret(result.url)).toBe(false);
  });

  it('keeps every secret in the secrets, and the template free of them', async () => {
    const key = '0123456789abcdef0123456789abcdef';
    const args = appArgs({ ...JELLYROLLER, jellyfinApiKey: key }, { jellyfinApiKey: key });
    const { result, resources } = await recordingOf(() => new JellyfinApp('app', args));
    const app = only(resources, 'azure-native:app:ContainerApp');
    expect(app.secretInputs).toEqual(['configuration']);
    const password = await valueOf(result.adminPassword as pulumi.Output<string>);
    expect((app.inputs['configuration'] as Configuration).secrets).toEqual([
      { name: 'jellyfin-admin-password', value: password },
      { name: 'jellyfin-admin-user', value: 'admin' },
      { name: 'jellyfin-api-key', value: key },
    ]);
    expect(await pulumi.isSecret(result.adminPassword as pulumi.Output<string>)).toBe(true);
    const template = JSON.stringify(app.inputs['template']);
    expect(template).not.toContain(password);
    expect(template).not.toContain(key);
    expect(template).not.toContain('AZURE_STORAGE_KEY');
  });

  it('filters addresses, leaves the bootstrap out and needs no registry where the stack says so', async () => {
    const args = appArgs(
      { allowedIpRanges: '203.0.113.7', bootstrapAdmin: 'false' },
      { image: { agent: 'ghcr.io/me/agent:1.0.0' } },
    );
    const { result, resources } = await recordingOf(() => new JellyfinApp('app', args));
    const configuration = only(resources, 'azure-native:app:ContainerApp').inputs[
      'configuration'
    ] as Configuration;
    expect(configuration.ingress['ipSecurityRestrictions']).toEqual([
      { name: 'allow-1', action: 'Allow', ipAddressRange: '203.0.113.7/32' },
    ]);
    expect(configuration.secrets).toEqual([]);
    expect(configuration.registries).toEqual([]);
    expect(result.adminPassword).toBeUndefined();
    expect(inventory(resources)).toEqual([
      'app:ContainerApp app',
      'authorization:RoleAssignment app-data-role',
      'jellyfin-on-azure:app:JellyfinApp app',
      'managedidentity:UserAssignedIdentity app-data',
    ]);
  });

  it('names what is wrong with a scope that is not in a subscription', () => {
    expect(() => roleDefinitionId('/providers/x', 'acrPull')).toThrow('"/providers/x"');
  });
});

describe('BackupAlert', () => {
  const args = {
    ...GROUP,
    ruleName: 'alert-1',
    actionGroupName: 'ag-1',
    workspaceId: `${SUB}/workspace`,
    appName: 'ca-1',
    timing: stackConfig(),
  };

  it('is one rule over the three reasons that does not fail before the first log line', async () => {
    const { resources } = await recordingOf(() => new BackupAlert('alert', args));
    expect(inventory(resources)).toEqual([
      'jellyfin-on-azure:monitor:BackupAlert alert',
      'monitor:ScheduledQueryRule alert',
    ]);
    const rule = only(resources, 'azure-native:monitor:ScheduledQueryRule').inputs;
    expect(rule).toMatchObject({
      skipQueryValidation: true,
      autoMitigate: true,
      evaluationFrequency: 'PT15M',
      windowSize: 'PT5H',
      scopes: [`${SUB}/workspace`],
      actions: { actionGroups: [] },
      criteria: { allOf: [{ timeAggregation: 'Count', operator: 'GreaterThan', threshold: 0 }] },
    });
  });

  it('mails when it is told where to', async () => {
    const { resources } = await recordingOf(
      () => new BackupAlert('alert', { ...args, email: 'me@example.org' }),
    );
    expect(inventory(resources)).toContain('monitor:ActionGroup alert-mail');
    const rule = only(resources, 'azure-native:monitor:ScheduledQueryRule').inputs;
    expect((rule['actions'] as { actionGroups: string[] }).actionGroups).toEqual([
      expect.stringContaining('/ag-1'),
    ]);
  });
});

describe('every component', () => {
  const build: Record<
    string,
    (name: string, opts?: pulumi.ComponentResourceOptions) => pulumi.ComponentResource
  > = {
    MediaStorage: (name, opts) =>
      new MediaStorage(name, { ...GROUP, accountName: `${name}1`, shareName: 's' }, opts),
    BackupStorage: (name, opts) => new BackupStorage(name, { ...GROUP, accountName: `${name}1` }, opts),
    AgentImage: (name, opts) =>
      new AgentImage(name, { build: 'acr-task', ...REGISTRY, jellyroller: RELEASE }, opts),
    AppEnvironment: (name, opts) =>
      new AppEnvironment(name, { ...GROUP, environmentName: 'e', workspaceName: 'w', media: MEDIA }, opts),
    JellyfinApp: (name, opts) => new JellyfinApp(name, appArgs(JELLYROLLER), opts),
    BackupAlert: (name, opts) =>
      new BackupAlert(
        name,
        {
          ...GROUP,
          ruleName: 'r',
          actionGroupName: 'g',
          workspaceId: 'w',
          appName: 'a',
          timing: stackConfig(),
          email: 'a@b.example',
        },
        opts,
      ),
  };

  it.each(Object.keys(build))(
    '%s: two instances share no name, and children start with the name of theirs',
    async (kind) => {
      const { resources } = await recordingOf(() => [build[kind]?.('one'), build[kind]?.('two')]);
      const names = resources.map(({ type, name }) => `${type} ${name}`);
      expect(new Set(names).size).toBe(names.length);
      for (const { name } of resources) expect(name).toMatch(/^(?:one|two)(?:-|$)/);
    },
  );

  it.each(Object.keys(build))('%s: takes the parent that its caller gives', async (kind) => {
    const { result } = await recordingOf(() => {
      const parent = new pulumi.ComponentResource('test:index:Parent', 'parent');
      return build[kind]?.('child', { parent });
    });
    expect(await valueOf((result as pulumi.ComponentResource).urn)).toContain(
      'test:index:Parent$jellyfin-on-azure:',
    );
  });
});
