import { healthLine, missingInLog, wrongMetadata } from '../../scripts/stand/archives.ts';
import { OutputLine } from '../support/processes.ts';

const GOOD = {
  source: 'jellyroller',
  size: '3',
  sha256: 'abc',
  jellyfin_version: '10.11.11',
  timestamp_utc: '2026-02-01T00:00:00.000Z',
};
const look = (metadata: Record<string, string>) =>
  wrongMetadata(metadata, { sizeBytes: 3, sha256: 'abc' }, '10.11.11');

test('each field of the metadata counts', () => {
  expect(look(GOOD)).toEqual([]);
  for (const key of Object.keys(GOOD)) {
    expect(look(Object.fromEntries(Object.entries(GOOD).filter(([name]) => name !== key)))).toEqual([key]);
    expect(look({ ...GOOD, [key]: 'another' })).toEqual([key]);
  }
});

const lineOf = (msg: string, fields: Record<string, unknown> = {}) =>
  new OutputLine('stdout', JSON.stringify({ msg, ...fields }));
const LOG = [
  lineOf('run starts'),
  lineOf('create starts'),
  lineOf('archive is complete', { archive: 'a.zip', sizeBytes: 3, sha256: 'abc', durationMs: 1 }),
  lineOf('upload starts', { archive: 'a.zip', url: 'http://127.0.0.1/x' }),
  lineOf('stored and read back', { url: 'http://127.0.0.1/x', sizeBytes: 3, sha256: 'abc', durationMs: 2 }),
  lineOf('retention', { kept: 1, deleted: [] }),
  lineOf('last_backup_utc=2026-02-01T00:00:00.000Z size_bytes=3'),
];

test('each line of the log counts, and each field of it', () => {
  expect(missingInLog(LOG)).toEqual([]);
  expect(missingInLog(LOG.toSpliced(3, 1))).toEqual(['upload starts']);
  expect(
    missingInLog(LOG.with(2, lineOf('archive is complete', { archive: 'a.zip', sizeBytes: 3 }))),
  ).toEqual(['archive is complete: sha256', 'archive is complete: durationMs']);
  // Deleted before it was stored.
  expect(missingInLog([...LOG.slice(0, 4), ...LOG.slice(5, 6), ...LOG.slice(4, 5)])).toEqual(['retention']);
});

test('the health line is the one that the client greps, and nothing else', () => {
  expect(healthLine(LOG)).toBe('last_backup_utc=2026-02-01T00:00:00.000Z size_bytes=3');
  expect(
    healthLine([lineOf('stored: last_backup_utc=2026-02-01T00:00:00.000Z size_bytes=3')]),
  ).toBeUndefined();
});
