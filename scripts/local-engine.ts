/**
 * Evaluates the real program through the real Pulumi SDK, with this process in the place of the engine: no Pulumi CLI,
 * no cloud, no credentials. It shows what mocks hide: parents, protection, dependencies, secrets on the wire.
 */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import engineServices from '@pulumi/pulumi/proto/engine_grpc_pb.js';
import resourceServices from '@pulumi/pulumi/proto/resource_grpc_pb.js';
import { engineHandlers, monitorHandlers, type RecordedResource } from './local-monitor.ts';
import { configDefaults } from './project-config.ts';

export type { RecordedResource } from './local-monitor.ts';
export { mask, reveal, isSecretValue } from './wire-values.ts';

export const PROJECT_DIR = join(import.meta.dirname, '..');
const PROJECT = 'jellyfin-on-azure';

export interface EvaluateOptions {
  /** Keys without the project's namespace; what is missing has its default from Pulumi.yaml. */
  readonly config?: Readonly<Record<string, string>>;
  /** Keys that the stack file would hold encrypted. */
  readonly secrets?: Readonly<Record<string, string>>;
  /** Run as `pulumi preview` (true) or as `pulumi up`. Both know all outputs here. @default true */
  readonly preview?: boolean;
  /** @default 'dev' */
  readonly stack?: string;
  /** Another program than the project's, for tests; relative to the project. @default 'index.ts' */
  readonly program?: string;
}

export interface Evaluation {
  /** In the order of registration; the stack itself is not among them. */
  readonly resources: readonly RecordedResource[];
  /** The stack's outputs, secrets still wrapped. */
  readonly outputs: Readonly<Record<string, unknown>>;
  /** What the program logged through the engine. */
  readonly logs: readonly string[];
}

/**
 * Runs the program once.
 * @throws Error with what the program said when it fails; a configuration error arrives this way
 */
export async function evaluateProgram(options: EvaluateOptions = {}): Promise<Evaluation> {
  const stack = options.stack ?? 'dev';
  const recorded: RecordedResource[] = [];
  const outputs: Record<string, unknown> = {};
  const logs: string[] = [];
  const server = new Server();
  server.addService(
    resourceServices.ResourceMonitorService,
    monitorHandlers({ project: PROJECT, stack, recorded, outputs }),
  );
  server.addService(engineServices.EngineService, engineHandlers(logs));
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  try {
    await runProgram(`127.0.0.1:${String(port)}`, stack, options, logs);
  } finally {
    server.forceShutdown();
  }
  return { resources: recorded, outputs, logs };
}

async function runProgram(
  address: string,
  stack: string,
  options: EvaluateOptions,
  logs: readonly string[],
): Promise<void> {
  const runner = join(PROJECT_DIR, 'node_modules', '@pulumi', 'pulumi', 'cmd', 'run', 'index.js');
  const args = [
    '--monitor',
    address,
    '--engine',
    address,
    '--project',
    PROJECT,
    '--stack',
    stack,
    '--organization',
    'local',
  ];
  args.push('--root-directory', PROJECT_DIR, '--pwd', PROJECT_DIR, '--parallel', '16');
  if (options.preview ?? true) args.push('--dry-run');
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', runner, ...args, options.program ?? 'index.ts'],
    {
      cwd: PROJECT_DIR,
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        PULUMI_NODEJS_TYPESCRIPT: 'false',
        PULUMI_CONFIG: JSON.stringify(fullConfig(options)),
        PULUMI_CONFIG_SECRET_KEYS: JSON.stringify(Object.keys(options.secrets ?? {}).map(fullKey)),
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let printed = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => (printed += chunk.toString('utf8')));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) {
    const said = [...logs, printed].filter((part) => part !== '').join('\n');
    throw new Error(`evaluate the program failed with exit code ${String(code)}:\n${said}`);
  }
}

function fullKey(key: string): string {
  return key.includes(':') ? key : `${PROJECT}:${key}`;
}

function fullConfig({ config = {}, secrets = {} }: EvaluateOptions): Record<string, string> {
  const values = { ...configDefaults(PROJECT_DIR), ...config, ...secrets };
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [fullKey(key), value]));
}
