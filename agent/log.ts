import { AgentError } from './errors.ts';

export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * `error`: a person must act. `warn`: degraded, or retrying. `info`: the state changed. `debug`: steps.
 * `msg` is a constant phrase (the alert rules search for it); data goes into fields.
 */
export interface Logger {
  debug(msg: string, fields?: LogFields): void;
  info(msg: string, fields?: LogFields): void;
  warn(msg: string, fields?: LogFields): void;
  error(msg: string, fields?: LogFields): void;
}

/** An error as log fields: no stack for a known failure, the stack for a bug. */
export function errorFields(error: unknown): LogFields {
  const causes: string[] = [];
  for (
    let cause = error instanceof Error ? error.cause : undefined;
    cause instanceof Error;
    cause = cause.cause
  ) {
    causes.push(cause.message);
  }
  if (error instanceof AgentError) {
    return {
      err: {
        code: error.code,
        message: error.message,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
        ...(causes.length === 0 ? {} : { causes }),
      },
    };
  }
  if (error instanceof Error) {
    return { err: { code: error.name, message: error.message, stack: error.stack, causes } };
  }
  return { err: { code: 'unknown', message: String(error) } };
}

/**
 * A logger that writes one JSON object per line.
 * @param write Receives each complete line, newline included.
 */
export function createLogger(
  component: string,
  write: (line: string) => void,
  options: { level?: LogLevel; now?: () => Date } = {},
): Logger {
  const threshold = LOG_LEVELS.indexOf(options.level ?? 'info');
  const now = options.now ?? (() => new Date());
  const at = (level: LogLevel) => (msg: string, fields?: LogFields) => {
    if (LOG_LEVELS.indexOf(level) < threshold) return;
    write(`${JSON.stringify({ time: now().toISOString(), level, component, msg, ...fields })}\n`);
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}

export const SILENT: Logger = createLogger('silent', () => undefined);

/**
 * Logs a failure that repeats: the first at once, then at most one every `everyMs`, with the count; and the recovery.
 */
export class RepeatedFailure {
  #count = 0;
  #lastLoggedMs = Number.NEGATIVE_INFINITY;
  readonly #log: Logger;
  readonly #msg: string;
  readonly #everyMs: number;

  constructor(log: Logger, msg: string, everyMs = 30_000) {
    this.#log = log;
    this.#msg = msg;
    this.#everyMs = everyMs;
  }

  failed(nowMs: number, error: unknown, fields: LogFields = {}): void {
    this.#count += 1;
    if (nowMs - this.#lastLoggedMs < this.#everyMs) return;
    this.#lastLoggedMs = nowMs;
    this.#log.error(this.#msg, { consecutiveFailures: this.#count, ...fields, ...errorFields(error) });
  }

  succeeded(): void {
    if (this.#count > 0) this.#log.info('recovered', { after: this.#msg, failures: this.#count });
    this.#count = 0;
    this.#lastLoggedMs = Number.NEGATIVE_INFINITY;
  }
}
