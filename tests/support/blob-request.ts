import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

export type BlobOperation =
  | 'ListContainers'
  | 'CreateContainer'
  | 'GetContainer'
  | 'DeleteContainer'
  | 'LeaseContainer'
  | 'ListBlobs'
  | 'GetBlob'
  | 'HeadBlob'
  | 'PutBlob'
  | 'CopyBlob'
  | 'PutBlock'
  | 'PutBlockList'
  | 'GetBlockList'
  | 'SetMetadata'
  | 'SetProperties'
  | 'SetTier'
  | 'SetTags'
  | 'GetTags'
  | 'SnapshotBlob'
  | 'UndeleteBlob'
  | 'LeaseBlob'
  | 'DeleteBlob'
  | 'Other';

/** One request as the proxy saw it; the mutable fields are filled in while it is served. */
export interface BlobRequest {
  /** From 1, in the order of arrival. */
  readonly index: number;
  readonly method: string;
  /** Decoded, without the account and the query: `/container/blob`. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<IncomingHttpHeaders>;
  readonly operation: BlobOperation;
  readonly container: string | undefined;
  /** The blob's name. */
  readonly name: string | undefined;
  /** `bytes=0-99`, from either of the two headers that can carry it. */
  readonly range: string | undefined;
  readonly atMs: number;
  /** The kinds of fault that its rule chose. */
  faults: readonly string[];
  /** Whether it left for the store. */
  isForwarded: boolean;
  /** What the store answered; `undefined` while it has not. */
  storeStatus: number | undefined;
  /** What the client was told; `undefined` if nothing (hang, reset). */
  status: number | undefined;
}

export function describeRequest(incoming: IncomingMessage, index: number): BlobRequest {
  const url = new URL(incoming.url ?? '/', 'http://127.0.0.1');
  // The emulator's addresses carry the account as the first segment.
  const [, , container, ...rest] = url.pathname.split('/').map(decodeURIComponent);
  const name = rest.length > 0 && rest[0] !== '' ? rest.join('/') : undefined;
  const query = Object.fromEntries(url.searchParams);
  const range = incoming.headers['x-ms-range'] ?? incoming.headers.range;
  return {
    index,
    method: incoming.method ?? 'GET',
    path: `/${[container, name].filter((part) => part !== undefined).join('/')}`,
    query,
    headers: incoming.headers,
    operation: operationOf(incoming, container, name, query),
    container: container === '' ? undefined : container,
    name,
    range: Array.isArray(range) ? range[0] : range,
    atMs: Date.now(),
    faults: [],
    isForwarded: false,
    storeStatus: undefined,
    status: undefined,
  };
}

const CONTAINER_OPERATIONS: Readonly<Record<string, BlobOperation>> = {
  'GET list': 'ListBlobs',
  'PUT ': 'CreateContainer',
  'GET ': 'GetContainer',
  'HEAD ': 'GetContainer',
  'DELETE ': 'DeleteContainer',
  'PUT lease': 'LeaseContainer',
};

const BLOB_OPERATIONS: Readonly<Record<string, BlobOperation>> = {
  'GET ': 'GetBlob',
  'HEAD ': 'HeadBlob',
  'PUT ': 'PutBlob',
  'DELETE ': 'DeleteBlob',
  'PUT block': 'PutBlock',
  'PUT blocklist': 'PutBlockList',
  'GET blocklist': 'GetBlockList',
  'PUT metadata': 'SetMetadata',
  'PUT properties': 'SetProperties',
  'PUT tier': 'SetTier',
  'PUT tags': 'SetTags',
  'GET tags': 'GetTags',
  'PUT snapshot': 'SnapshotBlob',
  'PUT undelete': 'UndeleteBlob',
  'PUT lease': 'LeaseBlob',
};

function operationOf(
  incoming: IncomingMessage,
  container: string | undefined,
  name: string | undefined,
  query: Readonly<Record<string, string>>,
): BlobOperation {
  const key = `${incoming.method} ${query['comp'] ?? ''}`;
  if (container === undefined || container === '') return key === 'GET list' ? 'ListContainers' : 'Other';
  if (query['restype'] === 'container') return CONTAINER_OPERATIONS[key] ?? 'Other';
  if (name === undefined) return 'Other';
  // The same verb and address copy a blob when a source is named.
  if (key === 'PUT ' && incoming.headers['x-ms-copy-source'] !== undefined) return 'CopyBlob';
  return BLOB_OPERATIONS[key] ?? 'Other';
}
