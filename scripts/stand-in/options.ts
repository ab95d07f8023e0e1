import type { LostLocks } from './database.ts';
import { parseVersion, type Version } from './versions.ts';

/** What only the stand-in has: how it should behave, not where its files are. */
export interface StandInOptions {
  /** Undefined: the port of config/network.xml, as the real server does. 0: any free port. */
  port: number | undefined;
  version: Version;
  bootMs: number;
  failedStartMs: number;
  shutdownMs: number;
  lateWrite: boolean;
  writeIntervalMs: number;
  exitAfterSeconds: number;
  loseLocks: LostLocks;
  /** Undefined: ask the file system. */
  freeSpaceBytes: number | undefined;
  backupMs: number;
  xmlPauseMs: number;
  plugin: boolean;
}

const LOST_LOCKS: readonly LostLocks[] = ['none', 'database', 'database-and-index'];

export class OptionsError extends Error {
  override readonly name = 'OptionsError';
}

export function parseOptions(env: NodeJS.ProcessEnv): StandInOptions {
  const problems: string[] = [];
  const value = (name: string): string | undefined => env[name] || undefined;
  const optionalInteger = (name: string, max: number): number | undefined => {
    const text = value(name);
    if (text === undefined) return undefined;
    const number = Number(text);
    if (Number.isSafeInteger(number) && number >= 0 && number <= max) return number;
    problems.push(`${name} must be a whole number from 0 to ${max}; got "${text}"`);
    return undefined;
  };
  const integer = (name: string, fallback: number): number => optionalInteger(name, 86_400_000) ?? fallback;
  const flag = (name: string, fallback: boolean): boolean => {
    const text = value(name);
    if (text === undefined) return fallback;
    if (text !== '0' && text !== '1') problems.push(`${name} must be 0 or 1; got "${text}"`);
    return text === '1';
  };
  const versionOf = (text: string): Version => {
    try {
      return parseVersion(text);
    } catch (error) {
      problems.push(`STAND_IN_VERSION ${(error as Error).message}`);
      return [0, 0, 0];
    }
  };

  const options: StandInOptions = {
    port: optionalInteger('STAND_IN_PORT', 65_535),
    version: versionOf(value('STAND_IN_VERSION') ?? '10.11.11'),
    bootMs: integer('STAND_IN_BOOT_MS', 300),
    failedStartMs: integer('STAND_IN_FAILED_START_MS', 600_000),
    shutdownMs: integer('STAND_IN_SHUTDOWN_MS', 300),
    lateWrite: flag('STAND_IN_LATE_WRITE', false),
    writeIntervalMs: integer('STAND_IN_WRITE_INTERVAL_MS', 200),
    exitAfterSeconds: integer('STAND_IN_EXIT_AFTER_SECONDS', 900),
    loseLocks: LOST_LOCKS[optionalInteger('STAND_IN_LOSE_LOCKS', LOST_LOCKS.length - 1) ?? 0] ?? 'none',
    freeSpaceBytes: optionalInteger('STAND_IN_FREE_SPACE_BYTES', Number.MAX_SAFE_INTEGER),
    backupMs: integer('STAND_IN_BACKUP_MS', 0),
    xmlPauseMs: integer('STAND_IN_XML_PAUSE_MS', 0),
    plugin: flag('STAND_IN_PLUGIN', true),
  };
  if (problems.length > 0) throw new OptionsError(problems.join('\n'));
  return options;
}
