function numbers(version: string): number[] {
  return (version.split('-')[0] ?? '').split('.').map(Number);
}

/**
 * Negative when `a` is older than `b`. Missing parts count as 0; a pre-release (`12.0.0-rc5`) is older than its release.
 */
export function compareVersions(a: string, b: string): number {
  const left = numbers(a);
  const right = numbers(b);
  for (let index = 0; index < Math.max(left.length, right.length); index += 1) {
    const difference = (left[index] ?? 0) - (right[index] ?? 0);
    if (difference !== 0) return difference;
  }
  const preA = a.includes('-');
  const preB = b.includes('-');
  if (preA !== preB) return preA ? -1 : 1;
  return preA ? a.localeCompare(b, 'en', { numeric: true }) : 0;
}
