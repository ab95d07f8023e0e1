import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { TarZstd } from '../../agent/adapters/tar-zstd.ts';
import { exitCodeOf } from '../../agent/errors.ts';
import { restoreVolume } from '../../agent/restore.ts';
import { cutAfterEntries, flipByte, tarOf, truncate, type TarEntry } from '../support/archive-bytes.ts';
import { sharedAzurite } from '../support/azurite.ts';
import { createJellyfinTree } from '../support/jellyfin-tree.ts';
import {
  emptyTarball,
  legacyTarball,
  makeLegacyData,
  uploadLegacyFolder,
  uploadLegacyTarball,
  type LegacyData,
} from '../support/legacy-fixtures.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import {
  addFile,
  asBlob,
  contentOfEntry,
  putTogether,
  replaceFile,
  takeApart,
  type Parts,
} from './support-archives.ts';
import { MemoryBlobStore, type MemoryBlob } from './support-memory-store.ts';
import {
  containerWith,
  listingOf,
  partsOn,
  runAgent,
  usedServer,
  volumeAt,
  type Used,
} from './support-replica.ts';

/*
 * What nobody should restore. Mostly in this process and from a store in memory: each case is two restores. Exit codes are
 * those of the error; that the process ends with them is shown at the end.
 */

let used: Used;
let newest: MemoryBlob;
let legacy: LegacyData;
let legacyTar: Buffer;

beforeAll(async () => {
  used = await usedServer();
  newest = new Map(used.blobs).get(used.newer.name) as MemoryBlob;
  legacy = makeLegacyData({ items: 3 });
  legacyTar = await legacyTarball(legacy.dir);
});

/** Restores in a folder of its own with neighbours, and answers what became of it and of them. */
async function restoreFrom(blobs: Iterable<readonly [string, MemoryBlob]>, imageVersion = '10.11.11') {
  const parent = makeTempDir('parent');
  const dataDir = join(parent, 'a/volume');
  const { dir } = createJellyfinTree(join(parent, 'neighbour'), { items: 1 });
  const parts = partsOn(new MemoryBlobStore(blobs));
  await parts.disk.makeDir(dataDir);
  const outside = () => listingOf(parent, `${dataDir}/`);
  const before = outside();
  const result = await restoreVolume(parts, { dataDir, imageVersion }).then(
    (report) => ({ exit: 0, report, error: '' }),
    (error: unknown) => ({ exit: exitCodeOf(error), report: undefined, error: String(error) }),
  );
  expect(outside()).toEqual(before);
  expect(dir).toContain(parent);
  const reasons = parts.logged
    .filter(({ msg }) => msg === 'backup passed over')
    .map((line) => JSON.stringify(line));
  return { ...result, dataDir, reasons, volume: volumeAt(dataDir) };
}

const without = (name: string) => used.blobs.filter(([other]) => other !== name);
const withNewest = (blob: MemoryBlob) => [...without(used.newer.name), [used.newer.name, blob] as const];

/** The newest backup with one thing changed. */
const changed =
  (change: (parts: Parts) => void, options?: { cutAfter?: number }) => async (): Promise<MemoryBlob> => {
    const parts = await takeApart(newest);
    change(parts);
    return putTogether(parts, options);
  };
const withEntry = (entry: TarEntry) => changed(({ entries }) => void entries.push(entry));
const raw = (bytes: (whole: Buffer) => Buffer) => () =>
  Promise.resolve(asBlob(bytes(Buffer.from(newest.bytes)), newest.metadata));
/** As it would be if only the bytes were damaged: the metadata still tells of the whole ones. */
const damaged = (bytes: (whole: Buffer) => Buffer) => () =>
  Promise.resolve({ bytes: bytes(Buffer.from(newest.bytes)), metadata: newest.metadata });
const middle = (whole: Buffer) => Math.floor(whole.length / 2);
const DB = 'data/jellyfin.db';

describe('a newest backup that must not be restored', () => {
  const table: [what: string, blob: () => Promise<MemoryBlob>, reason: RegExp][] = [
    ['cut inside the manifest', damaged((whole) => truncate(whole, 60)), /cut inside its manifest/],
    ['cut in the middle', damaged((whole) => truncate(whole, middle(whole))), /not readable|lacks|SHA-256/],
    [
      'cut in the middle, metadata agrees',
      raw((whole) => truncate(whole, middle(whole))),
      /not readable|lacks/,
    ],
    ['without its last byte', damaged((whole) => truncate(whole, -1 + whole.length)), /not readable|SHA-256/],
    [
      'cut behind the manifest',
      raw((whole) => truncate(whole, Number(newest.metadata['manifestbytes']))),
      /not readable|lacks/,
    ],
    ['of 0 bytes', raw(() => Buffer.of()), /is empty/],
    ['not an archive', raw(() => Buffer.from('<html>Sign in to the network</html>'.repeat(9))), /zstd frame/],
    ['byte 0 flipped', damaged((whole) => flipByte(whole, 0)), /zstd frame/],
    ['byte 5 flipped', damaged((whole) => flipByte(whole, 5)), /manifest|archive/],
    ['a byte of the manifest flipped', damaged((whole) => flipByte(whole, 200)), /manifest|archive/],
    [
      'a byte in the middle flipped',
      damaged((whole) => flipByte(whole, middle(whole))),
      /not readable|content|SHA-256/,
    ],
    ['the last byte flipped', damaged((whole) => flipByte(whole, -1)), /not readable|SHA-256/],
    [
      'cut at an entry boundary',
      changed(() => undefined, { cutAfter: 12 }),
      /lacks \\"[^"]+\\" and \d+ more/,
    ],
    ['without one file', changed(({ entries }) => void entries.splice(-1)), /lacks \\"/],
    ['an entry ../x', withEntry({ name: '../x', content: 'evil' }), /\\"..\/x\\": name with \\"\.\.\\"/],
    ['an entry data/../../x', withEntry({ name: 'data/../../x', content: 'evil' }), /name with/],
    ['an absolute entry', withEntry({ name: '/tmp/joa-evil', content: 'evil' }), /absolute name/],
    ['a symlink', withEntry({ name: 'data/x', type: 'symlink', linkname: '/etc/passwd' }), /a symlink/],
    ['a hard link', withEntry({ name: 'data/x', type: 'link', linkname: '/etc/passwd' }), /a link/],
    ['a character device', withEntry({ name: 'data/x', type: 'character-device' }), /a character-device/],
    ['a block device', withEntry({ name: 'data/x', type: 'block-device' }), /a block-device/],
    ['a fifo', withEntry({ name: 'data/x', type: 'fifo' }), /a fifo/],
    [
      'a symlink where the manifest has a folder',
      changed(({ entries }) => {
        const plugins = entries.find(({ name }) => name.replace(/\/$/, '') === 'plugins') as TarEntry;
        Object.assign(plugins, { type: 'symlink', linkname: '/tmp', content: '' });
      }),
      /a symlink/,
    ],
    [
      'an entry twice',
      changed(({ entries }) => void entries.push(entries.at(-1) as TarEntry)),
      /does not name/,
    ],
    [
      'an entry that the manifest does not name',
      withEntry({ name: 'data/x', content: 'x' }),
      /does not name/,
    ],
    [
      'a manifest that names ../x',
      changed((parts) => addFile(parts, '../x', Buffer.from('evil'))),
      /manifest names \\"..\/x/,
    ],
    [
      'a manifest that names /x',
      changed((parts) => addFile(parts, '/tmp/joa-evil', Buffer.from('x'))),
      /absolute name/,
    ],
    [
      'a manifest that names a path twice',
      changed(({ manifest }) => void manifest.entries.push(manifest.entries.at(-1) as never)),
      /twice/,
    ],
    [
      'a file where another entry has its folder',
      changed((parts) => addFile(parts, 'data/device.txt/x', Buffer.from('x'))),
      /device\.txt\/x/,
    ],
    [
      'a manifest that is not JSON',
      async () => {
        const parts = await takeApart(newest);
        const head = Buffer.from('{"format":1');
        return asBlob(await packed(head, parts), parts.metadata);
      },
      /manifest is not JSON/,
    ],
    [
      'a file with other content',
      changed(({ entries }) => setContent(entries, 'data/device.txt', flip)),
      /other content/,
    ],
    [
      'a file that is shorter',
      changed(({ entries }) => setContent(entries, 'data/device.txt', (x) => x.subarray(1))),
      /with \d+ bytes, not \d+/,
    ],
    [
      'a file that is longer',
      changed(({ entries }) => setContent(entries, 'data/device.txt', (x) => Buffer.concat([x, x]))),
      /with \d+ bytes, not \d+/,
    ],
    [
      'the manifest of another epoch',
      changed(({ manifest }) => void (manifest.epoch = 7)),
      /manifest of e7\.s2/,
    ],
    [
      'the manifest of another sequence',
      changed(({ manifest }) => void (manifest.sequence = 1)),
      /manifest of e1\.s1/,
    ],
    [
      'a damaged database',
      changed((parts) => replaceFile(parts, DB, damagedPage(contentOfEntry(parts, DB)))),
      /jellyfin\.db fails quick_check/,
    ],
    ['a database of 0 bytes', changed((parts) => replaceFile(parts, DB, Buffer.of())), /has no table/],
    [
      'a database without the WAL header',
      changed((parts) => replaceFile(parts, DB, rollbackMode(contentOfEntry(parts, DB)))),
      /another journal mode/,
    ],
    [
      'a manifest without its databases',
      changed(({ manifest }) => void (manifest.databases = [])),
      /would not lead to the login screen/,
    ],
    ['an unconfigured server', async () => unconfigured(), /the setup wizard is not completed/],
    [
      'a system.xml cut in half',
      changed((parts) =>
        replaceFile(parts, 'config/system.xml', truncate(contentOfEntry(parts, 'config/system.xml'), 200)),
      ),
      /not well-formed|would not lead/,
    ],
    [
      'metadata with another hash',
      () =>
        Promise.resolve({ bytes: newest.bytes, metadata: { ...newest.metadata, sha256: 'a'.repeat(64) } }),
      /another SHA-256/,
    ],
  ];

  test.each(table)('%s: refused with its reason, the older one is restored', async (_what, make, reason) => {
    const blob = await make();

    const both = await restoreFrom(withNewest(blob));
    expect(both.error).toBe('');
    expect(both.exit).toBe(0);
    expect(both.reasons).toEqual([expect.stringMatching(reason)]);
    expect(both.report).toMatchObject({ restoredFrom: used.older.name, passedOver: [used.newer.name] });
    expect(both.volume).toMatchObject({ marker: { state: 'complete' }, lastSeq: used.older.lastSeq });
    // Of the refused one nothing is left.
    expect(listingOf(join(both.dataDir, '.agent')).filter((line) => !line.includes('volume.json'))).toEqual(
      [],
    );

    const only = await restoreFrom([[used.newer.name, blob]]);
    expect([only.exit, only.error]).toEqual([4, expect.stringContaining('none of 1 backups passes')]);
    expect(only.volume.names).toEqual([]);
    expect(only.volume.marker?.state).toBe('restoring');
  });

  async function packed(manifest: Buffer, parts: Parts): Promise<Buffer> {
    const { bytes, metadata } = await putTogether(parts);
    return Buffer.concat([
      await new TarZstd().packManifest(manifest),
      bytes.subarray(Number(metadata['manifestbytes'])),
    ]);
  }
});

const flip = (content: Buffer) => flipByte(content, 3);

function setContent(entries: TarEntry[], name: string, change: (content: Buffer) => Buffer): void {
  const entry = entries.find((one) => one.name === name) as TarEntry;
  entry.content = change(Buffer.from(entry.content ?? ''));
}

/** Garbage over a page in the middle: the header and the schema stay readable. */
function damagedPage(database: Buffer): Buffer {
  const pageBytes = database.readUInt16BE(16);
  const copy = Buffer.from(database);
  for (let page = 4; page < database.length / pageBytes; page += 1)
    copy.fill(0xa5, page * pageBytes, page * pageBytes + 300);
  return copy;
}

/** Bytes 18 and 19 say which journal a server uses that opens the file. */
function rollbackMode(database: Buffer): Buffer {
  const copy = Buffer.from(database);
  copy.fill(1, 18, 20);
  return copy;
}

async function unconfigured(): Promise<MemoryBlob> {
  const { dir } = createJellyfinTree(makeTempDir('unconfigured'), { isConfigured: false });
  const parts = await takeApart(newest);
  for (const path of [DB, 'config/system.xml']) replaceFile(parts, path, readFileSync(join(dir, path)));
  return putTogether(parts);
}

describe('a newest backup that is good although something about it is odd', () => {
  const metadata = (change: Record<string, string>) => () => {
    const all = { ...newest.metadata, ...change };
    return {
      bytes: newest.bytes,
      metadata: Object.fromEntries(Object.entries(all).filter(([, value]) => value !== '')),
    };
  };
  const table: [string, () => MemoryBlob][] = [
    ['all metadata lost by a copy', () => ({ bytes: newest.bytes, metadata: {} })],
    ['manifestbytes too small', metadata({ manifestbytes: '10' })],
    ['manifestbytes too large', metadata({ manifestbytes: '99999999999999' })],
    ['manifestbytes not a number', metadata({ manifestbytes: 'many' })],
    ['no manifestbytes', metadata({ manifestbytes: '' })],
    ['no hash', metadata({ sha256: '' })],
  ];
  test.each(table)('%s: it is restored', async (_what, make) => {
    const { exit, report, volume } = await restoreFrom(withNewest(make()));
    expect([exit, report?.restoredFrom]).toEqual([0, used.newer.name]);
    expect(volume.lastSeq).toBe(used.newer.lastSeq);
  });
});

describe('a backup that another program must read', () => {
  test('made by a newer Jellyfin, and the metadata does not say so: exit 4, no older one instead', async () => {
    const parts = await takeApart(newest);
    parts.manifest.jellyfin.version = '12.0.0';
    const { exit, error, volume } = await restoreFrom(withNewest(await putTogether(parts)));
    expect([exit, error]).toEqual([4, expect.stringMatching(/12\.0\.0, the image is 10\.11\.11/)]);
    expect(volume.names).toEqual([]);
  });

  test('made by a newer agent: exit 4, no older one instead', async () => {
    const parts = await takeApart(newest);
    const blob = await putTogether({ ...parts, manifest: { ...parts.manifest, format: 2 as 1 } });
    const { exit, error, volume } = await restoreFrom(withNewest(blob));
    expect([exit, error]).toEqual([4, expect.stringMatching(/format 2, this agent reads format 1/)]);
    expect(volume.names).toEqual([]);
  });
});

describe('what older set-ups wrote', () => {
  const tarGz = (stamp: string, bytes: Buffer) =>
    [`backup-${stamp}.tar.gz`, { bytes, metadata: {} }] as const;
  const folder = (stamp: string, data = legacy) =>
    listingOf(data.dir)
      .filter((line) => !line.endsWith('/'))
      .map((line) => line.slice(0, line.lastIndexOf(' ')))
      .map(
        (file) =>
          [
            `backup-${stamp}/${file.slice(data.dir.length + 1)}`,
            { bytes: readFileSync(file), metadata: {} },
          ] as const,
      );

  test('a tar.gz of /data/data: the row that is only in the -wal is there, and it is the login screen', async () => {
    expect(legacy.lastSeq).toBeGreaterThan(legacy.lastSeqWithoutWal);
    const { exit, dataDir, report, volume } = await restoreFrom([tarGz('20250101000000', legacyTar)]);
    // volumeAt has looked: integrity, WAL header, wizard done, no -wal or -shm beside the database.
    expect([exit, report?.restoredFrom, volume.lastSeq]).toEqual([
      0,
      'backup-20250101000000.tar.gz',
      legacy.lastSeq,
    ]);
    expect(readFileSync(join(dataDir, 'data/device.txt'), 'utf8')).toBe(legacy.serverId);
    expect(volume.names.sort()).toEqual(['config', 'data', 'log']);
  });

  test('a folder of blobs: the same', async () => {
    const { exit, report, volume } = await restoreFrom(folder('20250101000000'));
    expect([exit, report?.restoredFrom, volume.lastSeq]).toEqual([
      0,
      'backup-20250101000000/',
      legacy.lastSeq,
    ]);
  });

  test('the newest first, whatever its format', async () => {
    const newer = makeLegacyData({ items: 3 });
    const tar = tarGz('20250101000000', legacyTar);
    expect((await restoreFrom([...folder('20250101000001', newer), tar])).report?.restoredFrom).toBe(
      'backup-20250101000001/',
    );
    const later = tarGz('20250101000002', legacyTar);
    expect((await restoreFrom([...folder('20250101000001', newer), later])).report?.restoredFrom).toBe(
      later[0],
    );
  });

  test('a backup of this agent wins over an older format with a later time in its name', async () => {
    const { report } = await restoreFrom([tarGz('20991231235959', legacyTar), ...used.blobs]);
    expect(report?.restoredFrom).toBe(used.newer.name);
  });

  test('and an older format is what is left when none of this agent is good', async () => {
    const broken = used.blobs
      .filter(([name]) => name.startsWith('backup-'))
      .map(
        ([name, { bytes, metadata }]) =>
          [name, { bytes: truncate(Buffer.from(bytes), 100), metadata }] as const,
      );
    const { exit, report, volume } = await restoreFrom([...broken, tarGz('20250101000000', legacyTar)]);
    expect([exit, report?.passedOver.length, volume.lastSeq]).toEqual([0, 2, legacy.lastSeq]);
  });

  const evil = (entry: TarEntry) => async () => {
    const whole = await tarOf([
      { name: './jellyfin.db', content: readFileSync(join(legacy.dir, 'jellyfin.db')) },
      entry,
    ]);
    return gzipSync(whole);
  };
  const asItIs = (change: (bytes: Buffer) => Buffer) => () => Promise.resolve(change(legacyTar));
  const table: [what: string, bytes: () => Promise<Buffer>, reason: RegExp][] = [
    ['the archive of an empty folder (133 bytes)', emptyTarball, /holds no jellyfin\.db/],
    ['of 0 bytes', asItIs(() => Buffer.of()), /holds no jellyfin\.db|not readable/],
    ['cut in the middle', asItIs((bytes) => truncate(bytes, middle(bytes))), /not readable/],
    ['without its last byte', asItIs((bytes) => truncate(bytes, bytes.length - 1)), /not readable/],
    ['a byte flipped', asItIs((bytes) => flipByte(bytes, middle(bytes))), /not readable|quick_check/],
    ['the last byte flipped', asItIs((bytes) => flipByte(bytes, -1)), /not readable/],
    ['its checksum flipped', asItIs((bytes) => flipByte(bytes, -6)), /not readable/],
    [
      'cut at an entry boundary',
      asItIs((bytes) => gzipSync(cutAfterEntries(gunzipSync(bytes), 1))),
      /holds no jellyfin\.db/,
    ],
    ['an entry ../x', evil({ name: '../x', content: 'evil' }), /name with/],
    ['an absolute entry', evil({ name: '/tmp/joa-evil', content: 'evil' }), /absolute name/],
    ['a symlink', evil({ name: 'x', type: 'symlink', linkname: '/etc/passwd' }), /a symlink/],
    ['a hard link', evil({ name: 'x', type: 'link', linkname: '/etc/passwd' }), /a link/],
    ['a device', evil({ name: 'x', type: 'character-device' }), /a character-device/],
    ['an entry twice', evil({ name: 'jellyfin.db', content: 'x' }), /twice/],
    [
      'a file where another entry has its folder',
      evil({ name: 'jellyfin.db/x', content: 'x' }),
      /jellyfin\.db\/x/,
    ],
    ['two databases', evil({ name: 'old/jellyfin.db', content: 'x' }), /2 files named jellyfin\.db/],
    [
      'no SQLite database',
      async () => gzipSync(await tarOf([{ name: './jellyfin.db', content: 'x'.repeat(9000) }])),
      /cannot be recovered|quick_check/,
    ],
    [
      'a server without an administrator',
      () => {
        const { dir } = createJellyfinTree(makeTempDir('legacy-empty'), { isConfigured: false });
        return legacyTarball(join(dir, 'data'));
      },
      /nobody could sign in/,
    ],
  ];
  test.each(table)('%s: refused with its reason, the older one is restored', async (_what, make, reason) => {
    const bad = tarGz('20250101000001', await make());
    const both = await restoreFrom([bad, tarGz('20250101000000', legacyTar)]);
    expect([both.error, both.exit]).toEqual(['', 0]);
    expect(both.reasons).toEqual([expect.stringMatching(reason)]);
    expect([both.report?.restoredFrom, both.volume.lastSeq]).toEqual([
      'backup-20250101000000.tar.gz',
      legacy.lastSeq,
    ]);
    const only = await restoreFrom([bad]);
    expect([only.exit, only.volume.names]).toEqual([4, []]);
  });

  test('a plugin keeps its own format in a .db: it is brought back as it is', async () => {
    const entries = [
      { name: './jellyfin.db', content: readFileSync(join(legacy.dir, 'jellyfin.db')) },
      { name: './other.db', content: '** This is a LiteDB file **' },
    ];
    const { exit, dataDir } = await restoreFrom([tarGz('20250101000000', gzipSync(await tarOf(entries)))]);
    expect(exit).toBe(0);
    expect(readFileSync(join(dataDir, 'data/other.db'), 'utf8')).toBe('** This is a LiteDB file **');
  });
});

describe('the process', () => {
  const run = async (
    blobs: Iterable<readonly [string, MemoryBlob]>,
    more?: (container: string) => Promise<unknown>,
  ) => {
    const azurite = await sharedAzurite();
    const { containerName } = await containerWith(azurite, blobs);
    await more?.(containerName);
    const dataDir = makeTempDir('volume');
    const finished = await runAgent(['restore'], {
      connectionString: azurite.connectionString,
      container: containerName,
      dataDir,
    });
    return { ...finished, volume: volumeAt(dataDir) };
  };

  test('a flipped byte in the newest: the older one, exit 0, and an error in the log', async () => {
    const { code, stdout, volume } = await run(
      withNewest(await damaged((whole) => flipByte(whole, middle(whole)))()),
    );
    expect([code, volume.lastSeq]).toEqual([0, used.older.lastSeq]);
    expect(stdout).toMatch(/"level":"error".*"backup passed over"/);
  });

  test('a symlink in the only one: exit 4, nothing on the volume', async () => {
    const blob = await withEntry({ name: 'data/x', type: 'symlink', linkname: '/etc/passwd' })();
    const { code, stdout, volume } = await run([[used.newer.name, blob]]);
    expect([code, volume.names]).toEqual([4, []]);
    expect(stdout).toMatch(/"restore refused".*none of 1 backups passes its checks/);
  });

  test('both older formats, an empty archive on top: the newest good one, exit 0', async () => {
    const { code, stdout, volume } = await run([], async (name) => {
      const container = (await sharedAzurite()).container(name);
      await uploadLegacyTarball(container, '20250101000000', legacyTar);
      await uploadLegacyFolder(container, '20250101000001', legacy.dir);
      await uploadLegacyTarball(container, '20250101000002', await emptyTarball());
    });
    expect([code, volume.lastSeq, volume.marker?.restoredFrom]).toEqual([
      0,
      legacy.lastSeq,
      'backup-20250101000001/',
    ]);
    expect(stdout).toMatch(/"backup passed over","backup":"backup-20250101000002\.tar\.gz"/);
  });
});
