/**
 * What Azure would answer: ids and computed properties for exactly the resource types that this project uses.
 * Shared by the local engine and by the tests with mocks. It says nothing about whether Azure accepts an input.
 */
import { guidOf } from '../components/guid.ts';

export type Properties = Record<string, unknown>;
export interface ResourceState {
  readonly id: string;
  readonly state: Properties;
}

const SUBSCRIPTION = '/subscriptions/00000000-0000-4000-8000-000000000000';

function text(inputs: Properties, key: string): string {
  const value = inputs[key];
  return typeof value === 'string' ? value : `<${key}>`;
}

type Answer = (name: string, inputs: Properties) => { path: string; name?: string; computed?: Properties };

function inGroup(
  provider: string,
  nameKey: string,
  computed: (name: string, inputs: Properties) => Properties = () => ({}),
): Answer {
  return (name, inputs) => ({
    path: `${SUBSCRIPTION}/resourceGroups/${text(inputs, 'resourceGroupName')}/providers/${provider}/${text(inputs, nameKey)}`,
    name: text(inputs, nameKey),
    computed: computed(name, inputs),
  });
}

function inAccount(path: (inputs: Properties) => string, nameKey: string): Answer {
  return (_name, inputs) => ({
    path: `${SUBSCRIPTION}/resourceGroups/${text(inputs, 'resourceGroupName')}/providers/Microsoft.Storage/storageAccounts/${text(inputs, 'accountName')}/${path(inputs)}`,
    name: text(inputs, nameKey),
  });
}

const ANSWERS: Record<string, Answer> = {
  'random:index/randomString:RandomString': (name) => ({
    path: letters(name, 8),
    computed: { result: letters(name, 8) },
  }),
  'random:index/randomPassword:RandomPassword': (name) => ({
    path: 'none',
    computed: { result: `local-${guidOf('password', name)}` },
  }),
  'azure-native:resources:ResourceGroup': (_name, inputs) => ({
    path: `${SUBSCRIPTION}/resourceGroups/${text(inputs, 'resourceGroupName')}`,
    name: text(inputs, 'resourceGroupName'),
  }),
  'azure-native:storage:StorageAccount': inGroup('Microsoft.Storage/storageAccounts', 'accountName'),
  'azure-native:storage:FileServiceProperties': inAccount(() => 'fileServices/default', 'fileServicesName'),
  'azure-native:storage:BlobServiceProperties': inAccount(() => 'blobServices/default', 'blobServicesName'),
  'azure-native:storage:ManagementPolicy': inAccount(
    () => 'managementPolicies/default',
    'managementPolicyName',
  ),
  'azure-native:storage:FileShare': inAccount(
    (inputs) => `fileServices/default/shares/${text(inputs, 'shareName')}`,
    'shareName',
  ),
  'azure-native:storage:BlobContainer': inAccount(
    (inputs) => `blobServices/default/containers/${text(inputs, 'containerName')}`,
    'containerName',
  ),
  'azure-native:storage:Blob': (_name, inputs) => {
    const url = `https://${text(inputs, 'accountName')}.blob.core.windows.net/${text(inputs, 'containerName')}/${text(inputs, 'blobName')}`;
    return { path: url, name: text(inputs, 'blobName'), computed: { url } };
  },
  'azure-native:containerregistry:Registry': inGroup(
    'Microsoft.ContainerRegistry/registries',
    'registryName',
    (_name, inputs) => ({
      loginServer: `${text(inputs, 'registryName')}.azurecr.io`,
    }),
  ),
  'azure-native:containerregistry:TaskRun': inGroup(
    'Microsoft.ContainerRegistry/registries/taskRuns',
    'taskRunName',
    () => ({
      provisioningState: 'Succeeded',
      runResult: { status: 'Succeeded', runId: 'cf1' },
    }),
  ),
  'azure-native:managedidentity:UserAssignedIdentity': inGroup(
    'Microsoft.ManagedIdentity/userAssignedIdentities',
    'resourceName',
    (name, inputs) => ({
      clientId: guidOf('client', name, text(inputs, 'resourceName')),
      principalId: guidOf('principal', name, text(inputs, 'resourceName')),
    }),
  ),
  'azure-native:authorization:RoleAssignment': (_name, inputs) => ({
    path: `${text(inputs, 'scope')}/providers/Microsoft.Authorization/roleAssignments/${text(inputs, 'roleAssignmentName')}`,
    name: text(inputs, 'roleAssignmentName'),
  }),
  'azure-native:operationalinsights:Workspace': inGroup(
    'Microsoft.OperationalInsights/workspaces',
    'workspaceName',
    (name) => ({
      customerId: guidOf('workspace', name),
    }),
  ),
  'azure-native:app:ManagedEnvironment': inGroup(
    'Microsoft.App/managedEnvironments',
    'environmentName',
    (_name, inputs) => ({
      defaultDomain: `${letters(text(inputs, 'environmentName'), 8)}.local.azurecontainerapps.io`,
    }),
  ),
  'azure-native:app:ManagedEnvironmentsStorage': (_name, inputs) => ({
    path: `${SUBSCRIPTION}/resourceGroups/${text(inputs, 'resourceGroupName')}/providers/Microsoft.App/managedEnvironments/${text(inputs, 'environmentName')}/storages/${text(inputs, 'storageName')}`,
    name: text(inputs, 'storageName'),
  }),
  'azure-native:app:ContainerApp': inGroup('Microsoft.App/containerApps', 'containerAppName'),
  'azure-native:monitor:DiagnosticSetting': (_name, inputs) => ({
    path: `${text(inputs, 'resourceUri')}/providers/Microsoft.Insights/diagnosticSettings/${text(inputs, 'name')}`,
    name: text(inputs, 'name'),
  }),
  'azure-native:monitor:ActionGroup': inGroup('Microsoft.Insights/actionGroups', 'actionGroupName'),
  'azure-native:monitor:ScheduledQueryRule': inGroup('Microsoft.Insights/scheduledQueryRules', 'ruleName'),
  'docker-build:index:Image': (name) => ({
    path: name,
    computed: { digest: `sha256:${'d'.repeat(64)}`, contextHash: 'local', ref: 'local' },
  }),
};

/** Id and state of a created resource. Throws on a type that the project did not use when this was written. */
export function createdState(type: string, name: string, inputs: Properties): ResourceState {
  const answer = ANSWERS[type]?.(name, inputs);
  if (answer === undefined)
    throw new Error(`create ${type} "${name}" failed: scripts/azure-stand-in.ts does not know the type`);
  return {
    id: answer.path,
    state: { ...inputs, ...(answer.name === undefined ? {} : { name: answer.name }), ...answer.computed },
  };
}

/** Result of a provider function. Throws on one that the project did not use. */
export function invokeResult(token: string, args: Properties): Properties {
  const account = text(args, 'accountName');
  switch (token) {
    case 'azure-native:storage:listStorageAccountKeys':
      return {
        keys: [
          {
            keyName: 'key1',
            permissions: 'FULL',
            value: Buffer.from(`local key of ${account}`).toString('base64'),
          },
        ],
      };
    case 'azure-native:storage:listStorageAccountServiceSAS':
      return {
        serviceSasToken: `sv=local&sr=b&sp=r&se=${text(args, 'sharedAccessExpiryTime')}&sig=local-${account}`,
      };
    default:
      throw new Error(`invoke ${token} failed: scripts/azure-stand-in.ts does not know the function`);
  }
}

function letters(seed: string, length: number): string {
  return BigInt(`0x${guidOf('letters', seed).replaceAll('-', '')}`)
    .toString(36)
    .slice(-length);
}
