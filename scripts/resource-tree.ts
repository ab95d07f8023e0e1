/** Pure: an evaluated program as text that a person understands at first sight. Secrets are masked. */
import { ROLE } from '../components/roles.ts';
import type { CostEstimate, CostInput } from './cost.ts';
import type { RecordedResource } from './local-monitor.ts';
import { mask, reveal } from './wire-values.ts';

type Json = Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any -- JSON that was typed in the program

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

const DETAILS: Readonly<Record<string, (inputs: Json) => string[]>> = {
  StorageAccount: (i) => [
    `${i['sku'].name} | shared key ${i['allowSharedKeyAccess'] ? 'ON (Azure Files needs it)' : 'off'} | public blobs ${i['allowBlobPublicAccess'] ? 'YES' : 'no'} | ${i['minimumTlsVersion']}`,
  ],
  FileShare: (i) => [`${i['shareQuota']} GiB, ${i['accessTier']}`],
  BlobContainer: (i) => [`public access: ${i['publicAccess']}`],
  BlobServiceProperties: (i) => [
    `versioning ${i['isVersioningEnabled'] ? 'on' : 'off'}, soft delete ${i['deleteRetentionPolicy'].days} days`,
  ],
  ManagementPolicy: (i) => i['policy'].rules.map((rule: Json) => `${rule['name']} (old versions only)`),
  Registry: (i) => [`${i['sku'].name} | admin user ${i['adminUserEnabled'] ? 'YES' : 'no'}`],
  TaskRun: (i) => [`builds a new image when its hash changes: ${i['forceUpdateTag']}`],
  ManagedEnvironment: (i) =>
    i['workloadProfiles'].map((profile: Json) => `workload profile ${profile['name']}`),
  ManagedEnvironmentsStorage: ({ properties: { azureFile } }) => [
    `Azure Files ${azureFile.accountName}/${azureFile.shareName}, ${azureFile.accessMode}, account key ${azureFile.accountKey}`,
  ],
  RoleAssignment: (i) => [
    `${roleName(i['roleDefinitionId'])} on ${String(i['scope']).split('/').slice(-2).join('/')} -> ${i['principalType']}`,
  ],
  ScheduledQueryRule: (i) => [
    `every ${i['evaluationFrequency']} over ${i['windowSize']}, mails ${i['actions'].actionGroups.length > 0 ? 'the action group' : 'nobody (alertEmail is empty)'}`,
  ],
  Workspace: (i) => [`${i['retentionInDays']} days, at most ${i['workspaceCapping'].dailyQuotaGb} GB a day`],
  ContainerApp: containerAppDetails,
};

function details({ custom, type, inputs }: RecordedResource): string[] {
  if (!custom) return [];
  const masked = mask(inputs) as Json;
  // One secret makes the app's whole configuration one; of what is inside, only addresses and names are printed.
  const configuration =
    shortType(type) === 'ContainerApp' ? { configuration: reveal(inputs['configuration']) } : {};
  return DETAILS[shortType(type)]?.({ ...masked, ...configuration }) ?? [];
}

function roleName(id: string): string {
  const found = Object.entries(ROLE).find(([, guid]) => id.endsWith(guid));
  return (
    { acrPull: 'AcrPull', storageBlobDataContributor: 'Storage Blob Data Contributor' }[found?.[0] ?? ''] ??
    id
  );
}

function containerAppDetails(inputs: Json): string[] {
  const { template } = inputs;
  const { scale } = template;
  return [
    `replicas ${scale.minReplicas}..${scale.maxReplicas}, cooldown ${scale.cooldownPeriod} s, grace ${template.terminationGracePeriodSeconds} s`,
    renderIngress(inputs['configuration']),
    ...template.volumes.map(
      (volume: Json) =>
        `volume ${volume['name']} = ${volume['storageType']}${volume['storageName'] === undefined ? '' : ` ${volume['storageName']}`}`,
    ),
    ...template.initContainers.flatMap((container: Json) => renderContainer('first', container)),
    ...template.containers.flatMap((container: Json) => renderContainer('then', container)),
  ];
}

function renderIngress({ ingress, secrets, activeRevisionsMode }: Json): string {
  const allowed = ingress.ipSecurityRestrictions.map((rule: Json) => rule['ipAddressRange']).join(', ');
  const held = secrets.map((secret: Json) => secret['name']).join(', ');
  return `${activeRevisionsMode} revision | https -> ${ingress.targetPort} from ${allowed === '' ? 'everywhere' : allowed} | secrets: ${held === '' ? 'none' : held}`;
}

function renderContainer(order: string, container: Json): string[] {
  const args = container['args'] === undefined ? '' : ` (${container['args'].join(' ')})`;
  const probes = (container['probes'] ?? []).map(
    (probe: Json) =>
      `${probe['type']} ${probe['httpGet'].port}${probe['httpGet'].path} every ${probe['periodSeconds']} s x${probe['failureThreshold']}`,
  );
  return [
    `${order} ${container['name']}${args}: ${container['resources'].cpu} vCPU, ${container['resources'].memory}`,
    `     image ${container['image']}`,
    `     mounts ${container['volumeMounts'].map((mount: Json) => `${mount['mountPath']}=${mount['volumeName']}`).join('  ')}`,
    ...(probes.length === 0 ? [] : [`     probes ${probes.join(' | ')}`]),
    ...container['env'].map(
      (entry: Json) =>
        `     ${entry['name']}=${entry['secretRef'] === undefined ? entry['value'] : `[secret ${entry['secretRef']}]`}`,
    ),
  ];
}

/** What the cost of these resources depends on. */
export function costInputOf(resources: readonly RecordedResource[]): CostInput {
  const find = (type: string, name?: string): Json =>
    (resources.find((r) => r.type.endsWith(`:${type}`) && (name === undefined || r.name === name))?.inputs ??
      {}) as Json;
  const { template } = find('ContainerApp');
  const sum = (read: (container: Json) => number): number =>
    template.containers.reduce((total: number, c: Json) => total + read(c), 0);
  return {
    cpu: sum((container) => container['resources'].cpu),
    memoryGib: sum((container) => Number.parseFloat(container['resources'].memory)),
    alwaysOn: template.scale.minReplicas > 0,
    cooldownSeconds: template.scale.cooldownPeriod,
    mediaGib: find('FileShare')['shareQuota'],
    mediaTier: find('FileShare')['accessTier'],
    mediaRedundancy: find('StorageAccount', 'media')['sku'].name,
    backupRedundancy: find('StorageAccount', 'backup')['sku'].name,
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
