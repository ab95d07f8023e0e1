import { stampOf } from '../backup-name.ts';

/** Below it lies what the runner mirrors; the tar backups never look there. */
export const MIRROR_PREFIX = 'jellyroller/';
const NAME = /^jellyroller\/backup-(\d{14})(?:-(\d{1,4}))?\.zip$/;

/** Where an archive is stored, or `undefined` for a name that the runner does not write. `turn` is 1 for the first of a second. */
export function parseMirrorName(name: string): { stamp: string; turn: number } | undefined {
  const [, stamp, turn] = NAME.exec(name) ?? [];
  return stamp === undefined ? undefined : { stamp, turn: Number(turn ?? 1) };
}

/**
 * The first free name for an archive that was made at `createdUtc`. Two of one second (two servers on one container, or a
 * clock that was set back) both keep a place.
 */
export function freeMirrorName(createdUtc: string, taken: ReadonlySet<string>): string {
  const stem = `${MIRROR_PREFIX}backup-${stampOf(new Date(createdUtc))}`;
  for (let turn = 1; ; turn += 1) {
    const name = `${stem}${turn === 1 ? '' : `-${String(turn)}`}.zip`;
    if (!taken.has(name)) return name;
  }
}
