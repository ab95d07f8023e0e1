import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import {
  constants,
  createGunzip,
  createZstdCompress,
  createZstdDecompress,
  zstdCompressSync,
  zstdDecompressSync,
} from 'node:zlib';
import tar from 'tar-stream';
import { AgentError } from '../errors.ts';
import { MANIFEST_NAME } from '../manifest.ts';
import type { ArchiveEntry, Archiver, UnpackedEntry } from '../ports.ts';

type HeaderArgument = Parameters<tar.Pack['entry']>[0];

const LEVEL = 3;
/** Each chunk is one write to the disk on its own: with the default of 16 KiB those are most of the time of a restore. */
const DECODED_CHUNK_BYTES = 128 * 1024;
/** Two blocks of zeros (POSIX pax, "ustar Interchange Format"). */
const END_OF_ARCHIVE_BYTES = 1024;
/** A manifest of a million files; more than that is not one of ours and would only fill the memory. */
const MAX_MANIFEST_BYTES = 512 * 1024 * 1024;
const ZSTD_OPTIONS = {
  params: { [constants.ZSTD_c_compressionLevel]: LEVEL, [constants.ZSTD_c_checksumFlag]: 1 },
};

const damaged = (what: string, cause: unknown) =>
  cause instanceof AgentError ? cause : new AgentError('backup_damaged', what, { cause });

function headerOf(entry: ArchiveEntry): HeaderArgument {
  const { mode, uid, gid, mtimeMs } = entry.attributes;
  return {
    name: entry.path,
    type: entry.type,
    size: entry.sizeBytes,
    mode,
    uid,
    gid,
    mtime: new Date(mtimeMs),
  };
}

/** One entry without the end-of-archive mark: the first frame of an archive, in front of the frame with the tree. */
async function singleEntry(header: HeaderArgument, content: Uint8Array): Promise<Uint8Array> {
  const pack = tar.pack();
  pack.entry(header, Buffer.from(content));
  pack.finalize();
  const chunks: Uint8Array[] = [];
  for await (const chunk of pack) chunks.push(chunk as Uint8Array);
  const whole = Buffer.concat(chunks);
  return whole.subarray(0, whole.byteLength - END_OF_ARCHIVE_BYTES);
}

type TarWritable = ReturnType<tar.Pack['entry']> | tar.Extract;

/**
 * Writes with back pressure. By hand: tar-stream's streams are streamx's, and Node's `pipeline` sees a premature close in
 * their way of ending.
 */
async function pump(source: AsyncIterable<Uint8Array>, sink: TarWritable): Promise<void> {
  for await (const chunk of source) {
    if (sink.destroyed) return;
    if (sink.write(chunk)) continue;
    await new Promise<void>((resolve) => {
      const go = () => {
        sink.off('drain', go);
        sink.off('close', go);
        resolve();
      };
      sink.on('drain', go);
      sink.on('close', go);
    });
  }
  sink.end(undefined);
}

async function feed(
  pack: tar.Pack,
  entries: Iterable<ArchiveEntry>,
  open: (entry: ArchiveEntry) => AsyncIterable<Uint8Array>,
): Promise<void> {
  for (const entry of entries) {
    await new Promise<void>((resolve, reject) => {
      const sink = pack.entry(headerOf(entry), (error) => {
        if (error == null) resolve();
        else reject(error);
      });
      // A folder's entry ends by itself.
      if (entry.type === 'file') pump(open(entry), sink).catch(reject);
    });
  }
  pack.finalize();
}

async function* slice(source: AsyncIterator<Uint8Array>, state: { rest: Uint8Array }, bytes: number) {
  let left = bytes;
  while (left > 0) {
    if (state.rest.byteLength === 0) {
      const next = await source.next();
      if (next.done === true) return;
      state.rest = next.value;
    }
    const take = state.rest.subarray(0, left);
    state.rest = state.rest.subarray(take.byteLength);
    left -= take.byteLength;
    yield take;
  }
}

/**
 * The decoded bytes of both frames. Node's decoder ends silently after the first frame of a file (facts/blob.md), so each
 * frame gets a decoder of its own.
 */
async function* decodeFrames(
  archive: AsyncIterable<Uint8Array>,
  manifestBytes: number,
): AsyncIterable<Uint8Array> {
  const source = archive[Symbol.asyncIterator]();
  const state = { rest: new Uint8Array() };
  for (const bytes of [manifestBytes, Number.POSITIVE_INFINITY]) {
    const decoder = createZstdDecompress({ chunkSize: DECODED_CHUNK_BYTES });
    const work = pipeline(slice(source, state, bytes), decoder);
    work.catch(() => undefined);
    for await (const chunk of decoder) yield chunk as Uint8Array;
    await work;
  }
}

/**
 * The end of a zstd frame that begins at the head of `bytes`, by walking its block headers (RFC 8878, 3.1.1).
 * @returns `undefined` when the frame goes on behind `bytes`.
 * @throws AgentError `backup_damaged` when there is no zstd frame.
 */
function frameEnd(bytes: Uint8Array): number | undefined {
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.length < 5) return undefined;
  if (view.readUInt32LE(0) !== 0xfd2fb528)
    throw new AgentError('backup_damaged', 'archive does not begin with a zstd frame');
  const descriptor = view.readUInt8(4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  const contentSizeBytes = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3] ?? 0;
  let at = 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + contentSizeBytes;
  for (;;) {
    if (at + 3 > view.length) return undefined;
    const header = view.readUIntLE(at, 3);
    const isLast = (header & 1) === 1;
    const isRepeated = ((header >> 1) & 3) === 1;
    at += 3 + (isRepeated ? 1 : header >> 3);
    if (isLast) break;
  }
  at += (descriptor & 4) === 0 ? 0 : 4;
  return at > view.length ? undefined : at;
}

/** Archives that `tar --zstd -xf` opens: a frame with `manifest.json`, and a frame with the tree. */
export class TarZstd implements Archiver {
  async packManifest(manifest: Uint8Array): Promise<Uint8Array> {
    const header = {
      name: MANIFEST_NAME,
      type: 'file',
      size: manifest.byteLength,
      mode: 0o600,
      mtime: new Date(0),
    } as const;
    return zstdCompressSync(await singleEntry(header, manifest), ZSTD_OPTIONS);
  }

  async *packTree(
    entries: Iterable<ArchiveEntry>,
    open: (entry: ArchiveEntry) => AsyncIterable<Uint8Array>,
  ): AsyncIterable<Uint8Array> {
    const pack = tar.pack();
    const compressed = createZstdCompress(ZSTD_OPTIONS);
    const stop = new AbortController();
    const packed = async function* () {
      for await (const chunk of pack) yield chunk as Uint8Array;
    };
    const piped = pipeline(packed, compressed, { signal: stop.signal });
    const fed = feed(pack, entries, open).catch((error: unknown) => {
      pack.destroy(error as Error);
      throw error;
    });
    const work = Promise.allSettled([fed, piped]);
    try {
      for await (const chunk of compressed) yield chunk as Uint8Array;
      await fed;
      await piped;
    } catch (error) {
      // The reason is in what fed the archive; the compressor only saw its input end.
      const [feeding] = await work;
      throw feeding.status === 'rejected' ? (feeding.reason as Error) : error;
    } finally {
      stop.abort();
      pack.destroy();
      await work;
    }
  }

  async unpackManifest(frame: Uint8Array): Promise<Uint8Array> {
    let entry: Buffer;
    try {
      entry = zstdDecompressSync(frame, { maxOutputLength: MAX_MANIFEST_BYTES });
    } catch (error) {
      throw damaged('archive has no readable manifest frame', error);
    }
    let manifest: Uint8Array | undefined;
    await this.#extract(Readable.from([entry]), async ({ path }, content) => {
      if (path !== MANIFEST_NAME || manifest !== undefined) {
        throw new AgentError(
          'backup_damaged',
          `archive begins with ${JSON.stringify(path)}, not with ${MANIFEST_NAME}`,
        );
      }
      const chunks: Uint8Array[] = [];
      for await (const chunk of content) chunks.push(chunk);
      manifest = Buffer.concat(chunks);
    });
    if (manifest === undefined) throw new AgentError('backup_damaged', `archive has no ${MANIFEST_NAME}`);
    return manifest;
  }

  async unpack(
    archive: AsyncIterable<Uint8Array>,
    format: { kind: 'zstd'; manifestBytes: number } | { kind: 'gzip' },
    receive: (entry: UnpackedEntry, content: AsyncIterable<Uint8Array>) => Promise<void>,
  ): Promise<void> {
    if (format.kind === 'zstd') {
      await this.#extract(Readable.from(decodeFrames(archive, format.manifestBytes)), receive);
      return;
    }
    const gunzip = createGunzip();
    const work = pipeline(archive, gunzip);
    work.catch(() => undefined);
    await this.#extract(gunzip, receive);
    await work;
  }

  firstFrameBytes(head: Uint8Array): number | undefined {
    return frameEnd(head);
  }

  async #extract(
    source: Readable,
    receive: (entry: UnpackedEntry, content: AsyncIterable<Uint8Array>) => Promise<void>,
  ): Promise<void> {
    const extract = tar.extract();
    let failure: unknown;
    const work = pump(source as AsyncIterable<Uint8Array>, extract).catch((error: unknown) => {
      failure ??= error;
      extract.destroy(error as Error);
    });
    try {
      for await (const entry of extract) {
        const { name, type, size, mode, uid, gid, mtime } = entry.header;
        await receive(
          {
            path: name,
            type,
            sizeBytes: size,
            attributes: { mode, uid, gid, mtimeMs: mtime.getTime() },
          },
          entry as AsyncIterable<Uint8Array>,
        );
        entry.resume();
      }
    } catch (error) {
      // When the source fails, the extractor only says that it was destroyed: the reason is the source's.
      const isEcho = (error as NodeJS.ErrnoException).code === 'STREAM_DESTROYED';
      if (!(failure instanceof AgentError) && !(isEcho && failure !== undefined)) failure = error;
    }
    if (failure !== undefined) extract.destroy();
    source.destroy();
    await work;
    if (failure !== undefined) throw asDamage(failure);
  }
}

/** What the decoder, the decompressor or tar say of broken bytes; failures of the store or the disk stay what they are. */
function asDamage(error: unknown): unknown {
  if (error instanceof AgentError) return error;
  const { code, syscall } = error as NodeJS.ErrnoException;
  if (syscall !== undefined || (error as Error).name === 'AbortError') return error;
  const isDecoder =
    code === undefined || /^(ZSTD_|Z_|ERR_STREAM_PREMATURE_CLOSE|ERR_ZLIB|ERR_BUFFER)/.test(code);
  return isDecoder ? damaged(`archive is not readable: ${(error as Error).message}`, error) : error;
}
