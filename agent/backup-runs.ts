import type { BackupLine, BackupOutcome, BackupRequest, ServerIdentity } from './backup-line.ts';
import { RepeatedFailure, type LogFields, type Logger } from './log.ts';
import type { Clock } from './ports.ts';
import type { PublishedBackup } from './publish.ts';

/** One backup after the other, and what is known of the last: is everything stored, since when is it not, how long did it take. */
export class BackupRuns {
  readonly #deps: { clock: Clock; log: Logger; line: BackupLine };
  server: ServerIdentity = { version: undefined, serverId: undefined };
  #lastBackup: PublishedBackup | undefined;
  #lastBackupMs: number;
  #lastDurationMs = 0;
  #lastHealthLineMs = 0;
  #storedMark: string | undefined;
  #dirtySinceMs: number | undefined;
  /** When everything was known to be stored: a change that is seen later may be as old as this. */
  #cleanAtMs: number;
  readonly #onChangeMs: number;
  #beside: Extract<BackupOutcome, { kind: 'beside_line' }> | undefined;
  #isUnconfigured = false;
  readonly #failure: RepeatedFailure;

  /** @param onChangeMs The change window; 0: none. */
  constructor(deps: { clock: Clock; log: Logger; line: BackupLine }, onChangeMs: number) {
    this.#deps = deps;
    this.#onChangeMs = onChangeMs;
    this.#lastBackupMs = this.#cleanAtMs = deps.clock.monotonicMs();
    this.#failure = new RepeatedFailure(deps.log, 'backup failed');
  }

  get lastBackup(): PublishedBackup | undefined {
    return this.#lastBackup;
  }

  /** The backup that holds the state that was stored last; also one that an earlier replica made. */
  get lastStored(): string | undefined {
    return this.#deps.line.lastStored;
  }

  /** Monotonic. */
  get lastBackupMs(): number {
    return this.#lastBackupMs;
  }

  get lastDurationMs(): number {
    return this.#lastDurationMs;
  }

  /** The observation that the last stored snapshot holds. */
  get storedMark(): string | undefined {
    return this.#storedMark;
  }

  /** The last stored snapshot, if the next start does not restore it. */
  get beside(): Extract<BackupOutcome, { kind: 'beside_line' }> | undefined {
    return this.#beside;
  }

  get isUnconfigured(): boolean {
    return this.#isUnconfigured;
  }

  /** Since when, at the earliest, a change waits that no backup holds; monotonic. */
  get dirtySinceMs(): number | undefined {
    return this.#dirtySinceMs;
  }

  /** The window of a server that has just become healthy begins now. */
  begin(): void {
    this.#lastBackupMs = this.#cleanAtMs = this.#deps.clock.monotonicMs();
  }

  /** Compares what lies on the volume with what is stored. */
  observed(mark: string, nowMs: number): void {
    if (mark === this.#storedMark) {
      this.#dirtySinceMs = undefined;
      this.#cleanAtMs = nowMs;
    } else {
      this.#dirtySinceMs ??= this.#cleanAtMs;
    }
  }

  /**
   * @param markBefore What was observed before: all that an answer "unconfigured" may speak of.
   * @throws AgentError When nothing was stored that had to be.
   */
  async backUp(request: BackupRequest, signal: AbortSignal, markBefore?: string): Promise<BackupOutcome> {
    const { clock, line, log } = this.#deps;
    const startedMs = clock.monotonicMs();
    log.debug('backup begins');
    const outcome = await line.backUp(this.server, request, signal);
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    if (outcome.kind === 'unconfigured') {
      if (!this.#isUnconfigured)
        log.info('no backup: the server is not configured yet', { why: outcome.why });
      this.#isUnconfigured = true;
      // Not stored, but nothing to store either: looked at again at the next change. Not observed anew: the wizard may have
      // been completed since its flag was read.
      this.#storedMark = markBefore;
      this.#beside = undefined;
    } else {
      this.#isUnconfigured = false;
      this.#storedMark = outcome.mark;
      this.#lastDurationMs = durationMs;
      if (outcome.kind !== 'unchanged') this.#beside = outcome.kind === 'beside_line' ? outcome : undefined;
    }
    this.#failure.succeeded();
    this.#dirtySinceMs = undefined;
    this.#lastBackupMs = clock.monotonicMs();
    // What was written meanwhile is not in it, and waits since then. Where that would mean one backup after the other, the
    // window cannot be kept and the server gets a pause.
    this.#cleanAtMs = durationMs > this.#onChangeMs / 2 ? this.#lastBackupMs : startedMs;
    if (outcome.kind === 'unchanged') {
      log.debug('unchanged: nothing uploaded', { durationMs });
      if (this.#lastBackup === undefined) {
        this.#lastBackup = outcome.backup;
        this.#logHealthLine({ unchanged: true });
      }
    }
    if (outcome.kind === 'published') {
      this.#lastBackup = outcome.backup;
      this.#logHealthLine({ durationMs, cleanStop: request.cleanStop });
    }
    return outcome;
  }

  /** Says so: at once, then at most twice a minute. */
  failed(error: unknown): void {
    this.#failure.failed(this.#deps.clock.monotonicMs(), error);
  }

  /** Says the health line again when it was not said for `everyMs` and everything is stored on the line. */
  repeatHealthLine(nowMs: number, everyMs: number): void {
    const isStored = this.#dirtySinceMs === undefined && this.#beside === undefined;
    if (isStored && nowMs - this.#lastHealthLineMs >= everyMs) this.#logHealthLine({ unchanged: true });
  }

  /**
   * The client's health line, to be found by grep (spec/, Observability). Said again after each interval without changes: the
   * alert takes a replica that ran for hours without it for one that stores nothing.
   */
  #logHealthLine(fields: LogFields): void {
    const backup = this.#lastBackup;
    if (backup === undefined) return;
    this.#lastHealthLineMs = this.#deps.clock.monotonicMs();
    this.#deps.log.info(`last_backup_utc=${backup.createdUtc} size_bytes=${String(backup.sizeBytes)}`, {
      backup: backup.name,
      sha256: backup.sha256,
      ...fields,
    });
  }
}
