import { nameOf } from './catalog.ts';
import { AgentError, hasCode } from './errors.ts';
import { errorFields } from './log.ts';
import type { RestoreDeps, RestoreOptions } from './plan-restore.ts';
import { WORK_DIR } from './profile.ts';
import type { Candidate } from './restore-decision.ts';
import { stageBackup, type StagedTree } from './stage-backup.ts';
import { stageLegacy } from './stage-legacy.ts';

export interface Chosen {
  staged: StagedTree;
  candidate: Candidate;
  passedOver: string[];
}

export const stagingDirOf = (dataDir: string) => `${dataDir}/${WORK_DIR}/staging`;

/** Downloads one candidate of any format into the staging folder and checks it. */
export async function stage(
  deps: RestoreDeps,
  candidate: Candidate,
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<StagedTree> {
  const dir = stagingDirOf(options.dataDir);
  return candidate.format === 'tarZst'
    ? stageBackup(deps, candidate, dir, options.imageVersion, signal)
    : stageLegacy(deps, candidate, dir, signal);
}

/** The newest candidate that passes every check, staged; older ones are tried loudly, one after the other. */
export async function stageNewestGood(
  deps: RestoreDeps,
  candidates: readonly Candidate[],
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<Chosen> {
  const passedOver: string[] = [];
  for (const candidate of candidates) {
    // Twice: what is passed over is off the line for good, and one flipped bit on the way must not do that.
    for (const isSecond of [false, true]) {
      try {
        return { staged: await stage(deps, candidate, options, signal), candidate, passedOver };
      } catch (error) {
        if (!hasCode(error, 'backup_damaged')) throw error;
        const fields = { backup: nameOf(candidate), ...errorFields(error) };
        if (isSecond) deps.log.error('backup passed over', fields);
        else deps.log.warn('backup did not pass, read again', fields);
      }
    }
    passedOver.push(nameOf(candidate));
  }
  throw new AgentError(
    'backup_damaged',
    `none of ${String(candidates.length)} backups passes its checks; the newest is ${nameOf(candidates[0] as Candidate)}`,
    {
      hint: '`agent verify NAME` says what is wrong with each; nothing is started empty over them',
    },
  );
}
