import { BlobServiceClient, type ContainerClient, type RestError } from '@azure/storage-blob';
import { sharedAzurite, type Azurite } from '../support/azurite.ts';
import { startFaultProxy, type FaultProxy, type ListFault } from '../support/fault-proxy.ts';
import { startProcess } from '../support/processes.ts';

let azurite: Azurite;
let proxy: FaultProxy;
/** Through the proxy. */
let client: ContainerClient;
/** Past the proxy: what is really stored. */
let store: ContainerClient;
const CONTENT = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));

beforeAll(async () => {
  azurite = await sharedAzurite();
  proxy = await startFaultProxy(azurite.port);
});
beforeEach(async () => {
  proxy.clear();
  const name = await azurite.createContainer('faults');
  store = azurite.container(name);
  client = BlobServiceClient.fromConnectionString(proxy.connectionString, {
    retryOptions: { maxTries: 1 },
  }).getContainerClient(name);
});

async function failure(promise: Promise<unknown>): Promise<RestError & { code?: string }> {
  return promise.then(
    () => Promise.reject(new Error('succeeded')),
    (error: unknown) => error as RestError,
  );
}
const upload = (name: string, content: Buffer | string = 'x') =>
  client.getBlockBlobClient(name).upload(content, content.length);
const download = (name: string) =>
  client.getBlobClient(name).downloadToBuffer(0, undefined, { maxRetryRequestsPerBlock: 0 });
const isStored = (name: string) => store.getBlobClient(name).exists();

test('without rules every operation passes, and the log names it', async () => {
  const blob = client.getBlockBlobClient('dir/a b+c&ü.tar');
  await blob.stageBlock(btoa('1'), 'one', 3);
  await blob.commitBlockList([btoa('1')], { metadata: { epoch: '1' }, conditions: { ifNoneMatch: '*' } });
  await blob.setMetadata({ epoch: '2' });
  expect((await blob.getProperties()).metadata).toEqual({ epoch: '2' });
  expect((await blob.downloadToBuffer(1, 2)).toString()).toBe('ne');
  await blob.getBlockList('committed');
  await upload('b', CONTENT);
  expect((await download('b')).equals(CONTENT)).toBe(true);
  const lease = client.getBlobClient('b').getBlobLeaseClient();
  await lease.acquireLease(15);
  await lease.releaseLease();
  await client.listBlobsFlat({ prefix: 'dir/a b' }).next();
  await blob.delete();
  expect(proxy.requests.map(({ operation, name, storeStatus }) => [operation, name, storeStatus])).toEqual([
    ['PutBlock', 'dir/a b+c&ü.tar', 201],
    ['PutBlockList', 'dir/a b+c&ü.tar', 201],
    ['SetMetadata', 'dir/a b+c&ü.tar', 200],
    ['HeadBlob', 'dir/a b+c&ü.tar', 200],
    ['GetBlob', 'dir/a b+c&ü.tar', 206],
    ['GetBlockList', 'dir/a b+c&ü.tar', 200],
    ['PutBlob', 'b', 201],
    // The SDK asks for the size before it downloads.
    ['HeadBlob', 'b', 200],
    ['GetBlob', 'b', 206],
    ['LeaseBlob', 'b', 201],
    ['LeaseBlob', 'b', 200],
    ['ListBlobs', undefined, 200],
    ['DeleteBlob', 'dir/a b+c&ü.tar', 202],
  ]);
  expect(proxy.requests[4]?.range).toBe('bytes=1-2');
  expect(proxy.count({ operation: ['HeadBlob', 'GetBlob'], name: 'b' })).toBe(2);
});

test.each([
  [403, 'AuthorizationPermissionMismatch'],
  [404, 'ContainerNotFound'],
  [404, 'BlobNotFound'],
  [409, 'BlobAlreadyExists'],
  [412, 'ConditionNotMet'],
  [429, 'TooManyRequests'],
  [500, 'InternalError'],
  [503, 'ServerBusy'],
])('answers %i %s with header and body, and the store hears nothing', async (status, code) => {
  const rule = proxy.on({ operation: 'PutBlob' }, { kind: 'status', status, code, retryAfterSeconds: 7 });
  const error = await failure(upload('a', CONTENT));
  expect(error).toMatchObject({ statusCode: status, code });
  expect(error.response?.headers.get('retry-after')).toBe('7');
  expect([rule.hits, proxy.requests[0]?.isForwarded, await isStored('a')]).toEqual([1, false, false]);
  proxy.on({ operation: 'HeadBlob' }, { kind: 'status', status, code });
  const head = await failure(client.getBlobClient('a').getProperties());
  expect(head).toMatchObject({ statusCode: status, details: { errorCode: code } });
  // The connection is still good.
  rule.remove();
  await upload('a');
});

test('a rule takes its n-th request, or so many times, and leaves the others to the rules behind it', async () => {
  proxy.on({ operation: 'PutBlob', nth: 2 }, { kind: 'status', status: 503 });
  proxy.on({ operation: 'PutBlob', name: /^b/ }, { kind: 'status', status: 500 }, { times: 1 });
  proxy.on(
    ({ operation }) => operation === 'PutBlob',
    ({ name }) => (name === 'c' ? { kind: 'status', status: 429 } : undefined),
  );
  const outcomes = [];
  for (const name of ['a', 'b1', 'b2', 'b3', 'c']) {
    outcomes.push(
      await upload(name).then(
        () => 'ok',
        (error: unknown) => (error as RestError).statusCode,
      ),
    );
  }
  expect(outcomes).toEqual(['ok', 503, 500, 'ok', 429]);
  expect(proxy.rules.map(({ seen, hits }) => [seen, hits])).toEqual([
    [5, 1],
    [3, 1],
    [5, 1],
  ]);
});

test('reset before: the store never heard of it', async () => {
  proxy.on({ operation: 'PutBlob' }, { kind: 'reset', when: 'before' });
  expect((await failure(upload('a'))).code).toBe('ECONNRESET');
  expect(await isStored('a')).toBe(false);
});

test('reset after: the store did the work, the client sees the same', async () => {
  const blob = client.getBlockBlobClient('a');
  await blob.stageBlock(btoa('1'), 'one', 3);
  proxy.on({ operation: 'PutBlockList' }, { kind: 'reset', when: 'after' });
  expect((await failure(blob.commitBlockList([btoa('1')]))).code).toBe('ECONNRESET');
  expect(await isStored('a')).toBe(true);
  expect(proxy.requests.at(-1)).toMatchObject({ storeStatus: 201, status: undefined });
});

test('an error after the work was done', async () => {
  proxy.on({ operation: 'PutBlob' }, { kind: 'status', status: 500, when: 'after' });
  expect((await failure(upload('a'))).statusCode).toBe(500);
  expect(await isStored('a')).toBe(true);
});

test('late: the client sees a reset, the store gets the request afterwards', async () => {
  proxy.on({ operation: 'PutBlob' }, { kind: 'late', ms: 150 });
  expect((await failure(upload('a', CONTENT))).code).toBe('ECONNRESET');
  expect(await isStored('a')).toBe(false);
  await proxy.idle();
  expect((await store.getBlobClient('a').downloadToBuffer()).equals(CONTENT)).toBe(true);
});

test('delay', async () => {
  proxy.on({ operation: 'PutBlob' }, { kind: 'delay', ms: 120 });
  const before = performance.now();
  await upload('a');
  expect(performance.now() - before).toBeGreaterThanOrEqual(115);
});

test('hang: nothing comes until the client gives up; before or after the work', async () => {
  proxy.on({ name: 'a' }, { kind: 'hang' });
  proxy.on({ name: 'b' }, { kind: 'hang', when: 'after' });
  for (const name of ['a', 'b']) {
    const abortSignal = AbortSignal.timeout(150);
    const put = client.getBlockBlobClient(name).upload('x', 1, { abortSignal });
    expect((await failure(put)).name).toBe('AbortError');
  }
  expect([await isStored('a'), await isStored('b')]).toEqual([false, true]);
});

test.each([0, 1000])(
  'truncate: %i bytes of the body arrive, then the connection closes',
  async (afterBytes) => {
    await store.getBlockBlobClient('a').upload(CONTENT, CONTENT.length);
    proxy.on({ operation: 'GetBlob' }, { kind: 'truncate', afterBytes });
    const { received, promised, error } = await readRaw('a');
    expect([received, promised]).toEqual([afterBytes, CONTENT.length]);
    expect(error).toBeDefined();
    await failure(download('a'));
  },
);

test('stall: some bytes arrive, the connection stays open', async () => {
  await store.getBlockBlobClient('a').upload(CONTENT, CONTENT.length);
  proxy.on({ operation: 'GetBlob' }, { kind: 'stall', afterBytes: 5000 });
  const { received, error } = await readRaw('a', AbortSignal.timeout(200));
  expect(received).toBe(5000);
  expect(error?.name).toBe('AbortError');
});

test('corrupt: exactly one byte differs', async () => {
  await store.getBlockBlobClient('a').upload(CONTENT, CONTENT.length);
  proxy.on({ operation: 'GetBlob' }, { kind: 'corrupt' }, { times: 1 });
  proxy.on({ operation: 'GetBlob' }, { kind: 'corrupt', offset: 3 });
  const differences = (body: Buffer) => [...body.keys()].filter((i) => body[i] !== CONTENT[i]);
  expect(differences(await download('a'))).toEqual([150_000]);
  expect(differences(await download('a'))).toEqual([3]);
});

/** The body as the SDK streams it, without its own retries. */
async function readRaw(name: string, abortSignal?: AbortSignal) {
  const answer = await client
    .getBlobClient(name)
    .download(0, undefined, { maxRetryRequests: 0, ...(abortSignal ? { abortSignal } : {}) });
  let received = 0;
  let error: Error | undefined;
  try {
    for await (const chunk of answer.readableStreamBody ?? []) received += chunk.length;
  } catch (thrown) {
    error = thrown as Error;
  }
  return { received, promised: answer.contentLength, error };
}

describe('listings', () => {
  const names = ['a&b', 'b', 'c d', 'd', 'ü'];
  beforeEach(async () => {
    for (const name of names) {
      await store.getBlockBlobClient(name).upload('x', 1, { metadata: { epoch: '1' } });
    }
  });
  const pages = async (fault: Omit<ListFault, 'kind'>) => {
    proxy.on({ operation: 'ListBlobs' }, { kind: 'list', ...fault });
    const found: string[][] = [];
    for await (const page of client.listBlobsFlat({ includeMetadata: true }).byPage()) {
      found.push(page.segment.blobItems.map(({ name }) => name));
      expect(page.segment.blobItems.every(({ metadata }) => metadata?.['epoch'] === '1')).toBe(true);
    }
    return found;
  };

  test('come in pages of the size wanted', async () => {
    expect(await pages({ pageSize: 2 })).toEqual([['a&b', 'b'], ['c d', 'd'], ['ü']]);
  });

  test('repeat the page before', async () => {
    const [a, b, c] = [['a&b', 'b'], ['c d', 'd'], ['ü']] as const;
    expect(await pages({ pageSize: 2, duplicatePages: true })).toEqual([a, [...a, ...b], [...b, ...c]]);
  });

  test('come in another order, or with entries missing', async () => {
    expect(await pages({ reversePages: true })).toEqual([names.toReversed()]);
    proxy.clear();
    expect(await pages({ entries: (entries) => entries.slice(1) })).toEqual([names.slice(1)]);
  });

  test('have empty pages in between', async () => {
    const found = await pages({ pageSize: 3, emptyPages: true });
    expect(found).toEqual([[], ['a&b', 'b', 'c d'], [], ['d', 'ü']]);
  });

  test('of a missing container are still refused', async () => {
    await store.delete();
    expect(await failure(pages({ emptyPages: true }))).toMatchObject({ code: 'ContainerNotFound' });
  });
});

test('a hook kills a process exactly at its k-th request, before or after the store did the work', async () => {
  const program = `
    import { BlobServiceClient } from '@azure/storage-blob';
    const container = BlobServiceClient.fromConnectionString(process.env.STORE).getContainerClient(process.env.NAME);
    for (let i = 1; ; i++) await container.getBlockBlobClient(process.env.PREFIX + i).upload('x', 1);`;
  for (const when of ['before', 'after'] as const) {
    const child = startProcess({
      args: ['--input-type=module', '-e', program],
      env: { STORE: proxy.connectionString, NAME: client.containerName, PREFIX: when },
    });
    proxy.on(
      { name: new RegExp(`^${when}`), nth: 3 },
      { kind: 'hook', when, run: () => child.kill().then(() => 'drop') },
    );
    expect(await child.exit).toEqual({ code: null, signal: 'SIGKILL' });
  }
  const stored = [];
  for await (const { name } of store.listBlobsFlat()) stored.push(name);
  expect(stored).toEqual(['after1', 'after2', 'after3', 'before1', 'before2']);
});

test('an outage refuses connections, and ends', async () => {
  await upload('a');
  await proxy.refuseConnections();
  const codes: (string | undefined)[] = [];
  // The connections that were open break, and the client has a few of them; a new one is refused.
  while (codes.at(-1) !== 'ECONNREFUSED' && codes.length < 5) codes.push((await failure(upload('b'))).code);
  expect(codes.at(-1)).toBe('ECONNREFUSED');
  await proxy.acceptConnections();
  await upload('b');
});

test('a test can wait for a request', async () => {
  const [request] = await Promise.all([proxy.nextRequest({ operation: 'PutBlob' }), upload('a')]);
  expect(request.name).toBe('a');
  await expect(proxy.nextRequest({ name: 'never' }, 20)).rejects.toThrow('no such request within 20 ms');
});
