import { everything, nameOf, type StoredBackup } from '../catalog.ts';
import type { RetentionPolicy } from '../config.ts';
import { candidatesOf, lineOf } from '../epoch.ts';
import { AgentError, hasCode } from '../errors.ts';
import { errorFields } from '../log.ts';
import { planRestore, type RestoreDeps } from '../plan-restore.ts';
import type { Candidate } from '../restore-decision.ts';
import { retentionOf } from '../prune.ts';
import { archiveRows, archiveTable } from '../runner/archive-list.ts';
import { pendingRequest } from '../restore-request.ts';
import { versionHolds } from '../retention.ts';
import { verifyStored } from '../stage-backup.ts';
import { stageLegacy } from '../stage-legacy.ts';
import { formatBytes, formatTable } from '../table.ts';
import { readWriter } from '../writer-state.ts';
import { byName, readStore, sizeOf, timeOf, type Answer } from './answer.ts';

interface Tail {
  /** The backup that the successor had restored. */
  since: string;
  seconds: number | null;
  rows: number;
}

/** What a fenced replica measured of its tail. */
function tailOf(metadata: Readonly<Record<string, string>>): Tail | null {
  const { tail_since: since, tail_seconds: seconds, tail_rows: rows } = metadata;
  if (since === undefined || rows === undefined) return null;
  return { since, seconds: seconds === undefined ? null : Number(seconds), rows: Number(rows) };
}

function describeTail({ rows, seconds }: Tail): string {
  const lasted = seconds === null ? '' : `${String(seconds)} s, `;
  return `${lasted}${String(rows)} row${rows === 1 ? '' : 's'}`;
}

function withSize(backup: StoredBackup): string {
  const tail = tailOf(backup.item.metadata);
  return tail === null ? nameOf(backup) : `${nameOf(backup)} (${describeTail(tail)} since ${tail.since})`;
}

export async function list(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const candidates = candidatesOf(catalog, state);
  const onLine = new Set(candidates);
  const holds = versionHolds(lineOf(catalog, state));
  const placeOf = (backup: Candidate) => {
    if (backup === candidates[0]) return 'candidate';
    if (backup.format !== 'tarZst') return 'older format';
    if (backup.placement !== 'line') return backup.placement;
    return onLine.has(backup) ? 'line' : 'tail';
  };
  const rows = everything(catalog).map((backup) => {
    const metadata = backup.format === 'tarZst' ? backup.item.metadata : {};
    const hold = backup.format === 'tarZst' ? holds.get(backup) : undefined;
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
      tail: tailOf(metadata),
      versionHold: hold === undefined ? null : hold.isReleased ? 'released' : 'held',
    };
  });
  const table = formatTable(
    ['NAME', 'PLACE', 'SIZE', 'MADE (UTC)', 'JELLYFIN', 'USERS', 'ITEMS', 'STOP', 'DRILL', 'HOLD'],
    rows.map((row) => [
      row.name,
      row.tail === null ? row.place : `${row.place} (${describeTail(row.tail)})`,
      formatBytes(row.sizeBytes),
      row.timeUtc.slice(0, 19).replace('T', ' '),
      row.jellyfinVersion ?? '-',
      String(row.users ?? '-'),
      String(row.items ?? '-'),
      row.cleanStop ? 'clean' : '-',
      row.damaged !== null ? 'DAMAGED' : (row.verifiedUtc?.slice(0, 10) ?? '-'),
      row.versionHold ?? '-',
    ]),
  );
  const archives = archiveRows(catalog.jellyrollerArchives);
  const backups = rows.length === 0 ? `${deps.store.describe()} holds no backup\n` : table;
  return {
    text: `${backups}${archiveTable(archives)}`,
    json: { store: deps.store.describe(), backups: rows, jellyrollerArchives: archives },
  };
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

interface Writer {
  epoch: number;
  phase: string;
  /** Since its last sign of life, by the service's times. */
  ageSeconds: number;
  /** Age of its oldest change that no backup held then. */
  unsavedSeconds: number | null;
}

/** The last sign of life; a blob that is not readable is no reason to say nothing of the backups. */
async function writerOf({ log, store }: RestoreDeps, signal: AbortSignal): Promise<Writer | null> {
  try {
    const found = await readWriter(store, signal);
    if (found === undefined) return null;
    const { epoch, phase, unsavedSeconds } = found.value;
    return { epoch, phase, ageSeconds: Math.round(found.ageMs / 1000), unsavedSeconds };
  } catch (error) {
    if (!hasCode(error, 'store_rejected')) throw error;
    log.warn('sign of life not readable', errorFields(error));
    return null;
  }
}

function describeWriter(writer: Writer | null): string {
  if (writer === null) return 'no sign of life';
  const { ageSeconds, phase, unsavedSeconds } = writer;
  const stored = unsavedSeconds === null ? 'everything stored' : `${String(unsavedSeconds)} s not stored yet`;
  return `${phase}, said so ${String(ageSeconds)} s ago; ${stored}`;
}

export async function status(deps: RestoreDeps, signal: AbortSignal): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const [candidate] = candidatesOf(catalog, state);
  const requested = await pendingRequest(deps.store, state, signal);
  const writer = await writerOf(deps, signal);
  const json = {
    store: deps.store.describe(),
    epoch: state?.epoch ?? null,
    epochTakenUtc: state?.takenUtc ?? null,
    candidate: candidate === undefined ? null : nameOf(candidate),
    writer,
    requested: requested?.request.name ?? null,
    candidateMadeUtc: candidate === undefined ? null : timeOf(candidate.stamp),
    cleanStop: candidate?.format === 'tarZst' ? candidate.item.metadata['clean_stop'] === 'true' : null,
    onLine: lineOf(catalog, state).length,
    tails: catalog.tails.map(nameOf),
    tailSizes: Object.fromEntries(catalog.tails.map((tail) => [nameOf(tail), tailOf(tail.item.metadata)])),
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
      ['replica', describeWriter(writer)],
      ['backups on the line', String(json.onLine)],
      ['tails', json.tails.length === 0 ? 'none' : catalog.tails.map(withSize).join(', ')],
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
  const requested = (await pendingRequest(deps.store, state, signal))?.request.name;
  const verdicts = retentionOf(catalog, state, policy, requested).map(({ backup, keep, reason }) => ({
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
