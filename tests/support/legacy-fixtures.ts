import { cpSync, mkdirSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import type { ContainerClient } from '@azure/storage-blob';
import { createJellyfinTree, openAsJellyfin, type JellyfinTreeOptions } from './jellyfin-tree.ts';
import { Ledger } from './ledger.ts';
import { makeTempDir } from './temp-dir.ts';
import { runProcess } from './processes.ts';

/** What the client's older scripts saw as `/data/data` when they ran. */
export interface LegacyData {
  readonly dir: string;
  readonly serverId: string;
  /** The newest transaction; it is in `jellyfin.db-wal` only. */
  readonly lastSeq: number;
  /** What a reader finds that ignores the `-wal`. */
  readonly lastSeqWithoutWal: number;
}

/** A `/data/data` caught while nobody wrote: `jellyfin.db`, a `-wal` with transactions of its own, `-shm`, the rest. */
export function makeLegacyData(options: JellyfinTreeOptions = {}): LegacyData {
  const tree = createJellyfinTree(makeTempDir('legacy'), options);
  const dir = makeTempDir('legacy-data');
  const database = openAsJellyfin(tree.databaseFile);
  try {
    const ledger = new Ledger(database);
    for (let i = 0; i < 5; i++) ledger.commit();
    database.prepare('PRAGMA wal_checkpoint(TRUNCATE)').all();
    const lastSeqWithoutWal = ledger.lastSeq;
    for (let i = 0; i < 7; i++) ledger.commit();
    // While the connection is open: closing it would move the transactions into the database and remove the -wal.
    cpSync(join(tree.dir, 'data'), dir, { recursive: true });
    return { dir, serverId: tree.serverId, lastSeq: ledger.lastSeq, lastSeqWithoutWal };
  } finally {
    database.close();
  }
}

/** `tar -czf` of the folder as it is, rooted there: `./jellyfin.db`, `./jellyfin.db-wal`, … */
export async function legacyTarball(dataDir: string): Promise<Buffer> {
  const file = join(makeTempDir('legacy-tar'), 'backup.tar.gz');
  const { code, stderr } = await runProcess({
    command: 'tar',
    args: ['-czf', file, '-C', dataDir, '.'],
    env: { PATH: process.env['PATH'] ?? '' },
  });
  // 1 is "file changed as we read it", which the older scripts did not look at either.
  if (code !== 0 && code !== 1) throw new Error(`tar ended with ${code}: ${stderr}`);
  return readFileSync(file);
}

/** What the older scripts uploaded when the folder was empty: about 130 bytes, and a valid archive. */
export function emptyTarball(): Promise<Buffer> {
  const dir = join(makeTempDir('legacy-empty'), 'data');
  mkdirSync(dir);
  return legacyTarball(dir);
}

/** Uploads `backup-<timestamp>.tar.gz` (`timestamp`: YYYYMMDDHHMMSS) and returns its name. */
export async function uploadLegacyTarball(
  container: ContainerClient,
  timestamp: string,
  content: Buffer | string,
): Promise<string> {
  const name = `backup-${timestamp}.tar.gz`;
  const bytes = typeof content === 'string' ? await legacyTarball(content) : content;
  await container.getBlockBlobClient(name).uploadData(bytes);
  return name;
}

/** Uploads every file of the folder as `backup-<timestamp>/…` and returns that prefix, with the slash. */
export async function uploadLegacyFolder(
  container: ContainerClient,
  timestamp: string,
  dataDir: string,
): Promise<string> {
  const prefix = `backup-${timestamp}/`;
  for (const path of readdirSync(dataDir, { recursive: true, encoding: 'utf8' })) {
    const file = join(dataDir, path);
    if (!statSync(file).isFile()) continue;
    await container.getBlockBlobClient(prefix + relative(dataDir, file)).uploadFile(file);
  }
  return prefix;
}
