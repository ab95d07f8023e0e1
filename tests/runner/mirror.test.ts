import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HttpJellyfin } from '../../agent/adapters/http-jellyfin.ts';
import { LocalDisk } from '../../agent/adapters/local-disk.ts';
import { SystemClock } from '../../agent/adapters/system-clock.ts';
import { YauzlZip } from '../../agent/adapters/yauzl-zip.ts';
import { createLogger, SILENT } from '../../agent/log.ts';
import { examineArchive, type EngineArchive } from '../../agent/runner/archive.ts';
import { isVerifiedArchive, mirror } from '../../agent/runner/mirror.ts';
import { untilBack } from '../../agent/runner/until-back.ts';
import { ZipWriter } from '../../scripts/stand-in/zip.ts';
import { MemoryBlobStore } from '../agent/support-memory-store.ts';
import { freePort } from '../process/support.ts';
import { flipByte } from '../support/archive-bytes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

const signal = new AbortController().signal;
const MANIFEST = JSON.stringify({ ServerVersion: '10.11.11.0', DateCreated: '2026-01-01T00:00:00Z' });

function zipFile(entries: Record<string, string>): string {
  const file = join(makeTempDir('zip'), 'jellyfin-backup-20260101000000.zip');
  const zip = new ZipWriter(file);
  for (const [name, content] of Object.entries(entries)) zip.add(name, content);
  zip.finish();
  zip.close();
  return file;
}

const deps = () => ({ disk: new LocalDisk(), clock: new SystemClock(), zip: new YauzlZip(), log: SILENT });
const examine = (file: string, minBytes = 0) => examineArchive(deps(), file, minBytes, signal);

describe('an archive is read whole before it is taken for one', () => {
  const whole = { 'Database/Users.json': 'x'.repeat(5_000), 'manifest.json': MANIFEST };
  test.concurrent('size, hash and manifest', async () => {
    const file = zipFile(whole);
    const bytes = await new LocalDisk().hash(file);
    expect(await examine(file)).toMatchObject({ ...bytes, manifest: { jellyfinVersion: '10.11.11' } });
  });

  test.concurrent.each<[string, () => string | Promise<string>, RegExp]>([
    ['a flipped byte inside an entry', () => flipped(zipFile(whole), 60), /zip|checksum|invalid/],
    [
      'a wrong checksum alone',
      () => rewritten(zipFile(whole), otherChecksum),
      /checksum of .*Users\.json is wrong/,
    ],
    ['cut off', () => cut(zipFile(whole)), /not a whole zip archive/],
    ['no manifest', () => zipFile({ 'Database/Users.json': '[]' }), /holds no manifest\.json/],
    ['no zip', () => written('nothing of the kind'), /not a whole zip archive/],
  ])('%s', async (_name, make, says) => {
    await expect(examine(await make())).rejects.toMatchObject({
      code: 'backup_damaged',
      message: expect.stringMatching(says),
    });
  });
});

function written(text: string): string {
  const file = join(makeTempDir('zip'), 'jellyfin-backup-20260101000000.zip');
  writeFileSync(file, text);
  return file;
}

async function rewritten(file: string, change: (bytes: Buffer) => Buffer): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of new LocalDisk().read(file)) chunks.push(chunk);
  writeFileSync(file, change(Buffer.concat(chunks)));
  return file;
}
const flipped = (file: string, offset: number) => rewritten(file, (bytes) => flipByte(bytes, offset));
/** In the central directory, 16 bytes into the first entry. */
const otherChecksum = (bytes: Buffer) => flipByte(bytes, bytes.indexOf(Buffer.from('PK\u0001\u0002')) + 16);
const cut = (file: string) => rewritten(file, (bytes) => bytes.subarray(0, -30));

/** Gives back other bytes than it took, for the first `bad` names that it is asked for. */
class ForgetfulStore extends MemoryBlobStore {
  readonly #bad = new Set<string>();
  readonly #count: number;

  constructor(count: number) {
    super();
    this.#count = count;
  }

  override async readRange(...args: Parameters<MemoryBlobStore['readRange']>): Promise<Uint8Array> {
    const bytes = await super.readRange(...args);
    if (this.#bad.size < this.#count) this.#bad.add(args[0]);
    return this.#bad.has(args[0]) ? bytes.map((byte) => byte ^ 1) : bytes;
  }
}

async function archiveOf(text: string): Promise<EngineArchive> {
  const file = written(text);
  const sha256 = createHash('sha256').update(text).digest('hex');
  const manifest = { jellyfinVersion: '10.11.11', createdUtc: '2026-01-01T00:00:00.000Z', hasDatabase: true };
  return { file, fileName: 'jellyfin-backup-20260101000000.zip', sizeBytes: text.length, sha256, manifest };
}

describe('mirror', () => {
  test('a store that gives back something else: marked as damaged, stored again beside it', async () => {
    const store = new ForgetfulStore(1);
    const stored = await mirror({ ...deps(), store }, await archiveOf('abc'), signal);
    expect(stored.name).toBe('jellyroller/backup-20260101000000-2.zip');
    expect(store.names).toEqual([stored.name, 'jellyroller/backup-20260101000000.zip'].sort());
    const items = (await store.listPage('')).items;
    expect(items.map(isVerifiedArchive)).toEqual([true, false]);
  });

  test('one that always does: an error, and nothing that counts as a backup', async () => {
    const store = new ForgetfulStore(99);
    await expect(mirror({ ...deps(), store }, await archiveOf('abc'), signal)).rejects.toMatchObject({
      code: 'store_rejected',
    });
    expect((await store.listPage('')).items.filter(isVerifiedArchive)).toEqual([]);
  });

  test('two archives of one second both get a place; the same bytes only one', async () => {
    const store = new MemoryBlobStore();
    const names: string[] = [];
    for (const text of ['abc', 'abd', 'abc'])
      names.push((await mirror({ ...deps(), store }, await archiveOf(text), signal)).name);
    expect(names).toEqual([
      'jellyroller/backup-20260101000000.zip',
      'jellyroller/backup-20260101000000-2.zip',
      'jellyroller/backup-20260101000000.zip',
    ]);
  });
});

describe('untilBack', () => {
  /** Ten minutes pass with each wait. */
  class LeapingClock extends SystemClock {
    #ms = 0;
    override monotonicMs(): number {
      return this.#ms;
    }
    override async sleep(): Promise<void> {
      this.#ms += 10 * 60_000;
    }
  }

  test('a server that does not come back is given up after 20 minutes, with progress until then', async () => {
    const server = new HttpJellyfin(`http://127.0.0.1:${String(await freePort())}`);
    const lines: string[] = [];
    const log = createLogger('test', (line) => lines.push(line));
    await expect(untilBack({ clock: new LeapingClock(), log, server }, 0, signal)).rejects.toMatchObject({
      code: 'jellyfin_unavailable',
      message: expect.stringMatching(/did not come back within 20 minutes/),
    });
    expect(lines).toHaveLength(4);
  });
});
