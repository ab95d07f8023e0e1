import { buffer } from 'node:stream/consumers';
import { pack } from 'tar-stream';

/** Archives that nobody should restore, made of good ones or from nothing. All work on whole Buffers. */

/** The first `length` bytes; a negative length counts from the end. */
export function truncate(bytes: Buffer, length: number): Buffer {
  return Buffer.from(bytes.subarray(0, length));
}

/** A copy with one byte inverted; a negative offset counts from the end. */
export function flipByte(bytes: Buffer, offset: number): Buffer {
  const copy = Buffer.from(bytes);
  const at = offset < 0 ? bytes.length + offset : offset;
  const value = copy[at];
  if (value === undefined) throw new RangeError(`no byte ${offset} in ${bytes.length}`);
  copy[at] = value ^ 0xff;
  return copy;
}

export interface TarEntry {
  /** Written down as it is: `../x` and `/etc/x` too. */
  name: string;
  /** @default file */
  type?: 'file' | 'directory' | 'symlink' | 'link' | 'character-device' | 'block-device' | 'fifo';
  content?: Buffer | string;
  /** Target of a symlink or of a hard link. */
  linkname?: string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: Date;
}

/** An uncompressed tar with exactly these entries, however evil, in this order; names may repeat. */
export async function tarOf(entries: readonly TarEntry[]): Promise<Buffer> {
  const packer = pack();
  const collected = buffer(packer);
  for (const { content, ...entry } of entries) {
    const isDevice = entry.type?.endsWith('-device') ?? false;
    packer.entry(
      { type: 'file', mtime: new Date(0), ...entry, ...(isDevice ? { devmajor: 1, devminor: 3 } : {}) },
      Buffer.from(content ?? ''),
    );
  }
  packer.finalize();
  return collected;
}

const BLOCK = 512;

/**
 * The tar cut off right behind its first `count` entries, without the two zero blocks of a proper end. An extractor
 * reads such a file without complaint: only a manifest tells that entries are missing.
 */
export function cutAfterEntries(tar: Buffer, count: number): Buffer {
  let offset = 0;
  let seen = 0;
  while (seen < count) {
    const header = tar.subarray(offset, offset + BLOCK);
    if (header.length < BLOCK || header[0] === 0) throw new RangeError(`the tar has only ${seen} entries`);
    const size = parseInt(header.toString('latin1', 124, 136), 8) || 0;
    offset += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    // Extended headers belong to the entry behind them.
    if (!'xgLK'.includes(String.fromCharCode(header[156] ?? 0))) seen += 1;
  }
  return truncate(tar, offset);
}
