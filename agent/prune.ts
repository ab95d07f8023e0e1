import { readCatalog, type Catalog } from './catalog.ts';
import type { RetentionPolicy } from './config.ts';
import { lineOf, readEpoch, type EpochState } from './epoch.ts';
import { hasCode } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { BlobStore } from './ports.ts';
import { pendingRequest } from './restore-request.ts';
import { decideRetention, type RetentionVerdict } from './retention.ts';

/** The retention decision for what the store lists now. */
export function retentionOf(
  catalog: Catalog,
  state: EpochState | undefined,
  policy: RetentionPolicy,
  requested: string | undefined,
): RetentionVerdict[] {
  const line = lineOf(catalog, state);
  const onLine = new Set(line);
  const late = catalog.line.filter((backup) => !onLine.has(backup));
  const besideLine = [...catalog.tails, ...catalog.quarantined, ...late].sort(
    (a, b) => b.epoch - a.epoch || b.sequence - a.sequence,
  );
  return decideRetention({ line, besideLine, policy, requested });
}

/**
 * Deletes what nothing keeps. Only the holder of `epoch` does, only after its backup is stored and read back, and both that
 * and the operator's request are asked anew before each blob: a successor may start, a person may ask, while a long list is
 * worked off (facts/peers.md hazards 29 and 31). A request that is replaced while a start reads its backup no longer protects that
 * one: the start finds it gone and plans anew, with the new request.
 * @throws AgentError What the store says. What was not deleted until then is decided anew by the next backup.
 */
export async function prune(
  deps: { store: BlobStore; log: Logger },
  epoch: number,
  policy: RetentionPolicy,
  signal?: AbortSignal,
): Promise<void> {
  const { log, store } = deps;
  const catalog = await readCatalog(store, signal);
  const held = await readEpoch(store, signal);
  if (held?.state.epoch !== epoch) return;
  for (const { backup, keep, reason } of retentionOf(catalog, held.state, policy, undefined)) {
    if (keep) continue;
    const { name, etag } = backup.item;
    const state = (await readEpoch(store, signal))?.state;
    if (state?.epoch !== epoch) return;
    if ((await pendingRequest(store, state, signal))?.request.name === name) continue;
    try {
      await store.remove(name, etag, signal);
      log.info('backup deleted', { backup: name, reason });
    } catch (error) {
      // Somebody has written to it since the listing, a person perhaps: the next backup decides anew.
      if (!hasCode(error, 'store_conflict')) throw error;
      log.info('backup changed meanwhile, not deleted', { backup: name, ...errorFields(error) });
    }
  }
}
