import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { onCleanUp } from './clean-up.ts';

export interface ProcessOptions {
  /** Arguments of the command; for Node the program comes first: `['dist/agent.mjs', 'backup', '--once']`. */
  args: readonly string[];
  /** The complete environment: nothing of ours is added, `PATH` neither. */
  env?: Readonly<Record<string, string>>;
  /** @default the repository's root (jest's cwd) */
  cwd?: string;
  /** @default this very Node */
  command?: string;
  /** What messages call it. @default the first argument */
  name?: string;
}

export interface ProcessExit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

export class OutputLine {
  readonly stream: 'stdout' | 'stderr';
  readonly text: string;
  /** Milliseconds since the epoch at which the line arrived here. */
  readonly atMs: number = Date.now();
  #parsed: { value: Record<string, unknown> | undefined } | undefined;

  constructor(stream: 'stdout' | 'stderr', text: string) {
    this.stream = stream;
    this.text = text;
  }

  /** The line as a JSON object, `undefined` if it is none. Parsed when first asked for. */
  get json(): Record<string, unknown> | undefined {
    this.#parsed ??= { value: parseObject(this.text) };
    return this.#parsed.value;
  }
}

export interface RunningProcess {
  readonly name: string;
  readonly pid: number;
  /** Every complete line so far, of both streams, in the order of arrival. */
  readonly lines: readonly OutputLine[];
  stdout(): string;
  stderr(): string;
  /** The lines of stdout that are JSON objects. */
  jsonLines(): Record<string, unknown>[];
  /**
   * The first line that fits, also if it was printed already; `from` skips lines that were dealt with
   * (pass an earlier `lines.length`). Rejects with the output so far on timeout and when the process ends.
   */
  waitForLine(
    predicate: (line: OutputLine) => boolean,
    timeoutMs?: number,
    from?: number,
  ): Promise<OutputLine>;
  /** Sends a signal; false if the process is gone. */
  signal(signal: NodeJS.Signals): boolean;
  write(text: string): void;
  endInput(): void;
  /** SIGKILL and wait; harmless if it has ended. */
  kill(): Promise<ProcessExit>;
  isRunning(): boolean;
  /** Resolves when the process has ended and its output is read; never rejects. */
  readonly exit: Promise<ProcessExit>;
  /** The exit, or a rejection with the output so far after `timeoutMs`. */
  waitForExit(timeoutMs: number): Promise<ProcessExit>;
  /** Lets this program end although the child runs (the child then ends too). */
  unref(): void;
}

/**
 * Preloaded into every Node child: fd 3 is a pipe whose other end only we hold, so that the system closes it even
 * if we are killed with SIGKILL, as jest does with a stuck worker. Not stdin: the program may want to read that.
 */
const LIFELINE = `data:text/javascript,${encodeURIComponent(
  `import{Socket}from'node:net';
   const s=new Socket({fd:3,readable:true,writable:false});
   s.on('error',()=>{}).on('close',()=>process.kill(process.pid,'SIGKILL')).resume().unref();`,
)}`;

/** How long output may still arrive after the exit (a grandchild can keep the pipe open for ever). */
const OUTPUT_GRACE_MS = 500;

export function startProcess(options: ProcessOptions): RunningProcess {
  const isNode = options.command === undefined;
  const name = options.name ?? options.args[0] ?? options.command ?? 'process';
  const child = spawn(
    options.command ?? process.execPath,
    isNode ? ['--import', LIFELINE, ...options.args] : [...options.args],
    {
      cwd: options.cwd ?? process.cwd(),
      env: { ...options.env },
      stdio: isNode ? ['pipe', 'pipe', 'pipe', 'pipe'] : ['pipe', 'pipe', 'pipe'],
    },
  );
  const { stdin, stdout, stderr } = child;
  if (!stdin || !stdout || !stderr) throw new Error(`start ${name} failed: no pipes`);
  // EPIPE when the child is gone is its exit's business.
  stdin.on('error', () => {});
  const lifeline = child.stdio[3] as Socket | undefined;
  lifeline?.on('error', () => {}).resume();

  const lines: OutputLine[] = [];
  const listeners = new Set<() => void>();
  const texts = { stdout: '', stderr: '' };
  const collect = (stream: 'stdout' | 'stderr', readable: NonNullable<ChildProcess['stdout']>) => {
    let rest = '';
    readable.setEncoding('utf8');
    readable.on('data', (chunk: string) => {
      texts[stream] += chunk;
      const parts = (rest + chunk).split('\n');
      rest = parts.pop() ?? '';
      lines.push(...parts.map((text) => new OutputLine(stream, text)));
      for (const listener of [...listeners]) listener();
    });
    readable.on('end', () => {
      if (rest !== '') lines.push(new OutputLine(stream, rest));
      rest = '';
      for (const listener of [...listeners]) listener();
    });
  };
  collect('stdout', stdout);
  collect('stderr', stderr);

  let ended: ProcessExit | undefined;
  const exit = new Promise<ProcessExit>((resolve) => {
    const settle = (code: number | null, signal: NodeJS.Signals | null) => {
      ended ??= { code, signal };
      forget();
      resolve(ended);
      for (const listener of [...listeners]) listener();
    };
    child.on('error', (error) => {
      texts.stderr += `${error.message}\n`;
      if (child.pid === undefined) settle(127, null);
    });
    child.on('exit', (code, signal) => setTimeout(() => settle(code, signal), OUTPUT_GRACE_MS).unref());
    child.on('close', settle);
  });
  const forget = onCleanUp('processes', () => kill());

  const hasExited = () => ended !== undefined || child.exitCode !== null || child.signalCode !== null;
  const kill = async () => {
    // Held again: an unref'd child would let this program end before its exit is seen.
    child.ref();
    if (!hasExited()) child.kill('SIGKILL');
    return exit;
  };
  const story = () =>
    `stdout:\n${texts.stdout.slice(-3000)}\nstderr:\n${texts.stderr.slice(-3000)}` +
    (ended ? `\nended with ${JSON.stringify(ended)}` : '');

  return {
    name,
    pid: child.pid ?? -1,
    lines,
    exit,
    kill,
    isRunning: () => !hasExited(),
    stdout: () => texts.stdout,
    stderr: () => texts.stderr,
    jsonLines: () =>
      lines.flatMap((line) => (line.stream === 'stdout' && line.json !== undefined ? [line.json] : [])),
    signal: (signal) => !hasExited() && child.kill(signal),
    write: (text) => void stdin.write(text),
    endInput: () => void stdin.end(),
    unref() {
      child.unref();
      for (const stream of child.stdio) (stream as Socket | null)?.unref?.();
    },
    waitForLine(predicate, timeoutMs = 10_000, from = 0) {
      return new Promise((resolve, reject) => {
        let next = from;
        const done = () => {
          clearTimeout(timer);
          listeners.delete(look);
        };
        const look = () => {
          while (next < lines.length) {
            const line = lines[next++] as OutputLine;
            if (!predicate(line)) continue;
            done();
            return resolve(line);
          }
          if (!ended) return;
          done();
          reject(new Error(`${name} ended without the line waited for\n${story()}`));
        };
        const timer = setTimeout(() => {
          done();
          reject(new Error(`${name} did not print the line waited for within ${timeoutMs} ms\n${story()}`));
        }, timeoutMs);
        listeners.add(look);
        look();
      });
    },
    async waitForExit(timeoutMs) {
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<never>((_resolve, reject) => {
        timer = setTimeout(
          () => reject(new Error(`${name} did not end within ${timeoutMs} ms\n${story()}`)),
          timeoutMs,
        );
      });
      return Promise.race([exit, late]).finally(() => clearTimeout(timer));
    },
  };
}

export interface FinishedProcess extends ProcessExit {
  stdout: string;
  stderr: string;
  lines: readonly OutputLine[];
  jsonLines: Record<string, unknown>[];
}

/** Runs a process to its end; `input` goes to its stdin. Killed and rejected after `timeoutMs`. */
export async function runProcess(
  options: ProcessOptions & { timeoutMs?: number; input?: string },
): Promise<FinishedProcess> {
  const running = startProcess(options);
  if (options.input !== undefined) running.write(options.input);
  running.endInput();
  try {
    const exit = await running.waitForExit(options.timeoutMs ?? 30_000);
    return {
      ...exit,
      stdout: running.stdout(),
      stderr: running.stderr(),
      lines: running.lines,
      jsonLines: running.jsonLines(),
    };
  } finally {
    await running.kill();
  }
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (!text.trimStart().startsWith('{')) return undefined;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    // Not JSON: a stack trace or a half line. The text is there for whoever wants it.
    return undefined;
  }
}
