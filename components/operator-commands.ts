/** Pure: the commands that a person needs next, with the names filled in. */
import { AGENT_BUNDLE, CONTAINER } from '../agent/contract.ts';

export interface CommandNames {
  readonly resourceGroup: string;
  readonly app: string;
  readonly mediaAccount: string;
  readonly mediaShare: string;
}

/** Ready to paste. `az` finds the newest replica itself; with none running, the URL wakes one. */
export function operatorCommands({
  resourceGroup,
  app,
  mediaAccount,
  mediaShare,
}: CommandNames): Record<string, string> {
  const target = `--name ${app} --resource-group ${resourceGroup}`;
  const agent = (command: string): string =>
    `az containerapp exec ${target} --container ${CONTAINER.backup} --command "node ${AGENT_BUNDLE} ${command}"`;
  return {
    backupLogs: `az containerapp logs show ${target} --container ${CONTAINER.backup} --follow --tail 50`,
    jellyfinLogs: `az containerapp logs show ${target} --container ${CONTAINER.jellyfin} --follow --tail 50`,
    restoreLogs: `az containerapp logs show ${target} --container ${CONTAINER.restore} --tail 100`,
    status: agent('status'),
    listBackups: agent('list'),
    verifyBackup: agent('verify NAME'),
    // The next start consumes the request once; a restart makes one.
    restoreOne: agent('restore-request NAME'),
    restartReplica: `az containerapp revision restart ${target} --revision $(az containerapp show ${target} --query properties.latestRevisionName -o tsv)`,
    uploadFilms: `az storage file upload-batch --account-name ${mediaAccount} --destination ${mediaShare} --source ./films`,
    adminPassword: 'npx pulumi stack output adminPassword --show-secrets',
  };
}
