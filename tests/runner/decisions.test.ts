import {
  decideArchiveRetention,
  decideLocalRetention,
  ENGINE_NEEDS_BYTES,
} from '../../agent/runner/archive-retention.ts';
import { archiveRows, archiveTable } from '../../agent/runner/archive-list.ts';
import { MANIFEST_ENTRY, parseEngineManifest } from '../../agent/runner/archive.ts';
import type { EngineBackup } from '../../agent/runner/engine.ts';
import { freeMirrorName, parseMirrorName } from '../../agent/runner/mirror-name.ts';
import { judgeRestored } from '../../agent/runner/restore-verdict.ts';
import { isLeftBehind, judgeRun, type RunObservation, type RunState } from '../../agent/runner/run-state.ts';
import type { BlobItem, FileStat } from '../../agent/ports.ts';

const OLD = 'jellyfin-backup-20260101000000.zip';
const NEW = 'jellyfin-backup-20260102000000.zip';
const NEWER = 'jellyfin-backup-20260102000001.zip';
const listed = (fileName: string, createdUtc = '2026-01-02T00:00:00.000Z'): EngineBackup => ({
  fileName,
  createdUtc,
  serverVersion: '10.11.11.0',
  engineVersion: '0.2.0',
});
const STATE: RunState = {
  format: 1,
  kind: 'backup',
  id: 'id',
  startedUtc: '2026-01-02T00:00:00.000Z',
  before: [OLD],
  serverWasGone: false,
};
const LIMITS = { timeoutMs: 60_000, quietMs: 10_000 };
const fresh = (fileName: string) => ({ fileName, stillMs: 0 });
const still = (fileName: string) => ({ fileName, stillMs: 10_000 });

describe('judgeRun: what has become of a run', () => {
  const early = { elapsedMs: 1_000, listed: [], files: [] };
  const late = { elapsedMs: 60_000, listed: [], files: [] };
  test.each<[string, Partial<RunState>, RunObservation, string]>([
    ['nothing yet', {}, early, 'wait: no file yet'],
    ['the list was not asked', {}, { ...early, listed: undefined }, 'wait: no file yet'],
    ['only what was there before', {}, { ...early, listed: [listed(OLD)], files: [] }, 'wait: no file yet'],
    ['a file that grows', {}, { ...early, files: [fresh(NEW)] }, 'wait: the file is not complete'],
    ['a file that stands still', {}, { ...early, files: [still(NEW)] }, 'wait: the file is not complete'],
    ['listed and there', {}, { ...early, listed: [listed(NEW)], files: [fresh(NEW)] }, `finished: ${NEW}`],
    [
      'two of them',
      {},
      {
        ...early,
        listed: [listed(NEW), listed(NEWER, '2026-01-02T00:00:01.000Z')],
        files: [fresh(NEW), fresh(NEWER)],
      },
      `finished: ${NEWER}`,
    ],
    [
      'listed, but another volume',
      {},
      { ...early, listed: [listed(NEW)] },
      'wait: listed, but not in the folder',
    ],
    [
      'another volume, time is up',
      {},
      { ...late, listed: [listed(NEW)] },
      `over: ${NEW} is listed by Jellyfin, but`,
    ],
    [
      'an old archive that was copied there',
      {},
      {
        ...early,
        listed: [listed(NEW, '2025-12-31T00:00:00.000Z')],
        files: [still(NEW)],
      },
      'wait: the file is not complete',
    ],
    [
      'a clock a little behind',
      {},
      {
        ...early,
        listed: [listed(NEW, '2026-01-01T23:59:00.000Z')],
        files: [still(NEW)],
      },
      `finished: ${NEW}`,
    ],
    ['time is up, nothing came', {}, late, 'over: no archive within 60 s'],
    ['time is up, but it grows', {}, { ...late, files: [fresh(NEW)] }, 'wait: the file is not complete'],
    ['time is up, it stands still', {}, { ...late, files: [still(NEW)] }, `over: no archive within 60 s`],
    ['the server was gone, no file', { serverWasGone: true }, early, 'over: Jellyfin stopped before'],
    [
      'the server was gone, half a file',
      { serverWasGone: true },
      { ...early, files: [still(NEW)] },
      'over: Jellyfin stopped before',
    ],
    [
      'the server was gone, and yet it grows',
      { serverWasGone: true },
      { ...early, files: [fresh(NEW)] },
      'wait: the file is not complete',
    ],
    [
      'the server was gone after it had finished',
      { serverWasGone: true },
      { ...late, listed: [listed(NEW)], files: [still(NEW)] },
      `finished: ${NEW}`,
    ],
  ])('%s', (_name, state, observation, expected) => {
    const verdict = judgeRun({ ...STATE, ...state }, observation, LIMITS);
    const said = verdict.kind === 'finished' ? verdict.backup.fileName : verdict.why;
    expect(`${verdict.kind}: ${said}`.slice(0, expected.length)).toBe(expected);
    // Nothing but files of this run is ever given up.
    if (verdict.kind === 'over')
      expect(verdict.leftBehind).toEqual(observation.files.map((file) => file.fileName));
  });

  test.each([
    ['restore', '2026-01-02T00:29:59Z', false],
    ['restore', '2026-01-02T00:30:01Z', true],
    ['restore', '2026-01-01T23:00:00Z', true],
    ['backup', '2026-01-09T00:00:00Z', false],
  ] as const)('the claim of a %s at %s is left behind: %s', (kind, now, expected) => {
    expect(isLeftBehind({ ...STATE, kind }, new Date(now))).toBe(expected);
  });
});

const archive = (stamp: string, metadata: Record<string, string> = {}, turn = ''): BlobItem => ({
  name: `jellyroller/backup-${stamp}${turn}.zip`,
  sizeBytes: 3,
  etag: '"1"',
  lastModified: new Date(0),
  metadata: { source: 'jellyroller', size: '3', sha256: stamp, verified_utc: 'then', ...metadata },
});
const UNVERIFIED = {
  source: 'jellyroller',
  size: '3',
  sha256: 'x',
  verified_utc: undefined as unknown as string,
};

describe('decideArchiveRetention', () => {
  const one = archive('20260101000000');
  const two = archive('20260102000000');
  const three = archive('20260103000000');
  const four = archive('20260104000000');
  const all = [two, four, one, three];
  const deleted = (items: BlobItem[], justStored: string, keep: number) =>
    decideArchiveRetention(items, justStored, keep)
      .filter((verdict) => !verdict.keep)
      .map(({ name }) => name.slice('jellyroller/backup-'.length, -'.zip'.length))
      .sort();

  test.each<[string, BlobItem[], string, number, string[]]>([
    ['keeps the newest', all, four.name, 2, ['20260101000000', '20260102000000']],
    ['keeps all of few', all, four.name, 9, []],
    ['deletes nothing when the new one is not there', all, 'jellyroller/backup-20260105000000.zip', 1, []],
    [
      'deletes nothing when the new one is not verified',
      [one, two, archive('20260105000000', UNVERIFIED)],
      'jellyroller/backup-20260105000000.zip',
      1,
      [],
    ],
    [
      'keeps the one just stored, though its clock was behind',
      all,
      one.name,
      1,
      ['20260102000000', '20260103000000'],
    ],
    [
      'counts verified ones only',
      [archive('20260103120000', { damaged: 'yes' }), ...all],
      four.name,
      2,
      ['20260101000000', '20260102000000'],
    ],
    [
      'lets an unverified one go with its age',
      [archive('20260102120000', UNVERIFIED), ...all],
      four.name,
      2,
      ['20260101000000', '20260102000000', '20260102120000'],
    ],
    [
      'takes a cut blob for unverified',
      [archive('20260104120000', { size: '4' }), ...all],
      four.name,
      1,
      ['20260101000000', '20260102000000', '20260103000000'],
    ],
    [
      'orders two of one second',
      [archive('20260104000000', {}, '-2'), four],
      'jellyroller/backup-20260104000000-2.zip',
      1,
      ['20260104000000'],
    ],
    [
      'leaves other names alone',
      [{ ...archive('x'), name: 'jellyroller/mine.zip' }, ...all],
      four.name,
      4,
      [],
    ],
  ])('%s', (_name, items, justStored, keep, expected) => {
    expect(deleted(items, justStored, keep)).toEqual(expected);
    expect(deleted(items.toReversed(), justStored, keep)).toEqual(expected);
  });

  it('never deletes all that is verified', () => {
    for (const keep of [0, 1]) expect(deleted([one, two], two.name, keep)).toEqual(['20260101000000']);
  });
});

describe('decideLocalRetention', () => {
  const file = (fileName: string, mtimeNs: string, sizeBytes = 10) => ({
    fileName,
    stat: { mtimeNs, sizeBytes } as FileStat,
  });
  const files = [file('a', '1'), file('b', '3'), file('c', '2'), file('half', '9')];
  const plenty = ENGINE_NEEDS_BYTES;
  test.each<[string, string[], number, string[]]>([
    ['nothing that is not stored', [], 0, []],
    ['all but the newest that are', ['a', 'b', 'c'], plenty, ['c', 'a']],
    ['the newest too when the engine lacks space', ['a', 'b', 'c'], ENGINE_NEEDS_BYTES - 21, ['b', 'c', 'a']],
    ['what the older ones free counts', ['a', 'b', 'c'], ENGINE_NEEDS_BYTES - 20, ['c', 'a']],
    ['a single one stays', ['b'], plenty, []],
  ])('%s', (_name, mirrored, freeBytes, expected) => {
    expect(decideLocalRetention(files, new Set(mirrored), freeBytes)).toEqual(expected);
  });
});

test('agent list shows size, time, version, hash and verdict of each archive, newest first', () => {
  const damaged = archive('20260103000000', { timestamp_utc: '2026-01-03T00:00:00.000Z', damaged: 'cut' });
  const older = archive('20260101000000', {
    timestamp_utc: '2026-01-01T00:00:00.000Z',
    jellyfin_version: '10.11.11',
  });
  const rows = archiveRows([older, damaged, { ...older, name: 'jellyroller/notes.txt' }]);
  expect(rows.map(({ name }) => name)).toEqual([damaged.name, older.name]);
  expect(
    archiveTable(rows)
      .trim()
      .split('\n')
      .slice(2)
      .map((line) => line.split(/ {2,}/)),
  ).toEqual([
    [damaged.name, '3 B', '2026-01-03 00:00:00', '-', 'DAMAGED', '20260103000000'],
    [older.name, '3 B', '2026-01-01 00:00:00', '10.11.11', 'then', '20260101000000'],
  ]);
  expect(archiveTable([])).toBe('');
});

describe('names and manifests', () => {
  it('gives two archives of one second a name each', () => {
    const taken = new Set<string>();
    for (let count = 0; count < 3; count += 1) taken.add(freeMirrorName('2026-08-22T17:14:15.123Z', taken));
    expect([...taken]).toEqual([
      'jellyroller/backup-20260822171415.zip',
      'jellyroller/backup-20260822171415-2.zip',
      'jellyroller/backup-20260822171415-3.zip',
    ]);
    expect([...taken].map((name) => parseMirrorName(name)?.turn)).toEqual([1, 2, 3]);
    expect(parseMirrorName('jellyroller/backup-20260822171415.zip.part')).toBeUndefined();
  });

  const zip = (text: string | undefined) => ({
    paths: [],
    kept: new Map(text === undefined ? [] : [[MANIFEST_ENTRY, new TextEncoder().encode(text)]]),
  });
  it('reads what .NET writes: seven digits of a second, an offset, four parts of a version', () => {
    const text =
      '{"ServerVersion":"10.11.11.0","DateCreated":"2026-08-22T19:14:15.1234567+02:00","Options":{"Database":true}}';
    expect(parseEngineManifest(zip(text), 'x.zip')).toEqual({
      jellyfinVersion: '10.11.11',
      createdUtc: '2026-08-22T17:14:15.123Z',
      hasDatabase: true,
    });
  });
  test.each([
    undefined,
    '',
    '[]',
    'null',
    '{"ServerVersion":"10.11.11"}',
    '{"ServerVersion":"ten","DateCreated":"2026-08-22"}',
  ])('refuses %j', (text) => {
    expect(() => parseEngineManifest(zip(text), 'x.zip')).toThrow(/^x\.zip is no backup of Jellyfin: /);
  });
});

describe('judgeRestored', () => {
  const manifest = { jellyfinVersion: '10.11.11', createdUtc: '', hasDatabase: true };
  const content = { manifest, users: ['ann', 'bob'], libraries: ['Films'] };
  const server = {
    wizardCompleted: true,
    key: 'still valid' as const,
    users: ['bob', 'ann'],
    libraries: ['Films', 'Mine'],
  };
  const failed = (found: Partial<Parameters<typeof judgeRestored>[1]>) =>
    judgeRestored(content, { ...server, ...found })
      .filter(({ ok }) => !ok)
      .map(({ what }) => what);
  test.each([
    [{}, []],
    [{ wizardCompleted: false }, ['first page']],
    [{ key: 'refused' as const }, ['API key']],
    [{ users: [] }, ['users']],
    [{ users: ['ann', 'bob', 'eve'] }, ['users']],
    [{ libraries: ['Mine'] }, ['libraries']],
  ])('%j fails %j', (found, expected) => {
    expect(failed(found)).toEqual(expected);
  });
});
