/** The rule checker under `parseStackConfig`: reads text, notes every problem, never throws half-way. */

export type Get = (key: string) => string | undefined;

/** Raised once, with every problem of the configuration in it. The message is the whole story. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    const count = problems.length;
    super(
      `the stack configuration has ${String(count)} problem${count === 1 ? '' : 's'}:\n${problems.map((line) => `  - ${line}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

export interface Rule {
  /** Completes "<key> must be …". */
  readonly rule: string;
  /** Why, in a few words; it ends up in brackets. */
  readonly reason: string;
}

export class ConfigReader {
  readonly problems: string[] = [];
  readonly #get: Get;
  readonly #failed = new Set<string>();

  constructor(get: Get) {
    this.#get = get;
  }

  /** Notes a problem as `<key> must be <rule> (<reason>); got <value>`. */
  problem(key: string, { rule, reason }: Rule, got?: string): void {
    this.#failed.add(key);
    this.problems.push(
      `${key} must be ${rule} (${reason}); ${got === undefined ? 'it is not set' : `got ${got}`}`,
    );
  }

  /** True when none of these keys has a problem, so that a rule about several of them makes sense. */
  isSound(...keys: readonly string[]): boolean {
    return keys.every((key) => !this.#failed.has(key));
  }

  text(key: string, test: (value: string) => boolean, rule: Rule): string {
    const value = this.#get(key);
    if (value === undefined) this.problem(key, rule);
    else if (!test(value)) this.problem(key, rule, JSON.stringify(value));
    return value ?? '';
  }

  matching(key: string, pattern: RegExp, rule: Rule): string {
    return this.text(key, (value) => pattern.test(value), rule);
  }

  oneOf<T extends string>(key: string, values: readonly T[], reason: string): T {
    const value = this.text(key, (text) => values.some((allowed) => allowed === text), {
      rule: `one of ${values.join(', ')}`,
      reason,
    });
    return values.find((allowed) => allowed === value) ?? (values[0] as T);
  }

  boolean(key: string, reason: string): boolean {
    return this.matching(key, /^(?:true|false)$/, { rule: 'true or false', reason }) === 'true';
  }

  integer(key: string, min: number, max: number, reason: string): number {
    // Digits only: Number('') is 0 and parseInt('30s') is 30.
    const value = this.text(
      key,
      (text) => /^\d{1,15}$/.test(text) && Number(text) >= min && Number(text) <= max,
      {
        rule: `a whole number from ${String(min)} to ${String(max)}`,
        reason,
      },
    );
    return Number(value);
  }

  decimal(key: string, min: number, max: number, reason: string): number {
    const value = this.text(
      key,
      (text) => /^\d{1,4}(?:\.\d{1,2})?$/.test(text) && Number(text) >= min && Number(text) <= max,
      { rule: `a number from ${String(min)} to ${String(max)} with at most two decimals`, reason },
    );
    return Number(value);
  }
}
