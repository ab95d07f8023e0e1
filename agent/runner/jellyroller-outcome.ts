/** One run of the JellyRoller CLI, as it ended. */
export interface CliRun {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
  elapsedMs: number;
  /** Why we ended it; undefined: it ended by itself. */
  cut: 'timeout' | 'too_long' | 'aborted' | undefined;
}

/** What a run says, by JellyRoller's own words (facts/jellyroller.md 1 to 5). */
export type CliOutcome =
  /** Exit 0. `hasConvertedToken`: it took our configuration for an old one and made a key of its own. */
  | { kind: 'ok'; text: string; hasConvertedToken: boolean }
  /** It ended before it sent anything, and will the next time. */
  | { kind: 'unusable'; why: string }
  /** Jellyfin's status, which JellyRoller takes for a failure. 204 is one of them. */
  | { kind: 'status'; status: number }
  /** Nobody answered: refused, cut, or its own timeout of 30 s. It prints the same for all of them. */
  | { kind: 'no_answer'; why: string }
  /** It may have sent the request before it ended. */
  | { kind: 'unclear'; why: string };

/** Clap's code for arguments that it does not know. Parsed before anything is sent. */
const USAGE = 2;
/** A Rust program that panicked. */
const PANIC = 101;
const NOT_CONFIGURED = 'Application is not configured!';
/** Errors of the library that reads the configuration, which is the first thing that happens. */
const NO_CONFIGURATION =
  /^Error: (BadTomlData|BadConfigDirectory|DirectoryCreationFailed|OpenConfigurationFileError)\b/m;
const AUTHENTICATION = /^\[ERROR\] Authentication failed \(HTTP (\d{3})\b/m;
const STATUS = /^\[ERROR\] Request failed with status: (\d{3})\b/m;
const NO_ANSWER = /^\[ERROR\] (?:GET|POST) request failed: /m;
/** The conversion of an old token talks on stdout, before the output proper. */
const NOISE = /^(?:\[INFO\] [^\n]*\n)+/;
const EXCERPT_CHARS = 200;

/** The first words of an output, on one line. */
export function excerpt(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  if (line === '') return 'nothing';
  return line.length > EXCERPT_CHARS ? `${line.slice(0, EXCERPT_CHARS)}…` : line;
}

/** Only from what is known: everything else is `unclear`, and never a refusal. */
export function outcomeOf({ code, signal, stdout, stderr, cut }: CliRun): CliOutcome {
  // First, whatever the code: answered prompts end with 0 and have run no command (facts/jellyroller.md 2).
  if (stdout.includes(NOT_CONFIGURED))
    return { kind: 'unusable', why: 'jellyroller did not find the configuration that was written for it' };
  if (cut === 'timeout') return { kind: 'no_answer', why: 'it did not end in time' };
  if (cut !== undefined) return { kind: 'unclear', why: `ended by us: ${cut.replace('_', ' ')}` };
  if (signal !== null) return { kind: 'unclear', why: `killed by ${signal}` };
  if (code === 0) {
    const noise = NOISE.exec(stdout)?.[0] ?? '';
    return { kind: 'ok', text: stdout.slice(noise.length), hasConvertedToken: noise !== '' };
  }
  if (code === USAGE) return { kind: 'unusable', why: `it does not know its arguments: ${excerpt(stderr)}` };
  if (code === PANIC) return { kind: 'unclear', why: `it panicked: ${excerpt(stderr)}` };
  if (NO_CONFIGURATION.test(stderr)) {
    // Not quoted: a TOML error shows the line that it does not like.
    return {
      kind: 'unusable',
      why: `its configuration cannot be read: ${excerpt(stderr.split('(')[0] ?? '')}`,
    };
  }
  const status = (AUTHENTICATION.exec(stderr) ?? STATUS.exec(stderr))?.[1];
  if (status !== undefined) return { kind: 'status', status: Number(status) };
  if (NO_ANSWER.test(stderr)) return { kind: 'no_answer', why: 'no answer' };
  return { kind: 'unclear', why: `exit ${String(code)}: ${excerpt(stderr)}` };
}
