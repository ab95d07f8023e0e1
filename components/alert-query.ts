/** Pure: what the log alert asks, and over which window. */
import { CONTAINER, LOG_MESSAGE } from '../agent/contract.ts';

export interface AlertTiming {
  readonly backupIntervalSeconds: number;
  readonly startupDelaySeconds: number;
  readonly backupOnChangeSeconds: number;
}

// The windows that a log alert accepts (learn.microsoft.com/azure/azure-monitor/alerts): minutes, ISO 8601.
const WINDOWS: readonly (readonly [minutes: number, text: string])[] = [
  [60, 'PT1H'],
  [120, 'PT2H'],
  [180, 'PT3H'],
  [240, 'PT4H'],
  [300, 'PT5H'],
  [360, 'PT6H'],
  [1440, 'P1D'],
  [2880, 'P2D'],
];
const MARGIN_MINUTES = 30;

/** How often the query runs; also how late a failure is noticed at most. */
export const ALERT_FREQUENCY = 'PT15M';

/** The smallest window that a whole interval between two backups fits into. */
export function alertWindow({ backupIntervalSeconds }: AlertTiming): string {
  const needed = backupIntervalSeconds / 60 + MARGIN_MINUTES;
  return WINDOWS.find(([minutes]) => minutes >= needed)?.[1] ?? 'P2D';
}

/**
 * How long a replica must have run before its silence means something. The first change after a start (Jellyfin writes
 * on every one) is backed up after both delays; without change-driven backups only the interval brings one.
 */
export function silenceMinutes(timing: AlertTiming): number {
  const seconds =
    timing.backupOnChangeSeconds === 0
      ? timing.startupDelaySeconds + timing.backupIntervalSeconds
      : timing.startupDelaySeconds + timing.backupOnChangeSeconds;
  return Math.ceil(seconds / 60) + MARGIN_MINUTES;
}

/**
 * One row for each reason to look at the server; no row, no alert.
 *
 * An idle server makes no backups and is fine, so "no backup" counts only for a replica that ran: its first and last
 * lines in the window are far enough apart. A failure counts until a later backup succeeded. The empty `datatable` keeps
 * the query valid before the first line ever arrived, when the log table does not exist.
 */
export function alertQuery(appName: string, timing: AlertTiming): string {
  const lines = [
    `let lines = union isfuzzy=true`,
    `  (datatable(TimeGenerated: datetime, ContainerAppName: string, ContainerName: string, ContainerGroupName: string, Log: string) []),`,
    `  ContainerAppConsoleLogs`,
    `| where ContainerAppName == ${kqlString(appName)}`,
    `| project TimeGenerated, ContainerName, Replica = ContainerGroupName, Log, Entry = parse_json(Log)`,
    `| extend Level = tostring(Entry.level), Message = tostring(Entry.msg);`,
    `let stored = lines | where ContainerName == ${kqlString(CONTAINER.backup)} and Message contains ${kqlString(LOG_MESSAGE.backupStored)};`,
    `let newest = toscalar(stored | summarize max(TimeGenerated));`,
    `let silent = lines`,
    `| summarize First = min(TimeGenerated), Last = max(TimeGenerated) by Replica`,
    `| where Last - First > ${String(silenceMinutes(timing))}m`,
    `| join kind=leftanti stored on Replica`,
    `| project Reason = "a replica ran and stored no backup", Replica, TimeGenerated = Last;`,
    `let failed = lines`,
    `| where ContainerName == ${kqlString(CONTAINER.backup)} and Level == "error" and Message contains ${kqlString(LOG_MESSAGE.backupFailed)}`,
    `| where isnull(newest) or TimeGenerated > newest`,
    `| summarize TimeGenerated = max(TimeGenerated) by Replica`,
    `| project Reason = "a backup failed", Replica, TimeGenerated;`,
    `let refused = lines`,
    `| where ContainerName == ${kqlString(CONTAINER.restore)} and Level == "error" and Message contains ${kqlString(LOG_MESSAGE.restoreRefused)}`,
    `| summarize TimeGenerated = max(TimeGenerated) by Replica`,
    `| project Reason = "a restore was refused", Replica, TimeGenerated;`,
    `union silent, failed, refused`,
  ];
  return lines.join('\n');
}

function kqlString(value: string): string {
  return `"${value.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
}
