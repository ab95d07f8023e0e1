/**
 * `npm run test:image`: builds the Dockerfile for real, with Debian's daemonless builder, and runs the result.
 *
 * No registry is needed: the base is a stand-in that holds this project's own Node, its libraries and nothing else, at
 * the path where the real base has them. Not proven: the bytes of the real base, and that ACR accepts the context.
 * Needs root (or user namespaces) and `apt-get install buildah`.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { contextArchive } from '../components/image-context.ts';
import { startAzurite } from '../tests/support/azurite.ts';
import { writeImageContext } from './image-context.ts';

const PROJECT_DIR = join(import.meta.dirname, '..');
const root = mkdtempSync(join(tmpdir(), 'test-image-'));
const BASE = 'localhost/stand-in-base';

interface Result {
  readonly status: number | null;
  readonly output: string;
}

function buildah(...args: string[]): Result {
  // vfs and chroot: neither overlay mounts nor a container runtime, so it runs inside a container too.
  const all = [
    '--root',
    join(root, 'store'),
    '--runroot',
    join(root, 'run'),
    '--storage-driver',
    'vfs',
    ...args,
  ];
  const { status, stdout, stderr, error } = spawnSync('buildah', all, {
    encoding: 'utf8',
    env: { ...process.env, BUILDAH_ISOLATION: 'chroot', TMPDIR: root },
  });
  if (error !== undefined)
    throw new Error('run buildah failed: install it with `apt-get install buildah`', { cause: error });
  return { status, output: `${stdout}${stderr}` };
}

function must(result: Result, what: string): string {
  assert.equal(result.status, 0, `${what} failed:\n${result.output}`);
  return result.output.trim();
}

function step(text: string): void {
  process.stdout.write(`- ${text}\n`);
}

/** A base with what the real one has for us: Node under /nodejs/bin, the C library, a /tmp; no shell. */
function buildBase(): void {
  const dir = join(root, 'base');
  const libraries = execFileSync('ldd', [process.execPath], { encoding: 'utf8' }).matchAll(
    /(\/[^\s:]+\.so[^\s:]*)/g,
  );
  const files = new Map([...libraries].map(([, path = '']) => [path, path]));
  files.set('/nodejs/bin/node', process.execPath);
  for (const [target, source] of files) {
    mkdirSync(join(dir, dirname(target)), { recursive: true });
    copyFileSync(source, join(dir, target));
  }
  mkdirSync(join(dir, 'tmp'), { recursive: true, mode: 0o1777 });
  writeFileSync(join(root, 'Dockerfile.base'), 'FROM scratch\nCOPY . /\n');
  must(buildah('build', '-t', BASE, '-f', join(root, 'Dockerfile.base'), dir), 'build the stand-in base');
}

function build(tag: string, context: string, args: Record<string, string>): Result {
  const buildArgs = Object.entries({ BASE, ...args }).flatMap(([key, value]) => [
    '--build-arg',
    `${key}=${value}`,
  ]);
  return buildah(
    'build',
    '--pull=never',
    '--target',
    tag,
    ...buildArgs,
    '-t',
    tag,
    '-f',
    join(context, 'Dockerfile'),
    context,
  );
}

function runAgent(connectionString: string): void {
  const inspected = JSON.parse(must(buildah('inspect', '--type', 'image', 'agent'), 'inspect')) as {
    OCIv1: { config: { User: string; Entrypoint: string[] } };
  };
  const { config } = inspected.OCIv1;
  assert.equal(config.User, '0:0');
  const container =
    must(buildah('from', '--pull=never', 'agent'), 'create the container')
      .split('\n')
      .at(-1) ?? '';
  const data = join(root, 'data');
  mkdirSync(data);
  const agent = (...args: string[]): Result =>
    buildah(
      'run',
      '--volume',
      `${data}:/data`,
      '--env',
      `AZURE_STORAGE_CONNECTION_STRING=${connectionString}`,
      '--env',
      'LOG_LEVEL=info',
      container,
      '--',
      ...config.Entrypoint,
      ...args,
    );
  const restored = agent('restore');
  assert.equal(restored.status, 0, restored.output);
  step('restore on an empty store: first boot, exit 0');
  const listed = agent('list', '--json');
  assert.equal(listed.status, 0, listed.output);
  step('list: exit 0');
  const who = buildah('run', container, '--', '/nodejs/bin/node', '-p', 'process.getuid()');
  assert.match(who.output, /^0$/m);
  assert.notEqual(buildah('run', container, '--', '/bin/sh', '-c', 'true').status, 0);
  step('it runs as uid 0, the owner of /data, and there is no shell');
}

async function testRunnerImage(context: string): Promise<void> {
  const binary = '#!/nodejs/bin/node\nprocess.exit(process.argv[2] === "--help" ? 101 : 0);\n';
  const { archive } = contextArchive([{ name: 'jellyroller-1.1.5/jellyroller', content: binary }]);
  const sha256 = createHash('sha256').update(archive).digest('hex');
  const server = await serve(archive);
  // Another process: this one cannot answer while it waits for buildah.
  const url = `http://127.0.0.1:${String(server.port)}/jellyroller.tar.gz`;
  try {
    must(
      build('jellyroller', context, { JELLYROLLER_URL: url, JELLYROLLER_SHA256: sha256 }),
      'build the runner',
    );
    const container =
      must(buildah('from', '--pull=never', 'jellyroller'), 'create the container')
        .split('\n')
        .at(-1) ?? '';
    assert.equal(buildah('run', container, '--', '/usr/local/bin/jellyroller', 'get-backups').status, 0);
    step('the runner holds the release binary');
    const wrong = build('jellyroller', context, { JELLYROLLER_URL: url, JELLYROLLER_SHA256: 'f'.repeat(64) });
    assert.notEqual(wrong.status, 0);
    assert.match(wrong.output, new RegExp(`SHA-256 is ${sha256}`));
    assert.notEqual(build('jellyroller', context, {}).status, 0);
    step('another checksum, or none, ends the build');
  } finally {
    server.stop();
  }
}

async function serve(archive: Buffer): Promise<{ port: number; stop: () => void }> {
  const file = join(root, 'release.tar.gz');
  writeFileSync(file, archive);
  const script = `const s=require('http').createServer((q,r)=>r.end(require('fs').readFileSync(${JSON.stringify(file)})));s.listen(0,'127.0.0.1',()=>console.log(s.address().port))`;
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const port = await new Promise<number>((resolve) =>
    child.stdout.once('data', (line: Buffer) => resolve(Number(line.toString()))),
  );
  return { port, stop: () => child.kill() };
}

function sizeOf(image: string): number {
  const size = must(buildah('images', '--json', image), 'read the size');
  return (JSON.parse(size) as { size: string }[]).map(({ size: text }) => Number.parseFloat(text))[0] ?? 0;
}

const started = performance.now();
const azurite = await startAzurite();
try {
  await azurite.container('jellyfin-backups').create();
  buildBase();
  step(`stand-in base with Node ${process.versions.node}: ${String(sizeOf(BASE))} MB`);
  const { directory, hash } = await writeImageContext(PROJECT_DIR);
  const context = join(PROJECT_DIR, directory);
  must(build('agent', context, {}), 'build the agent');
  step(`agent image from context ${hash.slice(0, 12)}: ${String(sizeOf('agent'))} MB`);
  runAgent(azurite.connectionString);
  await testRunnerImage(context);
  process.stdout.write(`test:image passed in ${((performance.now() - started) / 1_000).toFixed(0)} s\n`);
} finally {
  await azurite.stop();
  rmSync(root, { recursive: true, force: true });
}
