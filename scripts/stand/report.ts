import { formatTable } from '../../agent/table.ts';

export interface Criterion {
  claim: string;
  passed: boolean;
  shown: string;
}

/** Claims that somebody else has set, to be seen or not: a table of their own. */
interface Demand {
  title: string;
  claims: readonly string[];
}

const VERDICT = { true: 'ok', false: 'FAILED' } as const;

/** What a person watching sees: numbered chapters, one line for each event, tables at the end. */
export class Report {
  readonly #write: (text: string) => void;
  readonly #startedMs = performance.now();
  readonly #criteria: Criterion[] = [];
  readonly #demands: Demand[] = [];
  #chapters = 0;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  headline(title: string, facts: readonly (readonly [string, string])[]): void {
    this.#write(`${title}\n`);
    for (const [name, value] of facts) this.#write(`  ${name.padEnd(14)}${value}\n`);
  }

  /** These claims have to be checked: one that never is has failed. */
  demand(title: string, claims: readonly string[]): void {
    this.#demands.push({ title, claims });
  }

  chapter(title: string): void {
    this.#chapters += 1;
    this.#write(`\n${String(this.#chapters)}. ${title}\n`);
  }

  /** One event: who, what. */
  event(who: string, what: string): void {
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1).padStart(6);
    this.#write(`  ${seconds} s  ${who.padEnd(14)}${what}\n`);
  }

  /** Holds a claim against what was seen; goes on either way, so that the tables show everything. */
  check(claim: string, passed: boolean, shown: string): void {
    this.#criteria.push({ claim, passed, shown });
    this.event(VERDICT[`${passed}`], `${claim}: ${shown}`);
  }

  /** The tables; answers whether everything passed. */
  finish(): boolean {
    const demanded = new Set(this.#demands.flatMap(({ claims }) => claims));
    const tables = [
      { title: 'CRITERION', criteria: this.#criteria.filter(({ claim }) => !demanded.has(claim)) },
      ...this.#demands.map(({ title, claims }) => ({
        title,
        criteria: claims.flatMap((claim) => this.#seen(claim)),
      })),
    ];
    for (const { title, criteria } of tables) {
      const rows = criteria.map(({ claim, passed, shown }) => [VERDICT[`${passed}`], claim, shown]);
      this.#write(`\n${formatTable(['', title, 'SEEN'], rows)}`);
    }
    const all = tables.flatMap(({ criteria }) => criteria);
    const failed = all.filter((criterion) => !criterion.passed).length;
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(0);
    this.#write(`\n${String(all.length - failed)} passed, ${String(failed)} failed in ${seconds} s\n`);
    return failed === 0 && this.#criteria.length > 0;
  }

  #seen(claim: string): Criterion[] {
    const found = this.#criteria.filter((criterion) => criterion.claim === claim);
    return found.length > 0 ? found : [{ claim, passed: false, shown: 'the walk did not come to it' }];
  }
}
