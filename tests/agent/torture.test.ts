import { existsSync, mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createJellyfinTree } from '../support/jellyfin-tree.ts';
import {
  checkLedger,
  startLiveWriter,
  type LiveWriter,
  type LiveWriterOptions,
} from '../support/live-writer-client.ts';
import { runProcess } from '../support/processes.ts';
import { makeTempDir } from '../support/temp-dir.ts';
import { liveAgent, SQLITE_IN_PROCESS } from './live-agent.ts';

/** Makes a restored copy of the live folder in `targetDir`, which is there and empty. */
type CopyMaker = (targetDir: string, round: number) => Promise<void>;

interface Torture {
  rounds: number;
  /** One sentence per broken copy, with its round. */
  torn: string[];
  /** Copies in which a transaction is missing that was committed before the copy began. */
  lost: string[];
  /** Copies that a server would not open as the same database: not in WAL mode, or side files beside it. */
  odd: string[];
}

/**
 * Copies a folder that is written to all the time, again and again, and opens each copy as a server would. The way of
 * copying is the parameter: the same eyes look at ours and at plain tar.
 */
async function torture(
  writer: LiveWriter,
  makeCopy: CopyMaker,
  options: { rounds: number; stopAtFaults?: number },
): Promise<Torture> {
  const result: Torture = { rounds: 0, torn: [], lost: [], odd: [] };
  const scratch = makeTempDir('torture');
  for (let round = 1; round <= options.rounds; round += 1) {
    const targetDir = join(scratch, String(round));
    mkdirSync(targetDir);
    const before = await writer.lastSeq();
    await makeCopy(targetDir, round);
    result.rounds = round;
    const copy = join(targetDir, 'data/jellyfin.db');
    const sideFiles = ['-wal', '-shm', '-journal'].filter((suffix) => existsSync(copy + suffix));
    // A copy that brings a -wal is given the benefit of it, as a server's start would.
    const check = checkLedger(copy, { recoverWal: sideFiles.includes('-wal') });
    if (!check.ok) result.torn.push(`round ${round}: ${check.problems.join('; ')}`);
    if (check.lastSeq < before) result.lost.push(`round ${round}: ${check.lastSeq}, ${before} was committed`);
    if (!check.isWal || sideFiles.length > 0) {
      result.odd.push(`round ${round}: WAL header ${check.isWal}, beside it: ${sideFiles.join(' ')}`);
    }
    await rm(targetDir, { recursive: true });
    if (result.torn.length + result.lost.length >= (options.stopAtFaults ?? Infinity)) break;
  }
  return result;
}

/** Not as fast as it can: the writer would have one of two cores to itself, and each round would have a larger ledger to read. */
const COMMITS_PER_SECOND = 1_500;

const HEAVY: LiveWriterOptions = {
  commitsPerSecond: COMMITS_PER_SECOND,
  initialMiB: 1,
  truncateCheckpointEveryMs: 70,
  vacuumEveryMs: 300,
};

interface Server {
  name: string;
  options: LiveWriterOptions;
  rounds: number;
  loseLocks?: 'database' | 'all';
}

/** 200 rounds in all. Several writers: each is hard in its own way, and a ledger of a minute would slow the checks. */
const SERVERS: readonly Server[] = [
  { name: 'truncates and vacuums all the time', options: HEAVY, rounds: 40 },
  {
    name: 'lets its -wal grow between rare checkpoints',
    options: {
      ...HEAVY,
      autoCheckpointPages: 0,
      passiveCheckpointEveryMs: 0,
      truncateCheckpointEveryMs: 900,
    },
    rounds: 50,
  },
  {
    name: 'checkpoints after every few pages',
    options: { ...HEAVY, autoCheckpointPages: 8, truncateCheckpointEveryMs: 0 },
    rounds: 70,
  },
  {
    name: 'has lost its locks on the database (jellyfin/jellyfin#18100)',
    options: { ...HEAVY, commitsPerSecond: 0 },
    rounds: 40,
    loseLocks: 'database',
  },
];

/** A server with its databases and settings and little else: a round is to be short, there are many. */
async function leanServer(options: LiveWriterOptions): Promise<LiveWriter> {
  const dir = makeTempDir('live');
  createJellyfinTree(dir);
  for (const name of [
    'config/users',
    'data/ScheduledTasks',
    'data/collections',
    'data/playlists',
    'plugins',
    'root',
  ]) {
    await rm(join(dir, name), { recursive: true });
  }
  return startLiveWriter(dir, options);
}

test('the rounds add up to 200', () => {
  expect(SERVERS.reduce((sum, { rounds }) => sum + rounds, 0)).toBe(200);
});

test.each(SERVERS)(
  'every restored copy is whole while the server $name',
  async ({ options, rounds, loseLocks }) => {
    const writer = await leanServer(options);
    const agent = await liveAgent(writer.dir, { databases: SQLITE_IN_PROCESS });
    if (loseLocks !== undefined) await writer.loseLocks(loseLocks);
    await writer.resetStats();

    const result = await torture(
      writer,
      async (targetDir, round) => {
        const snapshot = await agent.snapshot();
        const backup = await agent.publish(snapshot, round);
        await agent.snapshotter.discard();
        await agent.restore(backup.name, targetDir);
        await agent.container.deleteBlob(backup.name);
      },
      { rounds },
    );

    expect(result).toEqual({ rounds, torn: [], lost: [], odd: [] });
    const stats = await writer.stats();
    expect(stats.medianCommitMs).toBeLessThan(100);
    expect(stats.walExists).toBe(true);
    expect(stats.vacuums).toBeGreaterThan(0);
    // It never stood still: some transactions between any two copies, on any machine.
    expect(stats.commits).toBeGreaterThan(10 * rounds);
    await writer.stop();
  },
  120_000,
);

test('the same eyes see plain tar of the live folder fail', async () => {
  const options = { ...HEAVY, commitsPerSecond: 0, initialMiB: 12 };
  const writer = await startLiveWriter(makeTempDir('live'), options);
  const result = await torture(
    writer,
    async (targetDir) => {
      const command = `tar -cf - -C "${writer.dir}" data | tar -xf - -C "${targetDir}"`;
      await runProcess({ command: 'sh', args: ['-c', command], env: { PATH: process.env['PATH'] ?? '' } });
    },
    { rounds: 60, stopAtFaults: 1 },
  );
  expect([...result.torn, ...result.lost]).not.toEqual([]);
  await writer.stop();
});
