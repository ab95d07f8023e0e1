import { stat } from 'node:fs/promises';
import { build, type BuildOptions } from 'esbuild';

export interface BundleRequest {
  /** Relative to the repository's root. */
  outFile: string;
  entry?: string;
}

const COMMON = {
  absWorkingDir: process.cwd(),
  bundle: true,
  platform: 'node',
  target: 'node24',
  minifySyntax: true,
  minifyWhitespace: true,
  legalComments: 'none',
  logLevel: 'warning',
} as const satisfies BuildOptions;

/** The SQLite thread as text inside the bundle: the image holds one file, and a thread must not load all of it. */
async function sqliteWorkerSource(): Promise<string> {
  const { outputFiles } = await build({
    ...COMMON,
    entryPoints: ['agent/adapters/sqlite-worker.ts'],
    format: 'cjs',
    write: false,
  });
  return outputFiles[0]?.text ?? '';
}

/**
 * Bundles the agent into one file that needs nothing but Node 24. The same sources give the same bytes on every machine:
 * paths in the output are relative to the repository, and there is no source map.
 * @throws When esbuild reports an error.
 */
export async function bundleAgent({
  outFile,
  entry = 'agent/main.ts',
}: BundleRequest): Promise<{ file: string; sizeBytes: number }> {
  await build({
    ...COMMON,
    entryPoints: [entry],
    outfile: outFile,
    format: 'esm',
    define: { SQLITE_WORKER_SOURCE: JSON.stringify(await sqliteWorkerSource()) },
    // Dependencies that are still CommonJS call require() for Node's own modules.
    banner: {
      js: "import { createRequire as __createRequire } from 'node:module'; const require = __createRequire(import.meta.url);",
    },
  });
  return { file: outFile, sizeBytes: (await stat(outFile)).size };
}
