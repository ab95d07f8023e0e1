import { randomUUID } from 'node:crypto';
import { stampOf } from '../backup-name.ts';
import { listAll } from '../catalog.ts';
import type { Answer } from '../commands/answer.ts';
import { AgentError, hasCode } from '../errors.ts';
import type { Logger } from '../log.ts';
import type {
  BlobItem,
  BlobStore,
  Clock,
  Disk,
  JellyfinServer,
  JellyfinSetup,
  ServerInventory,
  ZipReader,
} from '../ports.ts';
import { asGone, readParallel } from '../read-backup.ts';
import { retrying } from '../retry.ts';
import { formatBytes, formatTable } from '../table.ts';
import { readArchiveContent, type ArchiveContent } from './archive-content.ts';
import { backupsDirOf, stagingDirOf } from './backup-folder.ts';
import type { ApiKeySource, BackupEngine } from './engine.ts';
import { MIRROR_PREFIX, parseMirrorName } from './mirror-name.ts';
import { claimRun, isLeftBehind, readRunState, releaseRun } from './run-state.ts';
import { untilBack } from './until-back.ts';
import { judgeRestored, type ServerContent } from './restore-verdict.ts';

export interface RestoreArchiveDeps {
  store: BlobStore;
  disk: Disk;
  clock: Clock;
  log: Logger;
  zip: ZipReader;
  engine: BackupEngine;
  server: JellyfinServer & Pick<JellyfinSetup, 'wizardCompleted'>;
  inventory: ServerInventory;
  apiKey: ApiKeySource;
  /** Stores the present state as a tar backup and answers its name; `undefined` when nobody is there to do it. */
  backUpFirst: (signal: AbortSignal) => Promise<string | undefined>;
}

export interface RestoreArchiveRequest {
  /** With or without `jellyroller/`. */
  name: string;
  dataDir: string;
  withoutBackup: boolean;
}

/** Jellyfin ends itself at its next start with less free (facts/jellyfin.md 1.5). */
const JELLYFIN_NEEDS_BYTES = 2_147_483_647;
const FILE_MODE = 0o644;
const CHECK_RETRIES = { max: 5, backoffMs: 1_000 };

/**
 * Brings a running, set-up server back to a mirrored archive through Jellyfin's own restore.
 *
 * Everything is checked before the server is asked: the hash, every checksum in the archive, the versions, the space, and that
 * the present state is stored. Until then nothing that the engine could list has been touched.
 * @throws AgentError `backup_missing`, `backup_damaged`, `backup_incompatible` (exit 4); `target_unsafe`, `no_space` (5);
 *   `jellyfin_unavailable`, `external_failed` (6) when the server does not come back, or not with what the archive holds.
 */
export async function restoreArchive(
  deps: RestoreArchiveDeps,
  request: RestoreArchiveRequest,
  signal: AbortSignal,
): Promise<Answer> {
  const { clock, disk, log } = deps;
  const { dataDir } = request;
  const item = await findArchive(deps.store, request.name, signal);
  const running = await requireConfigured(deps.server, signal);
  requireSameVersion(item.name, item.metadata['jellyfin_version'], running);
  const earlier = await readRunState(disk, dataDir);
  if (earlier !== undefined && isLeftBehind(earlier, clock.now())) await releaseRun(disk, dataDir, earlier);
  const claim = await claimRun(disk, dataDir, {
    kind: 'restore',
    startedUtc: clock.now().toISOString(),
    before: [],
  });
  const stagingDir = stagingDirOf(dataDir);
  try {
    await disk.removeTree(stagingDir);
    await disk.makeDir(stagingDir);
    const file = `${stagingDir}/${randomUUID()}.part`;
    const content = await fetchArchive(deps, item, file, dataDir, signal);
    requireSameVersion(item.name, content.manifest.jellyfinVersion, running);
    const savedAs = await saveFirst(deps, request, signal);
    const staged = await stage(deps, file, content, dataDir, signal);
    const startedMs = clock.monotonicMs();
    try {
      await deps.engine.restore(staged, signal);
    } catch (error) {
      // Not accepted. A lost connection may hide that it was: then the archive must stay where the server looks for it.
      if (!hasCode(error, 'jellyfin_unavailable'))
        await disk.removeFile(`${backupsDirOf(dataDir)}/${staged}`);
      throw error;
    }
    log.info('restore accepted: the server restarts', { archive: staged });
    await untilBack(deps, startedMs, signal);
    const found = await inspectServer(deps, signal);
    const checks = judgeRestored(content, found);
    const failed = checks.filter(({ ok }) => !ok);
    if (failed.length > 0) {
      throw new AgentError(
        'external_failed',
        `the server is back, but not with what ${item.name} holds: ${failed.map(({ what, is }) => `${what}: ${is}`).join('; ')}`,
        { hint: hintBack(savedAs) },
      );
    }
    // It is stored; here it would only take space away.
    await disk.removeFile(`${backupsDirOf(dataDir)}/${staged}`);
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    const json = {
      restored: item.name,
      sizeBytes: item.sizeBytes,
      madeUtc: content.manifest.createdUtc,
      jellyfinVersion: running,
      backedUpFirst: savedAs ?? null,
      durationMs,
      checks,
    };
    const rows = [
      ['archive', `${item.name}, ${formatBytes(item.sizeBytes)}, made ${content.manifest.createdUtc}`],
      ['backed up first as', savedAs ?? 'not backed up (--without-backup)'],
      ['server', `Jellyfin ${running}, back after ${(durationMs / 1000).toFixed(1)} s`],
      ...checks.map(({ what, is }) => [what, is]),
    ];
    return { text: formatTable(['WHAT', 'IS'], rows), json };
  } finally {
    await disk.removeTree(stagingDir);
    await releaseRun(disk, dataDir, claim);
  }
}

async function findArchive(store: BlobStore, name: string, signal: AbortSignal): Promise<BlobItem> {
  const wanted = name.startsWith(MIRROR_PREFIX) ? name : `${MIRROR_PREFIX}${name}`;
  const items = (await listAll(store, MIRROR_PREFIX, signal)).filter(
    (item) => parseMirrorName(item.name) !== undefined,
  );
  const found = items.find((item) => item.name === wanted);
  if (found !== undefined) return found;
  const newest = items
    .map((item) => item.name)
    .sort()
    .slice(-3)
    .reverse();
  throw new AgentError('backup_missing', `no archive is called ${JSON.stringify(wanted)}`, {
    hint: newest.length === 0 ? 'there is none below jellyroller/' : `the newest: ${newest.join(', ')}`,
  });
}

/** @returns the version of the running server. */
async function requireConfigured(server: RestoreArchiveDeps['server'], signal: AbortSignal): Promise<string> {
  if ((await server.health(signal)) !== 'healthy')
    throw new AgentError(
      'jellyfin_unavailable',
      'jellyfin is not healthy: its own restore runs in a running server',
    );
  const info = await server.publicInfo(signal);
  const isConfigured = await server.wizardCompleted(signal);
  if (info === undefined || isConfigured === undefined)
    throw new AgentError(
      'jellyfin_unavailable',
      'jellyfin does not say its version and whether its wizard is done',
    );
  if (!isConfigured) {
    throw new AgentError('target_unsafe', 'the setup wizard of this server has not been completed', {
      hint: "Jellyfin's own restore fails on such a server; complete the wizard, or restore a tar backup: agent restore",
    });
  }
  return info.version;
}

const threeParts = (version: string): string => version.split('.').slice(0, 3).join('.');

/** An older archive on a newer schema breaks the server (jellyfin/jellyfin#17111); a newer one is refused by it. */
function requireSameVersion(name: string, made: string | undefined, running: string): void {
  if (made === undefined || threeParts(made) === threeParts(running)) return;
  throw new AgentError(
    'backup_incompatible',
    `${name} was made by Jellyfin ${threeParts(made)}, the server is ${running}: only the same version restores it`,
    { hint: `set jellyfinImage to ${threeParts(made)} for the restore` },
  );
}

async function fetchArchive(
  { disk, log, store, zip }: RestoreArchiveDeps,
  item: BlobItem,
  file: string,
  dataDir: string,
  signal: AbortSignal,
): Promise<ArchiveContent> {
  const freeBytes = await disk.freeBytes(dataDir);
  const neededBytes = item.sizeBytes + JELLYFIN_NEEDS_BYTES;
  if (freeBytes < neededBytes) {
    throw new AgentError(
      'no_space',
      `${item.name} needs ${formatBytes(neededBytes)} free in ${dataDir}, 2 GiB of it for the server's next start; there are ${formatBytes(freeBytes)}`,
    );
  }
  log.info('download starts', { backup: item.name, sizeBytes: item.sizeBytes });
  const { sha256 } = await disk.create(file, readParallel(store, item, 0, signal)).catch((error: unknown) => {
    signal.throwIfAborted();
    throw asGone(error, item.name);
  });
  const stated = item.metadata['sha256'];
  if (stated !== undefined && stated !== sha256)
    throw new AgentError('backup_damaged', `${item.name} has another SHA-256 than its metadata says`);
  const content = await readArchiveContent(zip, file, item.name, signal);
  if (!content.manifest.hasDatabase)
    throw new AgentError('backup_incompatible', `${item.name} was made without the database`);
  return content;
}

async function saveFirst(
  { backUpFirst, log }: RestoreArchiveDeps,
  { withoutBackup }: RestoreArchiveRequest,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (withoutBackup) return undefined;
  const name = await backUpFirst(signal);
  if (name === undefined) {
    throw new AgentError(
      'target_unsafe',
      'the present state could not be stored first: no sidecar answered',
      {
        hint: 'see that the container backup-agent runs; --without-backup gives up what the server holds now',
      },
    );
  }
  log.info('the present state is stored', { backup: name });
  return name;
}

/** Renames the whole archive to where the engine looks, under a name of the engine's own kind. Answers that name. */
async function stage(
  { disk }: RestoreArchiveDeps,
  file: string,
  { manifest }: ArchiveContent,
  dataDir: string,
  signal: AbortSignal,
): Promise<string> {
  const dir = backupsDirOf(dataDir);
  await disk.makeDir(dir);
  const stat = await disk.stat(file);
  if (stat !== undefined)
    await disk.setAttributes(file, {
      mode: FILE_MODE,
      uid: stat.uid,
      gid: stat.gid,
      mtimeMs: Date.parse(manifest.createdUtc),
    });
  await disk.sync(file);
  // The server's own copy may still lie there; another second is as good a name.
  for (let second = 0; ; second += 1) {
    signal.throwIfAborted();
    const at = new Date(Date.parse(manifest.createdUtc) + second * 1_000);
    const fileName = `jellyfin-backup-${stampOf(at)}.zip`;
    if ((await disk.stat(`${dir}/${fileName}`)) !== undefined) continue;
    await disk.rename(file, `${dir}/${fileName}`);
    await disk.sync(dir);
    return fileName;
  }
}

async function inspectServer(deps: RestoreArchiveDeps, signal: AbortSignal): Promise<ServerContent> {
  const { apiKey, inventory, server } = deps;
  const again = { policy: CHECK_RETRIES, clock: deps.clock, log: deps.log };
  return retrying(
    async () => {
      const wizardCompleted = (await server.wizardCompleted(signal)) ?? false;
      const key = await apiKey(undefined, signal);
      const ask = async (token: typeof key) => ({
        users: await inventory.userNames(token, signal),
        libraries: await inventory.libraryNames(token, signal),
      });
      try {
        return { wizardCompleted, key: 'still valid' as const, ...(await ask(key)) };
      } catch (error) {
        if (!hasCode(error, 'external_failed')) throw error;
        // The restore replaced the table of keys (facts/jellyroller.md 0.10).
        const other = await apiKey(key, signal);
        if (other.reveal() === key.reveal())
          return { wizardCompleted, key: 'refused' as const, users: [], libraries: [] };
        return { wizardCompleted, key: 'issued anew' as const, ...(await ask(other)) };
      }
    },
    'ask the restored server',
    again,
    signal,
  );
}

const hintBack = (savedAs: string | undefined): string =>
  savedAs === undefined
    ? 'a tar backup brings the server back: agent restore-request NAME, then restart the replica'
    : `back to the state before: agent restore-request ${savedAs}, then restart the replica`;
