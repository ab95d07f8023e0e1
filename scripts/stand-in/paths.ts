import { existsSync, mkdirSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';

/** The folders given on the command line; everything else comes from the environment. */
export interface FolderFlags {
  datadir?: string | undefined;
  configdir?: string | undefined;
  cachedir?: string | undefined;
  logdir?: string | undefined;
}

export interface Paths {
  programDataDir: string;
  configDir: string;
  cacheDir: string;
  logDir: string;
  /** `<programDataDir>/data`: the databases live one level below the folder that is called data dir. */
  dataDir: string;
  rootDir: string;
  librariesDir: string;
  metadataDir: string;
  pluginsDir: string;
  pluginConfigurationsDir: string;
  usersDir: string;
  backupsDir: string;
  migrationCopiesDir: string;
  databaseFile: string;
  serverIdFile: string;
}

/**
 * The rules of the real server. Two of them surprise: without JELLYFIN_CONFIG_DIR the configuration is in the data
 * folder only if `<data>/config` is already there or the data folder came as a flag; and the cache never is.
 */
export function resolvePaths(flags: FolderFlags, env: NodeJS.ProcessEnv): Paths {
  const xdg = (name: string, fallback: string): string =>
    join(env[name] || join(homedir(), fallback), 'jellyfin');

  const programDataDir = flags.datadir ?? (env.JELLYFIN_DATA_DIR || xdg('XDG_DATA_HOME', '.local/share'));
  const ownConfigDir = join(programDataDir, 'config');
  const defaultConfigDir =
    flags.datadir !== undefined || existsSync(ownConfigDir)
      ? ownConfigDir
      : xdg('XDG_CONFIG_HOME', '.config');
  const configDir = flags.configdir ?? (env.JELLYFIN_CONFIG_DIR || defaultConfigDir);
  const cacheDir = flags.cachedir ?? (env.JELLYFIN_CACHE_DIR || xdg('XDG_CACHE_HOME', '.cache'));
  const logDir = flags.logdir ?? (env.JELLYFIN_LOG_DIR || join(programDataDir, 'log'));

  const dataDir = join(programDataDir, 'data');
  const rootDir = join(programDataDir, 'root');
  const pluginsDir = join(programDataDir, 'plugins');
  return {
    programDataDir,
    configDir,
    cacheDir,
    logDir,
    dataDir,
    rootDir,
    librariesDir: join(rootDir, 'default'),
    metadataDir: join(programDataDir, 'metadata'),
    pluginsDir,
    pluginConfigurationsDir: join(pluginsDir, 'configurations'),
    usersDir: join(configDir, 'users'),
    backupsDir: join(dataDir, 'backups'),
    migrationCopiesDir: join(dataDir, 'SQLiteBackups'),
    databaseFile: join(dataDir, 'jellyfin.db'),
    serverIdFile: join(dataDir, 'device.txt'),
  };
}

export function createFolders(paths: Paths): void {
  const { programDataDir, configDir, cacheDir, logDir, dataDir, librariesDir, metadataDir, pluginsDir } =
    paths;
  for (const dir of [
    programDataDir,
    configDir,
    cacheDir,
    logDir,
    dataDir,
    librariesDir,
    metadataDir,
    pluginsDir,
  ]) {
    mkdirSync(dir, { recursive: true });
  }
}
