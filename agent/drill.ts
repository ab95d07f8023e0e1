import { lineOf, readEpoch } from './epoch.ts';
import { nameOf, readCatalog } from './catalog.ts';
import { hasCode } from './errors.ts';
import { errorFields, type Logger } from './log.ts';
import type { Clock } from './ports.ts';
import { verifyStored, type StageDeps } from './stage-backup.ts';

/**
 * Restores the candidate into scratch space, checks it as a start would, and records the result on it: `verified_utc`, or
 * `damaged`, which takes it out of retention's count (a restore still tries it, and decides for itself).
 * Never throws: a drill that could not run is no reason to stop backing up.
 */
export async function drill(
  deps: StageDeps & { clock: Clock; log: Logger },
  scratchDir: string,
  signal: AbortSignal,
): Promise<void> {
  const { clock, disk, log, store } = deps;
  try {
    const catalog = await readCatalog(store, signal);
    const [candidate] = lineOf(catalog, (await readEpoch(store, signal))?.state);
    if (candidate === undefined) return;
    const name = nameOf(candidate);
    const record = (found: Record<string, string>) =>
      store.setMetadata(
        name,
        { ...candidate.item.metadata, ...found },
        { ifMatch: candidate.item.etag },
        signal,
      );
    try {
      await verifyStored(deps, candidate, scratchDir, signal);
      await record({ verified_utc: clock.now().toISOString() });
      log.info('drill passed', { backup: name });
    } catch (error) {
      if (!hasCode(error, 'backup_damaged')) throw error;
      log.error('drill failed: the candidate is damaged', { backup: name, ...errorFields(error) });
      await record({ damaged: error.message.replace(/[^\x20-\x7e]/g, '?').slice(0, 500) });
    }
  } catch (error) {
    if (!signal.aborted) log.warn('drill not completed', errorFields(error));
  } finally {
    await disk.removeTree(scratchDir);
  }
}
