import { createHash, randomUUID } from 'node:crypto';

/** GUIDs are upper-case with dashes in the database and 32 lower-case hex digits in the API. */
export const newGuid = (): string => randomUUID().toUpperCase();

export const apiGuid = (guid: string): string => guid.replaceAll('-', '').toLowerCase();

/** Accepts both looks; undefined when the text is not a GUID at all. */
export function databaseGuid(text: string | undefined): string | undefined {
  const hex = text?.replaceAll('-', '').toUpperCase() ?? '';
  if (!/^[0-9A-F]{32}$/.test(hex)) return undefined;
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

/** The same item keeps its id over a rescan, because the id is made of its type and its path. */
export function guidOf(type: string, path: string): string {
  const hex = createHash('md5').update(`${type}${path}`, 'utf16le').digest('hex');
  return databaseGuid(hex) as string;
}
