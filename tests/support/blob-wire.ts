import { createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { AZURITE_ACCOUNT } from './azurite.ts';
import type { BlobRequest } from './blob-request.ts';
import type { ListFault } from './fault-proxy.ts';

/** Markers that begin so are ours: they stand for "an empty page was shown, now the real one". */
export const PROXY_MARKER = 'after-empty-page!';

/** The page of a listing to ask the store for, and how to show it. */
export interface ListPage {
  marker: string | undefined;
  pageSize: number | undefined;
  isEmpty: boolean;
}

/** `undefined`: the client's own request can go on as it is. */
export function pageOf(request: BlobRequest, fault: ListFault | undefined): ListPage | undefined {
  const marker = request.query['marker'] || undefined;
  const isOurs = marker?.startsWith(PROXY_MARKER) ?? false;
  if (!fault && !isOurs) return undefined;
  return {
    // Ours must never reach the store, also when the rule that made it has gone.
    marker: (isOurs ? marker?.slice(PROXY_MARKER.length) : marker) || undefined,
    pageSize: fault?.pageSize,
    isEmpty: fault?.emptyPages === true && !isOurs,
  };
}

/** The listing request for that page, with a new signature, for the signature covers the query. */
export function reSigned(incoming: IncomingMessage, page: ListPage): { path: string; headers: string[] } {
  const url = new URL(incoming.url ?? '/', 'http://127.0.0.1');
  if (page.marker === undefined) url.searchParams.delete('marker');
  else url.searchParams.set('marker', page.marker);
  if (page.pageSize !== undefined) url.searchParams.set('maxresults', String(page.pageSize));
  // Form encoding writes a space as `+`, which a query of the service does not mean.
  const path = `${url.pathname}${url.search.replaceAll('+', '%20')}`;

  const headers: string[] = [];
  for (let i = 0; i + 1 < incoming.rawHeaders.length; i += 2) {
    const [key, value] = [incoming.rawHeaders[i] ?? '', incoming.rawHeaders[i + 1] ?? ''];
    if (/^(connection|keep-alive)$/i.test(key)) continue;
    const isSignature = key.toLowerCase() === 'authorization' && value.startsWith('SharedKey ');
    headers.push(key, isSignature ? `SharedKey ${AZURITE_ACCOUNT.name}:${signature(incoming, url)}` : value);
  }
  return { path, headers };
}

/** Shared Key of the Blob service: verb, eleven headers, `x-ms-*` sorted, resource, query sorted. */
function signature(incoming: IncomingMessage, url: URL): string {
  const header = (name: string) => String(incoming.headers[name] ?? '');
  const length = header('content-length');
  const standard = [
    ...['content-encoding', 'content-language'].map(header),
    length === '0' ? '' : length,
    ...['content-md5', 'content-type', 'date', 'if-modified-since', 'if-match'].map(header),
    ...['if-none-match', 'if-unmodified-since', 'range'].map(header),
  ];
  const ours = Object.keys(incoming.headers)
    .filter((name) => name.startsWith('x-ms-'))
    .sort()
    .map((name) => `${name}:${header(name).trim()}`);
  const query = [...url.searchParams]
    .map(([name, value]): [string, string] => [name.toLowerCase(), value])
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}:${value}`);
  const resource = `/${AZURITE_ACCOUNT.name}${url.pathname}`;
  const toSign = [incoming.method, ...standard, ...ours, resource, ...query].join('\n');
  return createHmac('sha256', Buffer.from(AZURITE_ACCOUNT.key, 'base64'))
    .update(toSign, 'utf8')
    .digest('base64');
}

/** Metadata and names are escaped in the XML, so that no entry can contain the end of an entry. */
const ENTRY = /<Blob>[^]*?<\/Blob>|<BlobPrefix>[^]*?<\/BlobPrefix>/g;
const NEXT_MARKER = /<NextMarker\s*\/>|<NextMarker>([^]*?)<\/NextMarker>/;

/** The store's page as the fault wants it shown. `remembered` holds earlier pages by the marker they ended with. */
export function withPage(
  xml: string,
  page: ListPage,
  fault: ListFault | undefined,
  remembered: Map<string, readonly string[]>,
): string {
  const own = xml.match(ENTRY) ?? [];
  const storesMarker = NEXT_MARKER.exec(xml)?.[1] ?? '';
  let entries: readonly string[] = own;
  if (fault?.duplicatePages && !page.isEmpty) {
    entries = [...(page.marker === undefined ? [] : (remembered.get(page.marker) ?? [])), ...own];
    if (storesMarker !== '') remembered.set(unescape(storesMarker), own);
  }
  if (fault?.reversePages) entries = entries.toReversed();
  if (fault?.entries && !page.isEmpty) entries = fault.entries(entries);

  const marker = page.isEmpty ? `${PROXY_MARKER}${escape(page.marker ?? '')}` : storesMarker;
  const shown = page.isEmpty ? '' : entries.join('');
  // Functions, for a name may contain `$&`, which a replacement text would expand.
  return xml
    .replace(/<Blobs\s*\/>|<Blobs>[^]*<\/Blobs>/, () => `<Blobs>${shown}</Blobs>`)
    .replace(NEXT_MARKER, () => (marker === '' ? '<NextMarker/>' : `<NextMarker>${marker}</NextMarker>`));
}

export function errorXml(code: string, index: number): string {
  return (
    `<?xml version="1.0" encoding="utf-8"?><Error><Code>${code}</Code>` +
    `<Message>${code} injected by the fault proxy into request ${index}.</Message></Error>`
  );
}

function escape(value: string): string {
  return value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function unescape(value: string): string {
  return value
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&quot;', '"')
    .replaceAll('&apos;', "'")
    .replaceAll('&amp;', '&');
}
