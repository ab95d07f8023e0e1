import type { DatabaseFacts } from './ports.ts';
import type { Profile } from './profile.ts';

export interface ServerFacts {
  /** The setup wizard's flag; `unreadable` when the file is not well-formed. */
  wizard: boolean | 'missing' | 'unreadable';
  /** By path relative to the data folder. */
  databases: ReadonlyMap<string, DatabaseFacts>;
}

export interface Counts {
  users: number;
  admins: number;
  items: number;
}

export interface Judged {
  counts: Counts;
  migration: string | null;
}

/**
 * What a tree is worth. `unconfigured` is a normal state of a new server. `damaged` would not bring the user back to the
 * login screen: never published, never restored.
 */
export type Verdict =
  | ({ kind: 'configured' } & Judged)
  | { kind: 'unconfigured'; why: string }
  | { kind: 'damaged'; why: string };

/** The answers of every database, merged; the first database that knows an answer gives it. */
function answersOf(
  profile: Profile,
  databases: ServerFacts['databases'],
): Map<string, number | string | null> {
  const answers = new Map<string, number | string | null>();
  for (const measure of profile.measures) {
    const answer = databases.get(measure.database)?.answers[measure.name];
    if (answer !== undefined && !answers.has(measure.name)) answers.set(measure.name, answer);
  }
  return answers;
}

/**
 * Judges what lies in a tree, from facts only. A server that merely showed its wizard already has an administrator, so
 * only the flag together with an administrator who can sign in proves a configured server (facts/jellyfin.md 2.7).
 */
export function judge(profile: Profile, facts: ServerFacts): Verdict {
  const main = facts.databases.get(profile.mainDatabase);
  for (const [path, database] of facts.databases) {
    if (database.quickCheck !== 'ok')
      return { kind: 'damaged', why: `${path} fails quick_check: ${database.quickCheck}` };
  }
  if (facts.wizard === 'unreadable') {
    return {
      kind: 'damaged',
      why: `${profile.settingsFile} is not well-formed XML: the server would start its wizard`,
    };
  }
  if (main === undefined) {
    if (facts.wizard === true)
      return { kind: 'damaged', why: `${profile.mainDatabase} is missing although the wizard is done` };
    return { kind: 'unconfigured', why: 'no database yet' };
  }
  const missing = profile.mainTables.filter((table) => !main.tables.includes(table));
  if (missing.length > 0) {
    if (facts.wizard === true)
      return { kind: 'damaged', why: `${profile.mainDatabase} has no table ${missing.join(', ')}` };
    return { kind: 'unconfigured', why: 'the schema is not complete yet' };
  }
  const answers = answersOf(profile, facts.databases);
  const count = (name: string) => Number(answers.get(name) ?? 0);
  const counts = { users: count('users'), admins: count('admins'), items: count('items') };
  if (facts.wizard === 'missing' && counts.admins > 0) {
    return {
      kind: 'damaged',
      why: `${profile.settingsFile} is missing although an administrator exists; does JELLYFIN_CONFIG_DIR point outside the volume?`,
    };
  }
  if (facts.wizard !== true) return { kind: 'unconfigured', why: 'the setup wizard is not completed' };
  if (counts.admins === 0) {
    return {
      kind: 'damaged',
      why: 'no administrator has a password or an external login: nobody could sign in',
    };
  }
  const migration = answers.get('migration');
  return {
    kind: 'configured',
    counts,
    migration: migration === undefined || migration === null ? null : String(migration),
  };
}

/** Which measure collapsed against the line's last backup, as a sentence; `undefined` when none did. */
export function collapseReason(
  profile: Profile,
  now: Counts,
  before: Partial<Counts> | undefined,
): string | undefined {
  for (const rule of profile.collapse) {
    const key = rule.measure as keyof Counts;
    const previous = before?.[key];
    if (previous === undefined || previous < rule.from || now[key] >= previous * rule.ratio) continue;
    return `${rule.measure} fell from ${String(previous)} to ${String(now[key])}`;
  }
  return undefined;
}
