import fc from 'fast-check';
import type { StoredBackup } from '../../agent/catalog.ts';
import { decideRetention, isVerified, versionHolds } from '../../agent/retention.ts';
import { stored } from './support-values.ts';

const NONE = { daily: 0, weekly: 0, monthly: 0 };
const stampOf = (ms: number) => new Date(ms).toISOString().replace(/\D/g, '').slice(0, 14);

/** A year of backups, every `hours` hours, newest first. */
function year(hours: number, count: number): StoredBackup[] {
  const start = Date.UTC(2026, 0, 1);
  return Array.from({ length: count }, (_, index) => {
    const ms = start + index * hours * 3_600_000;
    return stored(1, index + 1, { stamp: stampOf(ms), lastModified: new Date(ms) });
  }).reverse();
}

const kept = (verdicts: ReturnType<typeof decideRetention>) =>
  verdicts.filter((verdict) => verdict.keep).map((verdict) => verdict.backup.sequence);

describe('retention', () => {
  it('keeps the newest N and the newest of each day, week and month', () => {
    const line = year(24, 100);
    const verdicts = decideRetention({
      line,
      besideLine: [],
      policy: { keep: 2, daily: 3, weekly: 2, monthly: 3 },
    });
    const reasons = verdicts
      .filter((verdict) => verdict.keep)
      .map(({ backup, reason }) => `${backup.stamp.slice(0, 8)} ${reason}`);
    expect(reasons).toEqual([
      '20260410 newest 1 of 2',
      '20260409 newest 2 of 2',
      '20260408 daily 2026-04-08',
      expect.stringMatching(/^20260405 weekly /),
      '20260331 monthly 2026-03',
      '20260228 monthly 2026-02',
    ]);
  });

  const ofVersions = (...versions: [version: string, hold?: 'released'][]) =>
    year(24, versions.length).map((backup, index) => {
      const [version, hold] = versions[index] ?? [];
      const metadata = {
        ...backup.item.metadata,
        jellyfin_version: version ?? '',
        ...(hold && { version_hold: hold }),
      };
      return { ...backup, item: { ...backup.item, metadata } };
    });

  it('keeps the last backup of each Jellyfin version until someone lets it go', () => {
    const policy = { keep: 2, ...NONE };
    const held = ofVersions(['12.0.0'], ['12.0.0'], ['10.11.11'], ['10.11.11'], ['10.10.7']);
    expect(kept(decideRetention({ line: held, besideLine: [], policy }))).toEqual([5, 4, 3, 1]);
    expect(decideRetention({ line: held, besideLine: [], policy })[2]?.reason).toBe(
      'held: last of Jellyfin 10.11.11',
    );
    const released = ofVersions(['12.0.0'], ['12.0.0'], ['10.11.11', 'released'], ['10.11.11'], ['10.10.7']);
    expect(kept(decideRetention({ line: released, besideLine: [], policy }))).toEqual([5, 4, 1]);
    // Gone for one reason does not mean gone for all.
    expect(kept(decideRetention({ line: released, besideLine: [], policy: { ...policy, keep: 3 } }))).toEqual(
      [5, 4, 3, 1],
    );
  });

  it('holds nothing of the version that runs now, and nothing damaged', () => {
    const [newest, damaged, older] = ofVersions(['12.0.0'], ['10.11.11'], ['10.11.11']);
    if (newest === undefined || damaged === undefined || older === undefined) throw new Error('three');
    const metadata = { ...damaged.item.metadata, damaged: 'x' };
    const line = [newest, { ...damaged, item: { ...damaged.item, metadata } }, older];
    expect([...versionHolds(line)]).toEqual([[older, { version: '10.11.11', isReleased: false }]]);
  });

  it('keeps what a restore may still be reading: for an hour since it was superseded, not since it was made', () => {
    const line = year(0.25, 10);
    const keepOne = { keep: 1, ...NONE };
    expect(kept(decideRetention({ line, besideLine: [], policy: keepOne }))).toEqual([10, 9, 8, 7, 6]);
    // Superseded a moment ago, by the newest, after five hours as the candidate.
    const quiet = year(5, 3);
    expect(kept(decideRetention({ line: quiet, besideLine: [], policy: keepOne }))).toEqual([3, 2]);
  });

  it('counts from the first good backup above it: a damaged one supersedes nothing', () => {
    const hoursAgo = (hours: number) => new Date(Date.UTC(2026, 0, 10) - hours * 3_600_000);
    const line = [
      stored(1, 4, { lastModified: hoursAgo(0) }),
      stored(1, 3, { lastModified: hoursAgo(5), metadata: { damaged: 'x' } }),
      stored(1, 2, { lastModified: hoursAgo(9) }),
      // A later note on it does not make it superseded later.
      stored(1, 1, { lastModified: hoursAgo(0.5) }),
    ];
    expect(kept(decideRetention({ line, besideLine: [], policy: { keep: 1, ...NONE } }))).toEqual([4, 3, 2]);
  });

  it('keeps what the next start was asked to restore, wherever it is', () => {
    const line = year(24, 3);
    const besideLine = year(24, 12).map((one) => stored(1, one.sequence, { placement: 'tail' }));
    const requestOf = (backup: StoredBackup | undefined) =>
      decideRetention({
        line,
        besideLine: besideLine.map((one) => ({ ...one, item: { ...one.item, lastModified: new Date(0) } })),
        policy: { keep: 1, ...NONE },
        requested: backup?.item.name,
      })
        .filter(({ keep }) => !keep)
        .map(({ backup: { item } }) => item.name);
    const names = (...backups: (StoredBackup | undefined)[]) => backups.map((one) => one?.item.name);
    expect(requestOf(undefined)).toEqual(names(line[2], besideLine[10], besideLine[11]));
    expect(requestOf(line[2])).toEqual(names(besideLine[10], besideLine[11]));
    expect(requestOf(besideLine[11])).toEqual(names(line[2], besideLine[10]));
  });

  it('keeps tails for a month, and the newest ten for ever', () => {
    const line = year(24, 365).slice(0, 1);
    const besideLine = year(24, 100).map((backup) => ({ ...backup, placement: 'tail' as const }));
    const verdicts = decideRetention({ line, besideLine, policy: { keep: 1, ...NONE } });
    expect(verdicts.filter(({ backup, keep }) => backup.placement === 'tail' && keep)).toHaveLength(10);
    const recent = decideRetention({
      line: year(24, 110).slice(0, 1),
      besideLine,
      policy: { keep: 1, ...NONE },
    });
    expect(recent.filter(({ backup, keep }) => backup.placement === 'tail' && keep)).toHaveLength(20);
  });

  const backups = fc
    .array(
      fc.record({
        epoch: fc.integer({ min: 1, max: 4 }),
        sequence: fc.integer({ min: 1, max: 60 }),
        // Any clock: a replica may believe in any time.
        ms: fc.integer({ min: 0, max: Date.UTC(2040, 0, 1) }),
        writtenMs: fc.integer({ min: 0, max: Date.UTC(2040, 0, 1) }),
        isVerified: fc.boolean(),
        isDamaged: fc.boolean(),
      }),
      { maxLength: 80 },
    )
    .map((rows) =>
      rows
        .map((row) =>
          stored(row.epoch, row.sequence, {
            stamp: stampOf(row.ms),
            lastModified: new Date(row.writtenMs),
            isVerified: row.isVerified,
            metadata: row.isDamaged ? { damaged: 'x' } : {},
          }),
        )
        .sort((a, b) => b.epoch - a.epoch || b.sequence - a.sequence),
    );
  const policies = fc.record({
    keep: fc.integer({ min: 1, max: 40 }),
    daily: fc.integer({ min: 0, max: 10 }),
    weekly: fc.integer({ min: 0, max: 10 }),
    monthly: fc.integer({ min: 0, max: 10 }),
  });

  it('never leaves fewer verified backups than promised, whatever the clocks said', () => {
    fc.assert(
      fc.property(backups, policies, (line, policy) => {
        const left = decideRetention({ line, besideLine: [], policy }).filter((verdict) => verdict.keep);
        const verified = line.filter(isVerified).length;
        const verifiedLeft = left.filter((verdict) => isVerified(verdict.backup)).length;
        return verifiedLeft >= Math.min(policy.keep, verified);
      }),
      { numRuns: 2_000 },
    );
  });

  it('never deletes the newest verified backup, and nothing at all unless the newest is verified', () => {
    fc.assert(
      fc.property(backups, policies, (line, policy) => {
        const verdicts = decideRetention({ line, besideLine: line.slice(0, 5), policy });
        const newestVerified = line.find(isVerified);
        const deleted = verdicts.filter((verdict) => !verdict.keep).map((verdict) => verdict.backup);
        if (line[0] === undefined || !isVerified(line[0])) return deleted.length === 0;
        return (
          newestVerified === undefined ||
          !verdicts.some((v) => !v.keep && v.backup === newestVerified && v.reason === 'superseded')
        );
      }),
      { numRuns: 2_000 },
    );
  });

  it('deletes nothing more when it is asked again', () => {
    fc.assert(
      fc.property(backups, policies, (line, policy) => {
        const left = decideRetention({ line, besideLine: [], policy })
          .filter((v) => v.keep)
          .map((v) => v.backup);
        return decideRetention({ line: left, besideLine: [], policy }).every((verdict) => verdict.keep);
      }),
      { numRuns: 1_000 },
    );
  });
});
