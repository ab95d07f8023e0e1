import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { HttpBackupEngine } from '../../agent/adapters/http-engine.ts';
import { JellyrollerEngine } from '../../agent/adapters/jellyroller-engine.ts';
import { createLogger, type Logger } from '../../agent/log.ts';
import type { ApiKeySource, BackupEngine } from '../../agent/runner/engine.ts';
import { Secret } from '../../agent/secret.ts';
import { jellyrollerBinIn } from '../../scripts/stand-in/jellyroller-bin.ts';
import { eventually, Home, StandIn } from '../stand-in/support.ts';
import { onCleanUp } from '../support/clean-up.ts';
import { makeTempDir } from '../support/temp-dir.ts';

export interface Served {
  home: Home;
  server: StandIn;
  /** The administrator's session. */
  token: string;
  key: Secret;
}

/** A server that is set up, with an API key. `baseUrl` is what it is served under. */
export async function serve(env: Record<string, string> = {}, baseUrl = ''): Promise<Served> {
  const home = new Home();
  if (baseUrl !== '') {
    mkdirSync(home.path('config'), { recursive: true });
    const settings = `<BaseUrl>${baseUrl}</BaseUrl>`;
    writeFileSync(
      home.path('config/network.xml'),
      `<?xml version="1.0"?><NetworkConfiguration>${settings}</NetworkConfiguration>`,
    );
  }
  const server = await StandIn.launch(home, env);
  (server as { url: string }).url += baseUrl;
  await server.untilHealth('Healthy');
  await server.completeWizard();
  const token = (await server.logIn()).json.AccessToken;
  return { home, server, token, key: await mintKey(server, token) };
}

export async function mintKey(server: StandIn, token: string): Promise<Secret> {
  const name = `test ${randomUUID()}`;
  await server.call('POST', `/Auth/Keys?app=${encodeURIComponent(name)}`, { token });
  const { Items } = (await server.call('GET', '/Auth/Keys', { token })).json as unknown as {
    Items: { AppName: string; AccessToken: string }[];
  };
  const minted = Items.find(({ AppName }) => AppName === name);
  if (minted === undefined) throw new Error('no key was made');
  return new Secret(minted.AccessToken);
}

export const archivesIn = (home: Home): string[] =>
  home.has('data/backups') ? readdirSync(home.path('data/backups')) : [];

/** By asking the server: each look of a CLI is a process. */
export const untilListed = (server: StandIn, key: Secret): Promise<void> =>
  eventually(async () => (await server.call('GET', '/Backup', { token: key.reveal() })).list.length === 1);

/** A server that answers what the test says, in this process; for what no Jellyfin answers. */
export async function answerWith(listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp('servers', () => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return `http://127.0.0.1:${address.port}`;
}

/** An address at which nobody listens. */
export async function nobody(): Promise<string> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${typeof address === 'object' ? (address?.port ?? 0) : 0}`;
}

/** Everything that an error says, wherever it says it. */
export const wordsOf = (error: unknown): string => inspect(error, { depth: 9, showHidden: true });

export function logTo(lines: Record<string, unknown>[]): Logger {
  return createLogger('test', (line) => lines.push(JSON.parse(line) as Record<string, unknown>), {
    level: 'debug',
  });
}

export interface EngineChoice {
  baseUrl: string;
  apiKey: Secret | ApiKeySource;
  createTimeoutMs?: number;
  callTimeoutMs?: number;
}

export interface CliChoice extends EngineChoice {
  binary: string;
  homeDir?: string;
  killGraceMs?: number;
  log?: Logger;
}

const sourceOf = (apiKey: Secret | ApiKeySource): ApiKeySource =>
  typeof apiKey === 'function' ? apiKey : async () => apiKey;
const LIMITS = { createTimeoutMs: 20_000, callTimeoutMs: 10_000 };

export function httpEngine({ apiKey, ...options }: EngineChoice): BackupEngine {
  return new HttpBackupEngine({ ...LIMITS, ...options, apiKey: sourceOf(apiKey) });
}

export function cliEngine({ apiKey, log, ...options }: CliChoice): BackupEngine {
  const homeDir = join(makeTempDir('cli'), 'home');
  const path = process.env['PATH'] ?? '';
  return new JellyrollerEngine(
    { ...LIMITS, homeDir, path, ...options, apiKey: sourceOf(apiKey) },
    log ?? logTo([]),
  );
}

/** One suite for all of them; `JELLYROLLER_BIN` adds a real JellyRoller. */
export function drivers(): { name: string; open: (choice: EngineChoice) => BackupEngine }[] {
  const standIn = jellyrollerBinIn(join(makeTempDir('cli'), 'bin'));
  const real = process.env['JELLYROLLER_BIN'];
  return [
    { name: 'http', open: httpEngine },
    { name: 'jellyroller', open: (choice) => cliEngine({ ...choice, binary: standIn }) },
    ...(real ? [{ name: real, open: (choice: EngineChoice) => cliEngine({ ...choice, binary: real }) }] : []),
  ];
}
