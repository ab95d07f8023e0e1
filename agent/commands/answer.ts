import {
  everything,
  nameOf,
  readCatalog,
  type Catalog,
  type LegacyBackup,
  type StoredBackup,
} from '../catalog.ts';
import { readEpoch, type EpochState } from '../epoch.ts';
import { AgentError } from '../errors.ts';
import type { RestoreDeps } from '../plan-restore.ts';
import type { Candidate } from '../restore-decision.ts';

/** What a person reads, or with `--json` what a script reads. */
export interface Answer {
  text: string;
  json: unknown;
}

export async function readStore(
  deps: RestoreDeps,
  signal: AbortSignal,
): Promise<{ catalog: Catalog; state: EpochState | undefined }> {
  const catalog = await readCatalog(deps.store, signal);
  return { catalog, state: (await readEpoch(deps.store, signal))?.state };
}

/** @throws AgentError `backup_missing` that lists what there is. */
export function byName(catalog: Catalog, name: string): Candidate {
  const all = everything(catalog);
  const found = all.find((backup) => nameOf(backup) === name || nameOf(backup) === `${name}/`);
  if (found !== undefined) return found;
  const some = all.slice(0, 3).map(nameOf).join(', ');
  throw new AgentError('backup_missing', `no backup is called ${JSON.stringify(name)}`, {
    hint:
      all.length === 0
        ? 'the container holds none'
        : `agent list shows all ${String(all.length)}; the newest: ${some}`,
  });
}

export const sizeOf = (backup: StoredBackup | LegacyBackup) =>
  backup.format === 'tarZst'
    ? backup.item.sizeBytes
    : backup.items.reduce((sum, item) => sum + item.sizeBytes, 0);

export const timeOf = (stamp: string) =>
  stamp.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/, '$1-$2-$3T$4:$5:$6Z');
