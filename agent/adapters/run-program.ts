import { spawn } from 'node:child_process';
import type { CliRun } from '../runner/jellyroller-outcome.ts';

export interface ProgramOptions {
  args: readonly string[];
  /** The complete environment: nothing of ours is added. */
  env: Readonly<Record<string, string>>;
  timeoutMs: number;
  /** Between SIGTERM and SIGKILL. */
  graceMs: number;
  /** For each of stdout and stderr; a program that prints more is ended. */
  maxOutputBytes: number;
  /** Taken out of the output, wherever it stands. */
  redact: string;
}

/** How long a grandchild may hold the pipes open after the program has ended. */
const OUTPUT_GRACE_MS = 500;

/**
 * Runs a program to its end. stdin is /dev/null, and there is no terminal: `detached` makes it the leader of a new
 * session, so it cannot open /dev/tty to ask for a password either.
 *
 * The platform sends SIGTERM to every process of a container, whatever its session (facts/azure.md, SIGTERM): the program
 * may die of it before our own signal arrives. That is `signal: 'SIGTERM'` here, and what it had asked for may go on. If we
 * are killed ourselves it is left behind, and ends with its own timeout.
 * @throws the system's error when the program cannot be started.
 */
export function runProgram(file: string, options: ProgramOptions, signal?: AbortSignal): Promise<CliRun> {
  const { args, env, timeoutMs, graceMs, maxOutputBytes, redact } = options;
  const startedMs = performance.now();
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let cut: CliRun['cut'];
    let killing: NodeJS.Timeout | undefined;
    const end = (why: NonNullable<CliRun['cut']>) => {
      if (cut !== undefined) return;
      cut = why;
      killGroup(child.pid, 'SIGTERM');
      killing = setTimeout(() => killGroup(child.pid, 'SIGKILL'), graceMs);
    };
    const collect = (stream: NodeJS.ReadableStream) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      stream.on('data', (chunk: Buffer) => {
        bytes += chunk.byteLength;
        if (bytes <= maxOutputBytes) chunks.push(chunk);
        else end('too_long');
      });
      return () => Buffer.concat(chunks).toString('utf8').replaceAll(redact, '[redacted]');
    };
    const stdout = collect(child.stdout);
    const stderr = collect(child.stderr);
    const timer = setTimeout(() => end('timeout'), timeoutMs);
    const onAbort = () => end('aborted');
    const forget = () => {
      clearTimeout(timer);
      clearTimeout(killing);
      signal?.removeEventListener('abort', onAbort);
    };
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted === true) onAbort();

    child.on('error', (error) => {
      // A signal that could not be sent is an `error` too; only a program that never was has no pid.
      if (child.pid !== undefined) return;
      forget();
      reject(error);
    });
    child.on('exit', (code, exitSignal) => {
      let isFinished = false;
      const finish = () => {
        if (isFinished) return;
        isFinished = true;
        forget();
        // Whatever it started is in its group, and must not outlive a run that was cut.
        if (cut !== undefined) killGroup(child.pid, 'SIGKILL');
        child.stdout.destroy();
        child.stderr.destroy();
        const elapsedMs = Math.round(performance.now() - startedMs);
        resolve({ code, signal: exitSignal, stdout: stdout(), stderr: stderr(), elapsedMs, cut });
      };
      const late = setTimeout(finish, OUTPUT_GRACE_MS);
      child.on('close', () => {
        clearTimeout(late);
        finish();
      });
    });
  });
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
