import * as storage from '@pulumi/azure-native/storage/index.js';
import * as pulumi from '@pulumi/pulumi';
import type { Redundancy, ShareTier } from './config-keys.ts';

const TYPE = 'jellyfin-on-azure:storage:MediaStorage';

export interface MediaStorageArgs {
  readonly resourceGroupName: pulumi.Input<string>;
  /** Physical name, 3 to 24 lower-case letters and digits. */
  readonly accountName: pulumi.Input<string>;
  readonly shareName: pulumi.Input<string>;
  /** Upper limit in GiB; billed is what is used. @default 90 */
  readonly quotaGib?: number;
  /** @default 'Hot' */
  readonly tier?: ShareTier;
  /** @default 'Standard_LRS' */
  readonly redundancy?: Redundancy;
  /** How long a deleted share can be brought back. @default 14 */
  readonly softDeleteDays?: number;
  /** Refuse to delete the account and the share. @default true */
  readonly protect?: boolean;
}

/**
 * The film library: one account, one SMB share. Container Apps mounts Azure Files with the account key only
 * (microsoft/azure-container-apps#1446), so this account keeps shared keys on; that is why it is not the account of
 * the backups.
 */
export class MediaStorage extends pulumi.ComponentResource {
  readonly accountName: pulumi.Output<string>;
  readonly shareName: pulumi.Output<string>;
  /** Key for the mount. Always a secret: the SDK does not mark it as one. */
  readonly accountKey: pulumi.Output<string>;

  constructor(name: string, args: MediaStorageArgs, opts?: pulumi.ComponentResourceOptions) {
    super(TYPE, name, args, opts);
    const { resourceGroupName } = args;
    const protect = args.protect ?? true;
    const account = new storage.StorageAccount(
      name,
      {
        resourceGroupName,
        accountName: args.accountName,
        kind: 'StorageV2',
        sku: { name: args.redundancy ?? 'Standard_LRS' },
        allowSharedKeyAccess: true,
        allowBlobPublicAccess: false,
        allowCrossTenantReplication: false,
        minimumTlsVersion: 'TLS1_2',
        enableHttpsTrafficOnly: true,
      },
      { parent: this, protect },
    );
    const service = new storage.FileServiceProperties(
      `${name}-files`,
      {
        resourceGroupName,
        accountName: account.name,
        fileServicesName: 'default',
        shareDeleteRetentionPolicy: { enabled: true, days: args.softDeleteDays ?? 14 },
      },
      { parent: this },
    );
    const share = new storage.FileShare(
      `${name}-share`,
      {
        resourceGroupName,
        accountName: account.name,
        shareName: args.shareName,
        shareQuota: args.quotaGib ?? 90,
        accessTier: args.tier ?? 'Hot',
        enabledProtocols: 'SMB',
      },
      // Azure answers 409 when both calls change the file service at once.
      { parent: this, protect, dependsOn: [service] },
    );
    this.accountName = account.name;
    this.shareName = share.name;
    this.accountKey = accountKeyOf(resourceGroupName, account.name, this);
    this.registerOutputs({ accountName: this.accountName, shareName: this.shareName });
  }
}

function accountKeyOf(
  resourceGroupName: pulumi.Input<string>,
  accountName: pulumi.Input<string>,
  parent: pulumi.Resource,
): pulumi.Output<string> {
  const { keys } = storage.listStorageAccountKeysOutput({ resourceGroupName, accountName }, { parent });
  return pulumi.secret(
    keys.apply((list) => {
      const key = list[0]?.value;
      if (key === undefined)
        throw new pulumi.ResourceError('the media account has no key to mount the share with', parent);
      return key;
    }),
  );
}
