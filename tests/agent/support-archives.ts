import { createHash } from 'node:crypto';
import { zstdCompressSync } from 'node:zlib';
import { TarZstd } from '../../agent/adapters/tar-zstd.ts';
import { MANIFEST_NAME, serializeManifest, type Manifest } from '../../agent/manifest.ts';
import { cutAfterEntries, tarOf, type TarEntry } from '../support/archive-bytes.ts';
import type { MemoryBlob } from './support-memory-store.ts';

/** A backup taken apart: change what you like and put it together again. */
export interface Parts {
  manifest: Manifest;
  /** The tree's entries, in order. */
  entries: TarEntry[];
  metadata: Record<string, string>;
}

export async function takeApart({ bytes, metadata }: MemoryBlob): Promise<Parts> {
  const entries: TarEntry[] = [];
  let manifest: Manifest | undefined;
  const archive = async function* () {
    yield await Promise.resolve(bytes);
  };
  const manifestBytes = Number(metadata['manifestbytes']);
  await new TarZstd().unpack(archive(), { kind: 'zstd', manifestBytes }, async (entry, content) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of content) chunks.push(chunk);
    const whole = Buffer.concat(chunks);
    if (entry.path === MANIFEST_NAME) {
      manifest = JSON.parse(whole.toString()) as Manifest;
      return;
    }
    const { mode, uid, gid } = entry.attributes;
    entries.push({ name: entry.path, type: entry.type as 'file', content: whole, mode, uid, gid });
  });
  return { manifest: manifest as unknown as Manifest, entries, metadata: { ...metadata } };
}

/**
 * An archive in which everything agrees with everything but for what was changed: hashes, sizes, and the metadata of the
 * blob are those of the bytes, so that only the check in question can refuse it.
 * @param cutAfter The tree's frame ends behind so many entries, without tar's end mark.
 */
export async function putTogether(parts: Parts, options: { cutAfter?: number } = {}): Promise<MemoryBlob> {
  const head = await new TarZstd().packManifest(serializeManifest(parts.manifest));
  const tar = await tarOf(parts.entries);
  const tree = options.cutAfter === undefined ? tar : cutAfterEntries(tar, options.cutAfter);
  return asBlob(Buffer.concat([head, zstdCompressSync(tree)]), {
    ...parts.metadata,
    manifestbytes: String(head.byteLength),
  });
}

/** Bytes as a blob whose metadata says of them what is true. */
export function asBlob(bytes: Buffer, metadata: Readonly<Record<string, string>>): MemoryBlob {
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  return { bytes, metadata: { ...metadata, sha256, size: String(bytes.byteLength) } };
}

/** Replaces a file's content in tree and manifest alike. */
export function replaceFile(parts: Parts, path: string, content: Buffer): void {
  const entry = parts.entries.find(({ name }) => name === path);
  const stated = parts.manifest.entries.find((one) => one.path === path);
  if (entry === undefined || stated === undefined) throw new Error(`no ${path} in the archive`);
  entry.content = content;
  stated.sizeBytes = content.byteLength;
  stated.sha256 = createHash('sha256').update(content).digest('hex');
}

/** Adds a file to tree and manifest alike. */
export function addFile(parts: Parts, path: string, content: Buffer): void {
  parts.entries.push({ name: path, content: Buffer.of() });
  parts.manifest.entries.push({
    path,
    type: 'file',
    sizeBytes: 0,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtimeMs: 0,
    sha256: '',
  });
  replaceFile(parts, path, content);
}

export const contentOfEntry = (parts: Parts, path: string): Buffer =>
  Buffer.from(parts.entries.find(({ name }) => name === path)?.content ?? '');
