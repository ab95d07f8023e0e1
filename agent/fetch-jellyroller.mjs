// Runs in the image build, in a base without shell, curl or tar: downloads the release archive, checks its SHA-256,
// unpacks the one file `jellyroller` and starts it once. Anything unexpected ends the build.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, writeFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';

const target = process.argv[2];
const { JELLYROLLER_URL: url, JELLYROLLER_SHA256: expected } = process.env;
if (!target || !url || !/^[0-9a-f]{64}$/.test(expected ?? '')) {
  fail('JELLYROLLER_URL and JELLYROLLER_SHA256 (64 lower-case hex digits) must be given as build arguments');
}

const response = await fetch(url, { signal: AbortSignal.timeout(120_000) });
if (!response.ok) fail(`download ${url} failed: HTTP ${response.status}`);
const archive = Buffer.from(await response.arrayBuffer());
const actual = createHash('sha256').update(archive).digest('hex');
if (actual !== expected) fail(`verify ${url} failed: SHA-256 is ${actual}, expected ${expected}`);

writeFileSync(target, binaryFrom(gunzipSync(archive)));
chmodSync(target, 0o755);

// Not configured, it asks before it parses its arguments and ends with 101 (facts: jellyroller 2). Both codes prove that
// the loader and the C library fit; a missing loader gives ENOENT. Without a HOME it ends before either: a builder may have
// none for a user that no passwd file names.
const run = spawnSync(target, ['--help'], {
  env: { HOME: '/tmp' },
  stdio: ['ignore', 'pipe', 'pipe'],
  timeout: 30_000,
});
if (run.error || ![0, 101].includes(run.status)) {
  fail(
    `start jellyroller failed: ${run.error?.message ?? `exit ${run.status ?? run.signal}: ${run.stderr}`}`,
  );
}

/** The archive's layout changed between releases, so the file is found by name and not by path. */
function binaryFrom(tar) {
  for (let offset = 0; offset + 512 <= tar.length;) {
    const name = text(tar, offset, 100);
    if (name === '') break;
    const size = Number.parseInt(text(tar, offset + 124, 12), 8);
    const type = text(tar, offset + 156, 1);
    const start = offset + 512;
    if ((type === '0' || type === '') && name.split('/').at(-1) === 'jellyroller')
      return tar.subarray(start, start + size);
    offset = start + Math.ceil(size / 512) * 512;
  }
  return fail('unpack failed: the archive holds no file named jellyroller');
}

function text(buffer, offset, length) {
  return buffer
    .toString('latin1', offset, offset + length)
    .split('\0', 1)[0]
    .trim();
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
