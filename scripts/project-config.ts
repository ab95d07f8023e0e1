import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from 'js-yaml';

export interface DeclaredKey {
  readonly type: 'string' | 'boolean' | 'integer';
  readonly default: string | number | boolean;
  readonly description: string;
}

/** The keys that a `Pulumi.yaml` declares, in its order. */
export function declaredKeys(projectDir: string): Record<string, DeclaredKey> {
  const project = load(readFileSync(join(projectDir, 'Pulumi.yaml'), 'utf8')) as {
    config: Record<string, DeclaredKey>;
  };
  return project.config;
}

/** What the engine makes of them for a stack that sets nothing: text, without the project's namespace. */
export function configDefaults(projectDir: string): Record<string, string> {
  return Object.fromEntries(
    Object.entries(declaredKeys(projectDir)).map(([key, declared]) => [key, String(declared.default)]),
  );
}
