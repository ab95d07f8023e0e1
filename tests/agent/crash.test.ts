import { join } from 'node:path';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import type { BlobStore, Disk } from '../../agent/ports.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { startFaultProxy, type BlobRequest, type FaultProxy } from '../support/fault-proxy.ts';
import { checkLedger } from '../support/ledger.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { MemoryBlobStore } from './support-memory-store.ts';
import {
  BACKUP,
  containerWith,
  contentOf,
  copyOfVolume,
  lineOn,
  listingOf,
  partsOn,
  requireNoSecret,
  runAgent,
  SERVER,
  startAgent,
  usedServer,
  volumeAt,
  wholeBackups,
  writeMore,
  type Used,
} from './support-replica.ts';

/*
 * The replica dies between any two steps. Does not prove: what a disk keeps of unflushed writes when its machine loses
 * power (an EmptyDir does not outlive its machine).
 */

let used: Used;
beforeAll(async () => {
  used = await usedServer({ isTiny: true });
});

class Crash extends Error {
  override readonly name = 'Crash';
}

const DISK_WRITES: ReadonlySet<string> = new Set<keyof Disk>([
  'copyStable',
  'create',
  'replace',
  'makeDir',
  'rename',
  'removeFile',
  'removeTree',
  'setAttributes',
  'sync',
]);
const STORE_WRITES: ReadonlySet<string> = new Set<keyof BlobStore>([
  'put',
  'stageBlock',
  'commitNew',
  'setMetadata',
  'remove',
]);

/**
 * The outside of a process that dies at its `at`-th write: neither that call nor any later one does anything, clean-up
 * included. A file that was being written then is there in half.
 */
class MortalOutside {
  writes = 0;
  readonly #at: number;

  constructor(at: number) {
    this.#at = at;
  }

  get isDead(): boolean {
    return this.writes >= this.#at;
  }

  around<T extends object>(port: T, writes: ReadonlySet<string>): T {
    return new Proxy(port, {
      get: (target, key) => {
        const method = Reflect.get(target, key) as unknown;
        if (typeof method !== 'function') return method;
        return (...given: unknown[]): unknown => {
          const wasDead = this.isDead;
          if (writes.has(String(key))) this.writes += 1;
          if (!this.isDead) return Reflect.apply(method, target, given) as unknown;
          const death = () => Promise.reject(new Crash(`dead at ${String(key)}`));
          if (wasDead || key !== 'create') return death();
          const [path, content] = given as [string, AsyncIterable<Uint8Array>];
          return (Reflect.apply(method, target, [path, halfOf(content)]) as Promise<unknown>).then(death);
        };
      },
    });
  }
}

async function* halfOf(content: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  for await (const chunk of content) {
    yield chunk.subarray(0, chunk.byteLength / 2);
    return;
  }
}

/** Runs `work` with a death at its first write, its second, … until it lives through all of it; answers how many. */
async function dyingAtEachWrite(
  work: (outside: MortalOutside) => Promise<unknown>,
  then: (step: number) => Promise<void>,
  last = Number.POSITIVE_INFINITY,
): Promise<number> {
  for (let step = 1; step <= last; step += 1) {
    const outside = new MortalOutside(step);
    const error: unknown = await work(outside).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    if (error !== undefined && !outside.isDead) throw error as Error;
    if (!outside.isDead) return outside.writes;
    await then(step).catch((cause: unknown) => {
      throw new Error(`after a death at write ${String(step)}: ${String(cause)}`, { cause });
    });
  }
  return last;
}

const options = (dataDir: string) => ({ dataDir, imageVersion: '10.11.11' });

describe('dying at any write of a restore', () => {
  const restore = (store: BlobStore, dataDir: string, outside: MortalOutside) =>
    restoreVolume(
      partsOn(outside.around(store, STORE_WRITES), { disk: outside.around(new LocalDisk(), DISK_WRITES) }),
      options(dataDir),
    );

  test('onto an empty volume: the next start has the newest backup', async () => {
    let store = new MemoryBlobStore();
    let dataDir = '';
    const deaths = await dyingAtEachWrite(
      (outside) => {
        store = new MemoryBlobStore(used.blobs);
        dataDir = makeTempDir('volume');
        return restore(store, dataDir, outside);
      },
      async (step) => {
        // Now and then the next start dies at the same write: the third one is as good.
        if (step % 7 === 0) await restore(store, dataDir, new MortalOutside(step)).catch(() => undefined);
        const report = await restoreVolume(partsOn(store), options(dataDir));
        // Dying at the very last writes, after the marker, leaves a volume that is complete.
        expect(report.restoredFrom).toBe(used.newer.name);
        expect(volumeAt(dataDir)).toMatchObject({
          marker: { state: 'complete', restoredFrom: used.newer.name, epoch: report.epoch },
          lastSeq: used.newer.lastSeq,
        });
        // All of it, not only what volumeAt looks at: the same files as the server had.
        expect(treeOf(dataDir)).toEqual(treeOf(used.dataDir));
        expect(await wholeBackups(store.content)).toHaveLength(2);
        // And the replica that came up may publish: it is on the line.
        if (step % 10 !== 0) return;
        writeMore(dataDir);
        const outcome = await lineOn(partsOn(store), dataDir).backUp(SERVER, BACKUP);
        expect(outcome.kind).toBe('published');
      },
    );
    expect(deaths).toBeGreaterThan(60);
  });

  test('a first boot: the next start is a first boot again, never a refusal', async () => {
    let store = new MemoryBlobStore();
    let dataDir = '';
    await dyingAtEachWrite(
      (outside) => {
        store = new MemoryBlobStore();
        dataDir = makeTempDir('volume');
        return restore(store, dataDir, outside);
      },
      async () => {
        await restoreVolume(partsOn(store), options(dataDir));
        expect(volumeAt(dataDir)).toMatchObject({
          marker: { state: 'complete', origin: 'first_boot' },
          names: ['config', 'data', 'log'],
        });
      },
    );
  });

  /** Files of a volume with their content, relative, without what a backup leaves out. */
  const treeOf = (dataDir: string) =>
    listingOf(dataDir)
      .filter((line) => !line.endsWith('/'))
      .map((line) => line.slice(dataDir.length + 1))
      .filter((line) => /^(config|data|root|plugins|metadata)\//.test(line))
      .filter((line) => !/^data\/(backups|SQLiteBackups|trickplay|subtitles)|\.jellyfin-|\.old /.test(line))
      // A copy through SQLite is the same database, not the same bytes.
      .filter((line) => !/\.db(-wal|-shm)? /.test(line));
});

describe('dying at any write of a backup', () => {
  test('the volume stays as it was, the store shows whole backups only, both next starts are right', async () => {
    const disk = new LocalDisk();
    let store = new MemoryBlobStore();
    let lastSeq = 0;
    const volume = copyOfVolume(used.dataDir);
    let before: string[] = [];
    const serverFiles = () =>
      listingOf(volume, join(volume, '.agent')).filter((line) => !/\.db-(wal|shm) /.test(line));

    const deaths = await dyingAtEachWrite(
      async (outside) => {
        store = new MemoryBlobStore(used.blobs);
        lastSeq = writeMore(volume);
        before = serverFiles();
        const parts = partsOn(outside.around(store, STORE_WRITES), {
          disk: outside.around(disk, DISK_WRITES),
        });
        await lineOn(parts, volume).backUp(SERVER, BACKUP);
        // Retention's failure is only a warning: the death must still count.
        if (outside.isDead) throw new Crash('dead');
      },
      async () => {
        expect(serverFiles()).toEqual(before);
        const whole = await wholeBackups(store.content);
        const newest = whole.length === 3 ? lastSeq : used.newer.lastSeq;
        expect(whole.map((backup) => backup.lastSeq)).toEqual(
          whole.length === 3
            ? [lastSeq, used.newer.lastSeq, used.older.lastSeq]
            : [used.newer.lastSeq, used.older.lastSeq],
        );

        // The replica is gone: a cold start somewhere else.
        const elsewhere = makeTempDir('volume');
        await restoreVolume(partsOn(new MemoryBlobStore(store.content)), options(elsewhere));
        expect(volumeAt(elsewhere).lastSeq).toBe(newest);

        // Only the sidecar is gone: the next one finds the volume as it is and stores what is on it.
        expect((await restoreVolume(partsOn(store), options(volume))).action).toBe('kept');
        const outcome = await lineOn(partsOn(store), volume).backUp(SERVER, BACKUP);
        expect(outcome.kind).toBe('published');
        expect((await wholeBackups(store.content))[0]?.lastSeq).toBe(lastSeq);
        expect(checkLedger(join(volume, 'data/jellyfin.db'), { recoverWal: true })).toMatchObject({
          ok: true,
          lastSeq,
        });
      },
    );
    expect(deaths).toBeGreaterThan(20);
  });

  test('of the first backup of a server that the agent finds: it is adopted and stored in the end', async () => {
    let store = new MemoryBlobStore();
    const volume = copyOfVolume(used.dataDir);
    const disk = new LocalDisk();
    await dyingAtEachWrite(
      async (outside) => {
        store = new MemoryBlobStore();
        await disk.removeTree(join(volume, '.agent'));
        const parts = partsOn(outside.around(store, STORE_WRITES), {
          disk: outside.around(disk, DISK_WRITES),
        });
        await lineOn(parts, volume).backUp(SERVER, BACKUP);
        if (outside.isDead) throw new Crash('dead');
      },
      async () => {
        const outcome = await lineOn(partsOn(store), volume).backUp(SERVER, BACKUP);
        expect(outcome.kind).toBe('published');
        expect((await wholeBackups(store.content))[0]?.lastSeq).toBe(used.newer.lastSeq);
      },
      // The adoption is the first writes; the rest is what the test above looks at.
      12,
    );
  });
});

describe('kill -9 of the process at each request', () => {
  let azurite: Azurite;
  let proxy: FaultProxy;
  beforeAll(async () => {
    azurite = await sharedAzurite();
    proxy = await startFaultProxy(azurite.port);
  });
  afterEach(() => proxy.clear());

  /** Starts the command and kills it at its n-th request; answers that request, `undefined` when it made fewer. */
  async function killedAt(
    nth: number,
    when: 'before' | 'after',
    args: readonly string[],
    run: { container: string; dataDir: string },
  ): Promise<BlobRequest | undefined> {
    proxy.clear();
    const agent = startAgent(args, { ...run, connectionString: proxy.connectionString });
    let killed: BlobRequest | undefined;
    const kill = async (request: BlobRequest) => {
      killed = request;
      await agent.kill();
      return 'drop' as const;
    };
    proxy.on({ nth }, { kind: 'hook', when, run: kill });
    const { code, signal } = await agent.exit;
    requireNoSecret(agent.stdout() + agent.stderr());
    await proxy.idle();
    expect([code, signal]).toEqual(killed === undefined ? [0, null] : [null, 'SIGKILL']);
    return killed;
  }

  /** Kills before each request, and after each that writes: after a read is the same as before the next request. */
  async function killedAtEach(
    once: (nth: number, when: 'before' | 'after') => Promise<BlobRequest | undefined>,
  ) {
    const kinds = new Set<string>();
    for (let nth = 1; ; nth += 1) {
      const request = await once(nth, 'before');
      if (request === undefined) return [...kinds].sort();
      kinds.add(`before ${request.operation}`);
      if (request.method === 'GET' || request.method === 'HEAD') continue;
      kinds.add(`after ${(await once(nth, 'after'))?.operation ?? 'nothing'}`);
    }
  }

  test('of a restore: the next start has the newest backup', async () => {
    const kinds = await killedAtEach(async (nth, when) => {
      const container = await containerWith(azurite, used.blobs);
      const run = { container: container.containerName, dataDir: makeTempDir('volume') };
      const request = await killedAt(nth, when, ['restore'], run);
      if (request === undefined) return undefined;
      const next = await runAgent(['restore'], { ...run, connectionString: azurite.connectionString });
      expect({ nth, code: next.code }).toEqual({ nth, code: 0 });
      expect(volumeAt(run.dataDir)).toMatchObject({
        marker: { state: 'complete', restoredFrom: used.newer.name },
        lastSeq: used.newer.lastSeq,
      });
      return request;
    });
    expect(kinds).toEqual(['after PutBlob', 'before GetBlob', 'before ListBlobs', 'before PutBlob']);
  });

  test('of a backup: whole backups only, and a cold start has the newest of them', async () => {
    const kinds = await killedAtEach(async (nth, when) => {
      const container = await containerWith(azurite, used.blobs);
      const volume = copyOfVolume(used.dataDir);
      const lastSeq = writeMore(volume);
      const run = { container: container.containerName, dataDir: volume };
      const request = await killedAt(nth, when, ['backup', '--once'], run);
      if (request === undefined) return undefined;
      const seqs = (await wholeBackups(await contentOf(container))).map((backup) => backup.lastSeq);
      // The commit is the step before which nothing is stored and after which all is.
      const hasCommitted = proxy.requests.some(
        ({ operation, isForwarded }) => operation === 'PutBlockList' && isForwarded,
      );
      expect([nth, seqs]).toEqual([
        nth,
        [...(hasCommitted ? [lastSeq] : []), used.newer.lastSeq, used.older.lastSeq],
      ]);
      expect(checkLedger(join(volume, 'data/jellyfin.db'), { recoverWal: true })).toMatchObject({
        ok: true,
        lastSeq,
      });
      const dataDir = makeTempDir('volume');
      const next = await runAgent(['restore'], {
        ...run,
        dataDir,
        connectionString: azurite.connectionString,
      });
      expect(next.code).toBe(0);
      expect(volumeAt(dataDir).lastSeq).toBe(seqs[0]);
      return request;
    });
    expect(kinds).toEqual([
      'after PutBlock',
      'after PutBlockList',
      'before GetBlob',
      'before HeadBlob',
      'before ListBlobs',
      'before PutBlock',
      'before PutBlockList',
    ]);
  });

  test.each([
    ['the listing', { operation: 'ListBlobs' }],
    ['the manifest', { operation: 'GetBlob', name: /^backup-/ }],
    ['the archive', { operation: 'GetBlob', name: /^backup-/, nth: 2 }],
    ['the epoch', { operation: 'PutBlob' }],
  ] as const)(
    'SIGTERM during a restore, at %s: exit 143, and the next start completes',
    async (_name, match) => {
      const container = await containerWith(azurite, used.blobs);
      const run = { container: container.containerName, dataDir: makeTempDir('volume') };
      proxy.clear();
      const agent = startAgent(['restore'], { ...run, connectionString: proxy.connectionString });
      const stop = () => {
        agent.signal('SIGTERM');
        // The answer never comes: the process ends by itself, on the signal.
      };
      proxy.on(match, [{ kind: 'hook', when: 'before', run: stop }, { kind: 'hang' }]);
      const { code } = await agent.waitForExit(5_000);
      expect({ code, stdout: agent.stdout() }).toEqual({
        code: 143,
        stdout: expect.stringContaining('interrupted by SIGTERM') as string,
      });
      // A stop says nothing about the backup that was being read.
      expect(agent.stdout()).not.toContain('passed over');
      expect(volumeAt(run.dataDir).names).toEqual([]);
      const next = await runAgent(['restore'], { ...run, connectionString: azurite.connectionString });
      expect(next.code).toBe(0);
      expect(volumeAt(run.dataDir)).toMatchObject({
        marker: { restoredFrom: used.newer.name },
        lastSeq: used.newer.lastSeq,
      });
    },
  );
});
