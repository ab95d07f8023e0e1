import { rm } from 'node:fs/promises';
import { setFlagsFromString } from 'node:v8';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomUUID } from 'node:crypto';
import { serveHealth } from './adapters/health-server.ts';
import type { WorkerCode } from './adapters/node-sqlite.ts';
import { parseArguments, type Invocation } from './cli.ts';
import * as act from './commands/act.ts';
import type { Answer } from './commands/answer.ts';
import { requireEnabled, requireKey } from './commands/jellyroller.ts';
import * as look from './commands/look.ts';
import { release } from './commands/release.ts';
import { parseConfig, type AgentConfig } from './config.ts';
import { EXIT, type ExitCode } from './contract.ts';
import { AgentError, exitCodeOf, InterruptedError, messageOf } from './errors.ts';
import { createLogger, errorFields, type Logger } from './log.ts';
import { restoreVolume } from './restore.ts';
import { restoreArchive } from './runner/restore-archive.ts';
import { wireRestore, wireRestoreArchive, wireRunner, wireSidecar, type CliSurroundings } from './wire.ts';

type Operation = Exclude<
  Invocation,
  { command: 'restore' | 'backup' | 'jellyroller' | 'jellyroller-restore' | 'help' | 'usage-error' }
>;

interface Outside {
  env: Readonly<Record<string, string | undefined>>;
  /** Aborts at the first SIGTERM or SIGINT. */
  stop: AbortSignal;
  write: (text: string) => void;
  writeError: (text: string) => void;
  worker: WorkerCode;
}

async function operateOn(
  invocation: Operation | Extract<Invocation, { command: 'restore' }>,
  outside: Outside,
): Promise<ExitCode> {
  const config = parseConfig('operate', outside.env);
  // Answers go to stdout, the log to stderr: a script reads one, a person both.
  const log = createLogger(invocation.command, outside.writeError, {
    level: config.logLevel === 'info' ? 'warn' : config.logLevel,
  });
  const deps = wireRestore(config, log, outside.worker);
  const scratchDir = join(tmpdir(), `agent-${randomUUID()}`);
  const answer = await answerTo(invocation, deps, config, scratchDir, outside.stop);
  outside.write(invocation.json ? `${JSON.stringify(answer.json, null, 2)}\n` : answer.text);
  return EXIT.done;
}

async function answerTo(
  invocation: Operation | Extract<Invocation, { command: 'restore' }>,
  deps: ReturnType<typeof wireRestore>,
  config: AgentConfig,
  scratchDir: string,
  stop: AbortSignal,
): Promise<Answer> {
  switch (invocation.command) {
    case 'restore':
      return look.restorePlan(deps, { dataDir: config.dataDir, imageVersion: config.jellyfinVersion }, stop);
    case 'restore-to':
      return act.restoreTo(deps, invocation, stop);
    case 'list':
      return look.list(deps, stop);
    case 'status':
      return look.status(deps, stop);
    case 'verify':
      return look.verify(deps, invocation.name, scratchDir, stop);
    case 'prune':
      return look.pruneDryRun(deps, config.retention, stop);
    case 'export':
      return act.exportTo(deps, invocation.name, invocation.to, stop);
    case 'restore-request':
      return invocation.name === undefined
        ? act.cancelRequest(deps, stop)
        : act.requestRestore(deps, invocation.name, scratchDir, stop);
    case 'release':
      return release(deps, invocation.name, scratchDir, stop);
  }
}

async function restoreCommand(outside: Outside): Promise<ExitCode> {
  const config = parseConfig('restore', outside.env);
  const log = createLogger('restore', outside.write, { level: config.logLevel });
  const deps = wireRestore(config, log, outside.worker);
  log.info('restore starts', { store: deps.store.describe(), dataDir: config.dataDir });
  try {
    await restoreVolume(
      deps,
      {
        dataDir: config.dataDir,
        imageVersion: config.jellyfinVersion,
        handoverWaitMs: config.handoverWaitSeconds * 1000,
      },
      outside.stop,
    );
    outside.stop.throwIfAborted();
    return EXIT.done;
  } catch (error) {
    // The alert rule looks for this phrase.
    log.error('restore refused', { exitCode: exitCodeOf(error), ...errorFields(error) });
    return exitCodeOf(error);
  }
}

async function backupCommand(once: boolean, outside: Outside): Promise<ExitCode> {
  const config = parseConfig('backup', outside.env);
  const log = createLogger('backup', outside.write, { level: config.logLevel });
  const sidecar = wireSidecar(config, log, outside.worker);
  if (once) {
    try {
      return await sidecar.once(outside.stop);
    } catch (error) {
      log.error('backup failed', { exitCode: exitCodeOf(error), ...errorFields(error) });
      return exitCodeOf(error);
    }
  }
  const address = { host: config.healthHost, port: config.healthPort };
  const health = config.healthPort === 0 ? undefined : await serveHealth(address, () => sidecar.status, log);
  try {
    return await sidecar.run(outside.stop);
  } catch (error) {
    log.error('backup stopped', { exitCode: exitCodeOf(error), ...errorFields(error) });
    return exitCodeOf(error);
  } finally {
    health?.close();
  }
}

async function runnerCommand(once: boolean, outside: Outside): Promise<ExitCode> {
  const config = parseConfig('jellyroller', outside.env);
  requireEnabled(config);
  requireKey(config);
  const log = createLogger('jellyroller', outside.write, { level: config.logLevel });
  const cli = cliSurroundings(outside);
  try {
    const runner = await wireRunner(config, log, cli);
    return once ? await runner.once(outside.stop) : await runner.run(outside.stop);
  } catch (error) {
    log.error('backup failed', { exitCode: exitCodeOf(error), ...errorFields(error) });
    return exitCodeOf(error);
  } finally {
    await rm(cli.homeDir, { recursive: true, force: true });
  }
}

async function restoreArchiveCommand(
  request: Extract<Invocation, { command: 'jellyroller-restore' }>,
  outside: Outside,
): Promise<ExitCode> {
  const config = parseConfig('jellyroller', outside.env);
  requireKey(config);
  // Minutes may pass: a person watches the log, a script reads the answer.
  const log = createLogger('jellyroller restore', outside.writeError, { level: config.logLevel });
  const cli = cliSurroundings(outside);
  try {
    const deps = await wireRestoreArchive(config, log, cli);
    const answer = await restoreArchive(deps, { dataDir: config.dataDir, ...request }, outside.stop);
    outside.write(request.json ? `${JSON.stringify(answer.json, null, 2)}\n` : answer.text);
    return EXIT.done;
  } finally {
    await rm(cli.homeDir, { recursive: true, force: true });
  }
}

const cliSurroundings = ({ env }: Outside): CliSurroundings => ({
  homeDir: join(tmpdir(), `jellyroller-${randomUUID()}`),
  path: env['PATH'],
});

/** One command from arguments to exit code. Touches nothing of `process`. */
export async function run(argv: readonly string[], outside: Outside): Promise<ExitCode> {
  const invocation = parseArguments(argv);
  try {
    switch (invocation.command) {
      case 'help':
        outside.write(invocation.text);
        return EXIT.done;
      case 'usage-error':
        outside.writeError(invocation.text);
        return EXIT.configuration;
      case 'backup':
        return await backupCommand(invocation.once, outside);
      case 'jellyroller':
        return await runnerCommand(invocation.once, outside);
      case 'jellyroller-restore':
        return await restoreArchiveCommand(invocation, outside);
      case 'restore':
        return invocation.dryRun ? await operateOn(invocation, outside) : await restoreCommand(outside);
      default:
        return await operateOn(invocation, outside);
    }
  } catch (error) {
    outside.writeError(describeFailure(error));
    return exitCodeOf(error);
  }
}

function describeFailure(error: unknown): string {
  if (error instanceof AgentError)
    return `error: ${error.message}\n${error.hint === undefined ? '' : `hint: ${error.hint}\n`}`;
  if (error instanceof InterruptedError) return `${error.message}\n`;
  return `bug: ${error instanceof Error ? (error.stack ?? error.message) : messageOf(error)}\n`;
}

function listenForSignals(log: Logger): AbortSignal {
  const controller = new AbortController();
  const on = (signal: 'SIGINT' | 'SIGTERM') => {
    process.on(signal, () => {
      if (!controller.signal.aborted) {
        controller.abort(new InterruptedError(signal));
      } else if (signal === 'SIGINT') {
        // A person at a terminal who presses Ctrl-C twice means it.
        process.exit(EXIT.interrupted);
      } else {
        // The platform may repeat SIGTERM; the last backup is under way.
        log.warn('SIGTERM again: still stopping');
      }
    });
  };
  on('SIGINT');
  on('SIGTERM');
  return controller.signal;
}

// Most of what the agent allocates is buffers that live for a moment. In a young generation that stays small they are freed at
// once; in one that grows, their garbage was a third of the memory of a backup of 2 GiB.
setFlagsFromString('--semi-space-growth-factor=1');

/** Put there by the bundler; absent when Node runs the sources. */
declare const SQLITE_WORKER_SOURCE: string | undefined;
const worker: WorkerCode =
  typeof SQLITE_WORKER_SOURCE === 'string'
    ? { source: SQLITE_WORKER_SOURCE }
    : { file: fileURLToPath(new URL('adapters/sqlite-worker.ts', import.meta.url)) };

const write = (text: string) => process.stdout.write(text);
const log = createLogger('agent', write);
// Last words: an unhandled rejection must be one line of the log with exit code 1, not a silent end.
process.on('unhandledRejection', (error) => {
  log.error('bug', errorFields(error));
  process.exit(EXIT.bug);
});
process.exitCode = await run(process.argv.slice(2), {
  env: process.env,
  stop: listenForSignals(log),
  write,
  writeError: (text) => process.stderr.write(text),
  worker,
});
