export type Version = readonly [major: number, minor: number, patch: number];

/** The oldest server whose layout (one database, setup server, marker files) this program imitates. */
const OLDEST: Version = [10, 11, 0];

export function parseVersion(text: string): Version {
  const match = /^(\d+)\.(\d+)\.(\d+)$/.exec(text);
  if (!match) throw new Error(`must look like 10.11.11; got "${text}"`);
  const version: Version = [Number(match[1]), Number(match[2]), Number(match[3])];
  if (compareVersions(version, OLDEST) < 0) {
    throw new Error(
      `must be ${formatVersion(OLDEST)} or newer (older servers keep two databases); got "${text}"`,
    );
  }
  return version;
}

export const formatVersion = (version: Version): string => version.join('.');

export function compareVersions(left: Version, right: Version): number {
  return left[0] - right[0] || left[1] - right[1] || left[2] - right[2];
}

export const isAtLeast = (version: Version, floor: Version): boolean => compareVersions(version, floor) >= 0;

/** From 12.0 on: setup wizard closed by a configured administrator, legacy authorization off, VACUUM at shutdown. */
export const isTwelve = (version: Version): boolean => isAtLeast(version, [12, 0, 0]);
