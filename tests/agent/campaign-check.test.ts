import { broken, type Rule } from './campaign-check.ts';
import {
  contains,
  emptyHistory,
  type Commit,
  type History,
  type Start,
  type State,
} from './campaign-history.ts';

/* Each rule of the campaign, seen to fail: a history that is right, and one thing about it that is not. */

const line = (epoch: number, sequence: number) => `backup-20260601000000.e${epoch}.s${sequence}.tar.zst`;
const state = (...segments: [replica: number, rows: number][]): State =>
  segments.map(([replica, rows]) => ({ replica, rows }));

function commit(
  at: number,
  replica: number,
  sequence: number,
  holds: State,
  more: Partial<Commit> = {},
): Commit {
  const name = line(replica, sequence);
  const made = {
    at,
    name,
    placement: 'line',
    epoch: replica,
    sequence,
    replica,
    state: holds,
    worth: 'full',
  } as const;
  return { ...made, ...more };
}

function start(
  at: number,
  replica: number,
  restoredFrom: string | null,
  has: State,
  more: Partial<Start> = {},
): Start {
  const action = restoredFrom === null ? 'first_boot' : 'restored';
  return { at, recordedAt: at - 1, replica, epoch: replica, action, restoredFrom, state: has, ...more };
}

const taken = (at: number, epoch: number, more: object = {}) => ({
  at,
  replica: epoch,
  state: {
    format: 1 as const,
    epoch,
    holder: `r${epoch}`,
    takenUtc: '',
    line: epoch === 1 ? [] : [{ epoch: epoch - 1, upTo: 2 }],
    ...more,
  },
});

/** Replica 1 boots first, backs up twice and stops; 2 restores that and backs up; 3 restores that. */
function rightHistory(): History {
  const first = state([1, 3]);
  const second = state([1, 3], [2, 1]);
  return {
    ...emptyHistory(),
    epochs: [taken(1, 1), taken(10, 2), taken(20, 3)],
    starts: [start(3, 1, null, []), start(12, 2, line(1, 2), first), start(22, 3, line(2, 1), second)],
    commits: [commit(4, 1, 1, state([1, 1])), commit(6, 1, 2, first), commit(14, 2, 1, second)],
    acknowledged: [
      { at: 5, name: line(1, 1) },
      { at: 7, name: line(1, 2) },
      { at: 15, name: line(2, 1) },
    ],
    stops: [{ at: 8, replica: 1, epoch: 1, exitCode: 0, state: first, worth: 'full' }],
    replicas: new Map([
      [1, { base: [], rows: 3 }],
      [2, { base: first, rows: 2 }],
      [3, { base: second, rows: 0 }],
    ]),
    final: {
      stored: [line(1, 1), line(1, 2), line(2, 1)],
      line: [line(2, 1), line(1, 2), line(1, 1)],
      refusal: undefined,
    },
  };
}

test('a right history breaks no rule', () => {
  expect(broken(rightHistory())).toEqual([]);
});

test.each<[Rule, string, (history: History) => void]>([
  ['no process ends with a bug', 'a TypeError', (history) => history.bugs.push('r1.sidecar2: TypeError')],
  [
    'the last start starts',
    'a refusal over a good line',
    (history) => (history.final.refusal = 'store_conflict: other replicas were faster'),
  ],
  [
    'the last start starts',
    'backup_missing although one is on the line',
    (history) => (history.final.refusal = 'backup_missing: no backup is on the line'),
  ],
  [
    'every start has a state that some replica really had',
    'more rows than the replica wrote',
    (history) => Object.assign(history.starts[2] ?? {}, { state: state([1, 3], [2, 9]) }),
  ],
  [
    'every start has a state that some replica really had',
    'a row of a moment that was not its base',
    (history) => Object.assign(history.starts[2] ?? {}, { state: state([1, 2], [2, 1]) }),
  ],
  [
    'no acknowledged backup is lost',
    'a start from the backup before the newest',
    (history) =>
      Object.assign(history.starts[1] ?? {}, { state: state([1, 1]), restoredFrom: line(1, 1) }) &&
      history.replicas.set(2, { base: state([1, 1]), rows: 2 }),
  ],
  [
    'no acknowledged backup is lost',
    'an acknowledgement without a commit',
    (history) => history.acknowledged.push({ at: 16, name: line(2, 2) }),
  ],
  [
    'nothing is deleted but what a newer one supersedes',
    'the newest one is deleted',
    (history) => {
      history.removals.push({ at: 16, name: line(2, 1), replica: 2 });
      history.final.stored.pop();
    },
  ],
  [
    'nothing is deleted but what a newer one supersedes',
    'a backup vanishes',
    (history) => history.final.stored.shift(),
  ],
  [
    'a late writer is never candidate',
    'what replica 1 published after 2 had started is restored',
    (history) => {
      history.commits.push(commit(13, 1, 3, state([1, 3])));
      Object.assign(history.starts[2] ?? {}, { restoredFrom: line(1, 3) });
    },
  ],
  [
    'a late writer is never candidate',
    'a tail is restored unasked',
    (history) => Object.assign(history.commits[2] ?? {}, { placement: 'tail' }),
  ],
  [
    'epochs rise, and each belongs to one start',
    'the epoch goes back',
    (history) => history.epochs.push(taken(23, 2)),
  ],
  [
    'epochs rise, and each belongs to one start',
    'two starts take one epoch',
    (history) => history.epochs.push({ ...taken(21, 3), replica: 4 }),
  ],
  [
    'epochs rise, and each belongs to one start',
    'the line holds an epoch twice',
    (history) => history.epochs.push(taken(23, 3, { line: [1, 1].map((epoch) => ({ epoch, upTo: 2 })) })),
  ],
  [
    'no two backups have one number',
    'another name, the same number',
    (history) => {
      const name = line(2, 1).replace('000000', '000009');
      history.commits.push(commit(16, 2, 1, state([1, 3], [2, 2]), { name }));
      history.final.stored.push(name);
    },
  ],
  [
    'the line is a single sequence',
    'the newer backup lacks rows of the older one',
    (history) => Object.assign(history.commits[0] ?? {}, { state: state([4, 1]) }),
  ],
  [
    'no empty state supersedes a full one',
    'a wizard is published',
    (history) => Object.assign(history.commits[2] ?? {}, { worth: 'unconfigured' }),
  ],
  [
    'no empty state supersedes a full one',
    'a server that lost its library goes on the line',
    (history) => Object.assign(history.commits[2] ?? {}, { worth: 'lost_library' }),
  ],
  [
    'no empty state supersedes a full one',
    'a first boot over backups',
    (history) => Object.assign(history.starts[2] ?? {}, { action: 'first_boot', restoredFrom: null }),
  ],
  [
    'exit code 0 of a stop tells the truth',
    'a row more than what was stored',
    (history) => Object.assign(history.stops[0] ?? {}, { state: state([1, 4]) }),
  ],
  [
    'a restore on request holds',
    'what was newer comes back',
    (history) => {
      const asked = { consumedRequest: 'id', line: [{ epoch: 1, upTo: 1 }] };
      Object.assign(history.epochs[2] ?? {}, taken(20, 3, asked));
    },
  ],
])('%s: caught when %s', (rule, _what, spoil) => {
  const history = rightHistory();
  spoil(history);
  expect(broken(history).map((finding) => finding.rule)).toContain(rule);
});

test.each<[State, State, boolean]>([
  [state([1, 3], [2, 1]), state([1, 3]), true],
  [state([1, 3]), state([1, 2]), true],
  [state([1, 3]), [], true],
  [state([1, 2], [2, 1]), state([1, 3]), false],
  [state([1, 5], [2, 1]), state([1, 3], [2, 1]), false],
  [state([1, 3]), state([1, 3], [2, 1]), false],
])('%j contains %j: %s', (later, earlier, expected) => {
  expect(contains(later, earlier)).toBe(expected);
});
