import { appendFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Log {
  info(message: string): void;
  warn(message: string): void;
  error(message: string, error?: unknown): void;
}

/** Lines go to stderr and to the day's file in the log folder; stdout is kept for the one line that tells the port. */
export function createLog(logDir: string): Log {
  const write = (level: string, message: string): void => {
    const now = new Date().toISOString();
    const line = `[${now.slice(11, 23)}] [${level}] ${message}\n`;
    process.stderr.write(line);
    appendFileSync(join(logDir, `log_${now.slice(0, 10).replaceAll('-', '')}.log`), line);
  };
  return {
    info: (message) => write('INF', message),
    warn: (message) => write('WRN', message),
    error: (message, error) =>
      write('ERR', error instanceof Error ? `${message}\n${error.stack ?? error.message}` : message),
  };
}
