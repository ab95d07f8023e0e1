import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Says the same as eslint.config.js, so that it also holds where the linter is not run. */
const sources = (dir: string): string[] =>
  readdirSync(join(process.cwd(), dir), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => `${dir}/${file}`);

function importsOf(file: string): string[] {
  const text = readFileSync(join(process.cwd(), file), 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map((match) => match[1] ?? '');
}

const agent = sources('agent');
const isDomain = (file: string) =>
  !file.startsWith('agent/adapters/') && file !== 'agent/main.ts' && file !== 'agent/wire.ts';
const OUTSIDE = /^(node:(fs|child_process|net|http|https|sqlite|zlib|worker_threads)|@azure\/)/;

describe('dependency direction', () => {
  it('sees the sources', () => {
    expect(agent.length).toBeGreaterThan(20);
    expect(importsOf('agent/main.ts')).toContain('./config.ts');
  });

  it.each(agent)('%s imports nothing of the infrastructure or of the tests', (file) => {
    expect(importsOf(file).filter((name) => /@pulumi\/|components\/|tests\/|scripts\//.test(name))).toEqual(
      [],
    );
  });

  it.each(agent.filter(isDomain))('%s reaches the outside through ports only', (file) => {
    expect(importsOf(file).filter((name) => OUTSIDE.test(name) || name.includes('/adapters/'))).toEqual([]);
  });

  it('only main.ts touches the process', () => {
    const touching = agent.filter((file) =>
      /\bprocess\.(env|exit|on|argv|stdout)\b/.test(readFileSync(join(process.cwd(), file), 'utf8')),
    );
    expect(touching).toEqual(['agent/main.ts']);
  });

  it('the contract imports nothing', () => {
    expect(importsOf('agent/contract.ts')).toEqual([]);
  });
});
