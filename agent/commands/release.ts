import { nameOf, type StoredBackup } from '../catalog.ts';
import { lineOf } from '../epoch.ts';
import { AgentError, hasCode } from '../errors.ts';
import type { RestoreDeps } from '../plan-restore.ts';
import { asGone } from '../read-backup.ts';
import { VERSION_HOLD_KEY, versionHolds } from '../retention.ts';
import { verifyStored } from '../stage-backup.ts';
import { byName, readStore, type Answer } from './answer.ts';

/**
 * Lets go of what the agent holds back for a person to decide: puts a backup that is stored beside the line on it, or ends
 * the hold on the last backup of an older Jellyfin version.
 * @throws AgentError `backup_incompatible` when there is nothing to release.
 */
export async function release(
  deps: RestoreDeps,
  name: string,
  scratchDir: string,
  signal: AbortSignal,
): Promise<Answer> {
  const { catalog, state } = await readStore(deps, signal);
  const backup = byName(catalog, name);
  const line = lineOf(catalog, state);
  if (backup.format === 'tarZst' && line.includes(backup)) return releaseHold(deps, backup, line, signal);
  if (backup.format !== 'tarZst' || backup.placement === 'line') {
    throw new AgentError(
      'backup_incompatible',
      `${name} is neither stored as a tail or in quarantine nor on the line: there is nothing to release`,
      { hint: 'agent restore-request NAME restores it at the next start' },
    );
  }
  return putOnLine(deps, backup, line[0], scratchDir, signal);
}

/**
 * At its own place in the order.
 * @throws AgentError `backup_incompatible` when that place is not the newest: then only a restore by name brings it back.
 */
async function putOnLine(
  deps: RestoreDeps,
  backup: StoredBackup,
  newest: StoredBackup | undefined,
  scratchDir: string,
  signal: AbortSignal,
): Promise<Answer> {
  const name = nameOf(backup);
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

/**
 * Says on every backup of that version that it is let go: otherwise the one before would be the last of its version as soon
 * as this one is deleted. This one comes last, so that a command that is interrupted leaves the hold where it was.
 */
async function releaseHold(
  deps: RestoreDeps,
  backup: StoredBackup,
  line: readonly StoredBackup[],
  signal: AbortSignal,
): Promise<Answer> {
  const name = nameOf(backup);
  const hold = versionHolds(line).get(backup);
  if (hold === undefined) {
    if (backup.isReleased)
      return { text: `${name} is on the line already\n`, json: { name, released: true } };
    throw nothingHeld(backup, line);
  }
  const { version, isReleased } = hold;
  const json = { name, released: true, version };
  if (isReleased) return { text: `Jellyfin ${version} was let go already, with ${name}\n`, json };
  const ofVersion = line.filter((one) => one.item.metadata['jellyfin_version'] === version);
  for (const one of ofVersion.toReversed()) {
    const metadata = { ...one.item.metadata, [VERSION_HOLD_KEY]: 'released' };
    try {
      await deps.store.setMetadata(one.item.name, metadata, { ifMatch: one.item.etag }, signal);
    } catch (error) {
      // Retention may delete an older one at the same moment; one that was written to has to be read again.
      const isGone =
        !hasCode(error, 'store_conflict') && hasCode(asGone(error, one.item.name), 'backup_missing');
      if (!isGone || one === backup) throw error;
    }
  }
  const text = `${name} is no longer held as the last of Jellyfin ${version}: retention deletes it when nothing else keeps it\n`;
  return { text, json };
}

function nothingHeld(backup: StoredBackup, line: readonly StoredBackup[]): AgentError {
  const held = [...versionHolds(line)].filter(([, { isReleased }]) => !isReleased);
  const names = held.map(([one, { version }]) => `${nameOf(one)} (Jellyfin ${version})`).join(', ');
  return new AgentError(
    'backup_incompatible',
    `${nameOf(backup)} is on the line and not held as the last of an older Jellyfin version: there is nothing to release`,
    names === '' ? {} : { hint: `held: ${names}` },
  );
}
