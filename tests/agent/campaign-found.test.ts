import { EPOCH_BLOB, readEpoch } from '../../agent/epoch.ts';
import type { BlobStore } from '../../agent/ports.ts';
import { writeRequest } from '../../agent/restore-request.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { Sidecar } from '../../agent/sidecar.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { idleHeartbeat } from './campaign-replica.ts';
import { Server } from './campaign-server.ts';
import { MemoryBlobStore } from './support-memory-store.ts';
import {
  BACKUP,
  copyOfVolume,
  lineOn,
  partsOn,
  SERVER,
  usedServer,
  writeMore,
  type Used,
} from './support-replica.ts';

/* What the campaign has found, each in the shortest history that shows it. */

let used: Used;
beforeAll(async () => {
  used = await usedServer({ isTiny: true });
});

const restore = (store: BlobStore, dataDir: string) =>
  restoreVolume(partsOn(store), { dataDir, imageVersion: '10.11.11' });

/** The store as one process sees it, with something that happens right before its next call of one kind. */
function withMomentBefore(
  store: MemoryBlobStore,
  call: 'commitNew' | 'listPage',
  moment: () => Promise<unknown>,
): BlobStore {
  let isOver = false;
  return new Proxy<BlobStore>(store, {
    get: (target, key) => {
      const method = Reflect.get(target, key) as (...given: unknown[]) => unknown;
      return async (...given: unknown[]) => {
        if (key === call && !isOver) {
          isOver = true;
          await moment();
        }
        return Reflect.apply(method, target, given);
      };
    },
  });
}

test('a backup that is committed after a successor has chosen is not reported as published', async () => {
  const store = new MemoryBlobStore(used.blobs);
  const volume = copyOfVolume(used.dataDir);
  writeMore(volume);
  const successor = makeTempDir('volume');
  const slow = withMomentBefore(store, 'commitNew', () => restore(store, successor));
  const line = lineOn(partsOn(slow), volume);

  expect(await line.backUp(SERVER, BACKUP)).toMatchObject({ kind: 'beside_line', placement: 'tail' });
  writeMore(volume);
  expect(await line.backUp(SERVER, BACKUP)).toMatchObject({ kind: 'beside_line', placement: 'tail' });
  expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(used.newer.name);
});

test('a backup that is committed before the successor lists is published', async () => {
  const store = new MemoryBlobStore(used.blobs);
  const volume = copyOfVolume(used.dataDir);
  writeMore(volume);
  const line = lineOn(partsOn(store), volume);
  const outcome = await line.backUp(SERVER, BACKUP);
  expect(outcome.kind).toBe('published');
  expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(line.lastStored);
});

test('a first boot that finds backups beside the line after it took the epoch starts nothing', async () => {
  const store = new MemoryBlobStore();
  // A replica publishes and is fenced while this one is between its plan and its second listing.
  const tail = used.blobs.map(([name, blob]) => [`tail/${name}`, blob] as const);
  let listings = 0;
  const other: BlobStore = new Proxy<BlobStore>(store, {
    get: (target, key) => {
      const method = Reflect.get(target, key) as (...given: unknown[]) => unknown;
      return async (...given: unknown[]) => {
        if (key === 'listPage' && (listings += 1) === 2) {
          for (const [name, { bytes }] of tail) await store.put(name, bytes, {});
        }
        return Reflect.apply(method, target, given);
      };
    },
  });
  await expect(restore(other, makeTempDir('volume'))).rejects.toMatchObject({ code: 'backup_missing' });
});

test('after the epoch was deleted, a replica whose number another start has taken stores a tail', async () => {
  const store = new MemoryBlobStore();
  const [first, second] = [makeTempDir('volume'), makeTempDir('volume')];
  await restore(store, first);
  await store.remove(EPOCH_BLOB, (await readEpoch(store))?.etag ?? '');
  await restore(store, second);
  for (const dataDir of [first, second]) {
    const server = new Server(dataDir, true, Math.random);
    server.setUp();
    server.close();
  }

  expect(await lineOn(partsOn(store), first).backUp(SERVER, BACKUP)).toMatchObject({ placement: 'tail' });
  expect(await lineOn(partsOn(store), second).backUp(SERVER, BACKUP)).toMatchObject({ kind: 'published' });
});

test('after the epoch was deleted, a fenced replica does not put its old one back', async () => {
  const store = new MemoryBlobStore(used.blobs);
  const late = copyOfVolume(used.dataDir);
  const successor = makeTempDir('volume');
  await restore(store, successor);
  writeMore(successor);
  const newest = lineOn(partsOn(store), successor);
  await newest.backUp(SERVER, BACKUP);
  await store.remove(EPOCH_BLOB, (await readEpoch(store))?.etag ?? '');
  writeMore(late);

  expect(await lineOn(partsOn(store), late).backUp(SERVER, BACKUP)).toMatchObject({ placement: 'tail' });
  expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(newest.lastStored);
});

test('a commit that is still under way when its sidecar dies never has the number of a later backup', async () => {
  const store = new MemoryBlobStore(used.blobs);
  const volume = copyOfVolume(used.dataDir);
  writeMore(volume);
  const killed = new Error('killed');
  const dying = withMomentBefore(store, 'commitNew', () => Promise.reject(killed));
  await expect(lineOn(partsOn(dying), volume).backUp(SERVER, BACKUP)).rejects.toBe(killed);

  const line = lineOn(partsOn(store), volume);
  await line.backUp(SERVER, BACKUP);
  expect(line.lastStored).toMatch(/\.s4\.tar\.zst$/);
});

test('a server that is set up right before the stop, and cannot be stored any more, is not a clean stop', async () => {
  const store = new MemoryBlobStore();
  const dataDir = makeTempDir('volume');
  await restore(store, dataDir);
  const server = new Server(dataDir, true, Math.random);
  const stop = new AbortController();
  let nowMs = 0;
  const parts = partsOn(store);
  const clock = {
    now: () => new Date(),
    monotonicMs: () => nowMs,
    // The wizard is completed after the first look, and then the machine stands still until the budget is over.
    sleep: async () => {
      nowMs += 50;
      const hasLooked = parts.logged.some(({ msg }) =>
        msg.startsWith('no backup: the server is not configured'),
      );
      if (!hasLooked || stop.signal.aborted) return;
      server.setUp();
      stop.abort(new Error('SIGTERM'));
      await new Promise((resolve) => setImmediate(resolve));
      nowMs += 3_600_000;
    },
  };
  const deps = { ...parts, clock };
  const sidecar = new Sidecar(
    {
      ...deps,
      line: lineOn(deps, dataDir),
      jellyfin: server,
      heartbeat: idleHeartbeat(deps, dataDir),
      hurry: () => undefined,
    },
    {
      dataDir,
      intervalMs: 100,
      onChangeMs: 1,
      startupDelayMs: 0,
      drillIntervalMs: 0,
      shutdownBudgetMs: 1_000,
      failureBackoffMs: 100,
    },
  );
  expect(await sidecar.run(stop.signal)).toBe(7);
  server.close();
});

test('a restore on request holds although something newer was released before', async () => {
  const store = new MemoryBlobStore(used.blobs);
  const late = copyOfVolume(used.dataDir);
  await restore(store, makeTempDir('volume'));
  writeMore(late);
  const line = lineOn(partsOn(store), late);
  await line.backUp(SERVER, BACKUP);
  const tail = line.lastStored ?? '';
  for (const name of [tail, used.older.name]) {
    await writeRequest(store, name, new Date());
    expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(name);
  }
  expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(used.older.name);
});

test.each(['restored', 'only asked for'])(
  'a tail that was %s on request is not deleted by its writer',
  async (how) => {
    const store = new MemoryBlobStore(used.blobs);
    const late = copyOfVolume(used.dataDir);
    await restore(store, makeTempDir('volume'));
    const line = lineOn(partsOn(store), late);
    writeMore(late);
    await line.backUp(SERVER, BACKUP);
    const tail = line.lastStored ?? '';
    await writeRequest(store, tail, new Date());
    if (how === 'restored') await restore(store, makeTempDir('volume'));
    writeMore(late);
    await line.backUp(SERVER, BACKUP);

    expect(line.lastStored).not.toBe(tail);
    expect((await restore(store, makeTempDir('volume'))).restoredFrom).toBe(tail);
  },
);

test('of two starts that have read the same request, only one carries it out', async () => {
  const store = new MemoryBlobStore(used.blobs);
  await writeRequest(store, used.older.name, new Date());
  const first = makeTempDir('volume');
  let stored: string | undefined;
  let puts = 0;
  // The other start restores, and backs up, while this one is about to take its epoch.
  const slow: BlobStore = new Proxy<BlobStore>(store, {
    get: (target, key) => {
      const method = Reflect.get(target, key) as (...given: unknown[]) => unknown;
      return async (...given: unknown[]) => {
        if (key === 'put' && (puts += 1) === 1) {
          expect((await restore(store, first)).restoredFrom).toBe(used.older.name);
          writeMore(first);
          const line = lineOn(partsOn(store), first);
          await line.backUp(SERVER, BACKUP);
          stored = line.lastStored;
        }
        return Reflect.apply(method, target, given);
      };
    },
  });
  expect((await restore(slow, makeTempDir('volume'))).restoredFrom).toBe(stored);
});
