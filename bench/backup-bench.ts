/**
 * What a backup and a restore cost, and what the copy is worth, against the client's first script on the same tree, the
 * same blob service and under the same server, which writes all the time:
 *
 *   node bench/backup-bench.ts [databaseMiB] [rounds]
 *
 * Ratios of one run; the absolute numbers are of this machine.
 */
import { existsSync, mkdirSync, rmSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { bundleAgent } from '../scripts/bundle-agent.ts';
import { createBigTree } from '../tests/agent/big-tree.ts';
import { startAzurite } from '../tests/support/azurite.ts';
import { cleanUp } from '../tests/support/clean-up.ts';
import { checkLedger, startLiveWriter } from '../tests/support/live-writer-client.ts';
import { runProcess } from '../tests/support/processes.ts';
import { makeDiskTempDir } from '../tests/support/temp-dir.ts';

const [databaseMiB = 150, rounds = 3] = process.argv.slice(2).map(Number);
const TIMEOUT_MS = 600_000;
const PATH = process.env['PATH'] ?? '';

interface Way {
  name: string;
  /** Answers the stored bytes. */
  backUp: () => Promise<number>;
  /** Into a new folder; answers the folder that holds `jellyfin.db`. */
  restore: (dir: string) => Promise<string>;
}

interface Row {
  way: string;
  backupMs: number[];
  restoreMs: number[];
  bytes: number;
  whole: number;
  fault: string;
}

async function run(command: string, ...args: string[]): Promise<void> {
  const { code, stderr } = await runProcess({
    command,
    args,
    env: { PATH, RESTIC_PASSWORD: 'bench' },
    timeoutMs: TIMEOUT_MS,
  });
  // 1: "file changed as we read it", which the client's script goes on after.
  if (code !== 0 && !(command === 'tar' && code === 1)) throw new Error(`${command} failed: ${stderr}`);
}

const home = makeDiskTempDir('bench');
const source = join(home, 'source');
const agentFile = join(home, 'agent.mjs');
await bundleAgent({ outFile: agentFile });
createBigTree(source, { databaseMiB, artworkMiB: 20, artworkFiles: 500, largeFiles: 0, largeFileMiB: 0 });
const writer = await startLiveWriter(source, {
  commitsPerSecond: 300,
  vacuumEveryMs: 0,
  maxLifetimeMs: TIMEOUT_MS,
});
const azurite = await startAzurite({ location: join(home, 'azurite') });
const container = azurite.container(await azurite.createContainer('bench'));

async function agent(dataDir: string, ...args: string[]): Promise<void> {
  const env = {
    AZURE_STORAGE_CONNECTION_STRING: azurite.connectionString,
    BLOB_CONTAINER: container.containerName,
    DATA_DIR: dataDir,
    // Nobody listens there: files are backed up as they lie, without waiting for a server.
    JELLYFIN_URL: 'http://127.0.0.1:9',
  };
  const { code, stdout } = await runProcess({ args: [agentFile, ...args], env, timeoutMs: TIMEOUT_MS });
  if (code !== 0) throw new Error(`agent ${args.join(' ')} failed:\n${stdout}`);
}

async function newestBytes(prefix: string): Promise<number> {
  const found = [];
  for await (const { name, properties } of container.listBlobsFlat({ prefix }))
    found.push({ name, ...properties });
  found.sort((a, b) => Number(a.createdOn) - Number(b.createdOn));
  return found.at(-1)?.contentLength ?? 0;
}

/** The client's script: tar of a folder, one blob. `az storage blob upload` is the same requests after a slower start. */
function tarGz(name: string, folder: string): Way {
  const archive = join(home, 'backup.tar.gz');
  const blob = container.getBlockBlobClient(`script/${folder === '.' ? 'all' : folder}.tar.gz`);
  return {
    name,
    async backUp() {
      const excludes = ['cache', 'log', '.agent', '*.db-shm'].map((pattern) => `--exclude=${pattern}`);
      await run('tar', ...excludes, '-czf', archive, '-C', join(source, folder), '.');
      await blob.uploadFile(archive);
      return statSync(archive).size;
    },
    async restore(dir) {
      await blob.downloadToFile(archive);
      await run('tar', '-xzf', archive, '-C', dir);
      return join(dir, folder === '.' ? 'data' : '.');
    },
  };
}

const ours: Way = {
  name: 'agent: whole state, verified',
  async backUp() {
    await agent(source, 'backup', '--once');
    return newestBytes('backup-');
  },
  async restore(dir) {
    await agent(dir, 'restore');
    // The restore took the epoch: the next backup is of a server that was never restored, in a line of its own.
    for await (const { name } of container.listBlobsFlat())
      if (!name.startsWith('script/')) await container.deleteBlob(name);
    rmSync(join(source, '.agent'), { recursive: true, force: true });
    return join(dir, 'data');
  },
};

const restic: Way = {
  name: 'restic: local folder, no upload',
  async backUp() {
    const repository = join(home, 'restic');
    if (!existsSync(repository)) await run('restic', '-r', repository, 'init');
    await run('restic', '-r', repository, 'backup', '--exclude', 'cache', source);
    return 0;
  },
  async restore(dir) {
    await run('restic', '-r', join(home, 'restic'), 'restore', 'latest', '--target', dir);
    return join(dir, source, 'data');
  },
};

async function measure(way: Way): Promise<Row> {
  const row: Row = { way: way.name, backupMs: [], restoreMs: [], bytes: 0, whole: 0, fault: '' };
  for (let round = 0; round < rounds; round += 1) {
    const before = await writer.lastSeq();
    let startedMs = performance.now();
    row.bytes = await way.backUp();
    row.backupMs.push(performance.now() - startedMs);
    const target = join(home, 'target');
    mkdirSync(target);
    startedMs = performance.now();
    const databaseFile = join(await way.restore(target), 'jellyfin.db');
    row.restoreMs.push(performance.now() - startedMs);
    const check = checkLedger(databaseFile, { recoverWal: existsSync(`${databaseFile}-wal`) });
    const isComplete = check.lastSeq >= before;
    if (check.ok && isComplete) row.whole += 1;
    else
      row.fault ||=
        (check.problems[0] ?? `${before - check.lastSeq} committed rows missing`).split('\n')[0] ?? '';
    rmSync(target, { recursive: true });
  }
  return row;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN;
const ways = [
  ours,
  tarGz("the client's script: data/ only", 'data'),
  tarGz('the same of the whole folder', '.'),
];
if (PATH.split(delimiter).some((dir) => existsSync(join(dir, 'restic')))) ways.push(restic);
try {
  const rows: Row[] = [];
  for (const way of ways) rows.push(await measure(way));
  const [first] = rows;
  const against = (own: number[], base: number[] = []) =>
    `${(median(own) / 1000).toFixed(1)} s (x${(median(own) / median(base)).toFixed(1)})`;
  // eslint-disable-next-line no-console -- the table is what this program is for
  console.table(
    rows.map((row) => ({
      way: row.way,
      backup: against(row.backupMs, first?.backupMs),
      restore: against(row.restoreMs, first?.restoreMs),
      MiB: (row.bytes / 2 ** 20).toFixed(1),
      'whole copies': `${row.whole} of ${rounds}`,
      'first fault': row.fault.slice(0, 60),
    })),
  );
} finally {
  await cleanUp();
}
