/** Pure: an evaluated program as text that a person understands at first sight. Secrets are masked. */
import { ROLE } from '../components/roles.ts';
import type { CostEstimate, CostInput } from './cost.ts';
import type { ContainerSpec, DeployedApp } from './deployed-app.ts';
import type { RecordedResource } from './local-monitor.ts';
import { mask, reveal } from './wire-values.ts';

/** The tree of components and resources, each with what matters about it. */
export function renderTree(resources: readonly RecordedResource[]): string {
  const roots = resources.filter(({ parent }) => parent.includes('::pulumi:pulumi:Stack::'));
  return sorted(roots)
    .flatMap((root) => renderNode(root, resources, 0))
    .join('\n');
}

function renderNode(resource: RecordedResource, all: readonly RecordedResource[], depth: number): string[] {
  const pad = '  '.repeat(depth);
  const label = resource.custom ? shortType(resource.type) : `[${shortType(resource.type)}]`;
  const lock = resource.protect ? '  (protected)' : '';
  const children = all.filter(({ parent }) => parent === resource.urn);
  return [
    `${pad}${label} ${physicalName(resource)}${lock}`,
    ...details(resource).map((line) => `${pad}    ${line}`),
    ...sorted(children).flatMap((child) => renderNode(child, all, depth + 1)),
  ];
}

function sorted(resources: readonly RecordedResource[]): RecordedResource[] {
  const rank = ({ custom }: RecordedResource): string => (custom ? '0' : '1');
  return resources.toSorted((a, b) =>
    rank(a) + shortType(a.type) + a.name < rank(b) + shortType(b.type) + b.name ? -1 : 1,
  );
}

function shortType(type: string): string {
  return type.split(':').at(-1) ?? type;
}

const NAME_KEYS = [
  'accountName',
  'containerName',
  'shareName',
  'registryName',
  'taskRunName',
  'environmentName',
  'storageName',
];
NAME_KEYS.push(
  'containerAppName',
  'workspaceName',
  'resourceName',
  'ruleName',
  'actionGroupName',
  'resourceGroupName',
);

function physicalName({ type, name, inputs, custom }: RecordedResource): string {
  if (!custom) return name;
  const kind = shortType(type).toLowerCase();
  // The key that is named after the type itself, otherwise none: `accountName` of a share is its parent's name.
  const own = NAME_KEYS.find((key) => kind.endsWith(key.replace('Name', '').toLowerCase())) ?? OWN_NAME[kind];
  const value = own === undefined ? undefined : inputs[own];
  return typeof value === 'string' ? value : name;
}

const OWN_NAME: Readonly<Record<string, string>> = {
  userassignedidentity: 'resourceName',
  fileshare: 'shareName',
  managedenvironment: 'environmentName',
  managedenvironmentsstorage: 'storageName',
  scheduledqueryrule: 'ruleName',
};

// Typed as what the program itself wrote; a wrong guess would show as `undefined` in the tree.
const DETAILS: Readonly<Record<string, (inputs: never) => string[]>> = {
  StorageAccount: (i: Account) => [
    `${i.sku.name} | shared key ${i.allowSharedKeyAccess ? 'ON (Azure Files needs it)' : 'off'} | public blobs ${i.allowBlobPublicAccess ? 'YES' : 'no'} | ${i.minimumTlsVersion}`,
  ],
  FileShare: (i: Share) => [`${String(i.shareQuota)} GiB, ${i.accessTier}`],
  BlobContainer: (i: { publicAccess: string }) => [`public access: ${i.publicAccess}`],
  BlobServiceProperties: (i: { isVersioningEnabled: boolean; deleteRetentionPolicy: { days: number } }) => [
    `versioning ${i.isVersioningEnabled ? 'on' : 'off'}, soft delete ${String(i.deleteRetentionPolicy.days)} days`,
  ],
  ManagementPolicy: (i: { policy: { rules: { name: string }[] } }) =>
    i.policy.rules.map(({ name }) => `${name} (old versions only)`),
  Registry: (i: { sku: { name: string }; adminUserEnabled: boolean }) => [
    `${i.sku.name} | admin user ${i.adminUserEnabled ? 'YES' : 'no'}`,
  ],
  TaskRun: (i: { forceUpdateTag: string }) => [
    `builds a new image when its hash changes: ${i.forceUpdateTag}`,
  ],
  ManagedEnvironment: (i: { workloadProfiles: { name: string }[] }) =>
    i.workloadProfiles.map(({ name }) => `workload profile ${name}`),
  ManagedEnvironmentsStorage: ({
    properties: { azureFile },
  }: {
    properties: { azureFile: Record<string, string> };
  }) => [
    `Azure Files ${azureFile['accountName'] ?? ''}/${azureFile['shareName'] ?? ''}, ${azureFile['accessMode'] ?? ''}, account key ${azureFile['accountKey'] ?? ''}`,
  ],
  RoleAssignment: (i: { roleDefinitionId: string; scope: string; principalType: string }) => [
    `${roleName(i.roleDefinitionId)} on ${i.scope.split('/').slice(-2).join('/')} -> ${i.principalType}`,
  ],
  ScheduledQueryRule: (i: {
    evaluationFrequency: string;
    windowSize: string;
    actions: { actionGroups: string[] };
  }) => [
    `every ${i.evaluationFrequency} over ${i.windowSize}, mails ${i.actions.actionGroups.length > 0 ? 'the action group' : 'nobody (alertEmail is empty)'}`,
  ],
  Workspace: (i: { retentionInDays: number; workspaceCapping: { dailyQuotaGb: number } }) => [
    `${String(i.retentionInDays)} days, at most ${String(i.workspaceCapping.dailyQuotaGb)} GB a day`,
  ],
  ContainerApp: containerAppDetails,
};

interface Account {
  sku: { name: string };
  allowSharedKeyAccess: boolean;
  allowBlobPublicAccess: boolean;
  minimumTlsVersion: string;
}
interface Share {
  shareQuota: number;
  accessTier: string;
}
type Template = DeployedApp['template'];
interface Configuration {
  activeRevisionsMode: string;
  ingress: { targetPort: number; ipSecurityRestrictions: { ipAddressRange: string }[] };
  secrets: { name: string }[];
}

function details({ custom, type, inputs }: RecordedResource): string[] {
  if (!custom) return [];
  const masked = mask(inputs) as Record<string, unknown>;
  // One secret makes the app's whole configuration one; of what is inside, only addresses and names are printed.
  const configuration =
    shortType(type) === 'ContainerApp' ? { configuration: reveal(inputs['configuration']) } : {};
  return DETAILS[shortType(type)]?.({ ...masked, ...configuration } as never) ?? [];
}

const ROLE_NAME: Readonly<Record<string, string>> = {
  [ROLE.acrPull]: 'AcrPull',
  [ROLE.storageBlobDataContributor]: 'Storage Blob Data Contributor',
};

function roleName(id: string): string {
  return ROLE_NAME[id.split('/').at(-1) ?? ''] ?? id;
}

function containerAppDetails({
  template,
  configuration,
}: {
  template: Template;
  configuration: Configuration;
}): string[] {
  const { scale } = template;
  return [
    `replicas ${String(scale.minReplicas)}..${String(scale.maxReplicas)}, cooldown ${String(scale.cooldownPeriod)} s, grace ${String(template.terminationGracePeriodSeconds)} s`,
    renderIngress(configuration),
    ...template.volumes.map(({ name, storageType, storageName = '' }) =>
      `volume ${name} = ${storageType} ${storageName}`.trimEnd(),
    ),
    ...template.initContainers.flatMap((container) => renderContainer('first', container)),
    ...template.containers.flatMap((container) => renderContainer('then', container)),
  ];
}

function renderIngress({ ingress, secrets, activeRevisionsMode }: Configuration): string {
  const allowed = ingress.ipSecurityRestrictions.map(({ ipAddressRange }) => ipAddressRange).join(', ');
  const held = secrets.map(({ name }) => name).join(', ');
  return `${activeRevisionsMode} revision | https -> ${String(ingress.targetPort)} from ${allowed === '' ? 'everywhere' : allowed} | secrets: ${held === '' ? 'none' : held}`;
}

function renderContainer(
  order: string,
  { name, image, args, env, resources, volumeMounts, probes = [] }: ContainerSpec,
): string[] {
  const shown = probes.map(
    ({ type, httpGet, periodSeconds, failureThreshold }) =>
      `${type} ${String(httpGet.port)}${httpGet.path} every ${String(periodSeconds)} s x${String(failureThreshold)}`,
  );
  return [
    `${order} ${name}${args === undefined ? '' : ` (${args.join(' ')})`}: ${String(resources.cpu)} vCPU, ${resources.memory}`,
    `     image ${image}`,
    `     mounts ${volumeMounts.map(({ mountPath, volumeName }) => `${mountPath}=${volumeName}`).join('  ')}`,
    ...(shown.length === 0 ? [] : [`     probes ${shown.join(' | ')}`]),
    ...env.map(
      ({ name: key, value = '', secretRef }) =>
        `     ${key}=${secretRef === undefined ? value : `[secret ${secretRef}]`}`,
    ),
  ];
}

/** What the cost of these resources depends on. */
export function costInputOf(resources: readonly RecordedResource[]): CostInput {
  const inputsOf = (type: string, name?: string): unknown => {
    const found = resources.find(
      (r) => r.type.endsWith(`:${type}`) && (name === undefined || r.name === name),
    );
    if (found === undefined)
      throw new Error(`estimate the cost failed: the program creates no ${type} ${name ?? ''}`);
    return found.inputs;
  };
  const { containers, scale } = (inputsOf('ContainerApp') as { template: Template }).template;
  const share = inputsOf('FileShare') as Share;
  return {
    cpu: containers.reduce((sum, container) => sum + container.resources.cpu, 0),
    memoryGib: containers.reduce((sum, container) => sum + Number.parseFloat(container.resources.memory), 0),
    alwaysOn: scale.minReplicas > 0,
    cooldownSeconds: scale.cooldownPeriod,
    mediaGib: share.shareQuota,
    mediaTier: share.accessTier,
    mediaRedundancy: (inputsOf('StorageAccount', 'media') as Account).sku.name,
    backupRedundancy: (inputsOf('StorageAccount', 'backup') as Account).sku.name,
    hasRegistry: resources.some(({ type }) => type.endsWith(':Registry')),
    hasAlert: resources.some(({ type }) => type.endsWith(':ScheduledQueryRule')),
  };
}

/** The estimate as a table. */
export function renderCost({ lines, idle, watched, assumptions }: CostEstimate): string {
  const money = (value: number): string => value.toFixed(2).padStart(8);
  const row = (what: string, a: string, b: string, basis: string): string =>
    `  ${what.padEnd(14)}${a.padStart(8)}${b.padStart(10)}   ${basis}`;
  return [
    'A month in USD (estimate)',
    row('', 'idle', 'watched', ''),
    ...lines.map((line) => row(line.what, money(line.idle), money(line.watched), line.basis)),
    row('total', money(idle), money(watched), ''),
    ...assumptions.map((text) => `  - ${text}`),
  ].join('\n');
}
