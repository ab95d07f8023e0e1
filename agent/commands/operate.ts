import { candidatesOf, lineOf, readEpoch, type EpochState } from '../epoch.ts';
import {
  everything,
  nameOf,
  readCatalog,
  type Catalog,
  type LegacyBackup,
  type StoredBackup,
} from '../catalog.ts';
import type { RetentionPolicy } from '../config.ts';
import { AgentError, hasCode } from '../errors.ts';
import { readParallel } from '../read-backup.ts';
import { retentionOf } from '../backup-line.ts';
import { pendingRequest, removeRequest, writeRequest } from '../restore-request.ts';
import { planRestore, restoreInto, type RestoreDeps } from '../restore.ts';
import type { Candidate } from '../restore-decision.ts';
import { verifyStored } from '../stage-backup.ts';
import { stageLegacy } from '../stage-legacy.ts';
import { formatBytes, formatTable } from '../table.ts';

/** What a person reads, or with `--json` what a script reads. */
export interface Answer {
  text: string;
  json: unknown;
}

async function readStore(
  deps: RestoreDeps,
  signal: AbortSignal,
): Promise<{ catalog: Catalog; state: EpochState | undefined }> {
  const catalog = await readCatalog(deps.store, signal);
  return { catalog, state: (await readEpoch(deps.store, signal))?.state };
}

/** @throws AgentError `backup_missing` that lists what there is. */
function byName(catalog: Catalog, name: string): Candidate {
  const all = everything(catalog);
  const found = all.find((backup) => nameOf(backup) === name || nameOf(backup) === `${name}/`);
  if (found !== undefined) return found;
  const some = all.slice(0, 3).map(nameOf).join(', ');
  throw new AgentError('backup_missing', `no backup is called ${JSON.stringify(name)}`, {
    hint:
      all.length === 0
        ? 'the container holds none'
        : `agent list shows all ${String(all.length)}; the newest: ${some}`,
  });
}

const sizeOf = (backup: StoredBackup | LegacyBackup) =>
  backup.format === 'tarZst'
    ? backup.item.sizeBytes
    : backup.items.reduce((sum, item) => sum + item.sizeBytes, 0);

const timeOf = (stamp: string) =>
  stamp.replace(/^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)$/, '$1-$2-$3T$4:$5:$6Z');

export async function list(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const candidates = candidatesOf(catalog, state);
  const onLine = new Set(candidates);
  const placeOf = (backup: Candidate) => {
    if (backup === candidates[0]) return 'candidate';
    if (backup.format !== 'tarZst') return 'older format';
    if (backup.placement !== 'line') return backup.placement;
    return onLine.has(backup) ? 'line' : 'tail';
  };
  const rows = everything(catalog).map((backup) => {
    const metadata = backup.format === 'tarZst' ? backup.item.metadata : {};
    return {
      name: nameOf(backup),
      place: placeOf(backup),
      sizeBytes: sizeOf(backup),
      timeUtc: metadata['timestamp_utc'] ?? timeOf(backup.stamp),
      jellyfinVersion: metadata['jellyfin_version'] ?? null,
      users: metadata['users'] === undefined ? null : Number(metadata['users']),
      items: metadata['items'] === undefined ? null : Number(metadata['items']),
      cleanStop: metadata['clean_stop'] === 'true',
      verifiedUtc: metadata['verified_utc'] ?? null,
      damaged: metadata['damaged'] ?? null,
    };
  });
  const table = formatTable(
    ['NAME', 'PLACE', 'SIZE', 'MADE (UTC)', 'JELLYFIN', 'USERS', 'ITEMS', 'STOP', 'DRILL'],
    rows.map((row) => [
      row.name,
      row.place,
      formatBytes(row.sizeBytes),
      row.timeUtc.slice(0, 19).replace('T', ' '),
      row.jellyfinVersion ?? '-',
      String(row.users ?? '-'),
      String(row.items ?? '-'),
      row.cleanStop ? 'clean' : '-',
      row.damaged !== null ? 'DAMAGED' : (row.verifiedUtc?.slice(0, 10) ?? '-'),
    ]),
  );
  const text = rows.length === 0 ? `${deps.store.describe()} holds no backup\n` : table;
  return { text, json: { store: deps.store.describe(), backups: rows } };
}

/** Checks one backup, or the candidate, as a restore would. */
export async function verify(
  deps: RestoreDeps,
  name: string | undefined,
  scratchDir: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const backup = name === undefined ? candidatesOf(catalog, state)[0] : byName(catalog, name);
  if (backup === undefined)
    throw new AgentError('backup_missing', `${deps.store.describe()} holds no backup to verify`);
  try {
    if (backup.format === 'tarZst') {
      const { manifest } = await verifyStored(deps, backup, scratchDir, signal);
      const { counts } = manifest;
      const text = `${nameOf(backup)} is good: ${String(manifest.entries.length)} entries, ${formatBytes(manifest.unpackedBytes)}, ${String(counts.users)} users, ${String(counts.items)} items, Jellyfin ${manifest.jellyfin.version ?? 'unknown'}\n`;
      return {
        text,
        json: {
          name: nameOf(backup),
          ok: true,
          entries: manifest.entries.length,
          unpackedBytes: manifest.unpackedBytes,
          counts,
        },
      };
    }
    const staged = await stageLegacy(deps, backup, scratchDir, signal);
    const text = `${nameOf(backup)} is good: older format, ${String(staged.files)} files, ${formatBytes(staged.unpackedBytes)}\n`;
    return {
      text,
      json: { name: nameOf(backup), ok: true, entries: staged.files, unpackedBytes: staged.unpackedBytes },
    };
  } catch (error) {
    // Whoever gave no name must learn which one it is; what zstd or tar says about an archive does not name it.
    if (!hasCode(error, 'backup_damaged') || error.message.includes(nameOf(backup))) throw error;
    throw new AgentError('backup_damaged', `${nameOf(backup)}: ${error.message}`, { cause: error });
  } finally {
    await deps.disk.removeTree(scratchDir);
  }
}

export async function status(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const [candidate] = candidatesOf(catalog, state);
  const requested = await pendingRequest(deps.store, state, signal);
  const json = {
    store: deps.store.describe(),
    epoch: state?.epoch ?? null,
    epochTakenUtc: state?.takenUtc ?? null,
    candidate: candidate === undefined ? null : nameOf(candidate),
    requested: requested?.request.name ?? null,
    candidateMadeUtc: candidate === undefined ? null : timeOf(candidate.stamp),
    cleanStop: candidate?.format === 'tarZst' ? candidate.item.metadata['clean_stop'] === 'true' : null,
    onLine: lineOf(catalog, state).length,
    tails: catalog.tails.map(nameOf),
    quarantined: catalog.quarantined.map(nameOf),
    olderFormats: catalog.legacy.length,
    jellyrollerArchives: catalog.jellyrollerArchives.length,
  };
  const text = formatTable(
    ['WHAT', 'IS'],
    [
      ['store', json.store],
      [
        'epoch',
        json.epoch === null ? 'none taken yet' : `${String(json.epoch)}, taken ${json.epochTakenUtc ?? '?'}`,
      ],
      ['next start restores', json.requested ?? json.candidate ?? 'nothing: first boot'],
      ...(json.requested === null ? [] : [['on request, instead of', json.candidate ?? '-']]),
      ['made', json.candidateMadeUtc ?? '-'],
      [
        'server had closed',
        json.cleanStop === null ? '-' : json.cleanStop ? 'yes' : 'no (running, or stopped without notice)',
      ],
      ['backups on the line', String(json.onLine)],
      ['tails', json.tails.length === 0 ? 'none' : json.tails.join(', ')],
      ['quarantined', json.quarantined.length === 0 ? 'none' : json.quarantined.join(', ')],
      ['older formats', String(json.olderFormats)],
      ['JellyRoller archives', String(json.jellyrollerArchives)],
    ],
  );
  return { text, json };
}

export async function pruneDryRun(
  deps: RestoreDeps,
  policy: RetentionPolicy,
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const verdicts = retentionOf(catalog, state, policy).map(({ backup, keep, reason }) => ({
    name: nameOf(backup),
    keep,
    reason,
  }));
  const rows = verdicts.map(({ name, keep, reason }) => [keep ? 'keep' : 'DELETE', name, reason]);
  const text =
    rows.length === 0
      ? `${deps.store.describe()} holds nothing that retention looks at\n`
      : formatTable(['', 'NAME', 'REASON'], rows);
  return { text, json: { verdicts } };
}

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

/** What the init container would do now. */
export async function restorePlan(
  deps: RestoreDeps,
  options: { dataDir: string; imageVersion: string | undefined },
  signal: AbortSignal,
): Promise<Answer> {
  const { decision } = await planRestore(deps, options, signal);
  switch (decision.action) {
    case 'refuse':
      throw decision.error;
    case 'keep':
      return {
        text: `would keep the volume (epoch ${String(decision.marker.epoch)})\n`,
        json: { dryRun: true, action: 'keep' },
      };
    case 'first_boot':
      return {
        text: 'would start empty: the store holds no backup\n',
        json: { dryRun: true, action: 'first_boot' },
      };
    case 'restore': {
      const names = decision.candidates.map(nameOf);
      const text = `would restore ${names[0] ?? ''}${decision.cleanFirst ? ' after removing a half-finished restore' : ''}\n${names.length > 1 ? `if it fails its checks: ${names.slice(1, 6).join(', ')}\n` : ''}`;
      return {
        text,
        json: { dryRun: true, action: 'restore', candidates: names, cleanFirst: decision.cleanFirst },
      };
    }
  }
}

/**
 * Puts a backup that is stored beside the line on it, at its own place in the order.
 * @throws AgentError `backup_incompatible` when that place is not the newest: then only a restore by name brings it back.
 */
export async function release(
  deps: RestoreDeps,
  name: string,
  scratchDir: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const backup = byName(catalog, name);
  const [newest] = lineOf(catalog, state);
  if (backup.format !== 'tarZst' || backup.placement === 'line') {
    throw new AgentError(
      'backup_incompatible',
      `${name} is not stored beside the line: there is nothing to release`,
    );
  }
  if (
    newest !== undefined &&
    (newest.epoch > backup.epoch || (newest.epoch === backup.epoch && newest.sequence > backup.sequence))
  ) {
    throw new AgentError(
      'backup_incompatible',
      `${name} is older than ${nameOf(newest)}, which the next start restores`,
      {
        hint: 'agent restore --from NAME --to DIR brings it back into a folder',
      },
    );
  }
  try {
    await verifyStored(deps, backup, scratchDir, signal);
  } finally {
    await deps.disk.removeTree(scratchDir);
  }
  const metadata = { ...backup.item.metadata, released: 'true' };
  await deps.store.setMetadata(backup.item.name, metadata, { ifMatch: backup.item.etag }, signal);
  return { text: `${name} is on the line: the next start restores it\n`, json: { name, released: true } };
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
  const text = `the next start restores ${request.name}, once; what is newer stays stored beside the line\nrestart the replica now, or take it back: agent restore-request --cancel\n`;
  return { text, json: request };
}

export async function cancelRequest(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const wasThere = await removeRequest(deps.store, undefined, signal);
  return {
    text: wasThere ? 'the request is taken back\n' : 'there was no request\n',
    json: { cancelled: wasThere },
  };
}
