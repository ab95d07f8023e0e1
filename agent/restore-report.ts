import type { Predecessor } from './handover.ts';
import type { Logger } from './log.ts';
import type { Candidate } from './restore-decision.ts';

export interface RestoreReport {
  action: 'kept' | 'first_boot' | 'restored';
  epoch: number;
  restoredFrom: string | null;
  /** Newer backups that did not pass their checks. */
  passedOver: string[];
  files: number;
  bytes: number;
  /** What is known of the replica before this one. */
  predecessor: Predecessor;
  /** No write of it is missing; `undefined`: not known. */
  cleanStop: boolean | undefined;
}

/** A report of a start that put nothing on the volume. */
export function nothingRestored(
  action: 'kept' | 'first_boot',
  epoch: number,
  restoredFrom: string | null,
  predecessor: Predecessor = { kind: 'none' },
): RestoreReport {
  return {
    action,
    epoch,
    restoredFrom,
    passedOver: [],
    files: 0,
    bytes: 0,
    predecessor,
    cleanStop: undefined,
  };
}

/** The sign of life knows more than the backup: a replica that was killed may have restored it and stored nothing since. */
export function cleanStopOf(candidate: Candidate, predecessor: Predecessor): boolean | undefined {
  if (predecessor.kind === 'silent') return false;
  return candidate.format === 'tarZst' ? candidate.item.metadata['clean_stop'] === 'true' : undefined;
}

/** What may be missing of the last replica's writes, in one line. */
export function reportPredecessor(
  log: Logger,
  predecessor: Predecessor,
  cleanStop: boolean | undefined,
  backup: string,
): void {
  switch (predecessor.kind) {
    case 'silent':
      log.warn('the replica before this one ended without a last backup', {
        backup,
        windowSeconds: predecessor.windowSeconds,
      });
      break;
    case 'busy':
      log.warn('another replica still writes and did not back up in time: its last writes become a tail', {
        backup,
        waitedSeconds: predecessor.waitedSeconds,
      });
      break;
    case 'answered':
      log.info('another replica still runs: what it writes from now on becomes a tail', {
        backup,
        waitedSeconds: predecessor.waitedSeconds,
      });
      break;
    case 'stopped':
      break;
    case 'none':
    case 'unknown':
      if (cleanStop === false)
        log.warn('the replica before this one ended without a last backup', {
          backup,
          windowSeconds: null,
        });
  }
}
