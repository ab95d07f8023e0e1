import { readFileSync } from 'node:fs';
import { inspect } from 'node:util';
import { parseConfig } from '../../agent/config.ts';
import {
  COMMAND_ENV,
  ENV,
  EXIT,
  SECRET_ENV,
  SHUTDOWN,
  type Command,
  type EnvKey,
} from '../../agent/contract.ts';

const commands = Object.keys(COMMAND_ENV) as Command[];
const KEY = 'c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0';

/** The names that the parser reads of an environment. */
function namesRead(command: Command, env: Record<string, string>): string[] {
  const read = new Set<string>();
  const recording = new Proxy(env, {
    get(target, name) {
      if (typeof name === 'string') read.add(name);
      return Reflect.get(target, name) as string | undefined;
    },
  });
  parseConfig(command, recording);
  return [...read].sort();
}

describe('environment contract', () => {
  it.each(commands)('%s reads exactly the variables that it may see', (command) => {
    const allowed = COMMAND_ENV[command].map((key: EnvKey) => ENV[key]).sort();
    expect(namesRead(command, { [ENV.storageAccount]: 'backups' })).toEqual(allowed);
  });

  it('a variable of another command is not read', () => {
    expect(
      parseConfig('restore', { [ENV.storageAccount]: 'backups', [ENV.retentionKeep]: 'nonsense' }).retention
        .keep,
    ).toBe(30);
  });

  it('an empty variable is one that is not set', () => {
    expect(
      parseConfig('backup', { [ENV.storageAccount]: 'backups', [ENV.retentionKeep]: '' }).retention.keep,
    ).toBe(30);
  });

  it('keeps secrets out of anything that prints', () => {
    const sharedKey = parseConfig('backup', { [ENV.storageAccount]: 'backups', [ENV.storageKey]: KEY });
    const connection = parseConfig('backup', {
      [ENV.connectionString]: `DefaultEndpointsProtocol=https;AccountName=a;AccountKey=${KEY};EndpointSuffix=core.windows.net`,
    });
    for (const config of [sharedKey, connection]) {
      for (const printed of [
        JSON.stringify(config),
        inspect(config, { depth: 9 }),
        String(config.credential),
      ]) {
        expect(printed).not.toContain(KEY);
      }
    }
    expect(SECRET_ENV).toEqual(expect.arrayContaining(['storageKey', 'connectionString']));
  });

  it('is frozen', () => {
    const config = parseConfig('backup', { [ENV.storageAccount]: 'backups' });
    expect(() => Object.assign(config.retention, { keep: 1 })).toThrow(TypeError);
  });

  it('gives the sidecar less time than the platform', () => {
    expect(SHUTDOWN.budgetSeconds).toBeLessThan(SHUTDOWN.graceSeconds);
  });

  const readme = readFileSync('README.md', 'utf8');
  it.each(Object.values(ENV))('the README has a row for %s', (name) => {
    expect(readme).toMatch(new RegExp(`^\\| \`${name}\``, 'm'));
  });
  it.each([...new Set(Object.values(EXIT))])('the README explains exit code %i', (code) => {
    expect(readme).toMatch(new RegExp(`^\\| (\\d+ / )?${String(code)}( / \\d+)? \\|`, 'm'));
  });
});
