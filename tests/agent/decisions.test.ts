import { formatBackupName, parseBackupName, parseLegacyName, stampOf } from '../../agent/backup-name.ts';
import { toCatalog } from '../../agent/catalog.ts';
import { collapseReason, judge, type ServerFacts } from '../../agent/checks.ts';
import { candidatesOf, lineOf, type EpochState } from '../../agent/epoch.ts';
import { AgentError, exitCodeOf, InterruptedError } from '../../agent/errors.ts';
import { nameOf } from '../../agent/catalog.ts';
import type { DatabaseFacts } from '../../agent/ports.ts';
import { JELLYFIN, scopeOf, scopeRoots } from '../../agent/profile.ts';
import { decide, newerVersionError, type Decision, type StoreState } from '../../agent/restore-decision.ts';
import { waitMs } from '../../agent/retry.ts';
import { unsafePathReason } from '../../agent/safe-path.ts';
import { isWellFormedXml, unsupportedDatabaseReason, wizardCompleted } from '../../agent/settings-file.ts';
import { compareVersions } from '../../agent/versions.ts';
import type { VolumeMarker, VolumeState } from '../../agent/volume.ts';
import { legacyTar, stored } from './support-values.ts';

const bytes = (text: string) => new TextEncoder().encode(text);

describe('names', () => {
  it('are read back as they were written', () => {
    for (const placement of ['line', 'tail', 'quarantine'] as const) {
      const name = { placement, epoch: 12, sequence: 345, stamp: '20261121235959' };
      expect(parseBackupName(formatBackupName(name))).toEqual(name);
    }
    expect(formatBackupName({ placement: 'line', epoch: 1, sequence: 2, stamp: '20261121000000' })).toBe(
      'backup-20261121000000.e1.s2.tar.zst',
    );
  });

  it('carry UTC, whatever the local time zone', () => {
    expect(stampOf(new Date('2026-11-21T23:59:58.999+02:00'))).toBe('20261121215958');
  });

  it.each([
    'backup-20261121000000.tar.zst',
    'backup-20261121000000.e1.s2.tar.zst.part',
    'x/backup-20261121000000.e1.s2.tar.zst',
    'backup-2026112100000.e1.s2.tar.zst',
    'state/epoch.json',
    'jellyroller/backup-20261121000000.zip',
  ])('%s is not a backup of ours', (blob) => {
    expect(parseBackupName(blob)).toBeUndefined();
  });

  it('of the older set-ups are told apart', () => {
    expect(parseLegacyName('backup-20251108030217.tar.gz')).toEqual({
      kind: 'tarGz',
      stamp: '20251108030217',
    });
    expect(parseLegacyName('backup-20251108030217/playlists/a.xml')).toEqual({
      kind: 'folder',
      stamp: '20251108030217',
      path: 'playlists/a.xml',
    });
    expect(parseLegacyName('backup-20251108030217/')).toBeUndefined();
  });
});

describe('the candidate', () => {
  const state = (epoch: number, line: EpochState['line']): EpochState => ({
    format: 1,
    epoch,
    holder: 'h',
    takenUtc: '',
    line,
  });
  const catalogOf = (...backups: ReturnType<typeof stored>[]) =>
    toCatalog(backups.map((backup) => backup.item));
  const names = (backups: Parameters<typeof nameOf>[0][]) => backups.map(nameOf);

  it('is the highest (epoch, sequence), however late an older one carries its time', () => {
    const catalog = catalogOf(
      stored(1, 9, { stamp: '20991231000000' }),
      stored(2, 1, { stamp: '20000101000000' }),
      stored(2, 10, { stamp: '20000101000001' }),
    );
    expect(names(candidatesOf(catalog, undefined))).toEqual([
      'backup-20000101000001.e2.s10.tar.zst',
      'backup-20000101000000.e2.s1.tar.zst',
      'backup-20991231000000.e1.s9.tar.zst',
    ]);
  });

  it('is never what an old replica published after its successor had chosen', () => {
    const catalog = catalogOf(stored(1, 8), stored(1, 9));
    expect(names(lineOf(catalog, state(2, [{ epoch: 1, upTo: 8 }])))).toEqual([
      'backup-20260101000000.e1.s8.tar.zst',
    ]);
  });

  it('may be of an epoch that no successor has restored from yet', () => {
    const catalog = catalogOf(stored(1, 8), stored(1, 9));
    expect(lineOf(catalog, state(2, [{ epoch: 1, upTo: null }]))).toHaveLength(2);
  });

  it('is never of an epoch that lies between two on the line', () => {
    const catalog = catalogOf(stored(1, 8), stored(2, 1));
    expect(names(lineOf(catalog, state(3, [{ epoch: 1, upTo: 8 }])))).toEqual([
      'backup-20260101000000.e1.s8.tar.zst',
    ]);
  });

  it('outlives a state that was set back by hand', () => {
    expect(lineOf(catalogOf(stored(5, 1)), state(2, []))).toHaveLength(1);
  });

  it('is of an older format only when there is none of ours', () => {
    const catalog = toCatalog([stored(1, 1).item, ...legacyTar('20991231000000').items]);
    expect(names(candidatesOf(catalog, undefined))).toEqual([
      'backup-20260101000000.e1.s1.tar.zst',
      'backup-20991231000000.tar.gz',
    ]);
  });

  it('is not a tail or a quarantined one, until a person releases it', () => {
    expect(
      lineOf(catalogOf(stored(1, 1), stored(1, 2, { placement: 'quarantine' })), undefined),
    ).toHaveLength(1);
    const released = stored(1, 2, { placement: 'quarantine', metadata: { released: 'true' } });
    expect(names(lineOf(catalogOf(stored(1, 1), released), state(2, [{ epoch: 1, upTo: 1 }])))[0]).toBe(
      'quarantine/backup-20260101000000.e1.s2.tar.zst',
    );
  });
});

describe('what a starting replica does', () => {
  const marker: VolumeMarker = {
    format: 1,
    state: 'complete',
    origin: 'first_boot',
    epoch: 3,
    holder: 'h',
    restoredFrom: null,
    writtenUtc: '',
  };
  const volumes: Record<VolumeState['kind'], VolumeState> = {
    live: { kind: 'live', marker },
    prepared: { kind: 'prepared', marker },
    empty: { kind: 'empty' },
    half_restored: { kind: 'half_restored' },
    foreign: { kind: 'foreign', why: 'x.txt was not put there by a restore' },
  };
  const newest = stored(2, 1, { metadata: { jellyfin_version: '10.11.11' } });
  const stores: Record<string, StoreState> = {
    none: { kind: 'none' },
    candidates: { kind: 'candidates', candidates: [newest] },
    newer: { kind: 'candidates', candidates: [stored(2, 1, { metadata: { jellyfin_version: '12.0.0' } })] },
    beside: { kind: 'only_beside_line', names: ['tail/x'] },
    unknown: { kind: 'unknown', error: new AgentError('store_unreachable', 'list failed') },
  };
  const told = (decision: Decision) =>
    decision.action === 'refuse'
      ? `exit ${String(exitCodeOf(decision.error))}`
      : decision.action === 'restore' && decision.cleanFirst
        ? 'clean and restore'
        : decision.action;

  // Rows: what lies on the volume. Columns: what the store answered. No cell with an unknown starts a server.
  const TABLE: Record<VolumeState['kind'], Record<string, string>> = {
    live: { none: 'keep', candidates: 'keep', newer: 'keep', beside: 'keep', unknown: 'keep' },
    prepared: {
      none: 'keep',
      candidates: 'clean and restore',
      newer: 'exit 4',
      beside: 'exit 4',
      unknown: 'exit 3',
    },
    empty: {
      none: 'first_boot',
      candidates: 'restore',
      newer: 'exit 4',
      beside: 'exit 4',
      unknown: 'exit 3',
    },
    half_restored: {
      none: 'exit 4',
      candidates: 'clean and restore',
      newer: 'exit 4',
      beside: 'exit 4',
      unknown: 'exit 3',
    },
    foreign: { none: 'exit 5', candidates: 'exit 5', newer: 'exit 5', beside: 'exit 5', unknown: 'exit 5' },
  };
  const cells = Object.entries(TABLE).flatMap(([volume, row]) =>
    Object.entries(row).map(([store, expected]) => [volume, store, expected] as const),
  );
  it.each(cells)('volume %s, store %s: %s', (volume, store, expected) => {
    const decision = decide(volumes[volume as VolumeState['kind']], stores[store] as StoreState, '10.11.11');
    expect(told(decision)).toBe(expected);
  });

  it('names both versions when it refuses a newer backup, and restores it when the image is unknown', () => {
    expect(newerVersionError('12.0.0', '10.11.11', 'b')?.message).toBe(
      'b was made by Jellyfin 12.0.0, the image is 10.11.11: there is no downgrade',
    );
    expect(newerVersionError('12.0.0', undefined, 'b')).toBeUndefined();
    expect(newerVersionError('10.11.11', '10.11.11', 'b')).toBeUndefined();
  });
});

describe('versions', () => {
  it.each([
    ['10.9.0', '10.11.0', -1],
    ['10.11.11', '10.11.9', 1],
    ['10.11.11.0', '10.11.11', 0],
    ['12.0.0-rc5', '12.0.0', -1],
    ['12.0.0-rc10', '12.0.0-rc9', 1],
  ])('%s against %s: %i', (a, b, sign) => {
    expect(Math.sign(compareVersions(a, b))).toBe(sign);
    expect(Math.sign(compareVersions(b, a))).toBe(sign === 0 ? 0 : -sign);
  });
});

describe('what a tree is worth', () => {
  const database = (part: Partial<DatabaseFacts> = {}): DatabaseFacts => ({
    quickCheck: 'ok',
    isWal: true,
    tables: [...JELLYFIN.mainTables, 'BaseItems'],
    answers: { users: 2, admins: 1, items: 40, migration: '2025' },
    ...part,
  });
  const facts = (wizard: ServerFacts['wizard'], main?: DatabaseFacts): ServerFacts => ({
    wizard,
    databases: new Map(main === undefined ? [] : [['data/jellyfin.db', main]]),
  });
  const noAdmin = database({ answers: { users: 1, admins: 0, items: 0 } });

  it.each([
    ['a server in use', facts(true, database()), 'configured'],
    ['a server that never booted', facts('missing'), 'unconfigured'],
    ['a server that shows its wizard', facts(false, noAdmin), 'unconfigured'],
    ['a server in the middle of its wizard', facts(false, database()), 'unconfigured'],
    ['a schema that is still being made', facts('missing', database({ tables: ['Users'] })), 'unconfigured'],
    ['settings without a database', facts(true), 'damaged'],
    ['a database without settings', facts('missing', database()), 'damaged'],
    ['settings cut by a crash', facts('unreadable', database()), 'damaged'],
    ['a wizard that is done, but nobody to sign in', facts(true, noAdmin), 'damaged'],
    [
      'a wizard that is done, but tables are missing',
      facts(true, database({ tables: ['Users'] })),
      'damaged',
    ],
    ['a broken page', facts(true, database({ quickCheck: 'row 1 missing from index' })), 'damaged'],
  ] as const)('%s', (_name, seen, verdict) => {
    expect(judge(JELLYFIN, seen).kind).toBe(verdict);
  });

  it('a broken plugin database counts too', () => {
    const seen = new Map([
      ['data/jellyfin.db', database()],
      ['data/playback_reporting.db', database({ quickCheck: 'malformed' })],
    ]);
    expect(judge(JELLYFIN, { wizard: true, databases: seen })).toEqual({
      kind: 'damaged',
      why: 'data/playback_reporting.db fails quick_check: malformed',
    });
  });

  it.each([
    [{ users: 1, admins: 1, items: 100 }, { users: 10, items: 100 }, 'users fell from 10 to 1'],
    [{ users: 2, admins: 1, items: 3 }, { users: 2, items: 1000 }, 'items fell from 1000 to 3'],
    [{ users: 2, admins: 1, items: 500 }, { users: 2, items: 1000 }, undefined],
    [{ users: 1, admins: 1, items: 0 }, { users: 2, items: 10 }, undefined],
    [{ users: 1, admins: 1, items: 0 }, undefined, undefined],
  ])('collapse of %o against %o: %s', (now, before, expected) => {
    expect(collapseReason(JELLYFIN, now, before)).toBe(expected);
  });
});

describe('scope', () => {
  const scope = scopeOf(JELLYFIN);
  it.each([
    'data/jellyfin.db',
    'data/library.db',
    'data/playback_reporting.db',
    'data/device.txt',
    'data/playlists/Sunday [playlist]/playlist.xml',
    'data/ScheduledTasks/x.js',
    'data/livetv/timers.json',
    'data/splashscreen-upload.png',
    'config/system.xml',
    'config/users/root/profile.jpg',
    'config/.hidden',
    'root/default/Movies/options.xml',
    'plugins/Some_1.0/.dot/x.dll',
  ])('%s is essential', (path) => expect(scope(path)).toBe('essential'));
  it('artwork is bulk', () => expect(scope('metadata/library/ab/poster.jpg')).toBe('bulk'));
  it.each([
    'cache/images/x.jpg',
    'log/log_1.log',
    'data/jellyfin.db-wal',
    'data/jellyfin.db-shm',
    'plugins/x/state.sqlite-journal',
    'data/backups/jellyfin-backup-1.zip',
    'data/SQLiteBackups/1_jellyfin.db',
    'data/trickplay/1/2.jpg',
    'data/trickplay',
    'data/library.db.old',
    'data/library.db.bak1',
    'data/livetv/recordings/film.ts',
    'config/.jellyfin-config',
    '.agent/volume.json',
    'passwordreset123.json',
    'some-file',
  ])('%s is out', (path) => expect(scope(path)).toBeUndefined());
  it('is scanned from these folders', () =>
    expect(scopeRoots(JELLYFIN)).toEqual(['config', 'data', 'metadata', 'plugins', 'root']));
});

describe('settings files', () => {
  it.each([
    [
      '<ServerConfiguration><IsStartupWizardCompleted>true</IsStartupWizardCompleted></ServerConfiguration>',
      true,
    ],
    [
      '<?xml version="1.0"?><S xmlns:xsi="http://x"><IsStartupWizardCompleted> True </IsStartupWizardCompleted></S>',
      true,
    ],
    ['<S><IsStartupWizardCompleted>false</IsStartupWizardCompleted></S>', false],
    ['<S><Nested><IsStartupWizardCompleted>true</IsStartupWizardCompleted></Nested></S>', false],
    ['<S/>', false],
    ['<S><!-- <IsStartupWizardCompleted>true</IsStartupWizardCompleted> --></S>', false],
    ['<S><IsStartupWizardCompleted>true</IsStartupWizardCompleted>', undefined],
    ['', undefined],
    ['\0\0\0\0', undefined],
  ])('%s says %s', (xml, expected) => {
    expect(wizardCompleted(bytes(xml))).toBe(expected);
    expect(isWellFormedXml(bytes(xml))).toBe(expected !== undefined);
  });

  it('a database that no other process may read is named', () => {
    const option = (value: string) =>
      bytes(
        `<D><DatabaseType>Jellyfin-SQLite</DatabaseType><Options><O><Key>lockingmode</Key><Value>${value}</Value></O></Options></D>`,
      );
    expect(unsupportedDatabaseReason(option('EXCLUSIVE'))).toMatch(/EXCLUSIVE/);
    expect(unsupportedDatabaseReason(option('NORMAL'))).toBeUndefined();
    expect(unsupportedDatabaseReason(bytes('<D><DatabaseType>Postgres</DatabaseType></D>'))).toMatch(
      /Postgres/,
    );
  });
});

describe('unsafe names', () => {
  it.each(['', '/etc/passwd', '../x', 'a/../../x', 'a/..', 'C:/x', 'a\\b', 'a\0b', 'a//b', './a', 'a/.'])(
    '%j',
    (path) => {
      expect(unsafePathReason(path)).toBeDefined();
    },
  );
  it.each(['a', 'a/b.c', 'data/..x/y', 'root/default/Films & Séries/options.xml'])('%j is fine', (path) => {
    expect(unsafePathReason(path)).toBeUndefined();
  });
});

describe('waiting and exit codes', () => {
  const policy = { max: 5, backoffMs: 1_000 };
  it('doubles up to a minute, with jitter, and never below Retry-After', () => {
    expect([1, 2, 3, 4].map((attempt) => waitMs(policy, attempt, undefined, 0))).toEqual([
      1_000, 2_000, 4_000, 8_000,
    ]);
    expect(waitMs(policy, 30, undefined, 0)).toBe(60_000);
    expect(waitMs(policy, 1, undefined, 1)).toBe(750);
    expect(waitMs(policy, 1, 7_000, 1)).toBe(7_000);
    expect(waitMs(policy, 1, 3_600_000, 0)).toBe(60_000);
  });
  it('an interruption is never success, an unknown error is a bug', () => {
    expect(exitCodeOf(new InterruptedError('SIGTERM'))).toBe(143);
    expect(exitCodeOf(new InterruptedError('SIGINT'))).toBe(130);
    expect(exitCodeOf(new TypeError('x'))).toBe(1);
  });
});
