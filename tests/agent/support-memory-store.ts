import { AgentError } from '../../agent/errors.ts';
import type { BlobItem, BlobPage, BlobStore, FoundBlob, WriteCondition } from '../../agent/ports.ts';

export interface MemoryBlob {
  bytes: Uint8Array;
  metadata: Readonly<Record<string, string>>;
}

interface StoredBlob extends MemoryBlob {
  etag: string;
  lastModified: Date;
}

/** A container in memory with the conditions of the service: for tests that need a thousand stores, or a copy of one. */
export class MemoryBlobStore implements BlobStore {
  readonly #blobs = new Map<string, StoredBlob>();
  readonly #staged = new Map<string, Map<string, Uint8Array>>();
  readonly #now: () => Date;
  #writes = 0;

  /** @param now The service's clock, for `Last-Modified`. */
  constructor(content: Iterable<readonly [string, MemoryBlob]> = [], now = () => new Date()) {
    this.#now = now;
    for (const [name, blob] of content) this.#write(name, blob);
  }

  /** What a reader sees now; uncommitted blocks are not part of it. */
  get content(): [string, MemoryBlob][] {
    return [...this.#blobs].map(([name, { bytes, metadata }]) => [name, { bytes, metadata }]);
  }

  get names(): string[] {
    return [...this.#blobs.keys()].sort();
  }

  describe(): string {
    return 'memory/container';
  }

  listPage(prefix: string): Promise<BlobPage> {
    const names = this.names.filter((name) => name.startsWith(prefix));
    return answer(() => ({ items: names.map((name) => this.#item(name)), continuation: undefined }));
  }

  head(name: string): Promise<BlobItem | undefined> {
    return answer(() => (this.#blobs.has(name) ? this.#item(name) : undefined));
  }

  readRange(name: string, range: { offset: number; count: number; ifMatch?: string }): Promise<Uint8Array> {
    return answer(() => {
      const blob = this.#require(name, range.ifMatch);
      return blob.bytes.subarray(range.offset, range.offset + range.count);
    });
  }

  find(name: string): Promise<FoundBlob | undefined> {
    return answer(() => {
      const blob = this.#blobs.get(name);
      return blob && { ...blob, ageMs: Date.now() - blob.lastModified.getTime() };
    });
  }

  put(name: string, bytes: Uint8Array, condition: WriteCondition): Promise<string> {
    return answer(() => {
      this.#check(name, condition);
      return this.#write(name, { bytes, metadata: {} });
    });
  }

  stageBlock(name: string, blockId: string, bytes: Uint8Array): Promise<void> {
    return answer(() => {
      const blocks = this.#staged.get(name) ?? new Map<string, Uint8Array>();
      // The caller uses its bytes again.
      this.#staged.set(name, blocks.set(blockId, bytes.slice()));
    });
  }

  commitNew(
    name: string,
    blockIds: readonly string[],
    metadata: Readonly<Record<string, string>>,
  ): Promise<void> {
    return answer(() => {
      this.#check(name, { ifAbsent: true });
      const blocks = blockIds.map((id) => this.#staged.get(name)?.get(id));
      if (blocks.includes(undefined))
        throw new AgentError('store_rejected', `commit ${name} failed: 400 InvalidBlockList`);
      this.#staged.delete(name);
      this.#write(name, { bytes: Buffer.concat(blocks as Uint8Array[]), metadata });
    });
  }

  setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    condition: WriteCondition,
  ): Promise<void> {
    return answer(() => {
      const { bytes } = this.#require(name, condition.ifMatch);
      this.#write(name, { bytes, metadata });
    });
  }

  remove(name: string, ifMatch: string): Promise<void> {
    return answer(() => {
      if (!this.#blobs.has(name)) return;
      this.#check(name, { ifMatch });
      this.#blobs.delete(name);
    });
  }

  #item(name: string): BlobItem {
    const { bytes, metadata, etag, lastModified } = this.#require(name);
    return { name, sizeBytes: bytes.byteLength, etag, lastModified, metadata };
  }

  #require(name: string, ifMatch?: string): StoredBlob {
    const blob = this.#blobs.get(name);
    if (blob === undefined) throw new AgentError('store_rejected', `read ${name} failed: 404 BlobNotFound`);
    if (ifMatch !== undefined) this.#check(name, { ifMatch });
    return blob;
  }

  #check(name: string, { ifAbsent, ifMatch }: WriteCondition): void {
    const etag = this.#blobs.get(name)?.etag;
    if ((ifAbsent === true && etag !== undefined) || (ifMatch !== undefined && etag !== ifMatch))
      throw new AgentError('store_conflict', `write ${name} failed: 412 ConditionNotMet`);
  }

  #write(name: string, { bytes, metadata }: MemoryBlob): string {
    const etag = `"${String((this.#writes += 1))}"`;
    this.#blobs.set(name, { bytes: Buffer.from(bytes), metadata, etag, lastModified: this.#now() });
    return etag;
  }
}

/** As over a network: never at once, and a refusal is a rejection. */
async function answer<T>(work: () => T): Promise<T> {
  await Promise.resolve();
  return work();
}
