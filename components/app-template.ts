/** Pure: from plain values to the template of the Container App. Creates no resource. */
import type * as pulumi from '@pulumi/pulumi';
import {
  COMMAND_MOUNTS,
  CONTAINER,
  HEALTH_PORT,
  JELLYFIN_DIRS,
  MOUNT,
  VOLUME,
  type Command,
} from '../agent/contract.ts';
import { agentEnv, type EnvVar } from './agent-env.ts';
import { JELLYFIN_PORT, jellyfinProbes, sidecarProbes, type Probe } from './probes.ts';
import { RESTORE_SIZE, memoryText, type Size } from './sizing.ts';
import type { StackConfig } from './stack-config.ts';

/** Names of the app's secrets; containers refer to them and never hold the value. */
export const SECRET = {
  adminUser: 'jellyfin-admin-user',
  adminPassword: 'jellyfin-admin-password',
  apiKey: 'jellyfin-api-key',
} as const;

export interface TemplateArgs {
  readonly config: StackConfig;
  readonly agentImage: pulumi.Input<string>;
  /** Only with JellyRoller. */
  readonly jellyrollerImage: pulumi.Input<string> | undefined;
  readonly backupAccount: pulumi.Input<string>;
  readonly backupContainer: pulumi.Input<string>;
  /** Client id of the identity that may write backups. */
  readonly dataClientId: pulumi.Input<string>;
  /** Name of the environment storage that is the media share. */
  readonly mediaStorage: pulumi.Input<string>;
}

export interface VolumeMount {
  readonly volumeName: string;
  readonly mountPath: string;
}
export interface InitContainer {
  readonly name: string;
  readonly image: pulumi.Input<string>;
  readonly args?: string[];
  readonly env: EnvVar[];
  readonly resources: { readonly cpu: number; readonly memory: string };
  readonly volumeMounts: VolumeMount[];
}
export interface Container extends InitContainer {
  readonly probes: Probe[];
}
export interface Volume {
  readonly name: string;
  readonly storageType: 'EmptyDir' | 'AzureFile';
  readonly storageName?: pulumi.Input<string>;
}
export interface AppTemplate {
  readonly initContainers: InitContainer[];
  readonly containers: Container[];
  readonly volumes: Volume[];
  readonly scale: {
    readonly minReplicas: number;
    readonly maxReplicas: number;
    readonly cooldownPeriod: number;
    readonly pollingInterval: number;
    readonly rules: {
      readonly name: string;
      readonly http: { readonly metadata: { readonly concurrentRequests: string } };
    }[];
  };
  readonly terminationGracePeriodSeconds: number;
}

/**
 * The whole template. No `revisionSuffix`: a suffix may be used once in the life of an app, so a fixed one would make
 * the second change fail.
 */
export function appTemplate(args: TemplateArgs): AppTemplate {
  const { config } = args;
  const runner =
    config.jellyrollerEnabled && args.jellyrollerImage !== undefined
      ? [runnerContainer(args, args.jellyrollerImage)]
      : [];
  return {
    initContainers: [restoreContainer(args)],
    // Sorted by name: the order is compared as it stands, and another one would be another revision.
    containers: [jellyfinContainer(config), backupContainer(args), ...runner].toSorted((a, b) =>
      compare(a.name, b.name),
    ),
    volumes: [
      { name: VOLUME.cache, storageType: 'EmptyDir' },
      { name: VOLUME.data, storageType: 'EmptyDir' },
      { name: VOLUME.media, storageType: 'AzureFile', storageName: args.mediaStorage },
    ],
    scale: {
      minReplicas: config.minReplicas,
      // One database, one writer. Written out: the SDK fills in 10 when it is missing.
      maxReplicas: 1,
      cooldownPeriod: config.cooldownSeconds,
      pollingInterval: 30,
      // One request is enough to wake it; with one replica at most the number decides nothing else.
      rules: [{ name: 'http', http: { metadata: { concurrentRequests: '100' } } }],
    },
    terminationGracePeriodSeconds: config.terminationGraceSeconds,
  };
}

function restoreContainer(args: TemplateArgs): InitContainer {
  const { config } = args;
  return {
    name: CONTAINER.restore,
    image: args.agentImage,
    args: ['restore'],
    env: agentEnv('restore', {
      ...storeEnv(args),
      dataDir: MOUNT.data,
      jellyfinVersion: config.jellyfinVersion,
      minBackupSizeBytes: String(config.minBackupSizeBytes),
      handoverWaitSeconds: String(config.handoverWaitSeconds),
    }),
    resources: resources(RESTORE_SIZE),
    volumeMounts: agentMounts('restore'),
  };
}

function jellyfinContainer(config: StackConfig): Container {
  return {
    name: CONTAINER.jellyfin,
    image: config.jellyfinImage,
    env: Object.entries(JELLYFIN_DIRS).map(([name, value]) => ({ name, value })),
    resources: resources(config.jellyfin),
    volumeMounts: (['cache', 'data', 'media'] as const).map(mountOf),
    probes: jellyfinProbes(config.startupTimeoutSeconds),
  };
}

function backupContainer(args: TemplateArgs): Container {
  const { config } = args;
  return {
    name: CONTAINER.backup,
    image: args.agentImage,
    args: ['backup'],
    env: agentEnv('backup', {
      ...storeEnv(args),
      ...adminEnv(config),
      dataDir: MOUNT.data,
      mediaDir: MOUNT.media,
      jellyfinUrl: JELLYFIN_URL,
      backupIntervalSeconds: String(config.backupIntervalSeconds),
      backupOnChangeSeconds: String(config.backupOnChangeSeconds),
      startupDelaySeconds: String(config.startupDelaySeconds),
      minBackupSizeBytes: String(config.minBackupSizeBytes),
      backupArtwork: String(config.backupArtwork),
      drillIntervalSeconds: String(config.drillIntervalSeconds),
      shutdownBudgetSeconds: String(config.shutdownBudgetSeconds),
      retentionKeep: String(config.retentionKeep),
      retentionDaily: String(config.retentionDaily),
      retentionWeekly: String(config.retentionWeekly),
      retentionMonthly: String(config.retentionMonthly),
      // The platform's probe does not come from inside the container.
      healthHost: '0.0.0.0',
      healthPort: String(HEALTH_PORT),
    }),
    resources: resources(config.agent),
    volumeMounts: agentMounts('backup'),
    probes: sidecarProbes(),
  };
}

function runnerContainer(args: TemplateArgs, image: pulumi.Input<string>): Container {
  const { config } = args;
  return {
    name: CONTAINER.jellyroller,
    image,
    args: ['jellyroller'],
    env: agentEnv('jellyroller', {
      ...storeEnv(args),
      ...adminEnv(config),
      jellyfinApiKey: config.hasApiKey ? { secretRef: SECRET.apiKey } : undefined,
      jellyrollerEnabled: 'true',
      jellyrollerDriver: config.jellyrollerDriver,
      // The image has the binary on its PATH, and the agent's own limit is generous.
      jellyrollerBin: undefined,
      jellyrollerTimeoutSeconds: undefined,
      dataDir: MOUNT.data,
      jellyfinUrl: JELLYFIN_URL,
      backupIntervalSeconds: String(config.backupIntervalSeconds),
      startupDelaySeconds: String(config.startupDelaySeconds),
      minBackupSizeBytes: String(config.jellyrollerMinBackupSizeBytes),
      shutdownBudgetSeconds: String(config.shutdownBudgetSeconds),
      retentionKeep: String(config.retentionKeep),
    }),
    resources: resources(config.jellyroller),
    volumeMounts: agentMounts('jellyroller'),
    // It has no port of its own; a stuck run ends by its own time limits, and the tar backups do not depend on it.
    probes: [],
  };
}

// One network namespace per replica, so the agent needs no ingress and no TLS to reach Jellyfin.
const JELLYFIN_URL = `http://localhost:${String(JELLYFIN_PORT)}`;

function storeEnv({ config, backupAccount, backupContainer: container, dataClientId }: TemplateArgs) {
  return {
    storageAccount: backupAccount,
    clientId: dataClientId,
    // The backup account accepts no keys.
    storageKey: undefined,
    connectionString: undefined,
    container,
    retryMax: String(config.retryMax),
    retryBackoffSeconds: String(config.retryBackoffSeconds),
    logLevel: config.logLevel,
  };
}

function adminEnv({ bootstrapAdmin }: StackConfig) {
  return {
    adminUser: bootstrapAdmin ? { secretRef: SECRET.adminUser } : undefined,
    adminPassword: bootstrapAdmin ? { secretRef: SECRET.adminPassword } : undefined,
  };
}

function agentMounts(command: Command): VolumeMount[] {
  return COMMAND_MOUNTS[command].map(mountOf);
}

function mountOf(name: keyof typeof MOUNT): VolumeMount {
  return { volumeName: VOLUME[name], mountPath: MOUNT[name] };
}

function resources(size: Size): { cpu: number; memory: string } {
  return { cpu: size.cpu, memory: memoryText(size.memoryGib) };
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
