import { parseArgs } from 'node:util';
import { Lifecycle } from './lifecycle.ts';
import { createLog } from './log.ts';
import { checkMarkers } from './markers.ts';
import { OptionsError, parseOptions } from './options.ts';
import { createFolders, resolvePaths, type FolderFlags } from './paths.ts';

/** What a .NET process that dies of an unhandled exception looks like to its parent. */
const CRASHED = 134;
const OVERDUE_GRACE_MS = 10_000;

async function run(): Promise<number> {
  const options = parseOptions(process.env);
  const paths = resolvePaths(parseFolderFlags(), process.env);
  createFolders(paths);
  checkMarkers(paths);
  const log = createLog(paths.logDir);
  log.info(`Program data path: ${paths.programDataDir}`);
  log.info(`Config directory path: ${paths.configDir}`);
  log.info(`Cache path: ${paths.cacheDir}`);
  log.info(`Log directory path: ${paths.logDir}`);

  const lifecycle = new Lifecycle(options, paths, log, (port) =>
    process.stdout.write(`listening on http://127.0.0.1:${port}\n`),
  );
  setTimeout(() => {
    log.warn(`Ending by itself after ${options.exitAfterSeconds} s`);
    if (!lifecycle.stopOverdue()) process.exit(1);
    setTimeout(() => process.exit(1), options.shutdownMs + OVERDUE_GRACE_MS);
  }, options.exitAfterSeconds * 1000);
  return lifecycle.run();
}

/** Flags of the real server that mean nothing here, such as `--nowebclient`, are accepted. */
function parseFolderFlags(): FolderFlags {
  const type = 'string' as const;
  const options = { datadir: { type }, configdir: { type }, cachedir: { type }, logdir: { type } };
  const { values } = parseArgs({ options, strict: false });
  const text = (value: string | boolean | undefined): string | undefined =>
    typeof value === 'string' ? value : undefined;
  return {
    datadir: text(values.datadir),
    configdir: text(values.configdir),
    cachedir: text(values.cachedir),
    logdir: text(values.logdir),
  };
}

run().then(
  (code) => process.exit(code),
  (error: unknown) => {
    const isUsage = error instanceof OptionsError;
    process.stderr.write(`${isUsage ? error.message : ((error as Error).stack ?? String(error))}\n`);
    process.exit(isUsage ? 2 : CRASHED);
  },
);
