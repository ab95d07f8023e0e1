import { cpSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { extract } from 'tar-stream';
import { cutAfterEntries, flipByte, tarOf, truncate } from '../support/archive-bytes.ts';
import { sharedAzurite } from '../support/azurite.ts';
import {
  emptyTarball,
  makeLegacyData,
  uploadLegacyFolder,
  uploadLegacyTarball,
} from '../support/legacy-fixtures.ts';
import { checkLedger } from '../support/ledger.ts';
import { runProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';

async function untar(archive: Buffer, flags: string): Promise<string> {
  const dir = makeTempDir('untar');
  writeFileSync(join(dir, 'archive'), archive);
  const out = join(dir, 'out');
  mkdirSync(out);
  const { code, stderr } = await runProcess({
    command: 'tar',
    args: [flags, join(dir, 'archive'), '-C', out],
    env: { PATH: process.env['PATH'] ?? '' },
  });
  if (code !== 0) throw new Error(stderr);
  return out;
}

/** Copied first: recovery writes, and the fixture is used twice. */
function lastSeqOf(dir: string, recoverWal: boolean): number {
  const copy = makeTempDir('recover');
  cpSync(dir, copy, { recursive: true });
  return checkLedger(join(copy, 'jellyfin.db'), { recoverWal }).lastSeq;
}

test('the older formats are stored as the older scripts stored them, the last writes in the -wal only', async () => {
  const azurite = await sharedAzurite();
  const container = azurite.container(await azurite.createContainer('legacy'));
  const data = makeLegacyData();
  const tarball = await uploadLegacyTarball(container, '20250101000000', data.dir);
  const folder = await uploadLegacyFolder(container, '20250102000000', data.dir);
  await uploadLegacyTarball(container, '20250103000000', await emptyTarball());

  const names = [];
  for await (const { name } of container.listBlobsFlat()) names.push(name);
  expect(names).toEqual(
    expect.arrayContaining([
      'backup-20250101000000.tar.gz',
      'backup-20250102000000/jellyfin.db',
      'backup-20250102000000/jellyfin.db-shm',
      'backup-20250102000000/jellyfin.db-wal',
      'backup-20250102000000/playlists/Sunday [playlist]/playlist.xml',
      'backup-20250103000000.tar.gz',
    ]),
  );
  const extracted = await untar(await container.getBlobClient(tarball).downloadToBuffer(), '-xzf');
  expect([lastSeqOf(extracted, true), lastSeqOf(extracted, false)]).toEqual([
    data.lastSeq,
    data.lastSeqWithoutWal,
  ]);
  expect(data.lastSeq).toBeGreaterThan(data.lastSeqWithoutWal);

  const downloaded = makeTempDir('folder');
  for (const suffix of ['', '-wal', '-shm']) {
    await container
      .getBlobClient(`${folder}jellyfin.db${suffix}`)
      .downloadToFile(join(downloaded, `jellyfin.db${suffix}`));
  }
  expect(lastSeqOf(downloaded, true)).toBe(data.lastSeq);

  const empty = await container.getBlobClient('backup-20250103000000.tar.gz').downloadToBuffer();
  expect(empty.length).toBeLessThan(200);
  expect(readdirSync(await untar(empty, '-xzf'))).toEqual([]);
});

test('bytes are cut and flipped in a copy', () => {
  const bytes = Buffer.from('hello');
  expect(truncate(bytes, 2).toString()).toBe('he');
  expect(truncate(bytes, -1).toString()).toBe('hell');
  expect([...flipByte(bytes, -1)]).toEqual([...Buffer.from('hell'), 'o'.charCodeAt(0) ^ 0xff]);
  expect(bytes.toString()).toBe('hello');
  expect(() => flipByte(bytes, 5)).toThrow(RangeError);
});

test('a tar holds exactly the entries asked for, evil ones too', async () => {
  const tar = await tarOf([
    { name: 'a', content: 'one' },
    { name: 'a', content: 'two' },
    { name: '../x', content: 'evil' },
    { name: '/etc/x', content: 'evil' },
    { name: 'dir/', type: 'directory' },
    { name: 'soft', type: 'symlink', linkname: '/etc/passwd' },
    { name: 'hard', type: 'link', linkname: '../../etc/passwd' },
    { name: 'device', type: 'character-device' },
    { name: 'pipe', type: 'fifo' },
    { name: `${'long/'.repeat(60)}name`, content: 'x', mode: 0o4755, uid: 1234 },
  ]);
  expect(await entriesOf(tar)).toEqual([
    ['a', 'file', null, 'one'],
    ['a', 'file', null, 'two'],
    ['../x', 'file', null, 'evil'],
    ['/etc/x', 'file', null, 'evil'],
    ['dir/', 'directory', null, ''],
    ['soft', 'symlink', '/etc/passwd', ''],
    ['hard', 'link', '../../etc/passwd', ''],
    ['device', 'character-device', null, ''],
    ['pipe', 'fifo', null, ''],
    [`${'long/'.repeat(60)}name`, 'file', null, 'x'],
  ]);
});

test('a tar cut at an entry boundary reads without an error, entries missing', async () => {
  const tar = await tarOf(['a', 'b'.repeat(300), 'c'].map((name) => ({ name, content: name })));
  expect((await entriesOf(cutAfterEntries(tar, 2))).map(([name]) => name)).toEqual(['a', 'b'.repeat(300)]);
  const extracted = await untar(cutAfterEntries(await tarOf([{ name: 'a' }, { name: 'b' }]), 1), '-xf');
  expect([existsSync(join(extracted, 'a')), existsSync(join(extracted, 'b'))]).toEqual([true, false]);
  expect(() => cutAfterEntries(tar, 4)).toThrow('only 3 entries');
});

async function entriesOf(tar: Buffer): Promise<unknown[][]> {
  const extractor = extract();
  Readable.from([tar]).pipe(extractor);
  const entries: unknown[][] = [];
  for await (const entry of extractor) {
    const { name, type, linkname } = entry.header;
    entries.push([name, type, linkname ?? null, (await buffer(entry)).toString()]);
  }
  return entries;
}
