import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT_DIR } from '../support/stack-config.ts';

/** Specifiers that the TypeScript files of a folder import. */
function importsOf(folder: string): { file: string; specifier: string }[] {
  const files = readdirSync(join(PROJECT_DIR, folder), { recursive: true, encoding: 'utf8' });
  return files
    .filter((file) => file.endsWith('.ts'))
    .flatMap((file) =>
      [
        ...readFileSync(join(PROJECT_DIR, folder, file), 'utf8').matchAll(
          /^(?:import|export)\b[^;]*?from '([^']+)'/gms,
        ),
      ].map(([, specifier = '']) => ({ file, specifier })),
    );
}

describe('import direction', () => {
  it('lets components see one file of the agent: the contract', () => {
    const seen = importsOf('components').filter(({ specifier }) => specifier.includes('agent/'));
    expect(seen.length).toBeGreaterThan(3);
    expect([...new Set(seen.map(({ specifier }) => specifier))]).toEqual(['../agent/contract.ts']);
  });

  it('keeps Pulumi and the components out of the agent', () => {
    const seen = importsOf('agent').filter(({ specifier }) => /@pulumi|components\//.test(specifier));
    expect(seen).toEqual([]);
  });

  it('keeps scripts out of the components, and resource modules out of the pure files', () => {
    const components = importsOf('components');
    expect(components.filter(({ specifier }) => specifier.includes('scripts/'))).toEqual([]);
    const pure = [
      'names',
      'sizing',
      'image-ref',
      'guid',
      'probes',
      'alert-query',
      'image-context',
      'operator-commands',
      'config-reader',
      'config-keys',
      'config-rules',
    ];
    const runtime = components.filter(
      ({ file, specifier }) => pure.includes(file.replace('.ts', '')) && specifier.startsWith('@'),
    );
    expect(runtime).toEqual([]);
  });
});
