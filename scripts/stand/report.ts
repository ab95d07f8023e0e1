import { formatTable } from '../../agent/table.ts';

export interface Criterion {
  claim: string;
  passed: boolean;
  shown: string;
}

/** What a person watching sees: numbered chapters, one line for each event, a table at the end. */
export class Report {
  readonly #write: (text: string) => void;
  readonly #startedMs = performance.now();
  readonly #criteria: Criterion[] = [];
  #chapters = 0;

  constructor(write: (text: string) => void) {
    this.#write = write;
  }

  headline(title: string, facts: readonly (readonly [string, string])[]): void {
    this.#write(`${title}\n`);
    for (const [name, value] of facts) this.#write(`  ${name.padEnd(14)}${value}\n`);
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

  /** Holds a claim against what was seen; goes on either way, so that one table shows everything. */
  check(claim: string, passed: boolean, shown: string): void {
    this.#criteria.push({ claim, passed, shown });
    this.event(passed ? 'ok' : 'FAILED', `${claim}: ${shown}`);
  }

  /** The table; answers whether everything passed. */
  finish(): boolean {
    const failed = this.#criteria.filter((criterion) => !criterion.passed).length;
    const rows = this.#criteria.map(({ claim, passed, shown }) => [passed ? 'ok' : 'FAILED', claim, shown]);
    this.#write(`\n${formatTable(['', 'CRITERION', 'SEEN'], rows)}\n`);
    const passed = String(this.#criteria.length - failed);
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(0);
    this.#write(`${passed} passed, ${String(failed)} failed in ${seconds} s\n`);
    return failed === 0 && this.#criteria.length > 0;
  }
}
