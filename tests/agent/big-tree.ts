import { closeSync, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createJellyfinTree, openAsJellyfin } from '../support/jellyfin-tree.ts';
import { startAzurite } from '../support/azurite.ts';
import { runProcess, type FinishedProcess } from '../support/processes.ts';
import { makeDiskTempDir } from '../support/temp-dir.ts';

const MIB = 1024 * 1024;

export interface BigTree {
  databaseMiB: number;
  /** Many small files, as artwork is. */
  artworkMiB: number;
  artworkFiles: number;
  largeFiles: number;
  largeFileMiB: number;
}

/** Overwrites three tenths of the buffer with noise, another for each seed: archives are a third of their tree. */
function fill(chunk: Buffer, seed: number): Buffer {
  const words = new Uint32Array(chunk.buffer, chunk.byteOffset, chunk.byteLength >> 2);
  let state = (seed * 2_654_435_761 + 88_675_123) | 1;
  for (let at = 0; at < words.length; at += 1) {
    if (at % 80 >= 24) continue;
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[at] = state;
  }
  return chunk;
}

/** A configured server's folder of a given weight. */
export function createBigTree(dir: string, weight: BigTree): { bytes: number } {
  const tree = createJellyfinTree(dir);
  const database = openAsJellyfin(tree.databaseFile);
  database.exec('PRAGMA journal_mode = WAL; CREATE TABLE Blurhashes (Id INTEGER PRIMARY KEY, Data BLOB)');
  const insert = database.prepare('INSERT INTO Blurhashes (Data) VALUES (?)');
  const row = Buffer.alloc(256 * 1024, 'overview ');
  for (let at = 0; at < weight.databaseMiB * 4; at += 64) {
    database.exec('BEGIN');
    for (let i = at; i < Math.min(at + 64, weight.databaseMiB * 4); i += 1) insert.run(fill(row, i));
    database.exec('COMMIT');
  }
  database.close();
  const artworkBytes = Math.floor((weight.artworkMiB * MIB) / weight.artworkFiles);
  const image = Buffer.alloc(artworkBytes & ~3, 'pixels ');
  for (let i = 0; i < weight.artworkFiles; i += 1) {
    const folder = join(dir, 'metadata/library', (i % 256).toString(16).padStart(2, '0'), String(i));
    mkdirSync(folder, { recursive: true });
    write(join(folder, 'poster.jpg'), [fill(image, -i)]);
  }
  for (let i = 0; i < weight.largeFiles; i += 1) {
    const chunk = Buffer.alloc(MIB, 'large file ');
    // One among the essentials, copied before it is packed; the others are packed where they lie.
    const folder = join(dir, i === 0 ? 'plugins/Models_1.0.0.0' : 'metadata/library/large');
    mkdirSync(folder, { recursive: true });
    write(
      join(folder, `large-${i}.bin`),
      Array.from({ length: weight.largeFileMiB }, (_, part) => fill(chunk, part + i * 1e6)),
    );
  }
  const { databaseMiB, artworkMiB, largeFiles, largeFileMiB } = weight;
  return { bytes: (databaseMiB + artworkMiB + largeFiles * largeFileMiB) * MIB };
}

function write(file: string, chunks: Iterable<Uint8Array>): void {
  const fd = openSync(file, 'wx');
  try {
    for (const chunk of chunks) writeSync(fd, chunk);
  } finally {
    closeSync(fd);
  }
}

/**
 * Preloaded: says at the end how much memory was resident at the worst moment. Not `maxRSS` of `getrusage`: that is
 * inherited from the process that started ours.
 */
const REPORT = `data:text/javascript,${encodeURIComponent(`
  import { readFileSync } from 'node:fs';
  process.on('exit', () => process.stderr.write('peak ' + /VmHWM:\\s+(\\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'))[1] + '\\n'));`)}`;

const peakMiBOf = ({ stderr }: FinishedProcess) => Number(/^peak (\d+)$/m.exec(stderr)?.[1]) / 1024;

export interface Weighed {
  treeBytes: number;
  archiveBytes: number;
  backupPeakMiB: number;
  restorePeakMiB: number;
  backupSeconds: number;
  restoreSeconds: number;
  codes: (number | null)[];
  restoredFiles: number;
}

/** Backs a tree up and restores it, each with the program that the image holds, and weighs both. */
export async function weigh(weight: BigTree, timeoutMs: number): Promise<Weighed> {
  const home = makeDiskTempDir('weight');
  const source = join(home, 'source');
  const { bytes } = createBigTree(source, weight);
  const target = join(home, 'target');
  mkdirSync(target);
  // On disk: in memory the archive would compete with what is weighed.
  const azurite = await startAzurite({ location: join(home, 'azurite') });
  const container = await azurite.createContainer('weight');
  const env = {
    AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString,
    BLOB_CONTAINER: container,
    // Nobody listens there: the server does not run.
    JELLYFIN_URL: 'http://127.0.0.1:9',
    RETRY_MAX: '0',
  };
  const run = async (dataDir: string, ...args: string[]) => {
    const startedMs = performance.now();
    const finished = await runProcess({
      args: ['--import', REPORT, 'dist/agent.mjs', ...args],
      env: { ...env, DATA_DIR: dataDir },
      timeoutMs,
    });
    return { ...finished, seconds: (performance.now() - startedMs) / 1000 };
  };
  const backup = await run(source, 'backup', '--once');
  const restore = await run(target, 'restore');
  let archiveBytes = 0;
  for await (const blob of azurite.container(container).listBlobsFlat()) {
    archiveBytes = Math.max(archiveBytes, blob.properties.contentLength ?? 0);
  }
  await azurite.stop();
  return {
    treeBytes: bytes,
    archiveBytes,
    backupPeakMiB: peakMiBOf(backup),
    restorePeakMiB: peakMiBOf(restore),
    backupSeconds: backup.seconds,
    restoreSeconds: restore.seconds,
    codes: [backup.code, restore.code],
    restoredFiles: Number(restore.jsonLines.find((line) => line['msg'] === 'restored')?.['files']),
  };
}
