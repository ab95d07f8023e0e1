import fc from 'fast-check';
import { formatBackupName, stampOf, type Placement } from '../../agent/backup-name.ts';
import { nameOf, readCatalog, type StoredBackup } from '../../agent/catalog.ts';
import type { RetentionPolicy } from '../../agent/config.ts';
import { candidatesOf, lineOf, readEpoch, recordRestored, takeEpoch } from '../../agent/epoch.ts';
import { AgentError } from '../../agent/errors.ts';
import { createLogger } from '../../agent/log.ts';
import type { BlobStore } from '../../agent/ports.ts';
import { prune } from '../../agent/prune.ts';
import { pendingRequest, writeRequest } from '../../agent/restore-request.ts';
import { decideRetention, isVerified } from '../../agent/retention.ts';
import { MemoryBlobStore } from './support-memory-store.ts';
import { stored } from './support-values.ts';

/*
 * "Retention under any clock and any order of failures never leaves fewer than the promised number of verified backups, and
 * never deletes one that a restore reads." The promise is written down here a second time, in other words than the code's.
 */

const HOUR_MS = 3_600_000;
const VERSIONS = ['10.10.7', '10.11.11', '12.0.0'];

const often0 = (max: number) => fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(max));
const policies = fc.record({
  keep: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 6 })),
  daily: often0(3),
  weekly: often0(2),
  monthly: often0(2),
});
/** What a replica's clock may say when it names a backup: another century, the same second again, no date at all. */
const stamps = fc.oneof(
  fc.integer({ min: 0, max: Date.UTC(2040, 0, 1) }).map((ms) => stampOf(new Date(ms))),
  fc.constant('20260101000000'),
  fc.constantFrom('00000000000000', '99999999999999', '20261399256199'),
);

/** The names that must still be there, whatever retention did: from the listing alone. */
function promised(line: readonly StoredBackup[], policy: RetentionPolicy): string[] {
  const verified = line.filter(isVerified);
  const versionOf = (backup: StoredBackup) => backup.item.metadata['jellyfin_version'] ?? '';
  const lastOfVersion = verified.filter(
    (backup, index) =>
      verified.findIndex((other) => versionOf(other) === versionOf(backup)) === index &&
      versionOf(backup) !== '' &&
      backup.item.metadata['version_hold'] !== 'released',
  );
  const daysOf = (backup: StoredBackup) => backup.stamp.slice(0, 8);
  const isDate = (backup: StoredBackup) => /^(19|20)\d\d(0\d|1[0-2])[0-2]\d[01]\d[0-5]\d/.test(backup.stamp);
  const days = [...new Set(verified.map(daysOf))];
  // Only as far as every date before it is one: what a day of month 13 counts as is nobody's promise.
  const daily = verified.every(isDate)
    ? days.slice(0, policy.daily).map((day) => verified.find((backup) => daysOf(backup) === day))
    : [];
  const names = [...verified.slice(0, policy.keep), ...lastOfVersion, ...daily].map(
    (backup) => backup?.item.name,
  );
  return names.filter((name) => name !== undefined);
}

describe('the decision, again and again, with deletes that fail in any order', () => {
  const anyTime = fc.integer({ min: 0, max: Date.UTC(2040, 0, 1) }).map((ms) => new Date(ms));
  const backup = fc.record({
    stamp: stamps,
    lastModified: anyTime,
    version: fc.option(fc.constantFrom(...VERSIONS), { nil: undefined }),
    isVerified: fc.boolean(),
    isDamaged: fc.integer({ min: 0, max: 4 }).map((one) => one === 0),
    isLetGo: fc.boolean(),
    isBeside: fc.integer({ min: 0, max: 5 }).map((one) => one === 0),
  });
  const round = fc.record({ added: fc.array(backup, { maxLength: 12 }), survives: fc.array(fc.boolean()) });

  it('never takes what is promised, also when the next round starts from what a failure left', () => {
    fc.assert(
      fc.property(policies, fc.array(round, { minLength: 1, maxLength: 8 }), (policy, rounds) => {
        let all: StoredBackup[] = [];
        let sequence = 0;
        for (const { added, survives } of rounds) {
          for (const one of added) {
            const metadata = {
              ...(one.version !== undefined && { jellyfin_version: one.version }),
              ...(one.isDamaged && { damaged: 'x' }),
              ...(one.isLetGo && { version_hold: 'released' }),
            };
            const placement: Placement = one.isBeside ? 'tail' : 'line';
            all.unshift(stored(1, (sequence += 1), { ...one, placement, metadata }));
          }
          const line = all.filter(({ placement }) => placement === 'line');
          const besideLine = all.filter(({ placement }) => placement === 'tail');
          const verdicts = decideRetention({ line, besideLine, policy });
          const gone = verdicts.filter(({ keep }, index) => !keep && survives[index] !== true);
          const goneNames = new Set(gone.map((verdict) => verdict.backup.item.name));
          expect(promised(line, policy).filter((name) => goneNames.has(name))).toEqual([]);
          if (line[0] === undefined || !isVerified(line[0])) expect(gone).toEqual([]);
          all = all.filter(({ item }) => !goneNames.has(item.name));
        }
      }),
      { numRuns: 200 },
    );
  });
});

/** Of the service's own clock, which goes forward: a moment, or some hours. */
const pauses = fc.oneof(fc.nat(HOUR_MS / 4), fc.nat(6 * HOUR_MS));

/** What happens to one server's backups. Indexes are taken modulo what there is. */
const steps = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('back up'),
      stamp: stamps,
      version: fc.nat(2),
      afterMs: pauses,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('late'),
      stamp: stamps,
      placement: fc.constantFrom('tail', 'line'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('note'),
      note: fc.constantFrom<Record<string, string>[]>({ damaged: 'x' }, { clean_stop: 'true' }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('begin restore'),
      afterMs: pauses,
      takesMs: fc.nat(HOUR_MS - 60_000),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('end restore') }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('request'), which: fc.nat(50) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('let go'), which: fc.nat(50) }) },
);
type DeleteFault = 'works' | 'refused' | 'answer lost' | 'conflict' | 'killed' | 'overtaken';
/** Of each delete, in the order of a life; every delete works when they are used up. */
const faults = fc.array(
  fc.constantFrom<DeleteFault[]>(
    'works',
    'works',
    'refused',
    'answer lost',
    'conflict',
    'killed',
    'overtaken',
  ),
);
type Step = typeof steps extends fc.Arbitrary<infer T> ? T : never;

const log = createLogger('test', () => undefined);

/** One container through its life; `complaints` says where the promise was broken. */
class Life {
  nowMs = Date.UTC(2026, 0, 1);
  readonly complaints: string[] = [];
  readonly #store = new MemoryBlobStore([], () => new Date(this.nowMs));
  readonly #faults: DeleteFault[];
  readonly #policy: RetentionPolicy;
  #readers: { name: string; untilMs: number }[] = [];
  #epoch = 0;
  #sequence = 0;
  deletions = 0;

  constructor(policy: RetentionPolicy, deleteFaults: readonly DeleteFault[]) {
    this.#policy = policy;
    this.#faults = [...deleteFaults];
  }

  async step(step: Step): Promise<void> {
    if (this.#epoch === 0) await this.#takeOver();
    const { all, candidates, line, requested } = await this.#look();
    switch (step.do) {
      case 'back up':
        this.nowMs += step.afterMs;
        await this.#publish('line', this.#epoch, (this.#sequence += 1), step.stamp, VERSIONS[step.version]);
        await this.#prune();
        return;
      case 'late':
        // A fenced replica, in its own epoch: what it passes off as the line is beside it by the successor's cut.
        if (this.#epoch === 1) return;
        await this.#publish(step.placement, this.#epoch - 1, 900 + (this.#sequence += 1), step.stamp);
        return;
      case 'note':
        if (line[0]) await this.#setMetadata(line[0], step.note);
        return;
      case 'begin restore': {
        this.nowMs += step.afterMs;
        const wanted = all.find(({ item }) => item.name === requested);
        const chosen = wanted ?? candidates.find(isVerified) ?? candidates[0];
        if (chosen) this.#readers.push({ name: chosen.item.name, untilMs: this.nowMs + step.takesMs });
        return;
      }
      case 'end restore':
        await this.#takeOver();
        return;
      case 'request': {
        const one = all[step.which % (all.length || 1)];
        // Whoever changes the wish while a start reads the old one gets a start that plans anew; the old one is not kept for it.
        if (one) this.#readers = this.#readers.filter(({ name }) => name !== requested);
        if (one) await writeRequest(this.#store, one.item.name, new Date(this.nowMs));
        return;
      }
      case 'let go': {
        const one = line[step.which % (line.length || 1)];
        if (one) await this.#setMetadata(one, { version_hold: 'released' });
      }
    }
  }

  async #look() {
    const catalog = await readCatalog(this.#store);
    const state = (await readEpoch(this.#store))?.state;
    const candidates = candidatesOf(catalog, state).filter((one) => one.format === 'tarZst');
    return {
      catalog,
      candidates,
      line: lineOf(catalog, state),
      all: [...catalog.line, ...catalog.tails],
      requested: (await pendingRequest(this.#store, state))?.request.name,
    };
  }

  /** A start that has read what it wanted: the next epoch, cut where it restored from. */
  async #takeOver(): Promise<void> {
    const { all, candidates, catalog, requested } = await this.#look();
    const request = await pendingRequest(this.#store, (await readEpoch(this.#store))?.state);
    const wanted = all.find(({ item }) => item.name === requested);
    const chosen = wanted ?? candidates.find(isVerified);
    const holder = `start ${this.#epoch + 1}`;
    const held = await takeEpoch(this.#store, catalog, { holder, takenUtc: '' });
    if (wanted?.placement === 'tail') await this.#setMetadata(wanted, { released: 'true' });
    await recordRestored(this.#store, held, chosen, catalog, request?.request.id);
    this.#epoch = held.state.epoch;
    this.#sequence = 0;
    this.#readers = [];
  }

  async #publish(
    placement: Placement,
    epoch: number,
    sequence: number,
    stamp: string,
    version?: string,
  ): Promise<void> {
    const name = formatBackupName({ placement, epoch, sequence, stamp });
    await this.#store.stageBlock(name, 'a', Buffer.from('archive'));
    await this.#store.commitNew(name, ['a'], {
      sha256: 'a',
      size: '7',
      ...(version !== undefined && { jellyfin_version: version }),
    });
  }

  async #setMetadata({ item }: StoredBackup, more: Record<string, string>): Promise<void> {
    await this.#store.setMetadata(item.name, { ...item.metadata, ...more }, { ifMatch: item.etag });
  }

  async #prune(): Promise<void> {
    const before = await this.#look();
    await prune({ store: this.#faulty(before), log }, this.#epoch, this.#policy).catch((error: unknown) => {
      if (!(error instanceof AgentError)) throw error;
    });
    const left = new Set((await this.#look()).all.map(nameOf));
    const missing = promised(before.line, this.#policy).filter((name) => !left.has(name));
    if (missing.length > 0) this.complaints.push(`promised, and gone: ${missing.join(', ')}`);
  }

  #faulty(before: { requested: string | undefined; line: StoredBackup[] }): BlobStore {
    const epoch = this.#epoch;
    const remove = async (name: string, ifMatch: string): Promise<void> => {
      this.deletions += 1;
      if (epoch !== this.#epoch) this.complaints.push(`${name} is deleted by a replica that was overtaken`);
      const reader = this.#readers.find((one) => one.name === name && one.untilMs >= this.nowMs);
      if (reader !== undefined) this.complaints.push(`${name} is deleted while a restore reads it`);
      if (before.requested === name)
        this.complaints.push(`${name} is deleted although a restore is requested`);
      if (before.line[0] && !isVerified(before.line[0]))
        this.complaints.push(`${name} is deleted although nothing newer is good`);
      const fault = this.#faults.shift() ?? 'works';
      if (fault === 'refused') throw new AgentError('store_denied', `delete ${name} failed: 403`);
      if (fault === 'conflict') throw new AgentError('store_conflict', `delete ${name} failed: 412`);
      if (fault === 'killed') throw new AgentError('store_unreachable', 'the process is gone');
      await this.#store.remove(name, ifMatch);
      if (fault === 'answer lost') throw new AgentError('store_unreachable', `delete ${name} failed: reset`);
      // A successor starts in the middle of the list.
      if (fault === 'overtaken') await this.#takeOver();
    };
    return Object.assign(Object.create(this.#store) as BlobStore, bound(this.#store), { remove });
  }
}

/** Private fields do not follow a prototype. */
function bound(store: MemoryBlobStore): Partial<BlobStore> {
  return {
    listPage: (prefix) => store.listPage(prefix),
    find: (name) => store.find(name),
    head: (name) => store.head(name),
  };
}

describe('the life of a container, with the deletes of the real code', () => {
  it('keeps what is promised, what a restore reads, and what a person asked for', async () => {
    let deletions = 0;
    await fc.assert(
      fc.asyncProperty(
        policies,
        fc.array(steps, { minLength: 5, maxLength: 40 }),
        faults,
        async (policy, done, deleteFaults) => {
          const life = new Life(policy, deleteFaults);
          for (const step of done) await life.step(step);
          deletions += life.deletions;
          expect(life.complaints).toEqual([]);
        },
      ),
      { numRuns: 400 },
    );
    // It did delete: a retention that never does keeps every promise.
    expect(deletions).toBeGreaterThan(50);
  });
});
