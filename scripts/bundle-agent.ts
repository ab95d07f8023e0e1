import { existsSync } from 'node:fs';
import { mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { build, type BuildOptions } from 'esbuild';

/** Where the agent starts, relative to the project. */
export const AGENT_ENTRY = 'agent/main.ts';

const COMMON = {
  bundle: true,
  platform: 'node',
  target: 'node24',
  charset: 'utf8',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'none',
  // Module paths end up in the output: relative ones, also where node_modules is a link to another folder.
  preserveSymlinks: true,
  write: false,
  logLevel: 'silent',
} as const satisfies BuildOptions;

/**
 * The agent and everything it imports as the text of one ES module that needs nothing but Node 24.
 *
 * The same sources give the same text on every machine: esbuild is pinned, paths in the output are relative to the
 * repository, and there is no source map.
 * @param entry relative to `projectDir`
 * @throws Error when the entry is missing or esbuild reports an error
 */
export async function agentBundle(projectDir: string, entry: string = AGENT_ENTRY): Promise<string> {
  if (!existsSync(join(projectDir, entry))) {
    throw new Error(
      `bundle the agent failed: ${entry} does not exist in ${projectDir}; check out the whole repository`,
    );
  }
  return outputOf({
    ...COMMON,
    absWorkingDir: projectDir,
    entryPoints: [entry],
    format: 'esm',
    define: { SQLITE_WORKER_SOURCE: JSON.stringify(await sqliteWorkerSource(projectDir)) },
    // Dependencies that are still CommonJS call require() for Node's own modules.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
}

/** The SQLite thread as text inside the bundle: the image holds one file, and a thread must not load all of it. */
function sqliteWorkerSource(projectDir: string): Promise<string> {
  const entryPoints = ['agent/adapters/sqlite-worker.ts'];
  return outputOf({ ...COMMON, absWorkingDir: projectDir, entryPoints, format: 'cjs' });
}

async function outputOf(options: BuildOptions & { write: false }): Promise<string> {
  const { outputFiles } = await build(options);
  const [output] = outputFiles;
  if (output === undefined) throw new Error('bundle the agent failed: esbuild returned no file');
  return output.text;
}

export interface BundleRequest {
  /** Relative to the working folder, which is the repository's root. */
  outFile: string;
  entry?: string;
}

/** Writes the bundle to a file, for `npm run build` and whoever starts the agent from it. */
export async function bundleAgent({
  outFile,
  entry,
}: BundleRequest): Promise<{ file: string; sizeBytes: number }> {
  await mkdir(dirname(outFile), { recursive: true });
  // Renamed into place: whoever starts the agent meanwhile gets the old bundle or the new one.
  const temporary = `${outFile}.${String(process.pid)}.tmp`;
  await writeFile(temporary, await agentBundle(process.cwd(), entry));
  await rename(temporary, outFile);
  return { file: outFile, sizeBytes: (await stat(outFile)).size };
}
