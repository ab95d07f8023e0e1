/**
 * A stand-in for the JellyRoller CLI, version 1.1.5, with its exact words, codes and habits: facts/jellyroller.md 1 to 5 and
 * 9. It talks to whatever server its configuration names. What a test wants to change it bakes into the wrapper, because the
 * driver gives its child no other environment (jellyroller-bin.ts).
 */
import { openSync, readSync } from 'node:fs';
import { styleText } from 'node:util';
import { ConfigError, loadConfig, storeConfig, type Config } from './jellyroller-config.ts';
import { send, type Answer } from './jellyroller-http.ts';
import { asCsv, asTable, shuffled, type Backup } from './jellyroller-output.ts';

/** Arguments with which the configuration is not looked at. */
const WITHOUT_CONFIG = ['initialize', 'server-setup', 'quickconnect', '-h', '--help'];
const KEY_NAME = 'JellyRoller';
const SKIPS = {
  '--skip-metadata': 'Metadata',
  '--skip-trickplay': 'Trickplay',
  '--skip-subtitles': 'Subtitles',
};

class Exit extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

const print = (text: string): void => void process.stdout.write(`${text}\n`);
const complain = (text: string): void => void process.stderr.write(`${text}\n`);

function panic(where: string, what: string): never {
  complain(`\nthread 'main' panicked at ${where}:\n${what}`);
  complain('note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace');
  throw new Exit(101);
}

/** As clap says it: on stderr, with the code 2. */
function usage(problem: string, line: string): never {
  complain(
    `${styleText('red', 'error:', { validateStream: false })} ${problem}\n\nUsage: jellyroller ${line}\n`,
  );
  complain("For more information, try '--help'.");
  throw new Exit(2);
}

/** Blocks on an open pipe, as the real one does; the end of input is an empty line to it. */
function readLine(prompt: string): string {
  print(prompt);
  const byte = Buffer.alloc(1);
  let line = '';
  while (readSync(0, byte, 0, 1, null) === 1) {
    if (byte[0] === 0x0a) return line;
    line += byte.toString('latin1');
  }
  return line;
}

/** Prompts come before the arguments are parsed; answered, they end the program without the command. */
function configureByHand(): never {
  print('Application is not configured!');
  readLine('[INFO] Please enter the URL of your Jellyfin server:');
  readLine('[INFO] Please enter your Jellyfin username:');
  try {
    openSync('/dev/tty', 'r+');
  } catch {
    panic(
      'src/main.rs:592:73',
      'called `Result::unwrap()` on an `Err` value: Os { code: 6, kind: Uncategorized, message: "No such device or address" }',
    );
  }
  throw new Exit(0);
}

/** A configuration without `token` is taken for one that holds a session's token, on every run. */
async function convertToken(config: Config): Promise<void> {
  print('[INFO] Username/Password detected.  Reconfiguring to use API key.');
  let key = await findKey(config);
  if (key === undefined) {
    await send(config, 'POST', `/Auth/Keys?app=${KEY_NAME}`);
    key = await findKey(config);
  }
  storeConfig({ ...config, api_key: key ?? '', token: 'apiKey' });
  print('[INFO] Configuration updated to use API key.');
}

async function findKey(config: Config): Promise<string | undefined> {
  const answer = await send(config, 'GET', '/Auth/Keys');
  if (answer?.status !== 200) return undefined;
  const { Items } = JSON.parse(answer.text) as { Items: { AppName: string; AccessToken: string }[] };
  return Items.find(({ AppName }) => AppName === KEY_NAME)?.AccessToken;
}

/** The one status that it takes for success is 200; it never shows a body of any other. */
function demand200(method: string, url: string, answer: Answer | undefined): Answer {
  if (answer === undefined) {
    complain(`[ERROR] ${method} request failed: ${url}`);
    complain(`[ERROR] error sending request for url (${url})`);
    throw new Exit(1);
  }
  if (answer.status === 200) return answer;
  if (answer.status === 401) {
    complain('[ERROR] Authentication failed (HTTP 401 Unauthorized)');
    complain("[HINT] Please run 'jellyroller reconfigure' to update your credentials.");
  } else {
    complain(`[ERROR] Request failed with status: ${answer.status} ${answer.reason}`);
  }
  throw new Exit(1);
}

async function createBackup(config: Config, args: readonly string[]): Promise<void> {
  const options = { Metadata: true, Trickplay: true, Subtitles: true, Database: true };
  for (const arg of args) {
    if (!Object.hasOwn(SKIPS, arg)) usage(`unexpected argument '${arg}' found`, 'create-backup [OPTIONS]');
    options[SKIPS[arg as keyof typeof SKIPS] as keyof typeof options] = false;
  }
  const url = `${config.server_url}/Backup/Create`;
  demand200('POST', url, await send(config, 'POST', '/Backup/Create', JSON.stringify(options)));
  // The manifest in the answer, with the archive's name, is thrown away.
  print('Success');
}

async function getBackups(config: Config, args: readonly string[]): Promise<void> {
  const [flag, format = 'table', ...rest] = args;
  if (flag !== undefined && flag !== '-o' && flag !== '--output-format')
    usage(`unexpected argument '${flag}' found`, 'get-backups [OPTIONS]');
  if (!['json', 'csv', 'table'].includes(format) || rest.length > 0)
    usage(`invalid value '${format}' for '--output-format <OUTPUT_FORMAT>'`, 'get-backups [OPTIONS]');
  const answer = demand200('GET', `${config.server_url}/Backup`, await send(config, 'GET', '/Backup'));
  let backups: Backup[];
  try {
    backups = JSON.parse(answer.text) as Backup[];
  } catch (error) {
    print(`Unable to get backups, ${(error as Error).message}`);
    throw new Exit(1);
  }
  const list = shuffled(backups);
  if (format === 'json') print(JSON.stringify(list, null, 2));
  else print(format === 'csv' ? asCsv(list) : asTable(list));
}

async function applyBackup(config: Config, args: readonly string[]): Promise<void> {
  const line = 'apply-backup <FILENAME>';
  const flag = args.find((arg) => arg.startsWith('-'));
  if (flag !== undefined) usage(`unexpected argument '${flag}' found`, line);
  const [name, extra] = args;
  if (name === undefined) usage('the following required arguments were not provided:\n  <FILENAME>', line);
  if (extra !== undefined) usage(`unexpected argument '${extra}' found`, line);
  // Put together without escaping, as the real one does.
  const answer = await send(config, 'POST', '/Backup/Restore', `{"ArchiveFileName": "${name}"}`);
  demand200('POST', `${config.server_url}/Backup/Restore`, answer);
  print('Success');
}

async function run(argv: readonly string[]): Promise<void> {
  const config = loadConfig();
  if (!argv.some((arg) => WITHOUT_CONFIG.includes(arg))) {
    if (config.status === 'not configured') configureByHand();
    if (config.token === 'Unknown') await convertToken(config);
  }
  if (argv.includes('-h') || argv.includes('--help')) {
    print('Usage: jellyroller [OPTIONS] <COMMAND>');
    return;
  }
  const [command, ...args] = argv.filter((arg) => arg !== '-v' && arg !== '--verbose');
  switch (command) {
    case 'create-backup':
      return createBackup(config, args);
    case 'get-backups':
      return getBackups(config, args);
    case 'apply-backup':
      return applyBackup(config, args);
    case '-V':
    case '--version': {
      print('jellyroller 1.1.5');
      return;
    }
    default:
      usage(`unrecognized subcommand '${command ?? ''}'`, '[OPTIONS] <COMMAND>');
  }
}

run(process.argv.slice(2)).catch((error: unknown) => {
  if (error instanceof ConfigError) complain(`Error: ${error.message}`);
  else if (!(error instanceof Exit)) complain((error as Error).stack ?? String(error));
  process.exitCode = error instanceof Exit ? error.code : 1;
});
