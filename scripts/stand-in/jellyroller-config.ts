import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, isAbsolute, join } from 'node:path';

/** All keys of the file; a missing one has its default, and the defaults are what "not configured" means. */
const DEFAULTS = {
  status: 'not configured',
  comfy: true,
  server_url: 'Unknown',
  os: 'Unknown',
  api_key: 'Unknown',
  token: 'Unknown',
};
export type Config = typeof DEFAULTS;

/** Printed as `Error: …` with the code 1, as Rust prints what `main` returns. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
}

function xdgFile(): string {
  const { HOME: home, XDG_CONFIG_HOME: xdg } = process.env;
  // HOME must resolve even where it is not used.
  if (!home) throw new ConfigError('BadConfigDirectory("could not determine home directory path")');
  const base = xdg && isAbsolute(xdg) ? xdg : join(home, '.config');
  return join(base, 'jellyroller', 'jellyroller.toml');
}

/** A file beside the binary comes first; where none is, the other one is made, with what it takes to be not configured. */
export function loadConfig(): Config {
  const beside = join(process.env['STAND_IN_JELLYROLLER_DIR'] ?? '', 'jellyroller.config');
  const file = existsSync(beside) ? beside : xdgFile();
  if (!existsSync(file)) storeConfig(DEFAULTS);
  return { ...DEFAULTS, ...parseToml(readFileSync(file, 'utf8')) };
}

/** Always to the second place, also when the first was read; with whatever mode the umask leaves. */
export function storeConfig(config: Config): void {
  const file = xdgFile();
  try {
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(
      file,
      Object.entries(config)
        .map(([key, value]) => `${key} = ${JSON.stringify(value)}\n`)
        .join(''),
    );
  } catch (error) {
    throw new ConfigError(`OpenConfigurationFileError(${JSON.stringify((error as Error).message)})`);
  }
}

function parseToml(text: string): Partial<Config> {
  const lines = text.split('\n').filter((line) => line.trim() !== '' && !line.trim().startsWith('#'));
  return Object.fromEntries(
    lines.map((line) => {
      const [, key = '', value = ''] = /^\s*(\w+)\s*=\s*(true|false|"(?:[^"\\]|\\.)*")\s*$/.exec(line) ?? [];
      // The real one, too, quotes the line that it does not understand.
      if (key === '') throw new ConfigError(`BadTomlData(Error { message: "invalid line", input: ${line} })`);
      return [key, JSON.parse(value)] as const;
    }),
  );
}
