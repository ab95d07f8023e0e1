/**
 * Why an entry of an archive may not be unpacked, or `undefined` when it may.
 * Absolute names and `..` would write outside staging, and tar-stream hands them over unchanged (style.md H2).
 */
export function unsafePathReason(path: string): string | undefined {
  if (path === '') return 'empty name';
  if (path.startsWith('/') || /^[A-Za-z]:/.test(path)) return 'absolute name';
  if (path.includes('\\') || path.includes('\0')) return 'name with a backslash or NUL';
  const parts = path.split('/');
  if (parts.includes('..')) return 'name with ".."';
  if (parts.some((part) => part === '' || part === '.')) return 'name with an empty or "." part';
  return undefined;
}
