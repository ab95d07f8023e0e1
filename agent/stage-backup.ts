import { createHash } from 'node:crypto';
import { dirname } from 'node:path/posix';
import { judge } from './checks.ts';
import { nameOf, type StoredBackup } from './catalog.ts';
import { AgentError } from './errors.ts';
import type { Manifest } from './manifest.ts';
import type { Archiver, BlobStore, DatabaseEngine, DatabaseFacts, Disk } from './ports.ts';
import { scopeOf, type Profile } from './profile.ts';
import { openBackup, readBackup, type EntrySink, type OpenedBackup } from './read-backup.ts';
import { newerVersionError } from './restore-decision.ts';
import { wizardCompleted } from './settings-file.ts';

export interface StageDeps {
  store: BlobStore;
  archiver: Archiver;
  disk: Disk;
  databases: DatabaseEngine;
  profile: Profile;
}

export interface StagedTree {
  name: string;
  /** The folder that holds the tree; everything in it passed every check. */
  dir: string;
  /** Database paths: they are moved last. */
  databases: string[];
  /** Folders and their owners, for those that already exist at the target. */
  directories: { path: string; mode: number; uid: number; gid: number; mtimeMs: number }[];
  manifest: Manifest | undefined;
  files: number;
  unpackedBytes: number;
  /** Some owners could not be set: the process is not root. */
  keptOwners: boolean;
}

/** Left free beside the restored tree. Jellyfin's own demand (2 GiB) is the infrastructure's sizing rule. */
const FREE_RESERVE_BYTES = 32 * 1024 * 1024;

/** @throws AgentError `no_space`. */
export async function requireSpace(disk: Disk, dir: string, bytes: number, name: string): Promise<void> {
  const freeBytes = await disk.freeBytes(dir);
  if (freeBytes >= bytes + FREE_RESERVE_BYTES) return;
  throw new AgentError(
    'no_space',
    `${name} needs ${String(bytes)} bytes in ${dir}, ${String(freeBytes)} are free`,
    {
      hint: 'a replica with more vCPU has more ephemeral storage (facts/azure.md 2)',
    },
  );
}

/**
 * Whether a tree would bring the user back to the login screen, from the tree itself.
 * @throws AgentError `backup_damaged` with the reason.
 */
export async function requireConfigured(
  deps: Pick<StageDeps, 'disk' | 'databases' | 'profile'>,
  dir: string,
  databasePaths: readonly string[],
  name: string,
): Promise<Map<string, DatabaseFacts>> {
  const { databases, disk, profile } = deps;
  const facts = new Map<string, DatabaseFacts>();
  for (const path of databasePaths) {
    const questions = profile.measures.filter((measure) => measure.database === path);
    facts.set(path, await databases.inspect(`${dir}/${path}`, questions));
  }
  const settings = await disk.readStable(`${dir}/${profile.settingsFile}`);
  const wizard = settings === undefined ? 'missing' : (wizardCompleted(settings.bytes) ?? 'unreadable');
  const verdict = judge(profile, { wizard, databases: facts });
  if (verdict.kind !== 'configured')
    throw new AgentError('backup_damaged', `${name} would not lead to the login screen: ${verdict.why}`);
  return facts;
}

async function checkDatabases(deps: StageDeps, dir: string, manifest: Manifest, name: string): Promise<void> {
  const facts = await requireConfigured(
    deps,
    dir,
    manifest.databases.map((database) => database.path),
    name,
  );
  for (const { path, isWal } of manifest.databases) {
    // Jellyfin never sets WAL mode again: a copy without it would make readers block writers (facts/jellyfin.md 3.6).
    if (facts.get(path)?.isWal !== isWal)
      throw new AgentError('backup_damaged', `${name}: ${path} has another journal mode than recorded`);
  }
}

/**
 * Downloads a backup into a new folder and checks all of it there.
 * @throws AgentError `backup_damaged`, `backup_incompatible`, `backup_missing`, `no_space`, or what the store says.
 */
export async function stageBackup(
  deps: StageDeps,
  backup: StoredBackup,
  dir: string,
  imageVersion: string | undefined,
  signal?: AbortSignal,
): Promise<StagedTree> {
  const { archiver, disk, profile, store } = deps;
  const name = nameOf(backup);
  const opened = await openBackup(store, archiver, backup, signal);
  const { manifest } = opened;
  const refusal = newerVersionError(manifest.jellyfin.version ?? undefined, imageVersion, name);
  if (refusal !== undefined) throw refusal;
  await disk.removeTree(dir);
  await disk.makeDir(dir);
  await requireSpace(disk, dir, manifest.unpackedBytes, name);

  const scope = scopeOf(profile);
  const made = new Set<string>();
  let keptOwners = true;
  const sink: EntrySink = async (entry, content) => {
    const path = `${dir}/${entry.path}`;
    if (entry.type === 'directory') {
      await disk.makeDir(path);
      return { sha256: '', sizeBytes: 0 };
    }
    const parent = dirname(path);
    if (!made.has(parent)) {
      await disk.makeDir(parent);
      made.add(parent);
    }
    const written = await disk.create(path, content);
    if (!(await disk.setAttributes(path, entry))) keptOwners = false;
    // Artwork is not flushed: ten thousands of fsyncs would cost the cold start, and an EmptyDir does not outlive its
    // node anyway.
    if (scope(entry.path) !== 'bulk') await disk.sync(path);
    return written;
  };
  await readBackup(store, archiver, backup, opened, sink, signal);
  await checkDatabases(deps, dir, manifest, name);
  const directories = manifest.entries
    .filter((entry) => entry.type === 'directory')
    .sort((a, b) => (a.path < b.path ? 1 : -1));
  for (const directory of directories) {
    if (!(await disk.setAttributes(`${dir}/${directory.path}`, directory))) keptOwners = false;
    await disk.sync(`${dir}/${directory.path}`);
  }
  return {
    name,
    dir,
    databases: manifest.databases.map((database) => database.path),
    directories,
    manifest,
    files: manifest.entries.length - directories.length,
    unpackedBytes: manifest.unpackedBytes,
    keptOwners,
  };
}

/**
 * Reads a whole backup and checks it as a restore would; only databases and the settings file touch the disk.
 * @param scratchDir Removed and made anew; left for the caller to remove.
 */
export async function verifyStored(
  deps: StageDeps,
  backup: StoredBackup,
  scratchDir: string,
  signal?: AbortSignal,
): Promise<OpenedBackup> {
  const { archiver, disk, profile, store } = deps;
  const opened = await openBackup(store, archiver, backup, signal);
  const { manifest } = opened;
  const kept = new Set([profile.settingsFile, ...manifest.databases.map((database) => database.path)]);
  let bytes = 0;
  for (const entry of manifest.entries) if (kept.has(entry.path)) bytes += entry.sizeBytes;
  await disk.removeTree(scratchDir);
  await disk.makeDir(scratchDir);
  await requireSpace(disk, scratchDir, bytes, nameOf(backup));
  const sink: EntrySink = async (entry, content) => {
    if (!kept.has(entry.path)) return hashOnly(content);
    await disk.makeDir(dirname(`${scratchDir}/${entry.path}`));
    return disk.create(`${scratchDir}/${entry.path}`, content);
  };
  await readBackup(store, archiver, backup, opened, sink, signal);
  await checkDatabases(deps, scratchDir, manifest, nameOf(backup));
  return opened;
}

async function hashOnly(content: AsyncIterable<Uint8Array>): Promise<{ sha256: string; sizeBytes: number }> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for await (const chunk of content) {
    hash.update(chunk);
    sizeBytes += chunk.byteLength;
  }
  return { sha256: hash.digest('hex'), sizeBytes };
}
