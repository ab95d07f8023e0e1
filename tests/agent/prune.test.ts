import type { ContainerClient } from '@azure/storage-blob';
import fc from 'fast-check';
import { AzureBlobStore } from '../../agent/adapters/azure-blob-store.ts';
import { formatBackupName, parseBackupName } from '../../agent/backup-name.ts';
import { drill } from '../../agent/drill.ts';
import { EPOCH_BLOB, type EpochState } from '../../agent/epoch.ts';
import { AgentError } from '../../agent/errors.ts';
import { prune } from '../../agent/prune.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { VERSION_HOLD_KEY } from '../../agent/retention.ts';
import { Secret } from '../../agent/secret.ts';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { startFaultProxy, type Fault, type FaultProxy, type ListFault } from '../support/fault-proxy.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { MemoryBlobStore, type MemoryBlob } from './support-memory-store.ts';
import {
  BACKUP,
  containerWith,
  copyOfVolume,
  lineOn,
  partsOn,
  SERVER,
  usedServer,
} from './support-replica.ts';

let azurite: Azurite;
let proxy: FaultProxy;

beforeAll(async () => {
  azurite = await sharedAzurite();
  proxy = await startFaultProxy(azurite.port);
});
afterEach(() => proxy.clear());

const storeOf = (containerName: string) =>
  new AzureBlobStore(
    { kind: 'connectionString', connectionString: new Secret(proxy.connectionString) },
    containerName,
  );

/** In listings, what a name says of its age: the store writes everything now, and retention wants to see hours. */
const agedBy = (hoursOf: (name: string) => number) => (entries: readonly string[]) =>
  entries.map((entry) => {
    const date = new Date(Date.now() - hoursOf(/<Name>([^<]*)/.exec(entry)?.[1] ?? '') * 3_600_000);
    return entry.replace(/<Last-Modified>[^<]*/, `<Last-Modified>${date.toUTCString()}`);
  });

async function namesIn(container: ContainerClient): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of container.listBlobsFlat({ prefix: 'backup-' })) names.push(name);
  return names.sort();
}

describe('deleting', () => {
  const COUNT = 8;
  const POLICY = { keep: 3, daily: 0, weekly: 0, monthly: 0 };
  const nameOf = (sequence: number) =>
    formatBackupName({ placement: 'line', epoch: 1, sequence, stamp: '20260101000000' });
  const stateBlob: [string, MemoryBlob] = [
    EPOCH_BLOB,
    {
      bytes: Buffer.from(
        JSON.stringify({ format: 1, epoch: 1, holder: 'a', takenUtc: '', line: [] } satisfies EpochState),
      ),
      metadata: {},
    },
  ];
  const archives = Array.from({ length: COUNT }, (_, index): [string, MemoryBlob] => [
    nameOf(index + 1),
    {
      bytes: Buffer.from('archive'),
      // The fourth from above is the last of another version, and held.
      metadata: {
        sha256: 'a',
        size: '7',
        jellyfin_version: index + 1 === COUNT - 4 ? '10.10.7' : '10.11.11',
      },
    },
  ]);
  const PROMISED = [COUNT, COUNT - 1, COUNT - 2, COUNT - 4].map(nameOf).sort();

  const listings = fc.record({
    kind: fc.constant('list' as const),
    pageSize: fc.integer({ min: 2, max: 5 }),
    duplicatePages: fc.boolean(),
    reversePages: fc.boolean(),
    emptyPages: fc.boolean(),
  }) satisfies fc.Arbitrary<ListFault>;
  const deletions = fc.array(
    fc.constantFrom<(Fault | undefined)[]>(
      undefined,
      { kind: 'status', status: 403 },
      { kind: 'status', status: 412 },
      { kind: 'status', status: 503, when: 'after' },
      { kind: 'reset', when: 'before' },
      { kind: 'reset', when: 'after' },
    ),
    { minLength: 1, maxLength: 4 },
  );

  test('that fails anywhere, over listings of any form, ends with what is promised and never below', async () => {
    await fc.assert(
      fc.asyncProperty(listings, deletions, async (listing, faults) => {
        proxy.clear();
        const container = await containerWith(azurite, [stateBlob, ...archives]);
        const store = storeOf(container.containerName);
        const entries = agedBy((name) => 2 * (COUNT - (parseBackupName(name)?.sequence ?? COUNT)));
        proxy.on({ operation: 'ListBlobs' }, { ...listing, entries });
        let next = 0;
        proxy.on({ operation: 'DeleteBlob' }, () => faults[next++]);
        const { log } = partsOn(store);
        for (let attempt = 0; attempt <= faults.length; attempt += 1) {
          await prune({ store, log }, 1, POLICY).catch((error: unknown) => {
            if (!(error instanceof AgentError)) throw error;
          });
          expect(await namesIn(container)).toEqual(expect.arrayContaining(PROMISED));
          if (next >= faults.length) break;
        }
        await prune({ store, log }, 1, POLICY);
        expect(await namesIn(container)).toEqual(PROMISED);
      }),
      { numRuns: 5 },
    );
  });

  test('stops when a successor takes the epoch in the middle, and leaves what a person has just asked for', async () => {
    const container = await containerWith(azurite, [stateBlob, ...archives]);
    const store = storeOf(container.containerName);
    proxy.on(
      { operation: 'ListBlobs' },
      { kind: 'list', entries: agedBy((name) => 2 * (COUNT - (parseBackupName(name)?.sequence ?? COUNT))) },
    );
    const overwrite = (name: string, value: unknown) => {
      const text = JSON.stringify(value);
      return container.getBlockBlobClient(name).upload(text, text.length);
    };
    const request = { format: 1, id: 'x', name: nameOf(2), requestedUtc: '' };
    // Deleted are 5, 3, 2, 1, in this order.
    proxy.on(
      { operation: 'DeleteBlob', nth: 1 },
      {
        kind: 'hook',
        when: 'after',
        run: async () => void (await overwrite('state/restore-request.json', request)),
      },
    );
    const state = { format: 1, epoch: 2, holder: 'b', takenUtc: '', line: [{ epoch: 1, upTo: null }] };
    proxy.on(
      { operation: 'DeleteBlob', nth: 2 },
      { kind: 'hook', when: 'after', run: async () => void (await overwrite(EPOCH_BLOB, state)) },
    );
    await prune({ store, log: partsOn(store).log }, 1, POLICY);
    expect(await namesIn(container)).toEqual([1, 2, 4, 6, 7, 8].map(nameOf));
  });
});

test('a restore reads on while the replica before it stores a newer backup and keeps only one', async () => {
  const used = await usedServer({ isTiny: true });
  const container = await containerWith(azurite, used.blobs);
  const store = storeOf(container.containerName);
  // The candidate has been one for five hours when it is superseded in the middle of the restore.
  const hours: Record<string, number> = { [used.older.name]: 9, [used.newer.name]: 5 };
  proxy.on({ operation: 'ListBlobs' }, { kind: 'list', entries: agedBy((name) => hours[name] ?? 0) });
  const old = lineOn(partsOn(store), copyOfVolume(used.dataDir), 1);
  let superseding: string | undefined;
  const backUp = async () => {
    const outcome = await old.backUp(SERVER, BACKUP);
    superseding = outcome.kind === 'published' ? outcome.backup.name : outcome.kind;
  };
  proxy.on(
    { operation: 'GetBlob', name: used.newer.name, nth: 2 },
    { kind: 'hook', when: 'before', run: backUp },
  );
  const deps = partsOn(store);
  const report = await restoreVolume(deps, { dataDir: makeTempDir('next'), imageVersion: undefined });

  expect(deps.logged.map(({ msg }) => msg)).not.toContain('planning anew');
  expect(report).toMatchObject({ restoredFrom: superseding, passedOver: [] });
  // The oldest one shows that retention was at work.
  expect(await namesIn(container)).toEqual([used.newer.name, superseding]);
});

test('what a drill and a clean stop write on a backup leaves its released hold as it is', async () => {
  const used = await usedServer({ isTiny: true });
  const store = new MemoryBlobStore(used.blobs);
  const deps = partsOn(store);
  const line = lineOn(deps, copyOfVolume(used.dataDir));
  await line.backUp(SERVER, BACKUP);
  const { name, etag, metadata } = (await store.head(line.lastStored ?? '')) ?? {};
  if (name === undefined || etag === undefined) throw new Error('nothing was stored');
  await store.setMetadata(name, { ...metadata, [VERSION_HOLD_KEY]: 'released' }, { ifMatch: etag });
  await drill(deps, makeTempDir('drill'), new AbortController().signal);
  await line.recordCleanStop();
  expect((await store.head(name))?.metadata).toMatchObject({
    version_hold: 'released',
    clean_stop: 'true',
    verified_utc: expect.any(String) as string,
  });
});
