import { dirname } from 'node:path/posix';
import { nameOf, type LegacyBackup } from './catalog.ts';
import { parseLegacyName } from './backup-name.ts';
import { AgentError } from './errors.ts';
import { fileAbove } from './manifest.ts';
import type { Disk, UnpackedEntry } from './ports.ts';
import { scopeOf, type Profile } from './profile.ts';
import { asGone, readParallel } from './read-backup.ts';
import { unsafePathReason } from './safe-path.ts';
import { MINIMAL_SYSTEM_XML } from './settings-file.ts';
import { requireConfigured, requireSpace, type StagedTree, type StageDeps } from './stage-backup.ts';

const FILE_MODE = 0o644;
const SQLITE_HEADER = 'SQLite format 3\0';

async function* bytesOf(text: string): AsyncIterable<Uint8Array> {
  await Promise.resolve();
  yield new TextEncoder().encode(text);
}

/** The raw files of an old backup, as they were stored, below `rawDir`. */
async function fetchRaw(
  deps: StageDeps,
  backup: LegacyBackup,
  rawDir: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const { archiver, disk, store } = deps;
  const name = nameOf(backup);
  const files = new Set<string>();
  const folders = new Set<string>();
  const write = async (path: string, content: AsyncIterable<Uint8Array>) => {
    const reason = unsafePathReason(path);
    if (reason !== undefined)
      throw new AgentError('backup_damaged', `${name} holds ${JSON.stringify(path)}: ${reason}`);
    if (files.has(path))
      throw new AgentError('backup_damaged', `${name} holds ${JSON.stringify(path)} twice`);
    if (folders.has(path) || fileAbove(path, files) !== undefined)
      throw new AgentError(
        'backup_damaged',
        `${name} holds ${JSON.stringify(path)} where a file is a folder`,
      );
    for (let dir = dirname(path); dir !== '.'; dir = dirname(dir)) folders.add(dir);
    await disk.makeDir(dirname(`${rawDir}/${path}`));
    await disk.create(`${rawDir}/${path}`, content);
    files.add(path);
  };
  if (backup.format === 'folder') {
    await requireSpace(
      disk,
      rawDir,
      backup.items.reduce((sum, item) => sum + item.sizeBytes, 0),
      name,
    );
    for (const item of backup.items) {
      const parsed = parseLegacyName(item.name);
      if (parsed?.kind === 'folder') await write(parsed.path, readParallel(store, item, 0, signal));
    }
    return [...files];
  }
  const receive = async (entry: UnpackedEntry, content: AsyncIterable<Uint8Array>) => {
    const path = entry.path.replace(/^(\.\/)+/, '').replace(/\/$/, '');
    if (entry.type === 'directory') return;
    if (entry.type !== 'file')
      throw new AgentError('backup_damaged', `${name} holds ${JSON.stringify(path)}, a ${entry.type}`);
    await requireSpace(disk, rawDir, entry.sizeBytes, name);
    await write(path, content);
  };
  for (const item of backup.items)
    await archiver.unpack(readParallel(store, item, 0, signal), { kind: 'gzip' }, receive);
  return [...files];
}

/**
 * Where Jellyfin's data folder lies among the raw files. The old scripts packed `/data/data` itself; one of them nested it
 * in a folder of the backup's name (spec/, second implementation).
 */
function locate(
  profile: Profile,
  files: readonly string[],
  name: string,
): (path: string) => string | undefined {
  const database = profile.mainDatabase.slice(profile.mainDatabase.lastIndexOf('/') + 1);
  const found = files.filter((path) => path === database || path.endsWith(`/${database}`));
  const [only] = found;
  if (only === undefined || found.length > 1) {
    const what = only === undefined ? `no ${database}` : `${String(found.length)} files named ${database}`;
    throw new AgentError('backup_damaged', `${name} holds ${what}`);
  }
  const dataRoot = only.slice(0, -database.length);
  const volumeRoot = dataRoot.replace(/[^/]+\/$/, '');
  // Somebody packed the whole of /data: its config/ lies beside the folder with the database.
  if (dataRoot !== '' && files.includes(`${volumeRoot}${profile.settingsFile}`)) {
    return (path) => (path.startsWith(volumeRoot) ? path.slice(volumeRoot.length) : undefined);
  }
  return (path) => (path.startsWith(dataRoot) ? `data/${path.slice(dataRoot.length)}` : undefined);
}

/**
 * Stages what older set-ups wrote: the live files of `/data/data`, `-wal` included. The `-wal` is folded in on the private
 * copy. Such a backup has no manifest: only the content checks decide, and the 133-byte archives fail them.
 * @throws AgentError `backup_damaged`, `no_space`, or what the store says.
 */
export async function stageLegacy(
  deps: StageDeps,
  backup: LegacyBackup,
  dir: string,
  signal?: AbortSignal,
): Promise<StagedTree> {
  const { databases, disk, profile } = deps;
  const name = nameOf(backup);
  const rawDir = `${dir}/raw`;
  const treeDir = `${dir}/tree`;
  await disk.removeTree(dir);
  await disk.makeDir(rawDir);
  const raw = await fetchRaw(deps, backup, rawDir, signal).catch((error: unknown) => {
    // Being told to stop is no damage.
    signal?.throwIfAborted();
    throw asGone(error, name);
  });
  const toTarget = locate(profile, raw, name);
  const scope = scopeOf(profile);
  const staged: string[] = [];
  for (const path of raw) {
    const target = toTarget(path);
    const isWal = target?.endsWith('-wal') === true && scope(target.slice(0, -'-wal'.length)) !== undefined;
    if (target === undefined || (scope(target) === undefined && !isWal)) continue;
    await disk.makeDir(dirname(`${treeDir}/${target}`));
    await disk.rename(`${rawDir}/${path}`, `${treeDir}/${target}`);
    if (!isWal) staged.push(target);
  }
  const databasePaths: string[] = [];
  for (const path of staged) {
    // Some plugins keep another format in a .db (LiteDB): a file like any other.
    const isDatabase = path === profile.mainDatabase || (await isSqlite(disk, `${treeDir}/${path}`));
    if (path.endsWith('.db') && isDatabase) databasePaths.push(path);
  }
  for (const path of databasePaths) {
    try {
      await databases.settle(`${treeDir}/${path}`, path === profile.mainDatabase);
    } catch (cause) {
      throw new AgentError('backup_damaged', `${name}: ${path} cannot be recovered`, { cause });
    }
  }
  if (!staged.includes(profile.settingsFile)) {
    await disk.makeDir(dirname(`${treeDir}/${profile.settingsFile}`));
    await disk.create(`${treeDir}/${profile.settingsFile}`, bytesOf(MINIMAL_SYSTEM_XML));
    staged.push(profile.settingsFile);
  }
  // Judges the administrator too: a settings file that we wrote must not open a server without one.
  await requireConfigured(deps, treeDir, databasePaths, name);
  const owner = await disk.stat(dir);
  let unpackedBytes = 0;
  for (const path of staged) {
    const stat = await disk.stat(`${treeDir}/${path}`);
    unpackedBytes += stat?.sizeBytes ?? 0;
    const attributes = {
      mode: FILE_MODE,
      uid: owner?.uid ?? 0,
      gid: owner?.gid ?? 0,
      mtimeMs: mtimeOf(backup),
    };
    await disk.setAttributes(`${treeDir}/${path}`, attributes);
    await disk.sync(`${treeDir}/${path}`);
  }
  return {
    name,
    dir: treeDir,
    databases: databasePaths,
    directories: [],
    manifest: undefined,
    files: staged.length,
    unpackedBytes,
    keptOwners: true,
  };
}

/** An empty file is a database without tables. */
async function isSqlite(disk: Disk, file: string): Promise<boolean> {
  for await (const chunk of disk.read(file))
    return new TextDecoder('latin1').decode(chunk.subarray(0, SQLITE_HEADER.length)) === SQLITE_HEADER;
  return true;
}

function mtimeOf(backup: LegacyBackup): number {
  const [year, month, day, hour, minute, second] = [0, 4, 6, 8, 10, 12].map((at, index) =>
    Number(backup.stamp.slice(at, at + (index === 0 ? 4 : 2))),
  );
  return Date.UTC(year ?? 1970, (month ?? 1) - 1, day, hour, minute, second) || 0;
}
