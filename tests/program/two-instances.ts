/** A program with two of everything in one stack: what would collide cannot be registered. */
import { AgentImage } from '../../components/agent-image.ts';
import { AppEnvironment } from '../../components/app-environment.ts';
import { BackupStorage } from '../../components/backup-storage.ts';
import { MediaStorage } from '../../components/media-storage.ts';
import { namesFor } from '../../components/names.ts';

for (const name of ['one', 'two']) {
  const names = namesFor(name, 'aaaaaaaa');
  const resourceGroupName = names.resourceGroup;
  const media = new MediaStorage(`${name}-media`, {
    resourceGroupName,
    accountName: names.mediaAccount,
    shareName: 'films',
  });
  new BackupStorage(`${name}-backup`, { resourceGroupName, accountName: names.backupAccount });
  new AgentImage(`${name}-image`, {
    build: 'acr-task',
    resourceGroupName,
    registryName: names.registry,
    context: { hash: 'aa', archiveFile: 'package.json', directory: 'agent' },
    contextAccountName: media.accountName,
  });
  new AppEnvironment(`${name}-environment`, {
    resourceGroupName,
    environmentName: names.environment,
    workspaceName: names.workspace,
    media: { accountName: media.accountName, accountKey: media.accountKey, shareName: media.shareName },
  });
}
