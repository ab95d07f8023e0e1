import { chmodSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { contextArchive, withLf, type ContextFile, type ImageContext } from '../components/image-context.ts';
import { AGENT_ENTRY, agentBundle } from './bundle-agent.ts';

/** What the Dockerfile copies, besides the bundle; read from `agent/`. */
const STATIC_FILES = ['Dockerfile', 'fetch-jellyroller.mjs'] as const;

/** The files of the image context, bundle included. */
export async function contextFiles(projectDir: string, entry: string = AGENT_ENTRY): Promise<ContextFile[]> {
  const bundle = { name: 'agent.mjs', content: await agentBundle(projectDir, entry) };
  const files = STATIC_FILES.map((name) => ({
    name,
    content: readFileSync(join(projectDir, 'agent', name), 'utf8'),
  }));
  return [...files, bundle];
}

/**
 * Bundles the agent and lays the context down under `dist/`: the archive for ACR, the folder for a local builder.
 * Always from the sources: a stale `dist/agent.mjs` would deploy an old agent under a name that says it is current.
 *
 * Paths come back relative to the project: they end up in the state, which other machines share.
 */
export async function writeImageContext(
  projectDir: string,
  entry: string = AGENT_ENTRY,
): Promise<ImageContext> {
  const files = await contextFiles(projectDir, entry);
  const { archive, hash } = contextArchive(files);
  // Named by content and moved into place: two programs at once (a preview beside the tests) write the same bytes.
  const directory = join('dist', 'image', hash);
  const archiveFile = `${directory}.tar.gz`;
  mkdirSync(join(projectDir, directory), { recursive: true });
  for (const { name, content } of files) publish(join(projectDir, directory, name), withLf(content));
  publish(join(projectDir, archiveFile), archive);
  return { hash, archiveFile, directory };
}

function publish(file: string, content: string | Buffer): void {
  const temporary = `${file}.${String(process.pid)}`;
  writeFileSync(temporary, content);
  // docker-build hashes mode bits, and those follow the umask of whoever ran this (pulumi-docker-build#979).
  chmodSync(temporary, 0o644);
  renameSync(temporary, file);
}
