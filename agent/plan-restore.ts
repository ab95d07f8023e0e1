import { candidatesOf, readEpoch } from './epoch.ts';
import { everything, nameOf, readCatalog, type Catalog } from './catalog.ts';
import { AgentError } from './errors.ts';
import type { Logger } from './log.ts';
import type { Clock } from './ports.ts';
import { decide, type Candidate, type Decision, type StoreState } from './restore-decision.ts';
import { pendingRequest, type RestoreRequest } from './restore-request.ts';
import type { StageDeps } from './stage-backup.ts';
import { readVolumeState } from './volume.ts';

export interface RestoreDeps extends StageDeps {
  clock: Clock;
  log: Logger;
  /** A new random value for each start. */
  holder: string;
}

export interface RestoreOptions {
  dataDir: string;
  imageVersion: string | undefined;
}

export interface Plan {
  decision: Decision;
  catalog: Catalog | undefined;
  /** The operator's wish; `candidate` undefined: no such backup is stored any more. */
  requested: { request: RestoreRequest; etag: string; candidate: Candidate | undefined } | undefined;
}

function storeStateOf(catalog: Catalog, candidates: readonly Candidate[]): StoreState {
  if (candidates.length > 0) return { kind: 'candidates', candidates };
  const beside = [...catalog.line, ...catalog.tails, ...catalog.quarantined].map(nameOf);
  return beside.length > 0 ? { kind: 'only_beside_line', names: beside } : { kind: 'none' };
}

/** What a start would do now, without doing it. Never throws for the store: "could not tell" is an answer. */
export async function planRestore(
  deps: RestoreDeps,
  options: RestoreOptions,
  signal?: AbortSignal,
): Promise<Plan> {
  const volume = await readVolumeState(deps.disk, options.dataDir, deps.profile);
  const needsStore = volume.kind !== 'live' && volume.kind !== 'foreign';
  let catalog: Catalog | undefined;
  let store: StoreState = { kind: 'none' };
  let requested: Plan['requested'];
  if (needsStore) {
    try {
      catalog = await readCatalog(deps.store, signal);
      const epoch = await readEpoch(deps.store, signal);
      const pending = await pendingRequest(deps.store, epoch?.state, signal);
      const wanted = everything(catalog).find((backup) => nameOf(backup) === pending?.request.name);
      if (pending !== undefined) requested = { ...pending, candidate: wanted };
      // First in the order: if it does not pass its checks, the newest good one is restored as ever.
      const usual = candidatesOf(catalog, epoch?.state).filter((candidate) => candidate !== wanted);
      store = storeStateOf(catalog, wanted === undefined ? usual : [wanted, ...usual]);
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      store = { kind: 'unknown', error };
    }
  }
  return { decision: decide(volume, store, options.imageVersion), catalog, requested };
}
