import { AgentError } from './errors.ts';
import { unsafePathReason } from './safe-path.ts';

export const MANIFEST_NAME = 'manifest.json';

export interface ManifestEntry {
  path: string;
  type: 'file' | 'directory';
  sizeBytes: number;
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
  /** Lower-case hex; files only. */
  sha256?: string;
}

export interface ManifestDatabase {
  path: string;
  isWal: boolean;
}

/** What an archive must contain, and what was known of the server when it was made. The first entry of each archive. */
export interface Manifest {
  format: 1;
  profile: string;
  createdUtc: string;
  epoch: number;
  sequence: number;
  /** The server had closed its database before this was taken: nothing can be missing. */
  cleanStop: boolean;
  jellyfin: { version: string | null; serverId: string | null; migration: string | null };
  counts: { users: number; admins: number; items: number };
  wizardCompleted: boolean;
  databases: ManifestDatabase[];
  entries: ManifestEntry[];
  /** Folder contents that a restore needs room for, in bytes. */
  unpackedBytes: number;
  /** SHA-256 over paths, types, modes, owners and hashes: equal digests mean equal state. */
  treeDigest: string;
}

const invalid = (why: string) => new AgentError('backup_damaged', `manifest ${why}`);

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isTextOrNull = (value: unknown) => value === null || typeof value === 'string';

function checkEntry(entry: unknown, seen: Set<string>): void {
  if (!isRecord(entry) || typeof entry['path'] !== 'string') throw invalid('has an entry without a path');
  const path = entry['path'];
  const reason = unsafePathReason(path);
  if (reason !== undefined) throw invalid(`names ${JSON.stringify(path)}: ${reason}`);
  if (seen.has(path)) throw invalid(`names ${JSON.stringify(path)} twice`);
  seen.add(path);
  if (entry['type'] !== 'file' && entry['type'] !== 'directory')
    throw invalid(`gives ${JSON.stringify(path)} no known type`);
  for (const key of ['sizeBytes', 'mode', 'uid', 'gid'] as const) {
    if (!isCount(entry[key])) throw invalid(`gives ${JSON.stringify(path)} no valid ${key}`);
  }
  if (typeof entry['mtimeMs'] !== 'number') throw invalid(`gives ${JSON.stringify(path)} no mtimeMs`);
  if (entry['type'] === 'file' && !/^[0-9a-f]{64}$/.test(String(entry['sha256']))) {
    throw invalid(`gives ${JSON.stringify(path)} no SHA-256`);
  }
}

/** A path above `path` that is a file: no disk can hold both. */
export function fileAbove(path: string, files: ReadonlySet<string>): string | undefined {
  for (let at = path.indexOf('/'); at !== -1; at = path.indexOf('/', at + 1))
    if (files.has(path.slice(0, at))) return path.slice(0, at);
  return undefined;
}

/**
 * Reads a manifest and refuses one that could not describe a backup.
 * @throws AgentError `backup_damaged`, or `backup_incompatible` for a format that a newer agent wrote.
 */
export function parseManifest(bytes: Uint8Array): Manifest {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    throw new AgentError('backup_damaged', 'manifest is not JSON', { cause });
  }
  if (!isRecord(value)) throw invalid('is not an object');
  if (value['format'] !== 1) {
    throw new AgentError(
      'backup_incompatible',
      `manifest has format ${String(value['format'])}, this agent reads format 1`,
      {
        hint: 'use the agent that made the backup, or a newer one',
      },
    );
  }
  const { jellyfin, counts, entries, databases } = value;
  if (!Array.isArray(entries) || entries.length === 0) throw invalid('has no entries');
  const seen = new Set<string>();
  for (const entry of entries) checkEntry(entry, seen);
  const files = new Set(
    (entries as ManifestEntry[]).flatMap(({ path, type }) => (type === 'file' ? path : [])),
  );
  for (const { path } of entries as ManifestEntry[]) {
    const parent = fileAbove(path, files);
    if (parent !== undefined)
      throw invalid(`names ${JSON.stringify(path)} below ${JSON.stringify(parent)}, a file`);
  }
  if (
    !isRecord(jellyfin) ||
    !['version', 'serverId', 'migration'].every((key) => isTextOrNull(jellyfin[key]))
  ) {
    throw invalid('does not say which Jellyfin it is of');
  }
  if (!isRecord(counts) || !['users', 'admins', 'items'].every((key) => isCount(counts[key])))
    throw invalid('has no counts');
  if (
    !Array.isArray(databases) ||
    !databases.every((item) => isRecord(item) && seen.has(String(item['path'])))
  ) {
    throw invalid('lists a database that is not among its entries');
  }
  for (const key of ['epoch', 'sequence', 'unpackedBytes'])
    if (!isCount(value[key])) throw invalid(`has no valid ${key}`);
  return value as unknown as Manifest;
}

export function serializeManifest(manifest: Manifest): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
}
