/** With a base URL configured every path, `/health` included, lives below it, and others lead nowhere. */
export function withoutBaseUrl(pathname: string, baseUrl: string): string {
  if (baseUrl === '') return pathname;
  const isBelow = pathname.toLowerCase().startsWith(`${baseUrl.toLowerCase()}/`);
  return isBelow ? pathname.slice(baseUrl.length) : '/outside-of-base-url';
}
