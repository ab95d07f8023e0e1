import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { crc32, deflateRawSync, inflateRawSync } from 'node:zlib';

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const VERSION = 20;
const UTF8_NAMES = 0x0800;
const DEFLATED = 8;
/** Without the 64-bit extension; a stand-in's archive stays far below. */
const LIMIT = 0xffffffff;

interface Entry {
  name: Buffer;
  crc: number;
  compressedBytes: number;
  bytes: number;
  offset: number;
  time: number;
  date: number;
}

/**
 * Writes straight to the final name. An existing file is overwritten from its start and not truncated, as
 * `File.OpenWrite` does: two archives in the same second end up in one file.
 */
export class ZipWriter {
  readonly #descriptor: number;
  readonly #entries: Entry[] = [];
  #offset = 0;

  constructor(file: string) {
    this.#descriptor = openSync(file, constants.O_WRONLY | constants.O_CREAT, 0o644);
  }

  add(name: string, content: Buffer | string): void {
    const bytes = Buffer.from(content);
    const compressed = deflateRawSync(bytes);
    const entry: Entry = {
      name: Buffer.from(name),
      crc: crc32(bytes),
      compressedBytes: compressed.length,
      bytes: bytes.length,
      offset: this.#offset,
      ...dosTime(new Date()),
    };
    this.#entries.push(entry);
    this.#write(localHeader(entry));
    this.#write(compressed);
  }

  finish(): void {
    const start = this.#offset;
    for (const entry of this.#entries) this.#write(centralHeader(entry));
    const end = Buffer.alloc(END_BYTES);
    end.writeUInt32LE(END, 0);
    end.writeUInt16LE(this.#entries.length, 8);
    end.writeUInt16LE(this.#entries.length, 10);
    end.writeUInt32LE(this.#offset - start, 12);
    end.writeUInt32LE(start, 16);
    this.#write(end);
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  #write(bytes: Buffer): void {
    if (this.#offset + bytes.length > LIMIT) throw new Error('archives above 4 GiB are not supported here');
    for (let done = 0; done < bytes.length;) {
      done += writeSync(this.#descriptor, bytes, done, bytes.length - done, this.#offset + done);
    }
    this.#offset += bytes.length;
  }
}

/** Throws when the file is no complete zip archive. */
export function readZip(file: string): Map<string, () => Buffer> {
  const archive = readFileSync(file);
  const end = archive.lastIndexOf(Buffer.from([0x50, 0x4b, 0x05, 0x06]));
  if (end < 0 || end + END_BYTES > archive.length)
    throw new Error('End of Central Directory record could not be found.');
  const count = archive.readUInt16LE(end + 10);
  const entries = new Map<string, () => Buffer>();
  let at = archive.readUInt32LE(end + 16);
  for (let index = 0; index < count; index++) {
    if (archive.readUInt32LE(at) !== CENTRAL) throw new Error('Central Directory corrupt.');
    const compressedBytes = archive.readUInt32LE(at + 20);
    const nameBytes = archive.readUInt16LE(at + 28);
    const skippedBytes = archive.readUInt16LE(at + 30) + archive.readUInt16LE(at + 32);
    const name = archive.toString('utf8', at + CENTRAL_BYTES, at + CENTRAL_BYTES + nameBytes);
    const crc = archive.readUInt32LE(at + 16);
    const offset = archive.readUInt32LE(at + 42);
    const isDeflated = archive.readUInt16LE(at + 10) === DEFLATED;
    entries.set(name, () => extract(archive, offset, compressedBytes, isDeflated, crc, name));
    at += CENTRAL_BYTES + nameBytes + skippedBytes;
  }
  return entries;
}

function extract(
  archive: Buffer,
  offset: number,
  compressedBytes: number,
  isDeflated: boolean,
  crc: number,
  name: string,
): Buffer {
  const start = offset + LOCAL_BYTES + archive.readUInt16LE(offset + 26) + archive.readUInt16LE(offset + 28);
  const stored = archive.subarray(start, start + compressedBytes);
  const content = isDeflated ? inflateRawSync(stored) : stored;
  if (crc32(content) !== crc) throw new Error(`the entry ${name} is damaged`);
  return content;
}

function localHeader(entry: Entry): Buffer {
  const header = Buffer.alloc(LOCAL_BYTES);
  header.writeUInt32LE(LOCAL, 0);
  writeCommon(header, 4, entry);
  return Buffer.concat([header, entry.name]);
}

function centralHeader(entry: Entry): Buffer {
  const header = Buffer.alloc(CENTRAL_BYTES);
  header.writeUInt32LE(CENTRAL, 0);
  header.writeUInt16LE(VERSION, 4);
  writeCommon(header, 6, entry);
  header.writeUInt32LE(entry.offset, 42);
  return Buffer.concat([header, entry.name]);
}

/** The fields that both headers have in the same order. */
function writeCommon(header: Buffer, at: number, entry: Entry): void {
  header.writeUInt16LE(VERSION, at);
  header.writeUInt16LE(UTF8_NAMES, at + 2);
  header.writeUInt16LE(DEFLATED, at + 4);
  header.writeUInt16LE(entry.time, at + 6);
  header.writeUInt16LE(entry.date, at + 8);
  header.writeUInt32LE(entry.crc, at + 10);
  header.writeUInt32LE(entry.compressedBytes, at + 14);
  header.writeUInt32LE(entry.bytes, at + 18);
  header.writeUInt16LE(entry.name.length, at + 22);
}

function dosTime(now: Date): { time: number; date: number } {
  return {
    time: (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1),
    date: ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate(),
  };
}
