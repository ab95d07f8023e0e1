import { createHash } from 'node:crypto';

// RFC 9562 version 5 under the URL namespace: the same facts give the same GUID on every machine.
const NAMESPACE = Buffer.from('6ba7b8119dad11d180b400c04fd430c8', 'hex');

/**
 * A GUID derived from `parts`. Role assignments are named by one: a random name would make a second assignment of the
 * same role after an import or a lost state, and Azure refuses duplicates.
 */
export function guidOf(...parts: readonly string[]): string {
  const hash = createHash('sha1').update(NAMESPACE).update(parts.join('|')).digest().subarray(0, 16);
  hash.writeUInt8((hash.readUInt8(6) & 0x0f) | 0x50, 6);
  hash.writeUInt8((hash.readUInt8(8) & 0x3f) | 0x80, 8);
  const hex = hash.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
