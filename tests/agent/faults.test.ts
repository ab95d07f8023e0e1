import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import { AzureBlobStore } from '../../agent/adapters/azure-blob-store.ts';
import { exitCodeOf } from '../../agent/errors.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { withRetry } from '../../agent/retry.ts';
import { Secret } from '../../agent/secret.ts';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import {
  startFaultProxy,
  type BlobOperation,
  type BlobRequest,
  type Fault,
  type FaultProxy,
} from '../support/fault-proxy.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { startBodyFlipper } from './support-body-flipper.ts';
import {
  containerWith,
  contentOf,
  copyOfVolume,
  epochIn,
  partsOn,
  requireNoSecret,
  runAgent,
  startAgent,
  usedServer,
  volumeAt,
  wholeBackups,
  type Used,
} from './support-replica.ts';

/*
 * The real agent against a store that misbehaves. Does not prove: how the real service throttles or signs, and TLS.
 * RETRY_MAX is 2 here, so a fault that hits once is survived and one that stays is met three times.
 */

let azurite: Azurite;
let proxy: FaultProxy;
let used: Used;

beforeAll(async () => {
  azurite = await sharedAzurite();
  proxy = await startFaultProxy(azurite.port);
  used = await usedServer();
});
afterEach(() => proxy.clear());

/** What a fault may be aimed at. */
const TARGET = {
  listing: { operation: 'ListBlobs' },
  epoch: { operation: 'GetBlob', name: 'state/epoch.json' },
  epochWrite: { operation: 'PutBlob', name: 'state/epoch.json' },
  archive: { operation: 'GetBlob', name: /^backup-/ },
  block: { operation: 'PutBlock' },
  commit: { operation: 'PutBlockList' },
  readBack: { operation: 'HeadBlob' },
  deletion: { operation: 'DeleteBlob' },
} as const satisfies Record<string, { operation: BlobOperation; name?: string | RegExp }>;

type Hit = 'once' | 'twice' | 'always';
const TIMES = { once: { times: 1 }, twice: { times: 2 }, always: {} };
const once: Hit = 'once';
const twice: Hit = 'twice';
const always: Hit = 'always';
const status = (code: number, more: Partial<Extract<Fault, { kind: 'status' }>> = {}): Fault => ({
  kind: 'status',
  status: code,
  ...more,
});
const reset = (when: 'before' | 'after'): Fault => ({ kind: 'reset', when });
const cut: Fault = { kind: 'truncate', afterBytes: 40 };
const flipped: Fault = { kind: 'corrupt' };
const noContainer = status(404, { code: 'ContainerNotFound' });

function aim(target: keyof typeof TARGET, fault: Fault, hit: Hit) {
  return proxy.on(TARGET[target], fault, TIMES[hit]);
}

const onProxy = (container: ContainerClient, dataDir: string) => ({
  connectionString: proxy.connectionString,
  container: container.containerName,
  dataDir,
});

/** Nothing that a server could start on as if it were new, and nothing that says a start is fine. */
function expectNoServer(dataDir: string): void {
  const { marker, names } = volumeAt(dataDir);
  expect(names).toEqual([]);
  expect(marker?.state).not.toBe('complete');
}

describe('agent restore on an empty volume', () => {
  type Outcome = 'newest' | 'older' | 'no server';
  const table: [target: keyof typeof TARGET, fault: Fault, hit: Hit, exit: number, Outcome, says: RegExp][] =
    [
      // A role assignment that has not spread yet answers 403 for minutes.
      ['listing', status(403), once, 0, 'newest', /"retrying".*403 AuthorizationPermissionMismatch/],
      [
        'listing',
        status(403),
        always,
        3,
        'no server',
        /store_denied.*list .*403 AuthorizationPermissionMismatch/,
      ],
      ['epoch', status(403), always, 3, 'no server', /store_denied.*read state\/epoch\.json.*403/],
      ['archive', status(403), always, 3, 'no server', /store_denied.*read backup-.*403/],
      ['epochWrite', status(403), always, 3, 'no server', /store_denied.*write state\/epoch\.json.*403/],
      ['listing', noContainer, always, 3, 'no server', /store_container_missing.*404 ContainerNotFound/],
      ['epoch', noContainer, always, 3, 'no server', /store_container_missing.*404 ContainerNotFound/],
      // A 404 without the service's code may be a proxy's or another account's: never "no backup".
      ['listing', status(404, { code: 'ResourceNotFound' }), always, 3, 'no server', /store_rejected.*404/],
      ['epoch', status(404, { code: 'ResourceNotFound' }), always, 3, 'no server', /store_rejected.*404/],
      // Gone between listing and reading: the plan is made anew.
      ['archive', status(404), once, 0, 'newest', /"planning anew".*changed or vanished/],
      ['archive', status(404), always, 4, 'no server', /backup_missing.*changed or vanished/],
      ['archive', status(412), once, 0, 'newest', /"planning anew".*changed or vanished/],
      ['archive', status(409, { code: 'LeaseIdMissing' }), once, 0, 'newest', /"planning anew"/],
      // Another replica seems to have taken the epoch: tried again with what the store says now.
      ['epochWrite', status(412), once, 0, 'newest', /"restored"/],
      ['epochWrite', status(412), always, 3, 'no server', /store_conflict.*take an epoch/],
      ['listing', status(429, { retryAfterSeconds: 0 }), always, 3, 'no server', /store_unreachable.*429/],
      ['listing', status(500), once, 0, 'newest', /"retrying".*500 InternalError/],
      ['listing', status(500), always, 3, 'no server', /store_unreachable.*list .*500 InternalError/],
      ['archive', status(503), once, 0, 'newest', /"retrying".*503 ServerBusy/],
      ['archive', status(503), always, 3, 'no server', /store_unreachable.*read backup-.*503 ServerBusy/],
      ['listing', reset('before'), once, 0, 'newest', /"retrying".*list/],
      ['listing', reset('before'), always, 3, 'no server', /store_unreachable.*list/],
      ['epochWrite', reset('before'), once, 0, 'newest', /"retrying".*write state\/epoch\.json/],
      // The write arrived, its answer did not: our own epoch, not a stranger's.
      ['epochWrite', reset('after'), once, 0, 'newest', /"epoch taken".*"epoch":2/],
      ['listing', cut, once, 0, 'newest', /"retrying".*list/],
      ['listing', cut, always, 3, 'no server', /store_unreachable.*list/],
      ['epoch', cut, once, 0, 'newest', /"retrying".*read state\/epoch\.json/],
      ['archive', cut, once, 0, 'newest', /"retrying".*read backup-/],
      ['archive', cut, always, 3, 'no server', /store_unreachable.*read backup-/],
      // Changed on the way, all bytes there: only the hashes tell.
      ['epoch', { kind: 'corrupt', offset: 0 }, always, 3, 'no server', /state\/epoch\.json is not readable/],
      ['archive', { kind: 'corrupt', offset: 0 }, once, 0, 'newest', /did not pass, read again.*zstd frame/],
      ['archive', { kind: 'corrupt', offset: 0 }, twice, 0, 'older', /"backup passed over".*zstd frame/],
      ['archive', flipped, always, 4, 'no server', /none of 2 backups passes its checks/],
    ];

  test.each(table)('%s, %j, %s: exit %i, %s', async (target, fault, hit, exit, outcome, says) => {
    const container = await containerWith(azurite, used.blobs);
    const before = await contentOf(container);
    const dataDir = makeTempDir('volume');
    const rule = aim(target, fault, hit);

    const { code, stdout } = await runAgent(['restore'], onProxy(container, dataDir));

    expect({ code, stdout }).toEqual({ code: exit, stdout: expect.stringMatching(says) as string });
    expect(rule.hits).toBeGreaterThan(0);
    const after = await contentOf(container);
    if (outcome === 'no server') {
      expectNoServer(dataDir);
      // A start that fails again and again must not fence a healthy replica.
      expect(after).toEqual(before);
    } else {
      const expected = outcome === 'newest' ? used.newer : used.older;
      expect(volumeAt(dataDir)).toMatchObject({
        marker: { state: 'complete', origin: 'restored', restoredFrom: expected.name, epoch: 2 },
        lastSeq: expected.lastSeq,
      });
      expect(epochIn(after)).toBe(2);
    }
  });

  test('a container that does not exist is not a container without backups: exit 3', async () => {
    const dataDir = makeTempDir('volume');
    const run = { connectionString: proxy.connectionString, container: 'never-made', dataDir };
    const { code, stdout } = await runAgent(['restore'], run);
    expect({ code, stdout }).toEqual({
      code: 3,
      stdout: expect.stringMatching(/store_container_missing.*never-made.*pulumi up/) as string,
    });
    expectNoServer(dataDir);
  });

  test('nobody listens: exit 3 after the retries, and the next start restores', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    await proxy.refuseConnections();
    const refused = await runAgent(['restore'], onProxy(container, dataDir)).finally(() =>
      proxy.acceptConnections(),
    );
    expect(refused.code).toBe(3);
    expect(refused.stdout).toMatch(/"attempt":2.*\n.*store_unreachable.*ECONNREFUSED/);
    expectNoServer(dataDir);
    expect((await runAgent(['restore'], onProxy(container, dataDir))).code).toBe(0);
    expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
  });

  test('a retry waits as long as Retry-After says, on every kind of request', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    for (const target of ['listing', 'archive'] as const)
      aim(target, status(429, { retryAfterSeconds: 1 }), once);
    const { code } = await runAgent(['restore'], onProxy(container, dataDir));
    expect(code).toBe(0);
    const throttled = proxy.requests.filter((request) => request.status === 429);
    expect(throttled).toHaveLength(2);
    for (const { atMs, index, operation, name } of throttled) {
      const next = proxy.requests.find(
        (later) => later.index > index && later.operation === operation && later.name === name,
      );
      expect((next as BlobRequest).atMs - atMs).toBeGreaterThanOrEqual(1000);
    }
    expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
  });

  test('a fault that stays is met three times with RETRY_MAX=2, not more and not less', async () => {
    const container = await containerWith(azurite, used.blobs);
    const rule = aim('listing', status(503), always);
    await runAgent(['restore'], onProxy(container, makeTempDir('volume')));
    expect(rule.hits).toBe(3);
  });

  test('the newest backup is deleted between listing and reading: the older one is restored', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const remove = async () => void (await container.deleteBlob(used.newer.name));
    aim('archive', { kind: 'hook', when: 'before', run: remove }, once);
    const { code } = await runAgent(['restore'], onProxy(container, dataDir));
    expect(code).toBe(0);
    expect(volumeAt(dataDir)).toMatchObject({
      marker: { restoredFrom: used.older.name },
      lastSeq: used.older.lastSeq,
    });
  });

  test('the last backup is deleted between listing and reading: exit 4, nothing starts empty', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const remove = async () => {
      await container.deleteBlob(used.newer.name);
      await container.deleteBlob(used.older.name);
    };
    aim('archive', { kind: 'hook', when: 'before', run: remove }, once);
    const run = onProxy(container, dataDir);
    const { code, stdout } = await runAgent(['restore'], run);
    expect({ code, stdout }).toEqual({
      code: 4,
      stdout: expect.stringMatching(/a restore had begun on this volume/) as string,
    });
    expectNoServer(dataDir);
    expect((await runAgent(['restore'], run)).code).toBe(4);
  });

  test('a drill writes its result on the backup while it is read (412): the same one is restored', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const metadata = new Map(used.blobs).get(used.newer.name)?.metadata;
    const record = async () =>
      void (await container
        .getBlobClient(used.newer.name)
        .setMetadata({ ...metadata, verified_utc: '2026-11-01T00:00:00Z' }));
    const rule = proxy.on({ ...TARGET.archive, nth: 2 }, { kind: 'hook', when: 'before', run: record });
    const { code, stdout } = await runAgent(['restore'], onProxy(container, dataDir));
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/"planning anew"/) as string,
    });
    expect(rule.hits).toBe(1);
    expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
  });

  test('a legacy backup is deleted between listing and reading: the plan is made anew', async () => {
    const container = await containerWith(azurite, used.blobs);
    await container.getBlockBlobClient('backup-20200101000000.tar.gz').upload('x', 1);
    for (const { name } of [used.newer, used.older]) await container.deleteBlob(name);
    await container.deleteBlob('state/epoch.json');
    const dataDir = makeTempDir('volume');
    const putBack = async () => {
      await container.deleteBlob('backup-20200101000000.tar.gz');
      const replacement = used.blobs.filter(([name]) => name === used.older.name);
      for (const [name, { bytes, metadata }] of replacement)
        await container
          .getBlockBlobClient(name)
          .upload(Buffer.from(bytes), bytes.byteLength, { metadata: { ...metadata } });
    };
    aim('archive', { kind: 'hook', when: 'before', run: putBack }, once);
    const { code, stdout } = await runAgent(['restore'], onProxy(container, dataDir));
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: expect.stringMatching(/"planning anew"/) as string,
    });
    expect(volumeAt(dataDir).lastSeq).toBe(used.older.lastSeq);
  });

  test('a volume that is live is kept whatever the store says, without asking it', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = copyOfVolume(used.dataDir);
    await proxy.refuseConnections();
    const { code, stdout } = await runAgent(['restore'], onProxy(container, dataDir)).finally(() =>
      proxy.acceptConnections(),
    );
    expect({ code, stdout }).toEqual({ code: 0, stdout: expect.stringMatching(/"volume kept/) as string });
  });
});

describe('listings as a service under load may give them', () => {
  const shapes: [string, Extract<Fault, { kind: 'list' }>][] = [
    ['one blob a page', { kind: 'list', pageSize: 1 }],
    ['every page repeats the one before', { kind: 'list', pageSize: 2, duplicatePages: true }],
    ['pages in reverse order', { kind: 'list', pageSize: 2, reversePages: true }],
    ['an empty page before each page', { kind: 'list', pageSize: 2, emptyPages: true }],
    [
      'all of it at once',
      { kind: 'list', pageSize: 3, duplicatePages: true, reversePages: true, emptyPages: true },
    ],
  ];

  test.each(shapes)('%s: restore finds the newest, list shows every backup once', async (_name, fault) => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const run = onProxy(container, dataDir);
    const rule = proxy.on(TARGET.listing, fault);
    const listed = await runAgent(['list', '--json'], run);
    const { backups } = JSON.parse(listed.stdout) as { backups: { name: string; place: string }[] };
    expect(backups.map(({ name, place }) => [name, place])).toEqual([
      [used.newer.name, 'candidate'],
      [used.older.name, 'line'],
    ]);
    const restored = await runAgent(['restore'], run);
    expect(restored.code).toBe(0);
    expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
    expect(rule.hits).toBeGreaterThan(2);
  });

  test('an empty container behind empty pages is a first boot', async () => {
    const container = await containerWith(azurite, []);
    const dataDir = makeTempDir('volume');
    proxy.on(TARGET.listing, { kind: 'list', emptyPages: true });
    expect((await runAgent(['restore'], onProxy(container, dataDir))).code).toBe(0);
    expect(volumeAt(dataDir).marker).toMatchObject({ state: 'complete', origin: 'first_boot', epoch: 1 });
  });

  test('a listing that breaks off at its second page is not a listing: exit 3', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    proxy.on(
      (request) => request.operation === 'ListBlobs' && request.query['marker'] !== undefined,
      status(500),
    );
    proxy.on(TARGET.listing, { kind: 'list', pageSize: 1 });
    const { code } = await runAgent(['restore'], onProxy(container, dataDir));
    expect(code).toBe(3);
    expectNoServer(dataDir);
  });

  test('a listing that never ends is refused: exit 3', async () => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const store = partsOn(
      new AzureBlobStore(
        { kind: 'connectionString', connectionString: new Secret(proxy.connectionString) },
        container.containerName,
      ),
    ).store;
    const endless = Object.assign(Object.create(store) as typeof store, {
      listPage: async () => Promise.resolve({ items: [], continuation: 'again' }),
      describe: () => 'endless',
    });
    const error: unknown = await restoreVolume(partsOn(endless), { dataDir, imageVersion: undefined }).catch(
      (reason: unknown) => reason,
    );
    expect([exitCodeOf(error), String(error)]).toEqual([3, expect.stringContaining('never ends')]);
    expectNoServer(dataDir);
  });

  test('the newest backup is on the last of several pages, behind more than 5,000 other blobs', async () => {
    // Shown by the proxy: Azurite takes half a minute for so many uploads (faults.long.test.ts does them).
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const run = onProxy(container, dataDir);
    const others = Array.from({ length: 1_800 }, (_, index) => String(index).padStart(5, '0'));
    const rule = proxy.on(TARGET.listing, {
      kind: 'list',
      pageSize: 1,
      entries: (own) => [
        ...others.map((other) => own[0]?.replace(/<Name>[^<]*/, `<Name>other-${rule.hits}/${other}`) ?? ''),
        ...own,
      ],
    });
    const { code } = await runAgent(['restore'], run);
    expect(code).toBe(0);
    expect(volumeAt(dataDir).lastSeq).toBe(used.newer.lastSeq);
    expect(rule.hits).toBeGreaterThan(2);
  });

  test('a few hundred real blobs on many pages', async () => {
    const container = await containerWith(azurite, used.blobs);
    const names = Array.from({ length: 300 }, (_, index) => `a/${String(index).padStart(5, '0')}`);
    const upload = async () => {
      for (let name = names.pop(); name !== undefined; name = names.pop())
        await container.getBlockBlobClient(name).upload('x', 1);
    };
    await Promise.all(Array.from({ length: 8 }, upload));
    proxy.on(TARGET.listing, { kind: 'list', pageSize: 50, duplicatePages: true, emptyPages: true });
    const run = onProxy(container, makeTempDir('volume'));
    const { stdout } = await runAgent(['list', '--json'], run);
    const { backups } = JSON.parse(stdout) as { backups: { name: string }[] };
    expect(backups.map(({ name }) => name)).toEqual([used.newer.name, used.older.name]);
    expect(proxy.count(TARGET.listing)).toBeGreaterThan(10);
  });
});

describe('agent backup --once', () => {
  type Outcome = 'one more' | 'nothing new';
  const table: [target: keyof typeof TARGET, fault: Fault, hit: Hit, exit: number, Outcome, says: RegExp][] =
    [
      ['listing', status(403), once, 0, 'one more', /"retrying".*403/],
      ['listing', status(403), always, 3, 'nothing new', /store_denied.*list .*403/],
      ['listing', noContainer, always, 3, 'nothing new', /store_container_missing.*404 ContainerNotFound/],
      ['epoch', status(403), always, 3, 'nothing new', /store_denied.*read state\/epoch\.json/],
      ['block', status(403), always, 3, 'nothing new', /store_denied.*stage a block of backup-.*403/],
      ['block', status(429), once, 0, 'one more', /"retrying".*429/],
      ['block', status(503), always, 3, 'nothing new', /store_unreachable.*stage a block of backup-.*503/],
      ['block', reset('after'), once, 0, 'one more', /"retrying".*stage/],
      // The block changed on the way and the service says so: sent again it may arrive whole.
      ['block', status(400, { code: 'Md5Mismatch' }), once, 0, 'one more', /"retrying".*400 Md5Mismatch/],
      ['block', status(400, { code: 'Md5Mismatch' }), always, 3, 'nothing new', /400 Md5Mismatch/],
      // The name is taken, or seems to be, and what lies there is not ours.
      [
        'commit',
        status(409),
        once,
        3,
        'nothing new',
        /store_conflict.*commit backup-.*409 BlobAlreadyExists/,
      ],
      ['commit', status(503), always, 3, 'nothing new', /store_unreachable.*commit backup-.*503/],
      ['commit', reset('before'), once, 0, 'one more', /"retrying".*commit/],
      ['commit', reset('before'), always, 3, 'nothing new', /store_unreachable.*commit backup-/],
      // The commit went through, its answer got lost: one backup, not two and not none.
      ['commit', reset('after'), once, 0, 'one more', /last_backup_utc=/],
      ['commit', status(409, { when: 'after' }), once, 0, 'one more', /last_backup_utc=/],
      // It is stored and whole, but we could not see that: not reported as done, and the next one has a number of its own.
      ['commit', reset('after'), always, 3, 'one more', /store_unreachable.*commit backup-/],
      ['readBack', status(500), once, 0, 'one more', /"retrying".*head backup-/],
      ['readBack', status(500), always, 3, 'one more', /store_unreachable.*head backup-.*500/],
      // The backup is stored; that an old one could not be deleted is no reason to call it failed.
      ['deletion', status(403), always, 0, 'one more', /"retention failed".*store_denied.*delete backup-/],
      ['deletion', reset('after'), once, 0, 'one more', /last_backup_utc=/],
    ];

  test.each(table)('%s, %j, %s: exit %i, %s', async (target, fault, hit, exit, outcome, says) => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = copyOfVolume(used.dataDir);
    const run = { ...onProxy(container, dataDir), env: target === 'deletion' ? KEEP_TWO : {} };
    const rule = aim(target, fault, hit);
    if (target === 'deletion') proxy.on(TARGET.listing, { kind: 'list', entries: (own) => own.map(aged) });

    const { code, stdout } = await runAgent(['backup', '--once'], run);

    expect({ code, stdout }).toEqual({ code: exit, stdout: expect.stringMatching(says) as string });
    expect(rule.hits).toBeGreaterThan(0);
    proxy.clear();
    const newer = [used.newer.lastSeq, ...(outcome === 'one more' ? [used.newer.lastSeq] : [])];
    const isDeleted = target === 'deletion' && hit === 'once';
    const expected = isDeleted ? newer : [...newer, used.older.lastSeq];
    const seqs = async () => (await wholeBackups(await contentOf(container))).map(({ lastSeq }) => lastSeq);
    expect(await seqs()).toEqual(expected);
    if (exit === 0 || (target !== 'commit' && target !== 'readBack')) return;
    // The next attempt has a name of its own, whatever became of this one.
    expect((await runAgent(['backup', '--once'], run)).code).toBe(0);
    expect(await seqs()).toEqual([used.newer.lastSeq, ...expected]);
  });
  const KEEP_TWO = {
    RETENTION_KEEP: '2',
    RETENTION_DAILY: '0',
    RETENTION_WEEKLY: '0',
    RETENTION_MONTHLY: '0',
  };
  /** Retention leaves a backup alone for an hour after it was superseded: a restore may be reading it. */
  const aged = (entry: string) =>
    entry.includes(used.newer.name)
      ? entry.replace(/<Last-Modified>[^<]*/, '<Last-Modified>Sat, 01 Nov 2025 00:00:00 GMT')
      : entry;

  test('a block that changed on the way is refused by the store: exit 3, nothing visible', async () => {
    const container = await containerWith(azurite, used.blobs);
    const flipper = await startBodyFlipper(azurite.port, (query) => query.get('comp') === 'block');
    const run = {
      connectionString: flipper.connectionString,
      container: container.containerName,
      dataDir: copyOfVolume(used.dataDir),
    };
    const { code, stdout } = await runAgent(['backup', '--once'], run);
    expect({ code, stdout }).toEqual({
      code: 3,
      stdout: expect.stringMatching(/stage a block of backup-.*failed: 400/) as string,
    });
    expect(flipper.flipped).toBeGreaterThan(0);
    expect(await contentOf(container)).toEqual(await contentOf(await containerWith(azurite, used.blobs)));
  });

  test('a server that the agent finds takes an empty container over once, also when the answer got lost', async () => {
    const container = await containerWith(azurite, []);
    const { dataDir } = await usedServer();
    const adopted = copyOfVolume(dataDir);
    await partsOn(new AzureBlobStore(credential(), container.containerName)).disk.removeTree(
      join(adopted, '.agent'),
    );
    aim('epochWrite', reset('after'), once);
    const { code } = await runAgent(['backup', '--once'], onProxy(container, adopted));
    expect(code).toBe(0);
    const content = await contentOf(container);
    expect(epochIn(content)).toBe(1);
    expect(await wholeBackups(content)).toHaveLength(1);
  });
});

describe('agent list', () => {
  const table: [target: keyof typeof TARGET, fault: Fault, hit: Hit, exit: number, says: RegExp][] = [
    [
      'listing',
      status(403),
      always,
      3,
      /^error: list .*403 AuthorizationPermissionMismatch\nhint: the identity/m,
    ],
    [
      'listing',
      noContainer,
      always,
      3,
      /^error: list .*404 ContainerNotFound\nhint: the container is made by/m,
    ],
    ['listing', reset('before'), always, 3, /^error: list /m],
    ['epoch', status(503), always, 3, /^error: read state\/epoch\.json failed: 503 ServerBusy/m],
    ['epoch', status(404), once, 0, /^$/],
    ['listing', status(500), once, 0, /"retrying"/],
  ];

  test.each(table)('%s, %j, %s: exit %i', async (target, fault, hit, exit, says) => {
    const container = await containerWith(azurite, used.blobs);
    const rule = aim(target, fault, hit);
    const { code, stdout, stderr } = await runAgent(['list'], onProxy(container, makeTempDir('volume')));
    expect({ code, stderr }).toEqual({ code: exit, stderr: expect.stringMatching(says) as string });
    expect(rule.hits).toBeGreaterThan(0);
    // A script that reads the answer gets the whole of it or none.
    if (exit === 0) expect(stdout).toContain(used.newer.name);
    else expect(stdout).toBe('');
  });
});

const credential = () =>
  ({ kind: 'connectionString', connectionString: new Secret(proxy.connectionString) }) as const;

describe('a store that does not answer', () => {
  // In this process: the agent's own limit of a minute per request is too long to wait for.
  const impatient = async (container: ContainerClient, dataDir: string) => {
    const store = new AzureBlobStore(credential(), container.containerName, { requestTimeoutMs: 300 });
    const parts = partsOn(store);
    const policy = { max: 1, backoffMs: 0 };
    const deps = { ...parts, store: withRetry(store, { ...parts, policy }) };
    try {
      await restoreVolume(deps, { dataDir, imageVersion: undefined });
      return { exit: 0, story: '' };
    } catch (error) {
      requireNoSecret(JSON.stringify(parts.logged) + String(error));
      return { exit: exitCodeOf(error), story: String(error) };
    }
  };
  const stalled: Fault = { kind: 'stall', afterBytes: 100 };
  const table: [keyof typeof TARGET, Fault, Hit, exit: number, says: RegExp][] = [
    ['listing', { kind: 'hang' }, once, 0, /^$/],
    ['listing', { kind: 'hang' }, always, 3, /list .*no answer in 0\.3 s/],
    ['archive', { kind: 'hang' }, always, 3, /read backup-.*no answer in 0\.3 s/],
    ['listing', stalled, always, 3, /list .*no answer in 0\.3 s/],
    ['epoch', stalled, always, 3, /read state\/epoch\.json.*no answer in 0\.3 s/],
    ['archive', stalled, once, 0, /^$/],
    ['archive', stalled, always, 3, /read backup-.*no answer in 0\.3 s/],
    // The write arrived although nobody said so.
    ['epochWrite', { kind: 'hang', when: 'after' }, once, 0, /^$/],
  ];

  test.each(table)('%s, %j, %s: exit %i', async (target, fault, hit, exit, says) => {
    const container = await containerWith(azurite, used.blobs);
    const dataDir = makeTempDir('volume');
    const rule = aim(target, fault, hit);
    const outcome = await impatient(container, dataDir);
    expect(outcome).toEqual({ exit, story: expect.stringMatching(says) as string });
    expect(rule.hits).toBeGreaterThan(0);
    if (exit !== 0) expectNoServer(dataDir);
    else expect(volumeAt(dataDir)).toMatchObject({ lastSeq: used.newer.lastSeq, marker: { epoch: 2 } });
  });

  test.each(['listing', 'archive'] as const)(
    'SIGTERM while the %s hangs: exit 143 at once',
    async (target) => {
      const container = await containerWith(azurite, used.blobs);
      const dataDir = makeTempDir('volume');
      aim(target, { kind: 'hang' }, always);
      const asked = proxy.nextRequest(TARGET[target]);
      const agent = startAgent(['restore'], onProxy(container, dataDir));
      await asked;
      agent.signal('SIGTERM');
      const { code } = await agent.waitForExit(5_000);
      requireNoSecret(agent.stdout() + agent.stderr());
      expect({ code, stdout: agent.stdout() }).toEqual({
        code: 143,
        stdout: expect.stringContaining('interrupted by SIGTERM') as string,
      });
      expectNoServer(dataDir);
    },
  );
});

test('what went up is what came down: the hash in the metadata is that of the blob', async () => {
  const container = await containerWith(azurite, used.blobs);
  for (const [name, { bytes, metadata }] of await contentOf(container)) {
    if (!name.startsWith('backup-')) continue;
    expect(createHash('sha256').update(bytes).digest('hex')).toBe(metadata['sha256']);
  }
});
