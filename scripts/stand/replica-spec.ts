import {
  CONTAINER,
  ENV,
  JELLYFIN_DIRS,
  MOUNT,
  VOLUME,
  type Command,
  type EnvOf,
} from '../../agent/contract.ts';

/** The part of a Container App's template that the stand executes; the names are Azure's. */
export interface EnvVar {
  name: string;
  value?: string;
  secretRef?: string;
}
export interface ContainerSpec {
  name: string;
  image: string;
  args?: string[];
  env: EnvVar[];
  volumeMounts: { volumeName: string; mountPath: string }[];
}
export interface ReplicaSpec {
  initContainers: ContainerSpec[];
  containers: ContainerSpec[];
  volumes: { name: string; storageType: string }[];
  terminationGracePeriodSeconds: number;
}

/** What a walk of two minutes needs shorter than a server that runs for weeks. */
const STAND_TUNING = {
  backupOnChangeSeconds: '3',
  startupDelaySeconds: '1',
  shutdownBudgetSeconds: '20',
  retryMax: '2',
  retryBackoffSeconds: '1',
} as const;

function env<C extends Command>(values: Partial<Record<EnvOf<C>, string>>): EnvVar[] {
  return Object.entries<string | undefined>(values).map(([key, value]) => ({
    name: ENV[key as keyof typeof ENV],
    value: value ?? '',
  }));
}

const mount = (key: keyof typeof MOUNT) => ({ volumeName: VOLUME[key], mountPath: MOUNT[key] });

/** The one place that the replica comes from. The infrastructure takes it over: then it is what would be deployed. */
export function replicaSpec(jellyfinVersion: string): ReplicaSpec {
  const store = {
    storageAccount: 'backups',
    clientId: '00000000-0000-0000-0000-000000000000',
    container: 'jellyfin-backups',
  };
  const retry = { retryMax: STAND_TUNING.retryMax, retryBackoffSeconds: STAND_TUNING.retryBackoffSeconds };
  const agent = 'jellyfin-agent';
  return {
    initContainers: [
      {
        name: CONTAINER.restore,
        image: agent,
        args: ['restore'],
        env: env<'restore'>({ ...store, ...retry, dataDir: MOUNT.data, jellyfinVersion }),
        volumeMounts: [mount('data')],
      },
    ],
    containers: [
      {
        name: CONTAINER.backup,
        image: agent,
        args: ['backup'],
        env: env<'backup'>({
          ...store,
          ...STAND_TUNING,
          dataDir: MOUNT.data,
          jellyfinUrl: 'http://localhost:8096',
        }),
        volumeMounts: [mount('data')],
      },
      {
        name: CONTAINER.jellyfin,
        image: `jellyfin:${jellyfinVersion}`,
        env: Object.entries(JELLYFIN_DIRS).map(([name, value]) => ({ name, value })),
        volumeMounts: [mount('cache'), mount('data'), mount('media')],
      },
    ],
    volumes: [
      { name: VOLUME.cache, storageType: 'EmptyDir' },
      { name: VOLUME.data, storageType: 'EmptyDir' },
      { name: VOLUME.media, storageType: 'AzureFile' },
    ],
    terminationGracePeriodSeconds: 60,
  };
}
