import * as monitor from '@pulumi/azure-native/monitor/index.js';
import * as pulumi from '@pulumi/pulumi';
import { ALERT_FREQUENCY, alertQuery, alertWindow, type AlertTiming } from './alert-query.ts';

const TYPE = 'jellyfin-on-azure:monitor:BackupAlert';

export interface BackupAlertArgs {
  readonly resourceGroupName: pulumi.Input<string>;
  readonly ruleName: pulumi.Input<string>;
  readonly actionGroupName: pulumi.Input<string>;
  readonly workspaceId: pulumi.Input<string>;
  readonly appName: pulumi.Input<string>;
  readonly timing: AlertTiming;
  /** Where to mail; without it the alert shows in the portal only. @default none */
  readonly email?: string | undefined;
}

/**
 * Tells a person when a replica ran without a backup, a backup failed or a restore was refused.
 *
 * Cost: one log alert every 15 minutes, about 0.50 USD a month; the three reasons share it.
 */
export class BackupAlert extends pulumi.ComponentResource {
  constructor(name: string, args: BackupAlertArgs, opts?: pulumi.ComponentResourceOptions) {
    super(TYPE, name, args, opts);
    const { resourceGroupName, email, timing } = args;
    const group =
      email === undefined
        ? undefined
        : new monitor.ActionGroup(
            `${name}-mail`,
            {
              resourceGroupName,
              actionGroupName: args.actionGroupName,
              // Action groups live in no region of their own.
              location: 'Global',
              groupShortName: 'jellyfin',
              enabled: true,
              emailReceivers: [{ name: 'operator', emailAddress: email, useCommonAlertSchema: true }],
            },
            { parent: this },
          );
    new monitor.ScheduledQueryRule(
      name,
      {
        resourceGroupName,
        ruleName: args.ruleName,
        kind: 'LogAlert',
        displayName: 'Jellyfin backups need attention',
        description:
          'A replica ran and stored no backup, a backup failed, or a restore was refused. README: "When the alert comes".',
        severity: 1,
        enabled: true,
        scopes: [args.workspaceId],
        evaluationFrequency: ALERT_FREQUENCY,
        windowSize: alertWindow(timing),
        criteria: {
          allOf: [
            {
              query: pulumi.output(args.appName).apply((appName) => alertQuery(appName, timing)),
              timeAggregation: 'Count',
              operator: 'GreaterThan',
              threshold: 0,
              dimensions: [{ name: 'Reason', operator: 'Include', values: ['*'] }],
              failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 },
            },
          ],
        },
        // One mail when it starts and one when it is over, not one every 15 minutes.
        autoMitigate: true,
        // The log table does not exist before the first line arrives.
        skipQueryValidation: true,
        actions: { actionGroups: group === undefined ? [] : [group.id] },
      },
      { parent: this },
    );
    this.registerOutputs({});
  }
}
