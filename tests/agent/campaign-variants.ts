import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { EPOCH_BLOB, type EpochState } from '../../agent/epoch.ts';
import type { BlobPage } from '../../agent/ports.ts';
import { WORK_DIR } from '../../agent/profile.ts';
import type { VolumeMarker } from '../../agent/volume.ts';
import type { ReplicaWorld } from './campaign-replica.ts';

/* Agents without one of their rules, made of the real agent and a store that lies to it: the campaign must catch each. */

type Lie = ReplicaWorld['lie'];

/** No check of the epoch before a commit, and no cut: the state always names the asker, and every epoch is whole. */
export const unfenced: Lie = (store, { replica, role }) => ({
  ...store,
  find: async (name, signal) => {
    const found = await store.find(name, signal);
    if (found === undefined || name !== EPOCH_BLOB) return found;
    const state = JSON.parse(Buffer.from(found.bytes).toString()) as EpochState;
    const line = state.line.map(({ epoch }) => ({ epoch, upTo: null }));
    const own = role === 'sidecar' ? holderOf(replica.dataDir) : {};
    return { ...found, bytes: Buffer.from(JSON.stringify({ ...state, line, ...own })) };
  },
});

function holderOf(dataDir: string): Pick<EpochState, 'epoch' | 'holder'> {
  const file = join(dataDir, WORK_DIR, 'volume.json');
  const { epoch, holder } = JSON.parse(readFileSync(file, 'utf8')) as VolumeMarker;
  return { epoch, holder };
}

/** The epoch is taken without listing again: whatever a start has listed once, it goes by. */
export const withoutRelisting: Lie = (store, { role }) => {
  if (role !== 'init') return store;
  const listed = new Map<string | undefined, BlobPage>();
  return {
    ...store,
    listPage: async (prefix, continuation, signal) => {
      const page = listed.get(continuation) ?? (await store.listPage(prefix, continuation, signal));
      listed.set(continuation, page);
      return page;
    },
  };
};
