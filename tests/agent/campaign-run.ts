import { AzureBlobStore } from '../../agent/adapters/azure-blob-store.ts';
import type { BlobStore } from '../../agent/ports.ts';
import { Secret } from '../../agent/secret.ts';
import type { Azurite } from '../support/azurite.ts';
import { broken, type Rule } from './campaign-check.ts';
import { shrink, type Tape } from './campaign-choices.ts';
import type { History } from './campaign-history.ts';
import { runHistory, type HistoryOptions, type Outcome } from './campaign-world.ts';
import { MemoryBlobStore } from './support-memory-store.ts';

/* Many histories, one after the other; the first one that breaks a rule is made short and told. */

/** A store of its own for each history. */
export type StoreMaker = () => Promise<BlobStore>;

export const inMemory: StoreMaker = () => Promise.resolve(new MemoryBlobStore());

export function onAzurite(azurite: Azurite): StoreMaker {
  return async () => {
    const connectionString = new Secret(azurite.connectionString);
    const container = await azurite.createContainer('campaign');
    return new AzureBlobStore({ kind: 'connectionString', connectionString }, container);
  };
}

export interface Tally {
  histories: number;
  starts: number;
  onLine: number;
  tails: number;
  acknowledged: number;
  removals: number;
  stops: number;
  /** Backups on the line that came after a successor had started. */
  late: number;
}

const NOTHING: Tally = {
  histories: 0,
  starts: 0,
  onLine: 0,
  tails: 0,
  acknowledged: 0,
  removals: 0,
  stops: 0,
  late: 0,
};

function count(tally: Tally, history: History): void {
  const { commits } = history;
  const isLate = ({ at, epoch, placement }: (typeof commits)[number]) =>
    placement === 'line' && history.starts.some((start) => start.epoch > epoch && start.recordedAt < at);
  tally.histories += 1;
  tally.starts += history.starts.length;
  tally.onLine += commits.filter(({ placement }) => placement === 'line').length;
  tally.tails += commits.filter(({ placement }) => placement === 'tail').length;
  tally.acknowledged += history.acknowledged.length;
  tally.removals += history.removals.length;
  tally.stops += history.stops.length;
  tally.late += commits.filter(isLate).length;
}

export interface Caught {
  seed: number;
  rules: Rule[];
  outcome: Outcome;
}

/** Runs the histories of `seeds` until one breaks a rule. */
export async function campaign(
  seeds: Iterable<number>,
  makeStore: StoreMaker,
  lie?: HistoryOptions['lie'],
): Promise<{ tally: Tally; caught: Caught | undefined }> {
  const tally = { ...NOTHING };
  for (const seed of seeds) {
    const options = { store: await makeStore(), ...(lie === undefined ? {} : { lie }) };
    const outcome = await runHistory({ seed }, options);
    count(tally, outcome.history);
    const rules = broken(outcome.history).map(({ rule }) => rule);
    if (rules.length > 0) return { tally, caught: { seed, rules, outcome } };
  }
  return { tally, caught: undefined };
}

/** The same breach of a rule in as few actions as `timeMs` allows. */
export async function shortened(
  caught: Caught,
  lie?: HistoryOptions['lie'],
  timeMs = 15_000,
): Promise<Outcome> {
  const [rule] = caught.rules;
  const replay = async (tape: Tape) =>
    runHistory({ tape }, { store: await inMemory(), ...(lie === undefined ? {} : { lie }) });
  const stillFails = async (tape: Tape) =>
    broken((await replay(tape)).history).some((finding) => finding.rule === rule);
  return replay(await shrink(caught.outcome.tape, stillFails, timeMs));
}

/** What a person needs to see of a history that broke a rule. */
export function report({ history, trace }: Outcome, title: string): string {
  const findings = broken(history).map(({ rule, problem }) => `- ${rule}: ${problem}`);
  return [title, ...findings, '', ...trace].join('\n');
}

/** @throws Error With the seed and the shortest history that was found, when a rule was broken. */
export async function requireNothingBroken({ caught }: { caught: Caught | undefined }): Promise<void> {
  if (caught === undefined) return;
  const title = `seed ${caught.seed} (CAMPAIGN_SEED=${caught.seed} CAMPAIGN_HISTORIES=1 npm run test:long -- campaign)`;
  throw new Error(report(await shortened(caught), title));
}

export function* seedsFrom(first: number, howMany: number): Iterable<number> {
  for (let seed = first; seed < first + howMany; seed += 1) yield seed;
}
