import { everything, nameOf } from '../catalog.ts';
import { candidatesOf } from '../epoch.ts';
import { AgentError } from '../errors.ts';
import type { RestoreDeps } from '../plan-restore.ts';
import { readParallel } from '../read-backup.ts';
import { removeRequest, writeRequest } from '../restore-request.ts';
import { restoreInto } from '../restore.ts';
import { formatBytes } from '../table.ts';
import { byName, readStore, sizeOf, type Answer } from './answer.ts';
import { verify } from './look.ts';

/** Downloads an archive as it is; `tar --zstd -xf` opens it without this program. */
export async function exportTo(
  deps: RestoreDeps,
  name: string,
  file: string,
  signal: AbortSignal,
): Promise<Answer> {
  const backup = byName((await readStore(deps, signal)).catalog, name);
  if (backup.format === 'folder')
    throw new AgentError(
      'backup_incompatible',
      `${nameOf(backup)} is a folder of blobs: use agent restore --from … --to DIR`,
    );
  const item = backup.format === 'tarZst' ? backup.item : backup.items[0];
  if (item === undefined) throw new AgentError('backup_missing', `${name} has no blob`);
  if ((await deps.disk.stat(file)) !== undefined)
    throw new AgentError('target_unsafe', `--to ${file} exists already`);
  try {
    const written = await deps.disk.create(file, readParallel(deps.store, item, 0, signal));
    const stated = item.metadata['sha256'];
    if (stated !== undefined && stated !== written.sha256)
      throw new AgentError('backup_damaged', `${name} has another SHA-256 than its metadata says`);
    return {
      text: `${file}: ${formatBytes(written.sizeBytes)}, sha256 ${written.sha256}\n`,
      json: { file, ...written },
    };
  } catch (error) {
    await deps.disk.removeFile(file);
    throw error;
  }
}

export async function restoreTo(
  deps: RestoreDeps,
  request: { from: string | undefined; to: string; dryRun: boolean },
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const candidate =
    request.from === undefined ? candidatesOf(catalog, state)[0] : byName(catalog, request.from);
  if (candidate === undefined)
    throw new AgentError('backup_missing', `${deps.store.describe()} holds no backup to restore`);
  const plan = {
    action: 'restore',
    from: nameOf(candidate),
    to: request.to,
    archiveBytes: sizeOf(candidate),
  };
  if (request.dryRun) {
    return {
      text: `would restore ${plan.from} (${formatBytes(plan.archiveBytes)}) into ${plan.to}\n`,
      json: { dryRun: true, ...plan },
    };
  }
  const staged = await restoreInto(deps, candidate, request.to, signal);
  const text = `restored ${plan.from} into ${plan.to}: ${String(staged.files)} files, ${formatBytes(staged.unpackedBytes)}\n`;
  return { text, json: { ...plan, files: staged.files, unpackedBytes: staged.unpackedBytes } };
}

/** Asks the next start on an empty volume to restore this backup, once. */
export async function requestRestore(
  deps: RestoreDeps,
  name: string,
  scratchDir: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog } = await readStore(deps, signal);
  const backup = byName(catalog, name);
  // Now, with a person watching, rather than in an init container at night.
  await verify(deps, nameOf(backup), scratchDir, signal);
  const request = await writeRequest(deps.store, nameOf(backup), deps.clock.now(), signal);
  // From here on retention leaves it alone; it may have been deleted in the moment before.
  await stillThere(deps, request.name, signal);
  const text = `the next start restores ${request.name}, once; what is newer stays stored beside the line\nrestart the replica now, or take it back: agent restore-request --cancel\n`;
  return { text, json: request };
}

async function stillThere(deps: RestoreDeps, name: string, signal: AbortSignal): Promise<void> {
  if (everything((await readStore(deps, signal)).catalog).some((backup) => nameOf(backup) === name)) return;
  await removeRequest(deps.store, undefined, signal);
  throw new AgentError('backup_missing', `${name} was deleted while it was requested`, {
    hint: 'agent list shows what there is; soft delete keeps it for some days',
  });
}

export async function cancelRequest(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const wasThere = await removeRequest(deps.store, undefined, signal);
  return {
    text: wasThere ? 'the request is taken back\n' : 'there was no request\n',
    json: { cancelled: wasThere },
  };
}
