import { spawn } from 'node:child_process';
import {
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { chooseEngine } from '../../agent/adapters/choose-engine.ts';
import { Secret } from '../../agent/secret.ts';
import { jellyrollerBinIn, writeScript } from '../../scripts/stand-in/jellyroller-bin.ts';
import { eventually } from '../stand-in/support.ts';
import { runProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import {
  answerWith,
  archivesIn,
  cliEngine,
  logTo,
  nobody,
  serve,
  untilListed,
  wordsOf,
  type Served,
} from './support.ts';

const KEY = new Secret('fedcba9876543210fedcba9876543210');
const NOT_CONFIGURED = 'Application is not configured!';
const EMPTY = 'http://127.0.0.1:1';

/** An engine over a program that does what `lines` say. */
function over(lines: readonly string[], options: Partial<Parameters<typeof cliEngine>[0]> = {}) {
  const dir = makeTempDir('cli');
  const binary = writeScript(join(dir, 'bin'), lines);
  const homeDir = join(dir, 'home');
  return { dir, homeDir, engine: cliEngine({ baseUrl: EMPTY, apiKey: KEY, binary, homeDir, ...options }) };
}

/** The stand-in, started after `lines`; they see the configuration in "$XDG_CONFIG_HOME". */
function standInAfter(lines: readonly string[]): string {
  const bin = jellyrollerBinIn(join(makeTempDir('cli'), 'bin'));
  return writeScript(join(makeTempDir('cli'), 'bin'), [...lines, `exec '${bin}' "$@"`]);
}

let serving: Promise<Served> | undefined;
const usual = (): Promise<Served> => (serving ??= serve());

describe('what the child gets', () => {
  test('six keys in a folder of our own, four variables, no input, no terminal, no secret on the command line', async () => {
    const { dir, homeDir, engine } = over(
      [
        'dir=$(dirname "$0")/..',
        'env | sort > "$dir/env"',
        'echo "$*" > "$dir/args"',
        'readlink /proc/self/fd/0 > "$dir/stdin"',
        '(: < /dev/tty) 2> /dev/null && echo yes > "$dir/tty"',
        'echo "[]"',
      ],
      { baseUrl: 'http://127.0.0.1:8096/films/' },
    );
    expect(await engine.list()).toEqual([]);
    const read = (name: string) => readFileSync(join(dir, name), 'utf8');
    const file = join(homeDir, 'jellyroller/jellyroller.toml');
    expect(readFileSync(file, 'utf8')).toBe(
      [
        'status = "configured"',
        'comfy = true',
        'server_url = "http://127.0.0.1:8096/films"',
        'os = "linux"',
        `api_key = "${KEY.reveal()}"`,
        'token = "apiKey"',
        '',
      ].join('\n'),
    );
    expect(statSync(file).mode & 0o777).toBe(0o600);
    for (const folder of [homeDir, join(homeDir, 'jellyroller')])
      expect(statSync(folder).mode & 0o777).toBe(0o700);
    // The shell adds the last two and `_`.
    const names = read('env')
      .split('\n')
      .map((line) => line.split('=')[0] ?? '');
    expect(names.filter((name) => !['', '_', 'PWD', 'SHLVL', 'OLDPWD'].includes(name))).toEqual([
      'HOME',
      'NO_PROXY',
      'PATH',
      'XDG_CONFIG_HOME',
    ]);
    expect(read('env')).toContain(`HOME=${homeDir}\n`);
    expect(read('env')).toContain('NO_PROXY=127.0.0.1,localhost\n');
    expect(read('env') + read('args')).not.toContain(KEY.reveal());
    expect(read('args')).toBe('get-backups -o json\n');
    expect(read('stdin')).toBe('/dev/null\n');
    expect(existsSync(join(dir, 'tty'))).toBe(false);
  });

  test('a new configuration when the key changes', async () => {
    const keys = [KEY, new Secret('00000000000000000000000000000000')];
    const { homeDir, engine } = over(['echo "[]"'], { apiKey: async () => keys[0] as Secret });
    const file = join(homeDir, 'jellyroller/jellyroller.toml');
    await engine.list();
    keys.shift();
    await engine.list();
    expect(readFileSync(file, 'utf8')).toContain('api_key = "00000000000000000000000000000000"');
  });

  test.each(['short', 'has "quotes" in it', 'line\nbreak line break'])(
    'refuses the key %j, without it',
    async (key) => {
      const { engine } = over(['echo "[]"'], { apiKey: new Secret(key) });
      const error: unknown = await engine.list().catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'configuration_invalid' });
      expect(wordsOf(error)).not.toContain(key);
    },
  );

  test('refuses an address that JellyRoller would change', () => {
    expect(() => over([], { baseUrl: 'http://127.0.0.1/a"b' })).toThrow(
      'JELLYFIN_URL must be without quotes',
    );
  });

  test('refuses a configuration beside the binary, also behind a link', async () => {
    const dir = makeTempDir('cli');
    writeScript(join(dir, 'real'), ['echo "[]"']);
    mkdirSync(join(dir, 'bin'));
    symlinkSync('../real/jellyroller', join(dir, 'bin/jellyroller'));
    const engine = cliEngine({ baseUrl: EMPTY, apiKey: KEY, binary: join(dir, 'bin/jellyroller') });
    expect(await engine.list()).toEqual([]);
    writeFileSync(join(dir, 'real/jellyroller.config'), '');
    await expect(engine.list()).rejects.toMatchObject({
      code: 'configuration_invalid',
      message: expect.stringContaining('real/jellyroller.config must not exist'),
    });
  });

  test('refuses a home that is a link or that is somebody else’s', async () => {
    const link = join(makeTempDir('cli'), 'home');
    symlinkSync(makeTempDir('elsewhere'), link);
    // Only root can give a folder away; anybody else finds one of root's.
    const foreign = process.getuid?.() === 0 ? makeTempDir('foreign') : '/usr';
    if (foreign !== '/usr') chownSync(foreign, 65_534, 65_534);
    for (const homeDir of [link, foreign]) {
      const { engine } = over(['echo "[]"'], { homeDir });
      await expect(engine.list()).rejects.toMatchObject({ code: 'target_unsafe' });
    }
  });
});

describe('how it ends', () => {
  const create = (...lines: string[]) => over(lines).engine.create();
  const list = (...lines: string[]) => over(lines).engine.list();

  test.each([101, 0])('not configured is fatal with exit %i', async (code) => {
    const lines = [`echo '${NOT_CONFIGURED}'`, `exit ${String(code)}`];
    const expected = { code: 'external_failed', retryable: false };
    await expect(create(...lines)).rejects.toMatchObject(expected);
    await expect(list(...lines)).rejects.toMatchObject(expected);
  });

  test('arguments that it does not know are fatal', async () => {
    await expect(
      create('echo "error: unrecognized subcommand \'create-backup\'" >&2', 'exit 2'),
    ).rejects.toMatchObject({
      code: 'external_failed',
      message: expect.stringContaining('unrecognized subcommand'),
    });
  });

  test.each([
    ['a panic', ['echo "thread \'main\' panicked at src/x.rs" >&2', 'exit 101'], 'panicked'],
    ['killed by the platform', ['kill -TERM $$'], 'SIGTERM'],
    ['killed for its memory', ['kill -KILL $$'], 'SIGKILL'],
    ['exit 0 without its word', ['echo done'], 'exit 0'],
    ['an exit that we do not know', ['echo "Status Code: 500"', 'exit 1'], 'exit 1'],
    ['endless output', ['yes'], 'too long'],
  ])('create, %s: unknown, for the server may be writing', async (_what, lines, why) => {
    expect(await create(...lines)).toMatchObject({ kind: 'unknown', why: expect.stringContaining(why) });
  });

  const PID = 'echo $! > "$(dirname "$0")/../pid"';
  test.each([
    ['a program that ignores SIGTERM', ['trap "" TERM', 'sleep 60 &', PID, 'while :; do sleep 0.1; done']],
    ['what a program leaves behind', ['sh -c \'trap "" TERM; sleep 60; :\' &', PID, 'wait']],
  ])('%s is killed, and the answer is unknown', async (_what, lines) => {
    const baseUrl = await answerWith((_request, response) => void response.end());
    const { dir, engine } = over(lines, { createTimeoutMs: 700, killGraceMs: 900, baseUrl });
    const startedMs = Date.now();
    expect(await engine.create()).toMatchObject({ kind: 'unknown', why: expect.stringContaining('in time') });
    expect(Date.now() - startedMs).toBeLessThan(5_000);
    const pid = readFileSync(join(dir, 'pid'), 'utf8').trim();
    // A zombie that nobody reaps has no command line any more.
    const isRunning = () => existsSync(`/proc/${pid}`) && readFileSync(`/proc/${pid}/cmdline`, 'utf8') !== '';
    await eventually(() => !isRunning());
  });

  test('the key is in nothing that we say, whatever it prints', async () => {
    const print = 'cat "$HOME/jellyroller/jellyroller.toml"';
    const lines: Record<string, unknown>[] = [];
    const { engine } = over([print, `${print} >&2`, 'exit 1'], { log: logTo(lines) });
    const error: unknown = await engine.list().catch((thrown: unknown) => thrown);
    const words = wordsOf([error, await engine.create(), lines]);
    expect(words).toContain('[redacted]');
    expect(words).not.toContain(KEY.reveal());
    const bad = over(['echo "Error: BadTomlData(api_key = ...hunter2)" >&2', 'exit 1']).engine;
    const badError: unknown = await bad.create().catch((thrown: unknown) => thrown);
    expect(badError).toMatchObject({
      code: 'external_failed',
      message: expect.stringContaining('BadTomlData'),
    });
    expect(wordsOf(badError)).not.toContain('hunter2');
  });

  test('no binary at all', async () => {
    const engine = cliEngine({ baseUrl: EMPTY, apiKey: KEY, binary: process.execPath + '-none' });
    await expect(engine.create()).rejects.toMatchObject({ code: 'external_failed' });
    // What a binary without its loader looks like.
    const broken = over([]);
    writeFileSync(join(broken.dir, 'bin/jellyroller'), '#!/nowhere/ld-linux\n');
    await expect(broken.engine.list()).rejects.toMatchObject({
      code: 'external_failed',
      message: expect.stringContaining('could not be started'),
    });
  });
});

describe('with the stand-in of 1.1.5', () => {
  test('its own timeout is unknown: the server goes on', async () => {
    const { home, server, key } = await serve({ STAND_IN_BACKUP_MS: '2500' });
    const binary = jellyrollerBinIn(join(makeTempDir('cli'), 'bin'), { timeoutMs: 500 });
    const engine = cliEngine({ baseUrl: server.url, apiKey: key, binary });
    expect(await engine.create()).toMatchObject({
      kind: 'unknown',
      why: expect.stringContaining('no answer'),
    });
    expect(archivesIn(home)).toHaveLength(1);
    await untilListed(server, key);
    expect(await engine.list()).toHaveLength(1);
  });

  test('1.1.4 lists, and is refused every backup: the reason says so', async () => {
    const { server, key } = await usual();
    const binary = jellyrollerBinIn(join(makeTempDir('cli'), 'bin'), { version: '1.1.4' });
    const engine = cliEngine({ baseUrl: server.url, apiKey: key, binary });
    expect(await engine.list()).toEqual([]);
    expect(await engine.create()).toMatchObject({
      kind: 'refused',
      isRetryable: false,
      why: expect.stringContaining('misspelt'),
    });
  });

  test('the conversion of an old token is told once, and its noise is no list', async () => {
    const { server, key } = await usual();
    const lines: Record<string, unknown>[] = [];
    const binary = standInAfter(['sed -i /^token/d "$XDG_CONFIG_HOME/jellyroller/jellyroller.toml"']);
    const engine = cliEngine({ baseUrl: server.url, apiKey: key, binary, log: logTo(lines) });
    expect(await engine.list()).toEqual([]);
    expect(await engine.list()).toEqual([]);
    expect(lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
    // Any other noise is an error.
    await expect(over(['echo "warning: x"', 'echo "[]"']).engine.list()).rejects.toMatchObject({
      code: 'external_failed',
    });
  });

  test('without its configuration it asks, and cannot get an answer from us', async () => {
    const elsewhere = makeTempDir('cli');
    const binary = standInAfter([`export HOME='${elsewhere}' XDG_CONFIG_HOME='${elsewhere}'`]);
    const engine = cliEngine({ baseUrl: EMPTY, apiKey: KEY, binary });
    await expect(engine.list()).rejects.toThrow('did not find the configuration');
    expect(existsSync(join(elsewhere, 'jellyroller/jellyroller.toml'))).toBe(true);
  });
});

describe('the stand-in itself', () => {
  const command = jellyrollerBinIn(join(makeTempDir('cli'), 'bin'));
  const PATH = process.env['PATH'] ?? '';
  /** A home whose configuration holds these lines. */
  function homeWith(...lines: string[]): string {
    const home = makeTempDir('cli');
    mkdirSync(join(home, '.config/jellyroller'), { recursive: true });
    writeFileSync(join(home, '.config/jellyroller/jellyroller.toml'), lines.join('\n'));
    return home;
  }
  const configured = (url: string, key: string) =>
    homeWith('status = "configured"', `server_url = "${url}"`, `api_key = "${key}"`, 'token = "apiKey"');
  const run = (home: string, ...args: string[]) => runProcess({ command, args, env: { PATH, HOME: home } });

  test('knows no --filename, and prints tables and CSV that nobody should parse', async () => {
    const { home: served, server, token, key } = await serve();
    await server.call('POST', '/Backup/Create', { token, body: { Database: true } });
    const name = archivesIn(served)[0] ?? '';
    const home = configured(server.url, key.reveal());
    const [flag, none, table, csv, missing, applied] = await Promise.all([
      run(home, 'apply-backup', '--filename', name),
      run(home, 'apply-backup'),
      run(home, 'get-backups'),
      run(home, 'get-backups', '-o', 'csv'),
      run(home, 'apply-backup', 'none.zip'),
      run(home, 'apply-backup', name),
    ]);
    expect([flag.code, none.code, table.code, csv.code, missing.code]).toEqual([2, 2, 0, 0, 1]);
    expect(table.stdout).not.toContain(name);
    expect(csv.stdout).toMatch(/^10\.11\.11\.0, 0\.2\.0, \S+, \S+\.zip\n$/);
    expect(missing.stderr).toBe('[ERROR] Request failed with status: 404 Not Found\n');
    // The success.
    expect(applied).toMatchObject({
      code: 1,
      stdout: '',
      stderr: '[ERROR] Request failed with status: 204 No Content\n',
    });
  });

  test('says the same of a server that is not there and of one that does not answer', async () => {
    const url = await nobody();
    expect(await run(configured(url, 'x'), 'create-backup')).toMatchObject({
      code: 1,
      stdout: '',
      stderr: `[ERROR] POST request failed: ${url}/Backup/Create\n[ERROR] error sending request for url (${url}/Backup/Create)\n`,
    });
  });

  test('not configured: panics without a terminal, and hangs on an open input', async () => {
    const [panicked, version] = await Promise.all([
      run(makeTempDir('cli'), 'get-backups'),
      run(homeWith('comfy = true'), '--version'),
    ]);
    for (const { code, stdout } of [panicked, version]) {
      expect(code).toBe(101);
      expect(stdout).toContain(NOT_CONFIGURED);
    }
    const open = spawn(command, ['get-backups'], { env: { PATH, HOME: makeTempDir('cli') } });
    await new Promise((resolve) => open.stdout.once('data', resolve));
    await sleep(200);
    expect(open.exitCode).toBeNull();
    open.kill('SIGKILL');
  });

  test('needs a HOME, and a configuration that is TOML', async () => {
    const homeless = await runProcess({ command, args: ['get-backups'], env: { PATH } });
    expect(homeless).toMatchObject({ code: 1, stderr: expect.stringContaining('Error: BadConfigDirectory') });
    const bad = await run(homeWith('status = configured'), 'get-backups');
    expect(bad).toMatchObject({ code: 1, stderr: expect.stringContaining('Error: BadTomlData') });
  });
});

describe('the choice of the driver', () => {
  const config = {
    jellyfinUrl: EMPTY,
    jellyrollerBin: 'jellyroller',
    jellyrollerTimeoutSeconds: 60,
  } as const;
  async function choose(jellyrollerDriver: 'cli' | 'http', path: string, bin = 'jellyroller') {
    const lines: Record<string, unknown>[] = [];
    const outside = {
      apiKey: async () => KEY,
      homeDir: join(makeTempDir('cli'), 'home'),
      path,
      log: logTo(lines),
    };
    const engine = await chooseEngine({ ...config, jellyrollerDriver, jellyrollerBin: bin }, outside);
    return { driver: engine.driver, lines };
  }

  test('is the CLI where it is on the PATH, the API where it is not, and says which', async () => {
    const dir = makeTempDir('cli');
    const missing = await choose('cli', `relative:${dir}`);
    expect(missing).toMatchObject({ driver: 'http', lines: [{ level: 'warn', driver: 'http' }] });
    const binary = writeScript(dir, []);
    const found = await choose('cli', `/nowhere:${dir}`);
    expect(found).toMatchObject({ driver: 'jellyroller', lines: [{ level: 'info', binary }] });
    expect(await choose('cli', '', binary)).toMatchObject({ driver: 'jellyroller' });
    expect(await choose('cli', dir, '/nowhere/jellyroller')).toMatchObject({ driver: 'http' });
    writeFileSync(join(dir, 'data'), '');
    expect(await choose('cli', dir, 'data')).toMatchObject({ driver: 'http' });
    expect(await choose('http', dir)).toMatchObject({ driver: 'http', lines: [{ level: 'info' }] });
  });
});
