/** The stack: read the configuration, build the components, export what a person needs next. */
import * as resources from '@pulumi/azure-native/resources/index.js';
import * as pulumi from '@pulumi/pulumi';
import * as random from '@pulumi/random';
import { AgentImage } from './components/agent-image.ts';
import { AppEnvironment } from './components/app-environment.ts';
import { BackupAlert } from './components/backup-alert.ts';
import { BackupStorage } from './components/backup-storage.ts';
import { JellyfinApp } from './components/jellyfin-app.ts';
import { MediaStorage } from './components/media-storage.ts';
import { MEDIA_SHARE, SUFFIX_LENGTH, namesFor } from './components/names.ts';
import { operatorCommands } from './components/operator-commands.ts';
import { readStackConfig } from './components/stack-config.ts';
import { writeImageContext } from './scripts/image-context.ts';

const { config, jellyfinApiKey } = readStackConfig();
const protect = config.protectData;

// Account and registry names are global to Azure. Protected: another suffix would be another name for everything.
const suffix = new random.RandomString(
  'suffix',
  { length: SUFFIX_LENGTH, special: false, upper: false },
  { protect },
);
const names = suffix.result.apply((result) => namesFor(config.namePrefix, result));
const group = new resources.ResourceGroup('jellyfin', {
  resourceGroupName: names.resourceGroup,
  location: config.location,
  tags: { project: pulumi.getProject(), stack: pulumi.getStack() },
});
const resourceGroupName = group.name;

const media = new MediaStorage('media', {
  resourceGroupName,
  accountName: names.mediaAccount,
  shareName: MEDIA_SHARE,
  quotaGib: config.mediaShareQuotaGib,
  tier: config.mediaShareTier,
  redundancy: config.mediaRedundancy,
  softDeleteDays: config.backupSoftDeleteDays,
  protect,
});
const backup = new BackupStorage('backup', {
  resourceGroupName,
  accountName: names.backupAccount,
  containerName: config.backupContainer,
  redundancy: config.backupRedundancy,
  softDeleteDays: config.backupSoftDeleteDays,
  versionDays: config.backupVersionDays,
  protect,
});
const image = new AgentImage(
  'image',
  config.imageBuild === 'prebuilt'
    ? {
        build: 'prebuilt',
        agentImage: config.agentImage,
        jellyrollerImage: config.jellyrollerEnabled ? config.jellyrollerImage : undefined,
      }
    : {
        build: config.imageBuild,
        resourceGroupName,
        registryName: names.registry,
        context: await writeImageContext(import.meta.dirname),
        contextAccountName: media.accountName,
        jellyroller: config.jellyrollerEnabled
          ? { url: config.jellyrollerUrl, sha256: config.jellyrollerSha256 }
          : undefined,
      },
);
const environment = new AppEnvironment('environment', {
  resourceGroupName,
  environmentName: names.environment,
  workspaceName: names.workspace,
  media: { ...pick(media), readOnly: config.mediaReadOnly },
  logRetentionDays: config.logRetentionDays,
  logDailyCapGb: config.logDailyCapGb,
});
const app = new JellyfinApp('app', {
  config,
  resourceGroupName,
  appName: names.app,
  pullIdentityName: names.pullIdentity,
  dataIdentityName: names.dataIdentity,
  environment: {
    id: environment.environmentId,
    defaultDomain: environment.defaultDomain,
    mediaStorageName: environment.mediaStorageName,
  },
  backup,
  image,
  jellyfinApiKey,
});
if (config.alertsEnabled) {
  new BackupAlert('alert', {
    resourceGroupName,
    ruleName: names.alert,
    actionGroupName: names.actionGroup,
    workspaceId: environment.workspaceId,
    appName: app.appName,
    timing: config,
    email: config.alertEmail === '' ? undefined : config.alertEmail,
  });
}

function pick({ accountName, accountKey, shareName }: MediaStorage) {
  return { accountName, accountKey, shareName };
}

export const url = app.url;
export const adminUser = config.bootstrapAdmin ? config.adminUser : undefined;
export const adminPassword = app.adminPassword;
export const resourceGroup = group.name;
export const containerApp = app.appName;
export const mediaAccount = media.accountName;
export const mediaShare = media.shareName;
export const backupAccount = backup.accountName;
export const backupContainer = backup.containerName;
export const logWorkspaceId = environment.workspaceCustomerId;
export const images = {
  jellyfin: config.jellyfinImage,
  agent: image.agent,
  ...(image.jellyroller === undefined ? {} : { jellyroller: image.jellyroller }),
};
export const commands = pulumi
  .all([group.name, app.appName, media.accountName, media.shareName])
  .apply(([resourceGroupValue, appValue, mediaAccountValue, mediaShareValue]) =>
    operatorCommands({
      resourceGroup: resourceGroupValue,
      app: appValue,
      mediaAccount: mediaAccountValue,
      mediaShare: mediaShareValue,
    }),
  );
