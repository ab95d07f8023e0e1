import { readZip } from './zip.ts';

export const MANIFEST = 'manifest.json';
export const ENGINE_VERSION = '0.2.0';

export interface BackupOptions {
  Metadata: boolean;
  Trickplay: boolean;
  Subtitles: boolean;
  Database: boolean;
}

export interface BackupManifest {
  /** Four parts, as .NET prints an assembly version; `/System/Info/Public` shows three. */
  ServerVersion: string;
  BackupEngineVersion: string;
  DateCreated: string;
  DatabaseTables: string[];
  Options: BackupOptions;
}

/** Undefined when the archive is whole but no backup; throws when it is no whole archive. */
export function readManifest(file: string): BackupManifest | undefined {
  const manifest = readZip(file).get(MANIFEST);
  return manifest && (JSON.parse(manifest().toString('utf8')) as BackupManifest);
}

export function manifestDto(manifest: BackupManifest, path: string): object {
  const { ServerVersion, BackupEngineVersion, DateCreated, Options } = manifest;
  return { ServerVersion, BackupEngineVersion, DateCreated, Path: path, Options };
}
