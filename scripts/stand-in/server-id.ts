import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { apiGuid, databaseGuid } from './guids.ts';

const BYTE_ORDER_MARK = '\uFEFF';

/**
 * Clients know a server by this id: a new one makes it a different server to them.
 * The real server writes the file with a byte order mark, so whoever reads it must cope with one.
 */
export function loadServerId(file: string): string {
  const saved = databaseGuid(readIfPresent(file)?.replace(BYTE_ORDER_MARK, '').trim());
  if (saved !== undefined) return apiGuid(saved);
  const id = apiGuid(randomUUID());
  writeFileSync(file, `${BYTE_ORDER_MARK}${id}`);
  return id;
}

function readIfPresent(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
