import { crc32 } from 'node:zlib';
import { openPromise, type Entry, type ZipFile } from 'yauzl';
import { AgentError, messageOf } from '../errors.ts';
import type { ExaminedZip, ZipReader } from '../ports.ts';

/** What is asked for by name is read into memory: manifests and lists of users, never media. */
const MAX_KEPT_BYTES = 64 * 1024 * 1024;

/** `ZipReader` with yauzl, which reads the central directory first: a file that is still being written has none. */
export class YauzlZip implements ZipReader {
  async examine(file: string, keep: readonly string[], signal?: AbortSignal): Promise<ExaminedZip> {
    const damaged = (cause: unknown) =>
      new AgentError('backup_damaged', `${file} is not a whole zip archive: ${messageOf(cause)}`, { cause });
    let zip: ZipFile | undefined;
    try {
      zip = await openPromise(file, { autoClose: false });
      const paths: string[] = [];
      const kept = new Map<string, Uint8Array>();
      for await (const entry of zip.eachEntry()) {
        paths.push(entry.fileName);
        if (entry.fileName.endsWith('/')) continue;
        const content = await this.#read(zip, entry, keep.includes(entry.fileName), signal);
        if (content !== undefined) kept.set(entry.fileName, content);
      }
      return { paths, kept };
    } catch (error) {
      // Being told to stop says nothing about the archive; nor does a disk that cannot be read.
      signal?.throwIfAborted();
      if (typeof (error as NodeJS.ErrnoException).syscall === 'string') throw error;
      throw damaged(error);
    } finally {
      zip?.close();
    }
  }

  async #read(
    zip: ZipFile,
    entry: Entry,
    isKept: boolean,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array | undefined> {
    if (isKept && entry.uncompressedSize > MAX_KEPT_BYTES)
      throw new Error(`${entry.fileName} has ${String(entry.uncompressedSize)} bytes`);
    const chunks: Uint8Array[] = [];
    let crc = 0;
    const stream = await zip.openReadStreamPromise(entry);
    try {
      for await (const chunk of stream) {
        signal?.throwIfAborted();
        // yauzl checks sizes, not checksums.
        crc = crc32(chunk as Buffer, crc);
        if (isKept) chunks.push(chunk as Buffer);
      }
    } finally {
      stream.destroy();
    }
    if (crc !== entry.crc32) throw new Error(`the checksum of ${entry.fileName} is wrong`);
    return isKept ? Buffer.concat(chunks) : undefined;
  }
}
