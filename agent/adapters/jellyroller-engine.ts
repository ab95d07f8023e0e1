import { AgentError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { checkFileName, parseBackupList } from '../runner/backup-list.ts';
import type { ApiKeySource, BackupEngine, CreateAnswer, EngineBackup } from '../runner/engine.ts';
import { excerpt, outcomeOf, type CliOutcome, type CliRun } from '../runner/jellyroller-outcome.ts';
import { isUnsettled } from '../runner/server-status.ts';
import type { Secret } from '../secret.ts';
import { checkNothingBeside } from './find-binary.ts';
import { call, isRefused } from './http-call.ts';
import { checkedServerUrl, configText, writeConfig } from './jellyroller-config.ts';
import { runProgram } from './run-program.ts';

const MAX_OUTPUT_BYTES = 4 * 1024 * 1024;
const KILL_GRACE_MS = 5_000;
const PROBE_MS = 2_000;
/**
 * JellyRoller gives up after 30 s and prints the same as for a refused connection (facts/jellyroller.md 3): from here on it
 * was the timeout, whoever listens now.
 */
const OWN_TIMEOUT_MS = 25_000;
const BAD_KEY = 'the API key is not valid on this server';
const OLD_CLI = 'JellyRoller 1.1.4 gets this for every POST: its header is misspelt';

export interface JellyrollerEngineOptions {
  /** An absolute path. */
  binary: string;
  /** With the server's BaseUrl if it has one. */
  baseUrl: string;
  apiKey: ApiKeySource;
  /** A folder of our own: HOME and XDG_CONFIG_HOME of the CLI, which cannot start without (facts/jellyroller.md 2). */
  homeDir: string;
  /** The PATH of the CLI. */
  path: string;
  /** After this the CLI is ended; up to 1.1.5 it gives up by itself after 30 s. */
  createTimeoutMs: number;
  /** @default 45,000: above the 30 s after which the CLI tells by itself */
  callTimeoutMs?: number;
  /** Between SIGTERM and SIGKILL. @default 5,000 */
  killGraceMs?: number;
}

interface Ended {
  run: CliRun;
  outcome: CliOutcome;
}

/** Jellyfin's backup engine through the JellyRoller CLI. */
export class JellyrollerEngine implements BackupEngine {
  readonly driver = 'jellyroller';
  readonly #options: Required<JellyrollerEngineOptions>;
  readonly #log: Logger;
  #hasWarned = false;

  /** @throws AgentError `configuration_invalid` for an address that JellyRoller would change. */
  constructor(options: JellyrollerEngineOptions, log: Logger) {
    const baseUrl = checkedServerUrl(options.baseUrl);
    this.#options = { callTimeoutMs: 45_000, killGraceMs: KILL_GRACE_MS, ...options, baseUrl };
    this.#log = log;
  }

  async list(signal?: AbortSignal): Promise<EngineBackup[]> {
    const what = 'jellyroller get-backups';
    // JSON only: the default is a table that wraps long paths over several lines.
    const { run, outcome } = await this.#ask(['get-backups', '-o', 'json'], 'callTimeoutMs', signal);
    if (outcome.kind === 'ok') return parseBackupList(outcome.text, what);
    signal?.throwIfAborted();
    if (run.cut === 'too_long') throw new AgentError('external_failed', `${what} printed more than 4 MiB`);
    throw failed(what, outcome, true);
  }

  async create(signal?: AbortSignal): Promise<CreateAnswer> {
    const what = 'jellyroller create-backup';
    const { run, outcome } = await this.#ask(['create-backup'], 'createTimeoutMs', signal);
    const unknown = (why: string): CreateAnswer => ({
      kind: 'unknown',
      why: `${what}, after ${(run.elapsedMs / 1000).toFixed(1)} s: ${why}`,
    });
    switch (outcome.kind) {
      case 'unusable':
        throw failed(what, outcome, true);
      case 'ok':
        return outcome.text.trim() === 'Success'
          ? { kind: 'done' }
          : unknown(`exit 0 with ${excerpt(outcome.text)}`);
      case 'unclear':
        return unknown(outcome.why);
      case 'no_answer':
        if (run.elapsedMs < OWN_TIMEOUT_MS && (await this.#isNobodyThere(signal)))
          return { kind: 'refused', why: `${what}: nobody listens`, isRetryable: true };
        return unknown(outcome.why);
      case 'status': {
        const { status } = outcome;
        const why = `${what}: Jellyfin answered ${String(status)}${status === 401 ? ` (${OLD_CLI})` : ''}`;
        return isUnsettled(status) ? unknown(why) : { kind: 'refused', why, isRetryable: status >= 500 };
      }
    }
  }

  async restore(fileName: string, signal?: AbortSignal): Promise<void> {
    checkFileName(fileName);
    const what = 'jellyroller apply-backup';
    const { run, outcome } = await this.#ask(['apply-backup', fileName], 'callTimeoutMs', signal);
    // Jellyfin's 204 is its success; JellyRoller knows only 200 and exits 1 (facts/jellyroller.md 5).
    if (outcome.kind === 'ok' || (outcome.kind === 'status' && outcome.status === 204)) return;
    signal?.throwIfAborted();
    if (outcome.kind === 'status' && outcome.status === 404)
      throw new AgentError('backup_missing', `${fileName} is not in Jellyfin's backup folder`);
    const isRepeatable =
      outcome.kind !== 'no_answer' || (run.elapsedMs < OWN_TIMEOUT_MS && (await this.#isNobodyThere(signal)));
    throw failed(what, outcome, isRepeatable);
  }

  /** A refused key is asked for once more: a restore may have replaced all keys. What was refused has begun nothing. */
  async #ask(
    args: readonly string[],
    limit: 'callTimeoutMs' | 'createTimeoutMs',
    signal: AbortSignal | undefined,
  ): Promise<Ended> {
    signal?.throwIfAborted();
    await checkNothingBeside(this.#options.binary);
    const key = await this.#options.apiKey(undefined, signal);
    const first = await this.#run(args, key, this.#options[limit], signal);
    if (first.outcome.kind !== 'status' || first.outcome.status !== 401) return first;
    const other = await this.#options.apiKey(key, signal);
    return other.reveal() === key.reveal() ? first : this.#run(args, other, this.#options[limit], signal);
  }

  async #run(
    args: readonly string[],
    key: Secret,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Ended> {
    const { binary, baseUrl, homeDir, path, killGraceMs } = this.#options;
    // Each time: the CLI's own conversion may have replaced it, and a cleaner of /tmp removed it.
    await writeConfig(homeDir, configText(baseUrl, key));
    signal?.throwIfAborted();
    const run = await runProgram(
      binary,
      {
        args,
        // A proxy that the environment names would be asked for 127.0.0.1 too (facts/jellyroller.md 6).
        env: { HOME: homeDir, XDG_CONFIG_HOME: homeDir, PATH: path, NO_PROXY: '127.0.0.1,localhost' },
        timeoutMs,
        graceMs: killGraceMs,
        maxOutputBytes: MAX_OUTPUT_BYTES,
        redact: key.reveal(),
      },
      signal,
    ).catch((error: unknown) => {
      throw new AgentError('external_failed', `${binary} could not be started`, { cause: error });
    });
    const outcome = outcomeOf(run);
    const { code, signal: killedBy, elapsedMs, cut } = run;
    this.#log.debug('jellyroller ended', {
      args,
      code,
      signal: killedBy,
      elapsedMs,
      cut,
      outcome: outcome.kind,
    });
    if (outcome.kind === 'ok' && outcome.hasConvertedToken && !this.#hasWarned) {
      this.#hasWarned = true;
      this.#log.warn('jellyroller did not read the configuration that was written for it', { homeDir });
    }
    return { run, outcome };
  }

  /** Only a refused connection proves it; one that hangs does not. */
  async #isNobodyThere(signal: AbortSignal | undefined): Promise<boolean> {
    const question = { method: 'GET', headers: {}, timeoutMs: PROBE_MS } as const;
    const outcome = await call(`${this.#options.baseUrl}/health`, question, signal);
    return outcome.kind === 'nobody' && isRefused(outcome.cause);
  }
}

/** @param isRepeatable Whether asking again does no harm when nobody answered. */
function failed(
  what: string,
  outcome: Exclude<CliOutcome, { kind: 'ok' }>,
  isRepeatable: boolean,
): AgentError {
  switch (outcome.kind) {
    case 'unusable':
      return new AgentError('external_failed', `${what}: ${outcome.why}`, {
        hint: 'use JellyRoller 1.1.5 or later, or JELLYROLLER_DRIVER=http',
      });
    case 'unclear':
      return new AgentError('external_failed', `${what}: ${outcome.why}`);
    case 'no_answer':
      return new AgentError('jellyfin_unavailable', `${what}: ${outcome.why}`, { retryable: isRepeatable });
    case 'status': {
      const message = `${what}: Jellyfin answered ${String(outcome.status)}`;
      if (outcome.status >= 500) return new AgentError('jellyfin_unavailable', message, { retryable: true });
      const isKey = outcome.status === 401 || outcome.status === 403;
      return new AgentError('external_failed', message, isKey ? { hint: BAD_KEY } : {});
    }
  }
}
