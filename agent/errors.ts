import { EXIT, type ExitCode } from './contract.ts';

/** Every way in which an operation can fail that is not a bug, and the exit code that tells it. */
const EXIT_OF_CODE = {
  configuration_invalid: EXIT.configuration,
  store_unreachable: EXIT.store,
  store_denied: EXIT.store,
  store_container_missing: EXIT.store,
  store_conflict: EXIT.store,
  store_rejected: EXIT.store,
  backup_missing: EXIT.backup,
  backup_damaged: EXIT.backup,
  backup_incompatible: EXIT.backup,
  source_damaged: EXIT.backup,
  source_unsupported: EXIT.backup,
  target_unsafe: EXIT.target,
  no_space: EXIT.target,
  jellyfin_unavailable: EXIT.external,
  external_failed: EXIT.external,
  final_backup_failed: EXIT.finalBackup,
} as const satisfies Record<string, ExitCode>;
export type ErrorCode = keyof typeof EXIT_OF_CODE;

export interface AgentErrorOptions {
  cause?: unknown;
  /** What a person can do about it. */
  hint?: string;
  retryable?: boolean;
  /** The server's own wish, from `Retry-After`. */
  retryAfterMs?: number;
}

/** An operation that failed for a reason we know. Anything else that is thrown is a bug and exits 1. */
export class AgentError extends Error {
  override readonly name = 'AgentError';
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;

  constructor(code: ErrorCode, message: string, options: AgentErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint;
    this.retryable = options.retryable ?? false;
    this.retryAfterMs = options.retryAfterMs;
  }
}

/** The work was told to stop before it was complete; never reported as success. */
export class InterruptedError extends Error {
  override readonly name = 'InterruptedError';
  readonly exitCode: ExitCode;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`interrupted by ${signal}`);
    this.exitCode = signal === 'SIGINT' ? EXIT.interrupted : EXIT.terminated;
  }
}

/** The exit code that tells the truth about `error`. */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof AgentError) return EXIT_OF_CODE[error.code];
  if (error instanceof InterruptedError) return error.exitCode;
  return EXIT.bug;
}

/** Whether `error` is an AgentError with one of `codes`. */
export function hasCode(error: unknown, ...codes: ErrorCode[]): error is AgentError {
  return error instanceof AgentError && codes.includes(error.code);
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
