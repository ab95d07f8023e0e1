/** Pure: container image references and what counts as pinned. */

export interface ImageRef {
  readonly registry: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: string | undefined;
}

const IMAGE =
  /^(?<registry>[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?)\/(?<repository>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)(?::(?<tag>[A-Za-z0-9_][\w.-]{0,127}))?(?:@(?<digest>sha256:[0-9a-f]{64}))?$/;

/** Splits `registry/repository[:tag][@sha256:…]`; `undefined` when it is not a full reference with a registry host. */
export function parseImageRef(value: string): ImageRef | undefined {
  const groups = IMAGE.exec(value)?.groups;
  if (groups?.registry === undefined || groups.repository === undefined) return undefined;
  return { registry: groups.registry, repository: groups.repository, tag: groups.tag, digest: groups.digest };
}

/** Docker Hub limits anonymous pulls per address, and the replicas of a region share a few addresses. */
export function isDockerHub(image: ImageRef): boolean {
  return /^(?:[a-z0-9-]+\.)*docker\.(?:io|com)$/.test(image.registry);
}

// `latest`, `stable`, `10`, `main`: tags that will mean something else tomorrow.
const MOVING_TAG = /^(?:latest|stable|unstable|nightly|edge|dev|main|master|v?\d+)$/i;

/** True when the reference will name the same bytes tomorrow: a digest, or a tag that is not known to move. */
export function isPinned(image: ImageRef): boolean {
  return image.digest !== undefined || (image.tag !== undefined && !MOVING_TAG.test(image.tag));
}

/**
 * The Jellyfin version that a tag names, or `undefined` for a floating one.
 *
 * Up to 10.x a release has three numbers and `10.11` is a tag that moves; from 12 on two numbers are a release.
 * The version is not decoration: a restore refuses a backup that a newer Jellyfin made.
 */
export function jellyfinVersionOf(image: ImageRef): string | undefined {
  const match = /^v?(\d+\.\d+(?:\.\d+)?(?:-rc\d+)?)(?:[.-]\d{8}[\w.-]*)?$/.exec(image.tag ?? '');
  const version = match?.[1];
  if (version === undefined) return undefined;
  const [major = 0, , patch] = version.split(/[.-]/).map((part) => Number.parseInt(part, 10));
  return major < 12 && (patch === undefined || Number.isNaN(patch)) ? undefined : version;
}
