import type { Placement } from '../../agent/backup-name.ts';
import type { EpochState } from '../../agent/epoch.ts';

/*
 * What happened in a history, as plain values: written down by the world while it runs, judged by `campaign-check.ts`.
 * `at` is the number of the step, the only clock that everybody agrees on.
 */

/** The rows of one replica, 1 to `rows`. */
export interface Segment {
  replica: number;
  rows: number;
}

/** The whole ancestry of a database: whose rows it holds, oldest first. The last segment is that of its own server. */
export type State = readonly Segment[];

/** `lost_library`: a server whose items are gone; never to be restored over one that has them. */
export type Worth = 'full' | 'lost_library' | 'unconfigured';

export interface Commit {
  at: number;
  name: string;
  placement: Placement;
  epoch: number;
  sequence: number;
  replica: number;
  state: State;
  worth: Worth;
}

/** A start that ended well: its server runs on what is on the volume now. */
export interface Start {
  /** When its epoch's final state was written: what older epochs publish from then on is late. */
  recordedAt: number;
  at: number;
  replica: number;
  epoch: number;
  action: 'restored' | 'first_boot' | 'kept';
  restoredFrom: string | null;
  /** As read from the database on the volume; of a first boot: no rows. */
  state: State;
}

/** Every write of the epoch's blob that took effect. */
export interface EpochWrite {
  at: number;
  replica: number;
  state: EpochState;
}

export interface Stop {
  at: number;
  replica: number;
  epoch: number;
  exitCode: number;
  /** Everything that its server had written. */
  state: State;
  worth: Worth;
}

export interface History {
  commits: Commit[];
  /** `last_backup_utc=` lines: somebody was told that this backup is stored. */
  acknowledged: { at: number; name: string }[];
  starts: Start[];
  epochs: EpochWrite[];
  stops: Stop[];
  removals: { at: number; name: string; replica: number }[];
  /** A person deleted the epoch's blob. */
  epochDeletions: number[];
  /** What each replica began with, and how far it came. */
  replicas: Map<number, { base: State; rows: number }>;
  /** Processes that ended with something that is not one of the agent's own errors. */
  bugs: string[];
  /** The names in the store and the line after the last start, newest first. */
  final: { stored: string[]; line: string[]; refusal: string | undefined };
}

export function emptyHistory(): History {
  return {
    commits: [],
    acknowledged: [],
    starts: [],
    epochs: [],
    stops: [],
    removals: [],
    epochDeletions: [],
    replicas: new Map(),
    bugs: [],
    final: { stored: [], line: [], refusal: undefined },
  };
}

/** Whether everything that `earlier` held is in `later`, with nothing of others in between. */
export function contains(later: State, earlier: State): boolean {
  return earlier.every((segment, index) => {
    const same = later[index];
    const isLast = index === earlier.length - 1;
    if (same?.replica !== segment.replica) return false;
    return isLast ? same.rows >= segment.rows : same.rows === segment.rows;
  });
}

export const show = (state: State) =>
  state.length === 0 ? 'nothing' : state.map(({ replica, rows }) => `r${replica}:${rows}`).join(' ');
