import { createHash, randomUUID } from 'node:crypto';
import { constants, type BigIntStats } from 'node:fs';
import {
  chmod,
  chown,
  lstat,
  mkdir,
  open,
  readdir,
  rename,
  rm,
  statfs,
  unlink,
  utimes,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { AgentError } from '../errors.ts';
import type { Disk, FileAttributes, FileStat } from '../ports.ts';
import { fileMark } from '../scan.ts';

const CHUNK_BYTES = 64 * 1024;
const MIN_CHUNK_BYTES = 4 * 1024;
const HEAD_BYTES = 64;
const STABLE_TRIES = 50;
const STABLE_WAIT_MS = 40;
/** Kernel timestamps move in ticks of up to 10 ms: two writes within one tick carry the same mtime. */
const TICK_MS = 20;

const codeOf = (error: unknown) => (error as NodeJS.ErrnoException).code;

async function unlessAbsent<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    throw asAgentError(error);
  }
}

/** A full disk is a state of the target that a person can mend; other failures of the file system stay what they are. */
function asAgentError(error: unknown): unknown {
  const code = codeOf(error);
  if (code !== 'ENOSPC' && code !== 'EDQUOT') return error;
  return new AgentError('no_space', 'write to the local disk failed: it is full', { cause: error });
}

function toFileStat(stats: BigIntStats): FileStat {
  const type = stats.isFile()
    ? 'file'
    : stats.isDirectory()
      ? 'directory'
      : stats.isSymbolicLink()
        ? 'link'
        : 'other';
  return {
    type,
    sizeBytes: Number(stats.size),
    mtimeNs: stats.mtimeNs.toString(),
    inode: stats.ino.toString(),
    mode: Number(stats.mode) & 0o7777,
    uid: Number(stats.uid),
    gid: Number(stats.gid),
  };
}

/** Whether the file was last written long enough ago for its mtime to tell; a time in the future counts as long ago. */
function isSettled(stat: FileStat): boolean {
  const ageMs = Date.now() - Number(BigInt(stat.mtimeNs) / 1_000_000n);
  return ageMs < 0 || ageMs > TICK_MS;
}

async function* chunksOf(path: string, bufferFor: (leftBytes: number) => Buffer): AsyncIterable<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    let { size: leftBytes } = await file.stat();
    for (;;) {
      const buffer = bufferFor(leftBytes);
      const { bytesRead } = await file.read(buffer, 0, buffer.byteLength, null);
      if (bytesRead === 0) return;
      leftBytes -= bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}

/**
 * For who is done with a chunk before it asks for the next: all are one buffer. Gigabytes of new ones would be garbage that
 * is collected only now and then, which is most of the memory that a backup would take.
 */
function readRecycled(path: string): AsyncIterable<Buffer> {
  const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  return chunksOf(path, () => buffer);
}

export class LocalDisk implements Disk {
  async stat(path: string): Promise<FileStat | undefined> {
    const stats = await unlessAbsent(lstat(path, { bigint: true }));
    return stats === undefined ? undefined : toFileStat(stats);
  }

  async names(dir: string): Promise<string[] | undefined> {
    return (await unlessAbsent(readdir(dir)))?.sort();
  }

  async readStable(path: string): Promise<{ bytes: Uint8Array; stat: FileStat } | undefined> {
    const read = await this.#standingStill(path, async (stat) => {
      const chunks: Uint8Array[] = [];
      for await (const chunk of this.read(path)) chunks.push(chunk);
      return { bytes: Buffer.concat(chunks), stat };
    });
    if (read?.stoodStill !== false) return read;
    throw new AgentError(
      'source_damaged',
      `read ${path}: it did not stand still in ${String(STABLE_TRIES)} tries`,
      {
        retryable: true,
      },
    );
  }

  async copyStable(source: string, target: string) {
    return this.#standingStill(source, async () => {
      await rm(target, { force: true });
      let head = '';
      const tapped = async function* (chunks: AsyncIterable<Uint8Array>) {
        for await (const chunk of chunks) {
          if (head.length < HEAD_BYTES)
            head += Buffer.from(chunk.subarray(0, HEAD_BYTES - head.length)).toString('latin1');
          yield chunk;
        }
      };
      return { ...(await this.create(target, tapped(readRecycled(source)))), head };
    });
  }

  async #standingStill<T>(
    path: string,
    readIt: (stat: FileStat) => Promise<T>,
  ): Promise<(T & { stoodStill: boolean }) | undefined> {
    for (let attempt = 1; ; attempt += 1) {
      const isLast = attempt >= STABLE_TRIES;
      const before = await this.stat(path);
      if (before === undefined) return undefined;
      if (isLast || isSettled(before)) {
        const result = await unlessAbsent(readIt(before));
        const after = await this.stat(path);
        const stoodStill = after !== undefined && fileMark(after) === fileMark(before);
        if (result !== undefined && (stoodStill || isLast)) return { ...result, stoodStill };
      }
      await delay(STABLE_WAIT_MS);
    }
  }

  async *read(path: string): AsyncIterable<Uint8Array> {
    yield* chunksOf(path, (leftBytes) =>
      // As large as what is left: a small image needs no whole chunk of memory.
      Buffer.allocUnsafeSlow(Math.min(CHUNK_BYTES, Math.max(MIN_CHUNK_BYTES, leftBytes))),
    );
  }

  async hash(path: string, signal?: AbortSignal): Promise<{ sizeBytes: number; sha256: string }> {
    const hash = createHash('sha256');
    let sizeBytes = 0;
    for await (const chunk of readRecycled(path)) {
      signal?.throwIfAborted();
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
    }
    return { sha256: hash.digest('hex'), sizeBytes };
  }

  async create(
    path: string,
    content: AsyncIterable<Uint8Array>,
  ): Promise<{ sizeBytes: number; sha256: string }> {
    const hash = createHash('sha256');
    let sizeBytes = 0;
    // Exclusive, and never through a link: an archive must not be able to write into a file that it did not bring.
    const file = await open(
      path,
      constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
      0o600,
    );
    try {
      for await (const chunk of content) {
        hash.update(chunk);
        sizeBytes += chunk.byteLength;
        await file.writeFile(chunk);
      }
    } catch (error) {
      throw asAgentError(error);
    } finally {
      await file.close();
    }
    return { sizeBytes, sha256: hash.digest('hex') };
  }

  async replace(path: string, bytes: Uint8Array): Promise<void> {
    const temporary = join(dirname(path), `.${basename(path)}.${randomUUID()}.tmp`);
    try {
      const file = await open(temporary, 'wx', 0o644);
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw asAgentError(error);
    }
    await this.sync(dirname(path));
  }

  async makeDir(path: string): Promise<void> {
    try {
      await mkdir(path, { recursive: true });
    } catch (error) {
      throw asAgentError(error);
    }
  }

  async rename(from: string, to: string): Promise<void> {
    await rename(from, to);
  }

  async removeFile(path: string): Promise<void> {
    await unlessAbsent(unlink(path));
  }

  async removeTree(path: string): Promise<void> {
    await rm(path, { recursive: true, force: true });
  }

  async setAttributes(path: string, attributes: FileAttributes): Promise<boolean> {
    let isOwner = true;
    try {
      await chown(path, attributes.uid, attributes.gid);
    } catch (error) {
      if (codeOf(error) !== 'EPERM') throw error;
      isOwner = false;
    }
    // After chown, which clears the set-id bits.
    await chmod(path, attributes.mode & 0o7777);
    await utimes(path, attributes.mtimeMs / 1000, attributes.mtimeMs / 1000);
    return isOwner;
  }

  async sync(path: string): Promise<void> {
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async freeBytes(path: string): Promise<number> {
    const stats = await statfs(path);
    return stats.bavail * stats.bsize;
  }
}
