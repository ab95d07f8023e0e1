import { contains, show, type Commit, type History, type Start, type State } from './campaign-history.ts';

/*
 * What has to be true after every history, whatever happened in it. Each rule answers with sentences, none if it holds.
 * Does not prove: that a sequence of a few dozen steps reaches every state.
 */

const named = (history: History, name: string | null) => history.commits.find((one) => one.name === name);

/** When a start took its epoch: the first write of the epoch's blob by that replica with that number. */
function takenAt(history: History, start: Start): number {
  const taken = history.epochs.find(
    ({ replica, state }) => replica === start.replica && state.epoch === start.epoch,
  );
  return taken?.at ?? start.recordedAt;
}

/** Epochs whose start carried out what a person had asked for: from there on older backups may rightly be the newest. */
function rewinds(
  history: History,
): { epoch: number; at: number; to: { epoch: number; upTo: number | null } | undefined }[] {
  const found = new Map<
    string,
    { epoch: number; at: number; to: { epoch: number; upTo: number | null } | undefined }
  >();
  for (const { at, state } of history.epochs) {
    if (state.consumedRequest === undefined) continue;
    // That a request was carried out is forgotten with the epoch's blob: one that still lies there is carried out again.
    const forgotten = history.epochDeletions.filter((deleted) => deleted < at).length;
    const key = `${state.consumedRequest} ${forgotten}`;
    if (!found.has(key)) found.set(key, { epoch: state.epoch, at, to: state.line.at(-1) });
  }
  return [...found.values()];
}

/** Whether what was promised in `epoch` no longer binds a start of `later`: a person wished otherwise in between. */
function isVoid(history: History, epoch: number, at: number, later: Start): boolean {
  if (rewinds(history).some((rewind) => rewind.epoch > epoch && rewind.epoch <= later.epoch)) return true;
  // Without the epoch's blob the names alone decide; the cuts that it held are gone with it.
  return history.epochDeletions.some((deleted) => deleted > at && deleted < later.at);
}

/** Starts that made a new generation; one that kept its volume is the same replica as before. */
const generations = (history: History) => history.starts.filter((start) => start.action !== 'kept');

function lastStart(history: History): string[] {
  const { line, refusal, stored } = history.final;
  if (refusal === undefined) return [];
  const beside = stored.filter((name) => /^(tail|quarantine)\//.test(name) || !line.includes(name));
  // Nothing is on the line, and only a person may choose what lies beside it.
  if (line.length === 0 && beside.length > 0 && refusal.startsWith('backup_missing')) return [];
  return [`the last start refused: ${refusal}`];
}

function realStates(history: History): string[] {
  const problems: string[] = [];
  for (const start of history.starts) {
    const own = start.state.at(-1);
    const replica = own === undefined ? undefined : history.replicas.get(own.replica);
    const isReal =
      own === undefined ||
      (replica !== undefined &&
        own.rows <= replica.rows &&
        sameState(replica.base, start.state.slice(0, -1)));
    if (!isReal)
      problems.push(`r${start.replica} started with ${show(start.state)}, which no replica ever had`);
    const source = named(history, start.restoredFrom);
    if (start.action === 'restored' && source !== undefined && !sameState(source.state, start.state))
      problems.push(
        `r${start.replica} restored ${source.name} with ${show(source.state)}, and has ${show(start.state)}`,
      );
    if (start.action === 'restored' && source === undefined)
      problems.push(`r${start.replica} restored ${String(start.restoredFrom)}, which nobody published`);
  }
  return problems;
}

const sameState = (a: State, b: State) => a.length === b.length && contains(a, b) && contains(b, a);

/** A backup of a generation that nobody had succeeded yet when it was acknowledged is in every later start. */
function nothingLost(history: History): string[] {
  const problems: string[] = [];
  for (const { at, name } of history.acknowledged) {
    const commit = named(history, name);
    if (commit === undefined) {
      problems.push(`${name} was acknowledged and never committed`);
      continue;
    }
    const wasFenced = history.epochs.some((write) => write.at < at && write.state.epoch > commit.epoch);
    if (wasFenced) continue;
    for (const start of generations(history)) {
      if (takenAt(history, start) < at || isVoid(history, commit.epoch, at, start)) continue;
      if (!contains(start.state, commit.state))
        problems.push(
          `${name} (${show(commit.state)}) was acknowledged, and r${start.replica} started with ${show(start.state)}`,
        );
    }
  }
  return problems;
}

/** What was on the line and is gone had a newer one above it when it was deleted. */
function nothingDeleted(history: History): string[] {
  const problems: string[] = [];
  const isNewer = (a: Commit, b: Commit) =>
    a.epoch > b.epoch || (a.epoch === b.epoch && a.sequence > b.sequence);
  const stored = new Set(history.final.stored);
  for (const commit of history.commits) {
    if (stored.has(commit.name)) continue;
    const removal = history.removals.find(({ name }) => name === commit.name);
    if (removal === undefined) {
      problems.push(`${commit.name} is gone, and nobody deleted it`);
      continue;
    }
    const goneBy = (one: Commit) =>
      history.removals.some(({ name, at }) => name === one.name && at <= removal.at) || one.at > removal.at;
    const kept = history.commits.filter((one) => one !== commit && !goneBy(one) && isNewer(one, commit));
    const isSuperseded =
      commit.placement === 'line'
        ? kept.some((one) => one.placement === 'line')
        : kept.some((one) => one.placement === commit.placement && contains(one.state, commit.state));
    if (!isSuperseded) problems.push(`${commit.name} was deleted, and nothing newer was stored`);
  }
  return problems;
}

/** What was published after a successor had chosen is beside the line: no start restores it by itself. */
function lateWriters(history: History): string[] {
  const problems: string[] = [];
  for (const start of generations(history)) {
    const source = named(history, start.restoredFrom);
    if (source === undefined || isVoid(history, source.epoch, source.at, start)) continue;
    if (source.placement !== 'line') problems.push(`r${start.replica} restored ${source.name} unasked`);
    const successor = generations(history).find(
      (one) =>
        one.epoch > source.epoch &&
        one.recordedAt < source.at &&
        one.epoch < start.epoch &&
        // The cut went with the epoch's blob.
        !history.epochDeletions.some((deleted) => deleted > one.recordedAt && deleted < start.at),
    );
    if (successor !== undefined)
      problems.push(
        `r${start.replica} restored ${source.name}, which came after r${successor.replica} had started in epoch ${successor.epoch}`,
      );
  }
  return problems;
}

function epochs(history: History): string[] {
  const problems: string[] = [];
  const holders = new Map<number, number>();
  let highest = 0;
  let previous: { at: number; epoch: number } = { at: 0, epoch: 0 };
  for (const { at, replica, state } of history.epochs) {
    const wasDeleted = history.epochDeletions.some((deleted) => deleted > previous.at && deleted < at);
    if (state.epoch < highest && !wasDeleted)
      problems.push(`the epoch went back from ${highest} to ${state.epoch}`);
    highest = wasDeleted ? state.epoch : Math.max(highest, state.epoch);
    previous = { at, epoch: state.epoch };
    const holder = holders.get(state.epoch);
    // Nothing tells a start of an epoch that was lost before anything was published in it; the loser is fenced.
    const isLost = history.epochDeletions.some((deleted) => deleted < at);
    if (holder !== undefined && holder !== replica && !isLost)
      problems.push(`r${holder} and r${replica} both took epoch ${state.epoch}`);
    holders.set(state.epoch, replica);
    const numbers = state.line.map((entry) => entry.epoch);
    if (numbers.some((epoch, index) => epoch <= (numbers[index - 1] ?? 0) || epoch >= state.epoch))
      problems.push(`epoch ${state.epoch} has the line ${numbers.join(', ')}`);
  }
  const seen = new Map<number, Start>();
  for (const start of generations(history)) {
    const other = seen.get(start.epoch);
    if (other !== undefined && history.epochDeletions.length === 0)
      problems.push(`r${other.replica} and r${start.replica} both started in epoch ${start.epoch}`);
    seen.set(start.epoch, start);
  }
  return problems;
}

function uniqueNumbers(history: History): string[] {
  const seen = new Map<string, string>();
  const problems: string[] = [];
  for (const { epoch, name, sequence } of history.commits) {
    const key = `${epoch}.${sequence}`;
    const other = seen.get(key);
    if (other !== undefined) problems.push(`${other} and ${name} have the same number`);
    seen.set(key, name);
  }
  return problems;
}

/** From the oldest to the newest backup on the line, each holds all of the one before. */
function oneSequence(history: History): string[] {
  // The cuts are gone with the epoch's blob.
  if (history.epochDeletions.length > 0) return [];
  // What a person has released stays where its number puts it, also below what another person asked for later.
  const line = history.final.line
    .flatMap((name) => named(history, name) ?? [])
    .filter(({ placement }) => placement === 'line')
    .reverse();
  return line.flatMap((commit, index) => {
    const before = line[index - 1];
    if (before === undefined || contains(commit.state, before.state)) return [];
    return [
      `on the line ${commit.name} (${show(commit.state)}) follows ${before.name} (${show(before.state)})`,
    ];
  });
}

function neverEmptier(history: History): string[] {
  // What the first backup of all holds is the measure, however little it is.
  const wasFull = (commit: Commit) => {
    const own = history.commits.find(
      (one) => one.replica === commit.replica && one.at < commit.at && one.placement === 'line',
    );
    const start = history.starts.find(({ replica }) => replica === commit.replica);
    return (own ?? named(history, start?.restoredFrom ?? null))?.worth === 'full';
  };
  const isEmptier = (commit: Commit) =>
    commit.worth === 'unconfigured' ||
    (commit.worth === 'lost_library' && commit.placement === 'line' && wasFull(commit));
  const problems = history.commits
    .filter(isEmptier)
    .map(
      (commit) => `${commit.name} was published (${commit.placement}) by a server that is ${commit.worth}`,
    );
  for (const start of generations(history)) {
    const full = history.commits.find(
      (one) => one.placement === 'line' && one.worth === 'full' && one.at < takenAt(history, start),
    );
    if (start.action === 'first_boot' && full !== undefined)
      problems.push(`r${start.replica} started empty over ${full.name}`);
  }
  return problems;
}

/** Exit code 0 of an orderly stop: whoever starts afterwards has the last row. */
function honestStops(history: History): string[] {
  const problems: string[] = [];
  for (const stop of history.stops) {
    // A server that lost its settings before its first backup looks like one that nobody has set up.
    if (stop.exitCode !== 0 || stop.worth === 'unconfigured') continue;
    for (const start of generations(history)) {
      if (start.epoch <= stop.epoch || start.at < stop.at || isVoid(history, stop.epoch, stop.at, start))
        continue;
      if (!contains(start.state, stop.state))
        problems.push(
          `r${stop.replica} stopped with exit code 0 and ${show(stop.state)}, and r${start.replica} started with ${show(start.state)}`,
        );
    }
  }
  return problems;
}

/** A person asked for an older backup: what was newer then does not come back by itself. */
function rewindsHold(history: History): string[] {
  const problems: string[] = [];
  const all = rewinds(history);
  for (const { at, epoch, to } of all) {
    for (const start of generations(history)) {
      const source = named(history, start.restoredFrom);
      const isLater = all.some((other) => other.epoch > epoch && other.epoch <= start.epoch);
      const lostState = history.epochDeletions.some((deleted) => deleted > at && deleted < start.at);
      if (
        start.epoch < epoch ||
        start.recordedAt < at ||
        isLater ||
        lostState ||
        source === undefined ||
        to === undefined
      )
        continue;
      const isBelow =
        source.epoch < to.epoch || (source.epoch === to.epoch && source.sequence <= (to.upTo ?? Infinity));
      if (!isBelow && source.epoch < epoch)
        problems.push(
          `r${start.replica} restored ${source.name}, newer than what was asked for in epoch ${epoch}`,
        );
    }
  }
  return problems;
}

export const RULES = {
  'no process ends with a bug': (history) => history.bugs,
  'the last start starts': lastStart,
  'every start has a state that some replica really had': realStates,
  'no acknowledged backup is lost': nothingLost,
  'nothing is deleted but what a newer one supersedes': nothingDeleted,
  'a late writer is never candidate': lateWriters,
  'epochs rise, and each belongs to one start': epochs,
  'no two backups have one number': uniqueNumbers,
  'the line is a single sequence': oneSequence,
  'no empty state supersedes a full one': neverEmptier,
  'exit code 0 of a stop tells the truth': honestStops,
  'a restore on request holds': rewindsHold,
} as const satisfies Record<string, (history: History) => string[]>;
export type Rule = keyof typeof RULES;

/** The rules that do not hold, with what shows it. */
export function broken(history: History): { rule: Rule; problem: string }[] {
  return (Object.keys(RULES) as Rule[]).flatMap((rule) =>
    RULES[rule](history).map((problem) => ({ rule, problem })),
  );
}
