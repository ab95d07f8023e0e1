/**
 * `npm run preview:local [-- key=value …] [--stack dev] [--json]`: what `pulumi up` would create, without CLI, cloud or
 * credentials. Starts from Pulumi.<stack>.yaml; what is encrypted there is stood in for.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { load } from 'js-yaml';
import { estimateCost } from './cost.ts';
import { PROJECT_DIR, evaluateProgram, mask, type Evaluation } from './local-engine.ts';
import { costInputOf, renderCost, renderTree } from './resource-tree.ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { stack: { type: 'string', default: 'dev' }, json: { type: 'boolean', default: false } },
});

const stackFile = readStackFile(values.stack);
const started = performance.now();
try {
  const evaluation = await evaluateProgram({
    stack: values.stack,
    config: { ...stackFile.config, ...Object.fromEntries(positionals.map(parsePair)) },
    secrets: stackFile.secrets,
  });
  process.stdout.write(`${values.json ? JSON.stringify(mask(evaluation), null, 2) : report(evaluation)}\n`);
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}

function report({ resources, outputs, logs }: Evaluation): string {
  const seconds = ((performance.now() - started) / 1_000).toFixed(1);
  const custom = resources.filter(({ custom: isCustom }) => isCustom).length;
  return [
    `Stack ${values.stack}: pulumi up would create ${String(custom)} resources (evaluated in ${seconds} s; names and ids are stand-ins)`,
    '',
    renderTree(resources),
    '',
    'Outputs',
    ...renderOutputs(mask(outputs) as Record<string, unknown>),
    '',
    renderCost(estimateCost(costInputOf(resources))),
    ...(logs.length === 0 ? [] : ['', 'Said by the program', ...logs.map((line) => `  ${line}`)]),
  ].join('\n');
}

function renderOutputs(outputs: Record<string, unknown>): string[] {
  return Object.entries(outputs).flatMap(([name, value]) =>
    typeof value === 'object' && value !== null
      ? [`  ${name}:`, ...Object.entries(value).map(([key, item]) => `    ${key}: ${String(item)}`)]
      : [`  ${name}: ${String(value)}`],
  );
}

function parsePair(pair: string): [string, string] {
  const at = pair.indexOf('=');
  if (at < 1) throw new Error(`read argument ${JSON.stringify(pair)} failed: expected key=value`);
  return [pair.slice(0, at), pair.slice(at + 1)];
}

function readStackFile(stack: string): { config: Record<string, string>; secrets: Record<string, string> } {
  const file = join(PROJECT_DIR, `Pulumi.${stack}.yaml`);
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const entries = Object.entries(
    (load(text === '' ? '{}' : text) as { config?: Record<string, unknown> }).config ?? {},
  ).map(([key, value]) => [key.replace(/^jellyfin-on-azure:/, ''), value] as const);
  const isEncrypted = (value: unknown): boolean => typeof value === 'object' && value !== null;
  return {
    config: Object.fromEntries(
      entries.filter(([, value]) => !isEncrypted(value)).map(([key, value]) => [key, String(value)]),
    ),
    // Only the shape matters: a key of the right form, so that the program evaluates.
    secrets: Object.fromEntries(
      entries.filter(([, value]) => isEncrypted(value)).map(([key]) => [key, '0'.repeat(32)]),
    ),
  };
}
