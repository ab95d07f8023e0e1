import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { build, stop } from 'esbuild';

/** Where the agent starts, relative to the project. */
export const AGENT_ENTRY = 'agent/main.ts';

// Some dependencies are CommonJS and call `require` for Node's own modules; an ES module has none.
const BANNER =
  "import{createRequire as __createRequire}from'node:module';const require=__createRequire(import.meta.url);";

/**
 * The agent and everything it imports as the text of one ES module.
 *
 * The same sources give the same text on every machine: esbuild is pinned, the output names no path of this machine
 * (`minify` drops the path comments and keys) and carries no source map. `keepNames` leaves stack traces readable.
 * @param entry relative to `projectDir`
 */
export async function bundleAgent(projectDir: string, entry: string = AGENT_ENTRY): Promise<string> {
  if (!existsSync(join(projectDir, entry))) {
    throw new Error(
      `bundle the agent failed: ${entry} does not exist in ${projectDir}; check out the whole repository`,
    );
  }
  const result = await build({
    absWorkingDir: projectDir,
    entryPoints: [entry],
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    charset: 'utf8',
    minify: true,
    keepNames: true,
    legalComments: 'none',
    banner: { js: BANNER },
    logLevel: 'silent',
  });
  // esbuild keeps a child process that would hold the Pulumi program open.
  await stop();
  const [output] = result.outputFiles;
  if (output === undefined) throw new Error('bundle the agent failed: esbuild returned no file');
  return output.text;
}
