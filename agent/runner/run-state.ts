import { randomUUID } from 'node:crypto';
import { AgentError } from '../errors.ts';
import type { Disk } from '../ports.ts';
import { WORK_DIR } from '../profile.ts';
import type { EngineBackup } from './engine.ts';

/** What is under way on this volume: at most one thing that uses Jellyfin's backup engine. */
export interface RunState {
  format: 1;
  kind: 'backup' | 'restore';
  /** Whose claim it is. */
  id: string;
  startedUtc: string;
  /** Names in Jellyfin's backup folder when it began, complete or not. */
  before: string[];
  /** Nobody listened on Jellyfin's port since: whatever the engine did ended then. */
  serverWasGone: boolean;
}

const stateFile = (dataDir: string): string => `${dataDir}/${WORK_DIR}/jellyroller.json`;
const encode = (state: RunState): Uint8Array =>
  new TextEncoder().encode(`${JSON.stringify(state, null, 1)}\n`);

/**
 * The claim on the volume, or `undefined` when there is none. A claim that is not readable was cut off while it was
 * written, so its owner had not begun anything: it counts as none, and is removed.
 */
export async function readRunState(disk: Disk, dataDir: string): Promise<RunState | undefined> {
  const file = await disk.readStable(stateFile(dataDir));
  if (file === undefined) return undefined;
  try {
    const state = JSON.parse(new TextDecoder().decode(file.bytes)) as Partial<RunState> | null;
    const isKnown =
      state?.format === 1 && typeof state.startedUtc === 'string' && Array.isArray(state.before);
    if (isKnown && !Number.isNaN(Date.parse(state.startedUtc ?? ''))) return state as RunState;
  } catch {
    // As one with another content: not a claim of ours that was written to its end.
  }
  await disk.removeFile(stateFile(dataDir));
  return undefined;
}

/**
 * Claims the engine for one run, before the engine is asked: whoever starts after a kill finds the claim and never asks a
 * second time while the first may still run.
 * @throws AgentError `target_unsafe` when somebody else has it.
 */
export async function claimRun(
  disk: Disk,
  dataDir: string,
  claim: Pick<RunState, 'kind' | 'startedUtc' | 'before'>,
): Promise<RunState> {
  const state: RunState = { format: 1, id: randomUUID(), serverWasGone: false, ...claim };
  await disk.makeDir(`${dataDir}/${WORK_DIR}`);
  const content = async function* () {
    await Promise.resolve();
    yield encode(state);
  };
  try {
    // Exclusive: a replaced file would let two claim at the same moment.
    await disk.create(stateFile(dataDir), content());
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    throw new AgentError('target_unsafe', "Jellyfin's backup engine is in use by another run", {
      hint: 'wait until the runner logs last_backup_utc=, or the restore has ended; one that was killed lets go after half an hour',
      retryable: true,
    });
  }
  await disk.sync(stateFile(dataDir));
  return state;
}

/** Replaces the claim's content; the claim stays. */
export async function updateRun(disk: Disk, dataDir: string, state: RunState): Promise<void> {
  await disk.replace(stateFile(dataDir), encode(state));
}

/** A restore ends within half an hour, one way or another; a claim that is older was left by one that was killed. */
const RESTORE_LIMIT_MS = 30 * 60_000;

/** Whether a restore's claim outlived its process. A run's claim never does: the next runner goes on with it. */
export function isLeftBehind(state: RunState, now: Date): boolean {
  // Also from the future: a clock that was set back must not lock the engine for as long as that.
  const ageMs = Math.abs(now.getTime() - Date.parse(state.startedUtc));
  return state.kind === 'restore' && ageMs > RESTORE_LIMIT_MS;
}

/** Ends a run; a claim of somebody else is left alone. */
export async function releaseRun(disk: Disk, dataDir: string, state: RunState): Promise<void> {
  if ((await readRunState(disk, dataDir))?.id === state.id) await disk.removeFile(stateFile(dataDir));
}

export interface RunObservation {
  /** Since the run began, in milliseconds. */
  elapsedMs: number;
  /** What the engine lists; `undefined` when it was not asked or did not answer. */
  listed: readonly EngineBackup[] | undefined;
  /** Files with the engine's kind of name that were not there before the run, and how long each has stood still. */
  files: readonly { fileName: string; stillMs: number }[];
}

export type RunVerdict =
  | { kind: 'finished'; backup: EngineBackup }
  | { kind: 'wait'; why: 'no file yet' | 'the file is not complete' | 'listed, but not in the folder' }
  /** Nothing can come any more. `leftBehind`: files that nobody completes. */
  | { kind: 'over'; why: string; leftBehind: string[] };

export interface RunLimits {
  /** JELLYROLLER_TIMEOUT_SECONDS, in milliseconds. */
  timeoutMs: number;
  /** A file that stands still this long is not being written. */
  quietMs: number;
}

/** Jellyfin and the runner share a clock in a replica; elsewhere they may differ by this much. */
const CLOCK_SKEW_MS = 5 * 60_000;

/**
 * What has become of a run, decided by the engine's list and the files, never by how the call ended (facts/jellyroller.md 3).
 * The engine has no lock: `over` is only said when the engine cannot be writing any more, or when the time is up and
 * nothing grows.
 */
export function judgeRun(
  state: RunState,
  { elapsedMs, listed, files }: RunObservation,
  limits: RunLimits,
): RunVerdict {
  const before = new Set(state.before);
  const earliestMs = Date.parse(state.startedUtc) - CLOCK_SKEW_MS;
  const made = (listed ?? [])
    .filter(({ fileName, createdUtc }) => !before.has(fileName) && Date.parse(createdUtc) >= earliestMs)
    .sort((a, b) => b.createdUtc.localeCompare(a.createdUtc));
  const onDisk = made.find((backup) => files.some(({ fileName }) => fileName === backup.fileName));
  if (onDisk !== undefined) return { kind: 'finished', backup: onDisk };

  const isGrowing = files.some(({ stillMs }) => stillMs < limits.quietMs);
  const isLate = elapsedMs >= limits.timeoutMs;
  if (isGrowing || (!isLate && !state.serverWasGone)) {
    if (files.length > 0) return { kind: 'wait', why: 'the file is not complete' };
    return { kind: 'wait', why: made.length > 0 ? 'listed, but not in the folder' : 'no file yet' };
  }
  const [missing] = made;
  const late = `no archive within ${String(Math.round(limits.timeoutMs / 1000))} s (JELLYROLLER_TIMEOUT_SECONDS)`;
  return {
    kind: 'over',
    why: state.serverWasGone
      ? 'Jellyfin stopped before the archive was complete'
      : missing === undefined
        ? late
        : `${missing.fileName} is listed by Jellyfin, but not in data/backups of DATA_DIR: the runner must see Jellyfin's own volume`,
    leftBehind: files.map(({ fileName }) => fileName),
  };
}
