import { createHash } from 'node:crypto';
import type { TokenCredential } from '@azure/identity';
import {
  BlobServiceClient,
  RestError,
  StorageSharedKeyCredential,
  type ContainerClient,
  type ContainerListBlobFlatSegmentResponse,
  type Metadata,
} from '@azure/storage-blob';
import type { StoreCredential } from '../config.ts';
import { AgentError, type ErrorCode } from '../errors.ts';
import type { BlobItem, BlobPage, BlobStore, FoundBlob, WriteCondition } from '../ports.ts';

/** One request: a block of 4 MiB in this time is 70 KB/s; slower is a stalled connection. */
const REQUEST_TIMEOUT_MS = 60_000;
const MAX_PAGE = 5_000;

function serviceClient(credential: StoreCredential): BlobServiceClient {
  // Retries are ours (retry.ts): one policy, logged, with Retry-After, and none of the SDK's hidden below it.
  const options = { retryOptions: { maxTries: 1 } };
  switch (credential.kind) {
    case 'connectionString':
      return BlobServiceClient.fromConnectionString(credential.connectionString.reveal(), options);
    case 'sharedKey':
      return new BlobServiceClient(
        urlOf(credential.account),
        new StorageSharedKeyCredential(credential.account, credential.key.reveal()),
        options,
      );
    case 'managedIdentity':
      return new BlobServiceClient(
        urlOf(credential.account),
        lazily(async () => {
          const { ManagedIdentityCredential } = await import('@azure/identity');
          return new ManagedIdentityCredential({ clientId: credential.clientId });
        }),
        options,
      );
    case 'azureCli':
      return new BlobServiceClient(
        urlOf(credential.account),
        lazily(async () => new (await import('@azure/identity')).AzureCliCredential()),
        options,
      );
  }
}

/** Loaded at the first token: the library is most of the agent's start-up time, and a cold start waits for the agent. */
function lazily(load: () => Promise<TokenCredential>): TokenCredential {
  let loaded: Promise<TokenCredential> | undefined;
  return {
    getToken: async (scopes, options) => (await (loaded ??= load())).getToken(scopes, options),
  };
}

const urlOf = (account: string) => `https://${account}.blob.core.windows.net`;

/** On HEAD requests there is no body: the code is only in the header, which the SDK puts in `details`. */
function serviceCodeOf(error: RestError): string | undefined {
  return error.code ?? (error.details as { errorCode?: string } | undefined)?.errorCode;
}

function retryAfterMsOf(error: RestError): number | undefined {
  const value = error.response?.headers.get('retry-after');
  if (value === undefined) return undefined;
  const seconds = Number(value);
  return Number.isFinite(seconds) ? seconds * 1000 : Math.max(0, Date.parse(value) - Date.now()) || undefined;
}

const HINTS: Partial<Record<ErrorCode, string>> = {
  store_denied:
    'the identity needs "Storage Blob Data Contributor" on the container; a new role assignment takes minutes',
  store_container_missing: 'the container is made by `pulumi up`; check the account and BLOB_CONTAINER',
};

function classify(error: RestError): { code: ErrorCode; retryable: boolean } {
  const service = serviceCodeOf(error);
  const status = error.statusCode;
  if (
    service === 'ContainerNotFound' ||
    service === 'ContainerBeingDeleted' ||
    service === 'ContainerDisabled'
  ) {
    return { code: 'store_container_missing', retryable: false };
  }
  // A role assignment of the same deployment may not have spread yet: worth the retries, but it stays "denied".
  if (status === 401 || status === 403) return { code: 'store_denied', retryable: status === 403 };
  if (status === 409 || status === 412) return { code: 'store_conflict', retryable: false };
  if (status === 408 || status === 429 || (status !== undefined && status >= 500))
    return { code: 'store_unreachable', retryable: true };
  // A block that changed on the way: sent again it may arrive whole.
  if (service === 'Md5Mismatch') return { code: 'store_unreachable', retryable: true };
  if (status === undefined) return { code: 'store_unreachable', retryable: true };
  return { code: 'store_rejected', retryable: false };
}

/** `BlobStore` on Azure Blob Storage, or its emulator. Knows nothing of backups. */
export class AzureBlobStore implements BlobStore {
  readonly #container: ContainerClient;
  readonly #requestTimeoutMs: number;

  /** @param options.requestTimeoutMs For one request, its body included; shorter only where a test waits for it. */
  constructor(
    credential: StoreCredential,
    containerName: string,
    options: { requestTimeoutMs?: number } = {},
  ) {
    this.#container = serviceClient(credential).getContainerClient(containerName);
    this.#requestTimeoutMs = options.requestTimeoutMs ?? REQUEST_TIMEOUT_MS;
  }

  describe(): string {
    const url = new URL(this.#container.url);
    return `${url.host}${url.pathname}`;
  }

  async listPage(prefix: string, continuation: string | undefined, signal?: AbortSignal): Promise<BlobPage> {
    return this.#ask(`list ${this.describe()}`, signal, async (abortSignal) => {
      const pages = this.#container.listBlobsFlat({ prefix, includeMetadata: true, abortSignal }).byPage({
        maxPageSize: MAX_PAGE,
        ...(continuation === undefined ? {} : { continuationToken: continuation }),
      });
      const page = (await pages.next()).value as ContainerListBlobFlatSegmentResponse | undefined;
      if (page === undefined) return { items: [], continuation: undefined };
      const items = page.segment.blobItems.map((blob) => ({
        name: blob.name,
        sizeBytes: blob.properties.contentLength ?? 0,
        etag: quoted(blob.properties.etag),
        lastModified: blob.properties.lastModified,
        metadata: lowerKeys(blob.metadata),
      }));
      return { items, continuation: page.continuationToken === '' ? undefined : page.continuationToken };
    });
  }

  async head(name: string, signal?: AbortSignal): Promise<BlobItem | undefined> {
    return this.#unlessAbsent(() =>
      this.#ask(`head ${name}`, signal, async (abortSignal) => {
        const found = await this.#container.getBlobClient(name).getProperties({ abortSignal });
        return {
          name,
          sizeBytes: found.contentLength ?? 0,
          etag: quoted(found.etag ?? ''),
          lastModified: found.lastModified ?? new Date(0),
          metadata: lowerKeys(found.metadata),
        };
      }),
    );
  }

  async readRange(
    name: string,
    range: { offset: number; count: number; ifMatch?: string },
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    return this.#ask(`read ${name}`, signal, async (abortSignal) => {
      const conditions = range.ifMatch === undefined ? {} : { conditions: { ifMatch: range.ifMatch } };
      const answer = await this.#container
        .getBlobClient(name)
        .download(range.offset, range.count, { abortSignal, maxRetryRequests: 0, ...conditions });
      return readBody(answer.readableStreamBody, answer.contentLength ?? range.count);
    });
  }

  async find(name: string, signal?: AbortSignal): Promise<FoundBlob | undefined> {
    return this.#unlessAbsent(() =>
      this.#ask(`read ${name}`, signal, async (abortSignal) => {
        const answer = await this.#container
          .getBlobClient(name)
          .download(0, undefined, { abortSignal, maxRetryRequests: 0 });
        return {
          bytes: await readBody(answer.readableStreamBody, answer.contentLength ?? 0),
          etag: quoted(answer.etag ?? ''),
          ageMs: ageMsOf(answer.date, answer.lastModified),
        };
      }),
    );
  }

  async put(
    name: string,
    bytes: Uint8Array,
    condition: WriteCondition,
    signal?: AbortSignal,
  ): Promise<string> {
    return this.#ask(`write ${name}`, signal, async (abortSignal) => {
      const answer = await this.#container
        .getBlockBlobClient(name)
        .upload(Buffer.from(bytes), bytes.byteLength, {
          abortSignal,
          conditions: conditionsOf(condition),
          blobHTTPHeaders: { blobContentType: 'application/json', blobContentMD5: md5(bytes) },
        });
      return quoted(answer.etag ?? '');
    });
  }

  async stageBlock(name: string, blockId: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#ask(`stage a block of ${name}`, signal, (abortSignal) =>
      this.#container
        .getBlockBlobClient(name)
        .stageBlock(
          blockId,
          Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
          bytes.byteLength,
          {
            abortSignal,
            transactionalContentMD5: md5(bytes),
          },
        ),
    );
  }

  async commitNew(
    name: string,
    blockIds: readonly string[],
    metadata: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#ask(`commit ${name}`, signal, (abortSignal) =>
      this.#container.getBlockBlobClient(name).commitBlockList([...blockIds], {
        abortSignal,
        conditions: { ifNoneMatch: '*' },
        metadata: { ...metadata },
        blobHTTPHeaders: { blobContentType: contentTypeOf(name) },
      }),
    );
  }

  async setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    condition: WriteCondition,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.#ask(`set the metadata of ${name}`, signal, (abortSignal) =>
      this.#container
        .getBlobClient(name)
        .setMetadata({ ...metadata }, { abortSignal, conditions: conditionsOf(condition) }),
    );
  }

  async remove(name: string, ifMatch: string, signal?: AbortSignal): Promise<void> {
    await this.#unlessAbsent(() =>
      this.#ask(`delete ${name}`, signal, (abortSignal) =>
        this.#container
          .getBlobClient(name)
          .delete({ abortSignal, deleteSnapshots: 'include', conditions: { ifMatch } }),
      ),
    );
  }

  async #ask<T>(
    what: string,
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    const timeout = AbortSignal.timeout(this.#requestTimeoutMs);
    try {
      return await work(signal === undefined ? timeout : AbortSignal.any([signal, timeout]));
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#translate(what, error, timeout.aborted);
    }
  }

  #translate(what: string, error: unknown, hasTimedOut: boolean): unknown {
    if (error instanceof AgentError) return error;
    if (error instanceof RestError && error.statusCode !== undefined) {
      const { code, retryable } = classify(error);
      const service = serviceCodeOf(error) ?? 'no error code';
      const retryAfterMs = retryAfterMsOf(error);
      const hint = HINTS[code];
      return new AgentError(code, `${what} failed: ${String(error.statusCode)} ${service}`, {
        cause: notFoundCause(error),
        retryable,
        ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
        ...(hint === undefined ? {} : { hint }),
      });
    }
    const name = error instanceof Error ? error.name : '';
    if (
      name === 'CredentialUnavailableError' ||
      name === 'AuthenticationError' ||
      name === 'AuthenticationRequiredError'
    ) {
      return new AgentError('store_denied', `${what} failed: no token for the identity`, {
        cause: error,
        retryable: true,
      });
    }
    const reason = hasTimedOut
      ? `no answer in ${String(this.#requestTimeoutMs / 1000)} s`
      : (error as Error).message;
    return new AgentError('store_unreachable', `${what} failed: ${reason}`, {
      cause: error,
      retryable: true,
    });
  }

  /** Only `BlobNotFound` is "absent": a missing container, a wrong account or a proxy's 404 are not. */
  async #unlessAbsent<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (error instanceof AgentError && error.cause instanceof BlobAbsent) return undefined;
      throw error;
    }
  }
}

class BlobAbsent extends Error {
  override readonly name = 'BlobAbsent';
}

function notFoundCause(error: RestError): Error {
  if (error.statusCode === 404 && serviceCodeOf(error) === 'BlobNotFound')
    return new BlobAbsent('no such blob');
  // The SDK's own error would print request headers into a log.
  return new Error(error.message.split('\n')[0] ?? '');
}

async function readBody(body: NodeJS.ReadableStream | undefined, wantedBytes: number): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafeSlow(wantedBytes);
  let haveBytes = 0;
  for await (const chunk of body ?? []) {
    // What does not fit is only counted.
    (chunk as Buffer).copy(bytes, haveBytes);
    haveBytes += (chunk as Buffer).byteLength;
  }
  // A connection that ends early is an answer cut short, not a shorter blob.
  if (haveBytes !== wantedBytes)
    throw new Error(`the body ended after ${String(haveBytes)} of ${String(wantedBytes)} bytes`);
  return bytes;
}

/** A service that does not say counts as just now: whoever asks then takes a writer for alive, and waits a bounded time. */
function ageMsOf(date: Date | undefined, lastModified: Date | undefined): number {
  const ageMs = (date?.getTime() ?? 0) - (lastModified?.getTime() ?? 0);
  return date === undefined || lastModified === undefined ? 0 : Math.max(0, ageMs);
}

/** For browsers and storage explorers; nothing here reads it. */
const contentTypeOf = (name: string) => (name.endsWith('.zip') ? 'application/zip' : 'application/zstd');

const md5 = (bytes: Uint8Array) => createHash('md5').update(bytes).digest();

function conditionsOf(condition: WriteCondition) {
  if (condition.ifMatch !== undefined) return { ifMatch: condition.ifMatch };
  return condition.ifAbsent === true ? { ifNoneMatch: '*' } : {};
}

/** Listings give etags without quotes, headers with them; conditions need them with. */
const quoted = (etag: string) =>
  etag === '' || etag.startsWith('"') || etag.startsWith('W/') ? etag : `"${etag}"`;

function lowerKeys(metadata: Metadata | undefined): Record<string, string> {
  return Object.fromEntries(Object.entries(metadata ?? {}).map(([key, value]) => [key.toLowerCase(), value]));
}
