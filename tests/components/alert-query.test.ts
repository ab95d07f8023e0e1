import { LOG_MESSAGE } from '../../agent/contract.ts';
import { alertQuery, alertWindow, silenceMinutes } from '../../components/alert-query.ts';
import { operatorCommands } from '../../components/operator-commands.ts';

const TIMING = { backupIntervalSeconds: 14_400, startupDelaySeconds: 60, backupOnChangeSeconds: 60 };

describe('alertWindow', () => {
  it.each([
    [300, 'PT1H'],
    [3_600, 'PT2H'],
    [14_400, 'PT5H'],
    [43_200, 'P1D'],
    [86_400, 'P2D'],
  ])('fits an interval of %d s into %s', (backupIntervalSeconds, window) => {
    expect(alertWindow({ ...TIMING, backupIntervalSeconds })).toBe(window);
  });
});

describe('silenceMinutes', () => {
  it('waits for the first change, or for a whole interval when changes do not count', () => {
    expect(silenceMinutes(TIMING)).toBe(32);
    expect(silenceMinutes({ ...TIMING, backupOnChangeSeconds: 0 })).toBe(271);
  });
});

describe('alertQuery', () => {
  const query = alertQuery('ca-jellyfin-1', TIMING);

  it('asks for the three reasons in the words of the contract', () => {
    for (const message of Object.values(LOG_MESSAGE)) expect(query).toContain(`"${message}"`);
    expect(query.match(/Reason = /g)).toHaveLength(3);
    expect(query).toContain('union silent, failed, refused');
  });

  it('looks at this app only, and survives a log table that does not exist yet', () => {
    expect(query).toContain('| where ContainerAppName == "ca-jellyfin-1"');
    expect(query).toContain('union isfuzzy=true');
    expect(query).toContain('datatable(TimeGenerated: datetime');
  });

  it('takes an odd name for text and not for a query', () => {
    expect(alertQuery('a" or 1==1', TIMING)).toContain('"a\\" or 1==1"');
  });
});

describe('operatorCommands', () => {
  const commands = operatorCommands({ resourceGroup: 'rg', app: 'ca', mediaAccount: 'm', mediaShare: 's' });
  it('has a line for logs, for the list of backups and for one of them', () => {
    expect(Object.keys(commands)).toEqual(
      expect.arrayContaining(['backupLogs', 'restoreLogs', 'listBackups', 'restoreOne', 'status']),
    );
    expect(commands['listBackups']).toBe(
      'az containerapp exec --name ca --resource-group rg --container backup-agent --command "node /app/agent.mjs list"',
    );
    expect(commands['restoreOne']).toContain('agent.mjs restore-request NAME');
    for (const command of Object.values(commands)) expect(command).not.toMatch(/undefined|\n/);
  });
});
