import * as app from '@pulumi/azure-native/app/index.js';
import * as managedidentity from '@pulumi/azure-native/managedidentity/index.js';
import * as pulumi from '@pulumi/pulumi';
import * as random from '@pulumi/random';
import { WORKLOAD_PROFILE } from './app-environment.ts';
import { SECRET, appTemplate } from './app-template.ts';
import { JELLYFIN_PORT } from './probes.ts';
import { assignRole } from './roles.ts';
import type { StackConfig } from './stack-config.ts';

const TYPE = 'jellyfin-on-azure:app:JellyfinApp';

export interface JellyfinAppArgs {
  /** Sizes, intervals, image: the part of the stack's configuration that shapes the containers. */
  readonly config: StackConfig;
  readonly resourceGroupName: pulumi.Input<string>;
  readonly appName: pulumi.Input<string>;
  readonly pullIdentityName: pulumi.Input<string>;
  readonly dataIdentityName: pulumi.Input<string>;
  readonly environment: {
    readonly id: pulumi.Input<string>;
    readonly defaultDomain: pulumi.Input<string>;
    readonly mediaStorageName: pulumi.Input<string>;
  };
  readonly backup: {
    readonly accountName: pulumi.Input<string>;
    readonly containerName: pulumi.Input<string>;
    /** Resource id of the container: the widest that the app may write. */
    readonly containerId: pulumi.Input<string>;
  };
  readonly image: {
    readonly agent: pulumi.Input<string>;
    readonly jellyroller?: pulumi.Input<string> | undefined;
    /** Where to pull with an identity. @default none; public images need none */
    readonly registry?:
      { readonly id: pulumi.Input<string>; readonly loginServer: pulumi.Input<string> } | undefined;
  };
  /** For the runner, when the bootstrap did not create the administrator. @default none */
  readonly jellyfinApiKey?: pulumi.Input<string> | undefined;
}

/**
 * Identities, their roles, and the Container App: `restore-db` first, then `jellyfin` and `backup-agent` (and
 * `jellyroller-runner`) side by side, at most one replica, none while nobody watches.
 */
export class JellyfinApp extends pulumi.ComponentResource {
  readonly appName: pulumi.Output<string>;
  readonly url: pulumi.Output<string>;
  /** Password of the bootstrapped administrator; none when the bootstrap is off. Always a secret. */
  readonly adminPassword: pulumi.Output<string> | undefined;

  constructor(name: string, args: JellyfinAppArgs, opts?: pulumi.ComponentResourceOptions) {
    // What a caller passes in plain text must not stay so in the component's own inputs.
    super(TYPE, name, { ...args, jellyfinApiKey: secretOr(args.jellyfinApiKey) }, opts);
    const { config, resourceGroupName, image, backup } = args;
    const data = new managedidentity.UserAssignedIdentity(
      `${name}-data`,
      { resourceGroupName, resourceName: args.dataIdentityName },
      { parent: this },
    );
    const roles = [
      assignRole(
        `${name}-data-role`,
        {
          scope: backup.containerId,
          role: 'storageBlobDataContributor',
          principalId: data.principalId,
          description: 'The agent writes and reads backups in this container and nowhere else.',
        },
        this,
      ),
    ];
    const pull = image.registry === undefined ? undefined : pullIdentity(name, args, image.registry, this);
    if (pull !== undefined) roles.push(pull.role);
    this.adminPassword = config.bootstrapAdmin ? generatePassword(name, this) : undefined;

    const identities = [data.id, ...(pull === undefined ? [] : [pull.identity.id])];
    const containerApp = new app.ContainerApp(
      name,
      {
        resourceGroupName,
        containerAppName: args.appName,
        environmentId: args.environment.id,
        workloadProfileName: WORKLOAD_PROFILE,
        identity: { type: 'UserAssigned', userAssignedIdentities: identities },
        configuration: {
          activeRevisionsMode: 'Single',
          maxInactiveRevisions: 5,
          registries: pull === undefined ? [] : [{ server: pull.loginServer, identity: pull.identity.id }],
          identitySettings: [
            { identity: data.id, lifecycle: 'All' },
            // No container gets a token of the identity that can read the registry.
            ...(pull === undefined ? [] : [{ identity: pull.identity.id, lifecycle: 'None' }]),
          ],
          ingress: ingress(config),
          secrets: appSecrets(config, this.adminPassword, args.jellyfinApiKey),
        },
        template: appTemplate({
          config,
          agentImage: image.agent,
          jellyrollerImage: image.jellyroller,
          backupAccount: backup.accountName,
          backupContainer: backup.containerName,
          dataClientId: data.clientId,
          mediaStorage: args.environment.mediaStorageName,
        }),
      },
      // The first replica pulls and restores at once; a role that comes later is a failed start.
      { parent: this, dependsOn: roles },
    );
    this.appName = containerApp.name;
    // Not from the app's configuration: one secret in it makes all of its outputs secret, the address too.
    this.url = pulumi.interpolate`https://${containerApp.name}.${args.environment.defaultDomain}`;
    this.registerOutputs({ appName: this.appName, url: this.url });
  }
}

function pullIdentity(
  name: string,
  args: JellyfinAppArgs,
  registry: { readonly id: pulumi.Input<string>; readonly loginServer: pulumi.Input<string> },
  parent: pulumi.Resource,
) {
  const identity = new managedidentity.UserAssignedIdentity(
    `${name}-pull`,
    { resourceGroupName: args.resourceGroupName, resourceName: args.pullIdentityName },
    { parent },
  );
  const role = assignRole(
    `${name}-pull-role`,
    {
      scope: registry.id,
      role: 'acrPull',
      principalId: identity.principalId,
      description: 'The Container App pulls the agent image with this identity.',
    },
    parent,
  );
  return { identity, role, loginServer: registry.loginServer };
}

// Letters and digits: it is typed on television remotes and passed through shells. 32 of them are 190 bits.
function generatePassword(name: string, parent: pulumi.Resource): pulumi.Output<string> {
  const password = new random.RandomPassword(
    `${name}-admin-password`,
    { length: 32, special: false, minLower: 1, minUpper: 1, minNumeric: 1 },
    { parent },
  );
  return pulumi.secret(password.result);
}

function ingress(config: StackConfig) {
  return {
    external: true,
    targetPort: JELLYFIN_PORT,
    // auto: HTTP/1.1 for websockets, HTTP/2 where the client asks for it.
    transport: 'auto',
    allowInsecure: false,
    traffic: [{ latestRevision: true, weight: 100 }],
    ipSecurityRestrictions: config.allowedIpRanges.map((ipAddressRange, index) => ({
      name: `allow-${String(index + 1)}`,
      action: 'Allow',
      ipAddressRange,
    })),
  };
}

function appSecrets(
  config: StackConfig,
  adminPassword: pulumi.Output<string> | undefined,
  apiKey: pulumi.Input<string> | undefined,
): { name: string; value: pulumi.Output<string> }[] {
  return [
    ...(adminPassword === undefined
      ? []
      : [
          { name: SECRET.adminPassword, value: adminPassword },
          { name: SECRET.adminUser, value: pulumi.secret(config.adminUser) },
        ]),
    // Only the runner reads it, so it comes and goes with the runner.
    ...(config.jellyrollerEnabled && apiKey !== undefined
      ? [{ name: SECRET.apiKey, value: pulumi.secret(apiKey) }]
      : []),
  ];
}

function secretOr(value: pulumi.Input<string> | undefined): pulumi.Output<string> | undefined {
  return value === undefined ? undefined : pulumi.secret(value);
}
