import type { LegacyBackup, StoredBackup } from './catalog.ts';
import { nameOf } from './catalog.ts';
import { AgentError } from './errors.ts';
import { compareVersions } from './versions.ts';
import type { VolumeMarker, VolumeState } from './volume.ts';

export type Candidate = StoredBackup | LegacyBackup;

/** What the store answered. `unknown` is not `none`: only a complete, empty listing is. */
export type StoreState =
  | { kind: 'candidates'; candidates: readonly Candidate[] }
  | { kind: 'none' }
  /** Backups exist, but none on the line: tails and quarantined ones, which only a person may choose. */
  | { kind: 'only_beside_line'; names: readonly string[] }
  | { kind: 'unknown'; error: AgentError };

export type Decision =
  | { action: 'keep'; marker: VolumeMarker }
  | { action: 'first_boot' }
  | { action: 'restore'; candidates: readonly Candidate[]; cleanFirst: boolean }
  | { action: 'refuse'; error: AgentError };

/**
 * Whether a backup may be given to this server. Jellyfin migrates its database forward at each start and cannot read a
 * newer one (facts/jellyfin.md 3.8).
 */
export function newerVersionError(
  madeBy: string | undefined,
  image: string | undefined,
  name: string,
): AgentError | undefined {
  if (madeBy === undefined || image === undefined || compareVersions(madeBy, image) <= 0) return undefined;
  return new AgentError(
    'backup_incompatible',
    `${name} was made by Jellyfin ${madeBy}, the image is ${image}: there is no downgrade`,
    {
      hint: `set the image to ${madeBy} or newer; or restore an older backup by name`,
    },
  );
}

function fromStore(store: StoreState, cleanFirst: boolean, imageVersion: string | undefined): Decision {
  switch (store.kind) {
    case 'unknown':
      return { action: 'refuse', error: store.error };
    case 'only_beside_line':
      return {
        action: 'refuse',
        error: new AgentError(
          'backup_missing',
          `no backup is on the line, but ${String(store.names.length)} are beside it: ${store.names.slice(0, 3).join(', ')}`,
          {
            hint: '`agent release NAME` puts one of them on the line; nothing is started empty over them',
          },
        ),
      };
    case 'none':
      // A half-restored volume says that there was a backup. Now there is none: somebody deleted it.
      if (cleanFirst) {
        return {
          action: 'refuse',
          error: new AgentError(
            'backup_missing',
            'a restore had begun on this volume, and now the store lists no backup at all',
            {
              hint: 'undelete the blobs (soft delete and versions keep them); a new replica with an empty volume would start empty',
            },
          ),
        };
      }
      return { action: 'first_boot' };
    case 'candidates': {
      const [newest] = store.candidates;
      if (newest?.format === 'tarZst') {
        const error = newerVersionError(
          newest.item.metadata['jellyfin_version'],
          imageVersion,
          nameOf(newest),
        );
        if (error !== undefined) return { action: 'refuse', error };
      }
      return { action: 'restore', candidates: store.candidates, cleanFirst };
    }
  }
}

/** What a starting replica does: every combination of volume and store has one answer, and no unknown starts empty. */
export function decide(volume: VolumeState, store: StoreState, imageVersion: string | undefined): Decision {
  switch (volume.kind) {
    case 'live':
      return { action: 'keep', marker: volume.marker };
    case 'foreign':
      return {
        action: 'refuse',
        error: new AgentError('target_unsafe', `volume is not safe to restore into: ${volume.why}`, {
          hint: 'move the files away or give the replica an empty volume; nothing was touched',
        }),
      };
    case 'prepared':
      if (store.kind === 'none') return { action: 'keep', marker: volume.marker };
      return fromStore(store, true, imageVersion);
    case 'empty':
      return fromStore(store, false, imageVersion);
    case 'half_restored':
      return fromStore(store, true, imageVersion);
  }
}
