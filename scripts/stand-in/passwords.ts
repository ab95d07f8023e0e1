import { pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto';
import { promisify } from 'node:util';

const derive = promisify(pbkdf2);
/** The real server takes 210,000; here it is not worth a fifth of a second for each sign-in. */
const ITERATIONS = 5_000;
const HASH_BYTES = 64;

export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(64);
  const hash = await derive(password, salt, ITERATIONS, HASH_BYTES, 'sha512');
  return `$PBKDF2-SHA512$iterations=${ITERATIONS}$${hex(salt)}$${hex(hash)}`;
}

export async function isPassword(password: string, stored: string): Promise<boolean> {
  const match = /^\$PBKDF2-SHA512\$iterations=(\d+)\$([0-9A-F]+)\$([0-9A-F]+)$/.exec(stored);
  if (!match) return false;
  const [, iterations, salt, expected] = match as unknown as [string, string, string, string];
  const expectedHash = Buffer.from(expected, 'hex');
  const hash = await derive(
    password,
    Buffer.from(salt, 'hex'),
    Number(iterations),
    expectedHash.length,
    'sha512',
  );
  return timingSafeEqual(hash, expectedHash);
}

const hex = (bytes: Buffer): string => bytes.toString('hex').toUpperCase();
