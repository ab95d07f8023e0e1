import { parseBackupList } from '../../agent/runner/backup-list.ts';

const FILE = 'jellyfin-backup-20260822171415.zip';
const ENTRY = {
  ServerVersion: '10.11.11.0',
  BackupEngineVersion: '0.2.0',
  DateCreated: '2026-08-22T17:14:15.1234567Z',
  Path: `/config/data/backups/${FILE}`,
  Options: { Metadata: true, Trickplay: false, Subtitles: true, Database: true },
};
const parse = (...entries: unknown[]) => parseBackupList(JSON.stringify(entries), 'the list');

test('takes what Jellyfin writes, with more than we ask for', () => {
  expect(parse({ ...ENTRY, Comment: 'later versions may say more' })).toEqual([
    {
      fileName: FILE,
      serverVersion: '10.11.11.0',
      engineVersion: '0.2.0',
      createdUtc: '2026-08-22T17:14:15.123Z',
    },
  ]);
});

test('turns an offset into UTC, and takes the name from a path of either kind', () => {
  const [backup] = parse({
    ...ENTRY,
    DateCreated: '2026-08-23T05:14:15+12:00',
    Path: `C:\\ProgramData\\backups\\${FILE}`,
  });
  expect(backup).toMatchObject({ fileName: FILE, createdUtc: '2026-08-22T17:14:15.000Z' });
});

test('passes over a backup that somebody has renamed, and nothing else', () => {
  expect(parse({ ...ENTRY, Path: '/b/before the holidays.zip' }, { ...ENTRY, Path: '/b/x.zip' })).toEqual([]);
  expect(() => parse({ ...ENTRY, Path: '/b/before the holidays.zip', DateCreated: 'today' })).toThrow();
});

test.each([
  ['no list', { Items: [] }],
  [
    'camel case',
    [Object.fromEntries(Object.entries(ENTRY).map(([key, value]) => [key.toLowerCase(), value]))],
  ],
  ['null', [null]],
  ['a text', ['x']],
  ['a date without an offset', [{ ...ENTRY, DateCreated: '2026-08-22T17:14:15' }]],
  ['a day that is none', [{ ...ENTRY, DateCreated: '2026-13-22T17:14:15Z' }]],
  ['a version that is none', [{ ...ENTRY, ServerVersion: 'latest' }]],
  ['no engine version', [{ ...ENTRY, BackupEngineVersion: undefined }]],
  ['a folder', [{ ...ENTRY, Path: '/config/data/backups/' }]],
  ['options that are missing', [{ ...ENTRY, Options: { Metadata: true } }]],
  ['a good one before a bad one', [ENTRY, {}]],
])('refuses %s', (_what, value) => {
  let error: unknown;
  try {
    parseBackupList(JSON.stringify(value), 'the list');
  } catch (thrown) {
    error = thrown;
  }
  expect(error).toMatchObject({
    code: 'external_failed',
    message: expect.stringMatching(/^the list is not what/),
  });
});
