import { AgentError, hasCode } from './errors.ts';
import type { Catalog, LegacyBackup, StoredBackup } from './catalog.ts';
import type { BlobStore } from './ports.ts';
import { encodeState, readState } from './state-blob.ts';

export const EPOCH_BLOB = 'state/epoch.json';

/**
 * Which replica generation may publish, and which backups of earlier generations count.
 *
 * A replica that was restored from backup 8 of epoch 1 cuts epoch 1 there: whatever the old replica still publishes in
 * epoch 1 after its successor had chosen is a tail by definition, also when it passed its own check of this blob before
 * the successor wrote it. That closes the gap between "check the epoch" and "commit".
 */
export interface EpochState {
  format: 1;
  epoch: number;
  /** Random, per start: tells a lost response to our own write from somebody else's. */
  holder: string;
  takenUtc: string;
  /** Earlier epochs on the line; `upTo` null: no successor has restored from it yet. */
  line: { epoch: number; upTo: number | null }[];
  /** The operator's restore request that a start has carried out. */
  consumedRequest?: string;
}

export interface HeldEpoch {
  state: EpochState;
  etag: string;
}

/** The current state; `undefined` when no epoch was ever taken (or the blob was deleted by hand). */
export async function readEpoch(store: BlobStore, signal?: AbortSignal): Promise<HeldEpoch | undefined> {
  const found = await readState<EpochState>(
    store,
    EPOCH_BLOB,
    ({ epoch, line }) => Number.isSafeInteger(epoch) && Array.isArray(line),
    `restore an earlier version of ${EPOCH_BLOB} (blob versioning keeps them), or delete it: the next start rebuilds it from the names of the backups`,
    signal,
  );
  return found === undefined ? undefined : { state: found.value, etag: found.etag };
}

/** Writes the state if nobody else did since `previous`; our own write whose response was lost counts as ours. */
async function writeEpoch(
  store: BlobStore,
  state: EpochState,
  previous: HeldEpoch | undefined,
  signal?: AbortSignal,
): Promise<HeldEpoch | undefined> {
  try {
    const condition = previous === undefined ? { ifAbsent: true as const } : { ifMatch: previous.etag };
    return { state, etag: await store.put(EPOCH_BLOB, encodeState(state), condition, signal) };
  } catch (error) {
    if (!hasCode(error, 'store_conflict')) throw error;
    const current = await readEpoch(store, signal);
    const isOurs =
      current?.state.holder === state.holder &&
      current.state.epoch === state.epoch &&
      JSON.stringify(current.state.line) === JSON.stringify(state.line);
    return isOurs ? current : undefined;
  }
}

const ATTEMPTS = 8;

function carriedOver(previous: HeldEpoch | undefined): Pick<EpochState, 'consumedRequest'> {
  const consumedRequest = previous?.state.consumedRequest;
  return consumedRequest === undefined ? {} : { consumedRequest };
}

/** The line as the names tell it, for a state that was lost: every epoch in a name counts, without cuts. */
function lineFromNames(catalog: Catalog, below: number): EpochState['line'] {
  const epochs = new Set(catalog.line.map((backup) => backup.epoch).filter((epoch) => epoch < below));
  return [...epochs].sort((a, b) => a - b).map((epoch) => ({ epoch, upTo: null }));
}

/**
 * Puts back the epoch that a volume was restored under, after the state was deleted or set back by hand.
 * @returns false when another replica wrote the state at the same moment.
 */
export async function reassertEpoch(
  store: BlobStore,
  previous: HeldEpoch | undefined,
  catalog: Catalog,
  ours: { epoch: number; holder: string; takenUtc: string },
  signal?: AbortSignal,
): Promise<boolean> {
  const line = lineFromNames(catalog, ours.epoch);
  return (
    (await writeEpoch(store, { format: 1, ...ours, line, ...carriedOver(previous) }, previous, signal)) !==
    undefined
  );
}

/** The newest epoch in a name; names outlive a lost state. 0 when nothing is stored. */
export function newestNamed(catalog: Catalog): number {
  const stored = [...catalog.line, ...catalog.tails, ...catalog.quarantined];
  return Math.max(0, ...stored.map((backup) => backup.epoch));
}

/**
 * Takes the next epoch: from now on every other replica is fenced.
 * @param catalog Names outlive a lost `state/epoch.json`: the next epoch is above every epoch in a name.
 * @throws AgentError `store_conflict` after several lost races.
 */
export async function takeEpoch(
  store: BlobStore,
  catalog: Catalog,
  who: { holder: string; takenUtc: string },
  signal?: AbortSignal,
): Promise<HeldEpoch> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt += 1) {
    const previous = await readEpoch(store, signal);
    const epoch = Math.max(previous?.state.epoch ?? 0, newestNamed(catalog)) + 1;
    const line =
      previous === undefined
        ? lineFromNames(catalog, epoch)
        : [...previous.state.line, { epoch: previous.state.epoch, upTo: null }];
    const held = await writeEpoch(
      store,
      { format: 1, epoch, ...who, line, ...carriedOver(previous) },
      previous,
      signal,
    );
    if (held !== undefined) return held;
  }
  throw new AgentError(
    'store_conflict',
    `take an epoch in ${store.describe()}: other replicas were faster ${String(ATTEMPTS)} times`,
    {
      retryable: true,
    },
  );
}

/**
 * Records what was restored: everything that earlier epochs publish from now on, and everything newer than a backup that a
 * person asked for, is beside the line.
 * @param restored The backup that is on the volume now; `undefined` after a first boot or a backup of an older format.
 * @param consumedRequest The operator's request that this start has carried out.
 * @returns `undefined` when another replica has taken the epoch meanwhile.
 */
export async function recordRestored(
  store: BlobStore,
  held: HeldEpoch,
  restored: { epoch: number; sequence: number } | undefined,
  catalog: Catalog,
  consumedRequest?: string,
  signal?: AbortSignal,
): Promise<HeldEpoch | undefined> {
  const newestOf = (epoch: number) =>
    Math.max(0, ...catalog.line.filter((one) => one.epoch === epoch).map((one) => one.sequence));
  const onLine = new Set(lineOf(catalog, held.state).map((backup) => backup.epoch));
  const line =
    restored === undefined
      ? []
      : [
          ...held.state.line
            .filter((entry) => entry.epoch < restored.epoch && onLine.has(entry.epoch))
            .map((entry) => ({ epoch: entry.epoch, upTo: entry.upTo ?? newestOf(entry.epoch) })),
          { epoch: restored.epoch, upTo: restored.sequence },
        ];
  const consumed = consumedRequest === undefined ? {} : { consumedRequest };
  return writeEpoch(store, { ...held.state, line, ...consumed }, held, signal);
}

/**
 * The backups on the line, newest first: those of the current epoch, and of earlier ones up to where a successor
 * continued. Without a state (never taken, or deleted by hand) the names alone decide. An epoch above the state's can
 * only mean that the state was set back; its backups are newer and count.
 */
export function lineOf(catalog: Catalog, state: EpochState | undefined): StoredBackup[] {
  if (state === undefined) return catalog.line;
  const cuts = new Map(state.line.map((entry) => [entry.epoch, entry.upTo ?? Number.POSITIVE_INFINITY]));
  return catalog.line.filter(
    (backup) =>
      backup.isReleased || backup.epoch >= state.epoch || backup.sequence <= (cuts.get(backup.epoch) ?? -1),
  );
}

/** In the order in which a restore tries them. */
export function candidatesOf(
  catalog: Catalog,
  state: EpochState | undefined,
): (StoredBackup | LegacyBackup)[] {
  return [...lineOf(catalog, state), ...catalog.legacy];
}
