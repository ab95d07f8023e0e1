import * as app from '@pulumi/azure-native/app/index.js';
import * as monitor from '@pulumi/azure-native/monitor/index.js';
import * as operationalinsights from '@pulumi/azure-native/operationalinsights/index.js';
import * as pulumi from '@pulumi/pulumi';

const TYPE = 'jellyfin-on-azure:app:AppEnvironment';

/** Managed identity in init containers works on this profile and on no other (facts: managed-identity.md). */
export const WORKLOAD_PROFILE = 'Consumption';

export interface AppEnvironmentArgs {
  readonly resourceGroupName: pulumi.Input<string>;
  readonly environmentName: pulumi.Input<string>;
  readonly workspaceName: pulumi.Input<string>;
  /** The media share, mounted with the account's key. */
  readonly media: {
    readonly accountName: pulumi.Input<string>;
    /** Kept secret whatever the caller passes. */
    readonly accountKey: pulumi.Input<string>;
    readonly shareName: pulumi.Input<string>;
    /** @default true */
    readonly readOnly?: boolean;
  };
  /** @default 30 */
  readonly logRetentionDays?: number;
  /** @default 0.5 */
  readonly logDailyCapGb?: number;
}

/**
 * Where the app runs: log workspace, environment, and the media share as environment storage.
 *
 * Logs go through Azure Monitor and a diagnostic setting rather than by workspace key: one key less in the state, and a
 * preview does not need the right to read it.
 */
export class AppEnvironment extends pulumi.ComponentResource {
  readonly environmentId: pulumi.Output<string>;
  readonly defaultDomain: pulumi.Output<string>;
  readonly workspaceId: pulumi.Output<string>;
  /** The workspace's GUID, as `az monitor log-analytics query` takes it. */
  readonly workspaceCustomerId: pulumi.Output<string>;
  /** What a volume's `storageName` refers to. */
  readonly mediaStorageName: pulumi.Output<string>;

  constructor(name: string, args: AppEnvironmentArgs, opts?: pulumi.ComponentResourceOptions) {
    const accountKey = pulumi.secret(args.media.accountKey);
    const media = { ...args.media, accountKey };
    super(TYPE, name, { ...args, media }, opts);
    const { resourceGroupName } = args;
    const workspace = new operationalinsights.Workspace(
      `${name}-logs`,
      {
        resourceGroupName,
        workspaceName: args.workspaceName,
        sku: { name: 'PerGB2018' },
        retentionInDays: args.logRetentionDays ?? 30,
        workspaceCapping: { dailyQuotaGb: args.logDailyCapGb ?? 0.5 },
        features: { disableLocalAuth: true },
      },
      { parent: this },
    );
    const environment = new app.ManagedEnvironment(
      name,
      {
        resourceGroupName,
        environmentName: args.environmentName,
        workloadProfiles: [{ name: WORKLOAD_PROFILE, workloadProfileType: 'Consumption' }],
        appLogsConfiguration: { destination: 'azure-monitor' },
        zoneRedundant: false,
      },
      { parent: this },
    );
    new monitor.DiagnosticSetting(
      `${name}-diagnostics`,
      {
        name: 'to-workspace',
        resourceUri: environment.id,
        workspaceId: workspace.id,
        logs: [{ categoryGroup: 'allLogs', enabled: true }],
      },
      { parent: this },
    );
    const mediaStorage = new app.ManagedEnvironmentsStorage(
      `${name}-media`,
      {
        resourceGroupName,
        environmentName: environment.name,
        storageName: media.shareName,
        properties: {
          azureFile: {
            accountName: media.accountName,
            accountKey,
            shareName: media.shareName,
            accessMode: (media.readOnly ?? true) ? 'ReadOnly' : 'ReadWrite',
          },
        },
      },
      { parent: this },
    );
    this.environmentId = environment.id;
    this.defaultDomain = environment.defaultDomain;
    this.workspaceId = workspace.id;
    this.workspaceCustomerId = workspace.customerId;
    this.mediaStorageName = mediaStorage.name;
    this.registerOutputs({ environmentId: this.environmentId, defaultDomain: this.defaultDomain });
  }
}
