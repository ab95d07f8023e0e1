/** Pure: the build context of the agent's images as an archive that is the same on every machine. */
import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';

export interface ContextFile {
  /** Path inside the context; plain ASCII, at most 100 characters. */
  readonly name: string;
  readonly content: string;
}

/** A context on disk, and the name of what is in it. */
export interface ImageContext {
  /** SHA-256 of the archive, hex. */
  readonly hash: string;
  /** The tar.gz. */
  readonly archiveFile: string;
  /** The same files, unpacked, for a local builder. */
  readonly directory: string;
}

/** A stage of the Dockerfile and its build arguments. */
export interface ImageTarget {
  readonly name: 'agent' | 'jellyroller';
  readonly args: Readonly<Record<string, string>>;
}

/**
 * The tag of an image: a hash of the context (base digest and Dockerfile included), the stage and its arguments.
 * Sixteen hex digits: collisions are out of reach for anyone who does not build 2^32 images.
 */
export function imageTag(context: Pick<ImageContext, 'hash'>, target: ImageTarget): string {
  const args = Object.entries(target.args).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([context.hash, target.name, args]))
    .digest('hex')
    .slice(0, 16);
}

/**
 * A tar.gz of `files`: sorted, LF line ends, mtime 0, owner 0, mode 0644, so that neither umask nor clock nor checkout
 * shows. Written here rather than with a library: deflate output differs between builds of zlib, stored blocks do not.
 */
export function contextArchive(files: readonly ContextFile[]): { archive: Buffer; hash: string } {
  const sorted = files.toSorted((a, b) => (a.name < b.name ? -1 : 1));
  const entries = sorted.flatMap(({ name, content }) => tarEntry(name, Buffer.from(withLf(content), 'utf8')));
  const archive = gzipStored(Buffer.concat([...entries, Buffer.alloc(1024)]));
  return { archive, hash: createHash('sha256').update(archive).digest('hex') };
}

/** The content as it goes into the context: a checkout with CRLF gives the same image. */
export function withLf(content: string): string {
  return content.replaceAll('\r\n', '\n');
}

const BLOCK = 512;

// POSIX.1-1988 ustar: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html#tag_20_94_13_06
function tarEntry(name: string, content: Buffer): Buffer[] {
  if (!/^[\x21-\x7e]{1,100}$/.test(name) || name.startsWith('/') || name.split('/').includes('..')) {
    throw new Error(`add ${JSON.stringify(name)} to the image context failed: not a plain relative path`);
  }
  const header = Buffer.alloc(BLOCK);
  header.write(name, 0, 'ascii');
  header.write('0000644\0', 100, 'ascii');
  header.write('0000000\0', 108, 'ascii');
  header.write('0000000\0', 116, 'ascii');
  header.write(`${content.length.toString(8).padStart(11, '0')}\0`, 124, 'ascii');
  header.write('00000000000\0', 136, 'ascii');
  header.write(' '.repeat(8), 148, 'ascii');
  header.write('0', 156, 'ascii');
  header.write('ustar\x0000', 257, 'ascii');
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'ascii');
  return [header, content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)];
}

const STORED_MAX = 0xffff;

// RFC 1952 around RFC 1951 stored blocks: no compressor, so no version of one.
function gzipStored(data: Buffer): Buffer {
  const parts: Buffer[] = [Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255])];
  for (let offset = 0; offset < data.length; offset += STORED_MAX) {
    const chunk = data.subarray(offset, offset + STORED_MAX);
    const header = Buffer.alloc(5);
    header.writeUInt8(offset + STORED_MAX >= data.length ? 1 : 0, 0);
    header.writeUInt16LE(chunk.length, 1);
    header.writeUInt16LE(~chunk.length & 0xffff, 3);
    parts.push(header, chunk);
  }
  const trailer = Buffer.alloc(8);
  trailer.writeUInt32LE(crc32(data), 0);
  trailer.writeUInt32LE(data.length, 4);
  return Buffer.concat([...parts, trailer]);
}
