import * as storage from '@pulumi/azure-native/storage/index.js';
import * as pulumi from '@pulumi/pulumi';
import type { Redundancy } from './config-keys.ts';

const TYPE = 'jellyfin-on-azure:storage:BackupStorage';

export interface BackupStorageArgs {
  readonly resourceGroupName: pulumi.Input<string>;
  /** Physical name, 3 to 24 lower-case letters and digits. */
  readonly accountName: pulumi.Input<string>;
  /** @default 'jellyfin-backups' */
  readonly containerName?: pulumi.Input<string>;
  /** @default 'Standard_GRS' */
  readonly redundancy?: Redundancy;
  /** How long a deleted blob or container can be brought back. @default 14 */
  readonly softDeleteDays?: number;
  /** How long an overwritten or deleted version is kept. @default 30 */
  readonly versionDays?: number;
  /** Refuse to delete the account and the container. @default true */
  readonly protect?: boolean;
}

/**
 * The backups: an account that accepts no keys at all, so a leaked key of anything else opens nothing here, with
 * versions and soft delete under whatever the agent does. Which backups are kept is the agent's decision
 * (RETENTION_*); the lifecycle rule only removes what the agent already gave up.
 */
export class BackupStorage extends pulumi.ComponentResource {
  readonly accountName: pulumi.Output<string>;
  readonly containerName: pulumi.Output<string>;
  /** Scope of the role that may write backups. */
  readonly containerId: pulumi.Output<string>;

  constructor(name: string, args: BackupStorageArgs, opts?: pulumi.ComponentResourceOptions) {
    super(TYPE, name, args, opts);
    const { resourceGroupName } = args;
    const protect = args.protect ?? true;
    const softDelete = { enabled: true, days: args.softDeleteDays ?? 14 };
    const account = new storage.StorageAccount(
      name,
      {
        resourceGroupName,
        accountName: args.accountName,
        kind: 'StorageV2',
        sku: { name: args.redundancy ?? 'Standard_GRS' },
        accessTier: 'Hot',
        allowSharedKeyAccess: false,
        defaultToOAuthAuthentication: true,
        allowBlobPublicAccess: false,
        allowCrossTenantReplication: false,
        minimumTlsVersion: 'TLS1_2',
        enableHttpsTrafficOnly: true,
      },
      { parent: this, protect },
    );
    const service = new storage.BlobServiceProperties(
      `${name}-blobs`,
      {
        resourceGroupName,
        accountName: account.name,
        blobServicesName: 'default',
        isVersioningEnabled: true,
        deleteRetentionPolicy: softDelete,
        containerDeleteRetentionPolicy: softDelete,
      },
      { parent: this },
    );
    const container = new storage.BlobContainer(
      `${name}-container`,
      {
        resourceGroupName,
        accountName: account.name,
        containerName: args.containerName ?? 'jellyfin-backups',
        publicAccess: 'None',
      },
      { parent: this, protect, dependsOn: [service] },
    );
    new storage.ManagementPolicy(
      `${name}-lifecycle`,
      {
        resourceGroupName,
        accountName: account.name,
        managementPolicyName: 'default',
        policy: { rules: lifecycleRules(args.versionDays ?? 30) },
      },
      { parent: this, dependsOn: [service] },
    );
    this.accountName = account.name;
    this.containerName = container.name;
    this.containerId = container.id;
    this.registerOutputs({ accountName: this.accountName, containerName: this.containerName });
  }
}

/** Old versions only. There is no rule on base blobs: an idle server's last backup may be a year old and must stay. */
function lifecycleRules(versionDays: number) {
  return [
    {
      name: 'expire-old-versions',
      type: 'Lifecycle',
      enabled: true,
      definition: {
        filters: { blobTypes: ['blockBlob'] },
        actions: {
          version: { delete: { daysAfterCreationGreaterThan: versionDays } },
          snapshot: { delete: { daysAfterCreationGreaterThan: versionDays } },
        },
      },
    },
  ];
}
