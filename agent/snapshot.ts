import { createHash } from 'node:crypto';
import { judge, type Verdict } from './checks.ts';
import { AgentError } from './errors.ts';
import type { Logger } from './log.ts';
import { serializeManifest, type Manifest, type ManifestDatabase, type ManifestEntry } from './manifest.ts';
import type { Clock, DatabaseEngine, DatabaseFacts, Disk, FileStat } from './ports.ts';
import { WORK_DIR, type Profile } from './profile.ts';
import { fileMark, observationOf, scanTree, type Scan, type ScannedEntry } from './scan.ts';
import { isWellFormedXml, unsupportedDatabaseReason, wizardCompleted } from './settings-file.ts';

export interface SnapshotDeps {
  disk: Disk;
  databases: DatabaseEngine;
  clock: Clock;
  log: Logger;
  profile: Profile;
}

export interface SnapshotRequest {
  dataDir: string;
  includeBulk: boolean;
}

/** A consistent copy of everything in scope, on local disk; artwork is hashed where it lies and read again when packed. */
export interface Snapshot {
  verdict: Extract<Verdict, { kind: 'configured' }>;
  entries: ManifestEntry[];
  databases: ManifestDatabase[];
  unpackedBytes: number;
  treeDigest: string;
  /** The observation that this snapshot holds: an equal mark later means that nothing changed since. */
  mark: string;
  /** Where the content of an entry lies. */
  sourceOf: (path: string) => string;
}

export type SnapshotResult = { kind: 'snapshot'; snapshot: Snapshot } | { kind: 'unconfigured'; why: string };

/** Left free beside the staged copies, for the server that shares the disk. */
const FREE_RESERVE_BYTES = 64 * 1024 * 1024;
/** Ten tries over two seconds: Jellyfin truncates an XML file and then writes it (facts/jellyfin.md 2.5). */
const XML_TRIES = 10;
const XML_WAIT_MS = 200;
const CONSISTENCY_ROUNDS = 3;
const SQLITE_HEADER = 'SQLite format 3\0';

export function snapshotDirOf(dataDir: string): string {
  return `${dataDir}/${WORK_DIR}/snapshot`;
}

function attributesOf(stat: FileStat) {
  return {
    mode: stat.mode & 0o7777,
    uid: stat.uid,
    gid: stat.gid,
    mtimeMs: Number(BigInt(stat.mtimeNs) / 1_000_000n),
  };
}

interface Content {
  sha256: string;
  sizeBytes: number;
}

interface Staged {
  files: Map<string, Content>;
  facts: Map<string, DatabaseFacts>;
}

/** Equal digests: a restore of either gives the same tree. Times are left out: they change without content. */
export function digestOf(entries: readonly ManifestEntry[]): string {
  const hash = createHash('sha256');
  for (const entry of entries) {
    hash.update(
      JSON.stringify([entry.path, entry.type, entry.mode, entry.uid, entry.gid, entry.sha256 ?? '']),
    );
  }
  return hash.digest('hex');
}

/** Takes snapshots of one data folder. Keeps the hashes of artwork that has not changed since it was last read. */
export class Snapshotter {
  readonly #deps: SnapshotDeps;
  readonly #request: SnapshotRequest;
  readonly #staging: string;
  readonly #bulkHashes = new Map<string, { mark: string; content: Content }>();

  constructor(deps: SnapshotDeps, request: SnapshotRequest) {
    this.#deps = deps;
    this.#request = request;
    this.#staging = snapshotDirOf(request.dataDir);
  }

  /**
   * Copies, checks, and describes. Leaves its copies in the staging folder until `discard`.
   * @throws AgentError `no_space`; `source_damaged` when what lies there must not be published; `source_unsupported`.
   */
  async take(signal?: AbortSignal): Promise<SnapshotResult> {
    const { disk, profile, log } = this.#deps;
    const { dataDir } = this.#request;
    await this.discard();
    const settings = await disk.readStable(`${dataDir}/${profile.settingsFile}`);
    if (settings !== undefined && wizardCompleted(settings.bytes) === false) {
      return { kind: 'unconfigured', why: 'the setup wizard is not completed' };
    }
    await this.#refuseUnsupported();

    for (let round = 1; ; round += 1) {
      await disk.removeTree(this.#staging);
      await disk.makeDir(this.#staging);
      const before = await scanTree(disk, dataDir, profile, this.#request.includeBulk);
      if (before.skipped.length > 0)
        log.warn('not backed up: links, devices or odd names', { paths: before.skipped.slice(0, 20) });
      await this.#requireSpace(before);
      const staged = await this.#stage(before, signal);
      const after = await scanTree(disk, dataDir, profile, false);
      // Files and databases are of one moment only if no file changed while the databases were copied.
      const isOneMoment = this.#filesMark(before, staged.facts) === this.#filesMark(after, staged.facts);
      if (!isOneMoment && round < CONSISTENCY_ROUNDS) continue;
      if (!isOneMoment) log.info('files changed during the snapshot', { rounds: round });
      return await this.#describe(before, staged, signal);
    }
  }

  /** Removes the copies. */
  async discard(): Promise<void> {
    await this.#deps.disk.removeTree(this.#staging);
  }

  async #refuseUnsupported(): Promise<void> {
    const file = await this.#deps.disk.readStable(`${this.#request.dataDir}/config/database.xml`);
    const reason = file === undefined ? undefined : unsupportedDatabaseReason(file.bytes);
    if (reason === undefined) return;
    throw new AgentError('source_unsupported', `config/database.xml: ${reason}`, {
      hint: 'restore the default database settings in Jellyfin; nothing is backed up until then',
    });
  }

  /** Essential files only, without databases: those are one transaction each, whatever their stats do meanwhile. */
  #filesMark(scan: Scan, databases: ReadonlyMap<string, DatabaseFacts>): string {
    return scan.files
      .filter((file) => file.tier === 'essential' && !databases.has(file.path))
      .map((file) => `${file.path}=${fileMark(file.stat)}`)
      .join('\n');
  }

  async #requireSpace(scan: Scan): Promise<void> {
    let neededBytes = FREE_RESERVE_BYTES;
    for (const file of scan.files) if (file.tier === 'essential') neededBytes += file.stat.sizeBytes;
    for (const wal of scan.wals.values()) neededBytes += wal.sizeBytes;
    const freeBytes = await this.#deps.disk.freeBytes(this.#request.dataDir);
    if (freeBytes >= neededBytes) return;
    throw new AgentError(
      'no_space',
      `snapshot needs ${String(neededBytes)} bytes in ${this.#request.dataDir}, ${String(freeBytes)} are free`,
      {
        hint: 'a replica with more vCPU has more ephemeral storage (facts/azure.md 2)',
      },
    );
  }

  /** Files first, databases last: a row may then speak of a file that is there, never the other way round. */
  async #stage(scan: Scan, signal?: AbortSignal): Promise<Staged> {
    const { databases, disk, profile } = this.#deps;
    const staged: Staged = { files: new Map(), facts: new Map() };
    const suspects: string[] = [];
    for (const directory of scan.directories) {
      if (directory.tier === 'essential') await disk.makeDir(`${this.#staging}/${directory.path}`);
    }
    for (const file of scan.files) {
      signal?.throwIfAborted();
      if (file.tier === 'bulk') continue;
      if (file.path.endsWith('.db') || !(await this.#copyFile(file.path, staged))) suspects.push(file.path);
    }
    for (const path of suspects) {
      signal?.throwIfAborted();
      const target = `${this.#staging}/${path}`;
      const outcome = await databases.snapshot(`${this.#request.dataDir}/${path}`, target, signal);
      // Named like a database, but not SQLite's: a file like any other.
      if (outcome === 'not_a_database') await this.#copyFile(path, staged, true);
      else staged.facts.set(path, { quickCheck: '', isWal: false, tables: [], answers: {} });
    }
    for (const path of staged.facts.keys()) {
      signal?.throwIfAborted();
      const target = `${this.#staging}/${path}`;
      const questions = profile.measures.filter((measure) => measure.database === path);
      staged.facts.set(path, await databases.inspect(target, questions));
      staged.files.set(path, await disk.hash(target));
    }
    return staged;
  }

  /** Answers false for a SQLite database under another name: it must be copied through SQLite. */
  async #copyFile(path: string, staged: Staged, evenDatabase = false): Promise<boolean> {
    const { clock, disk, log } = this.#deps;
    const target = `${this.#staging}/${path}`;
    // Looked at before the copy waits for the file to stand still: a plugin's busy database never does.
    if (!evenDatabase && (await this.#hasDatabaseHeader(path))) return false;
    for (let attempt = 1; ; attempt += 1) {
      const copied = await disk.copyStable(`${this.#request.dataDir}/${path}`, target);
      if (copied === undefined) return true;
      if (!evenDatabase && copied.head.startsWith(SQLITE_HEADER)) {
        await disk.removeFile(target);
        return false;
      }
      if (path.endsWith('.xml') && !isWellFormedXml(await readAll(disk, target))) {
        if (attempt < XML_TRIES) {
          await disk.removeFile(target);
          await clock.sleep(XML_WAIT_MS);
          continue;
        }
        // Broken for good, by a crash during a save. Only the settings file decides over the login screen, and `judge`
        // refuses that one; for any other, no backup at all would be worse than one with the broken file.
        log.warn('not well-formed', { path });
      }
      // A plugin that writes its file without end must not keep everything else from being backed up.
      if (!copied.stoodStill) log.warn('backed up while it was being written', { path });
      staged.files.set(path, { sha256: copied.sha256, sizeBytes: copied.sizeBytes });
      return true;
    }
  }

  async #hasDatabaseHeader(path: string): Promise<boolean> {
    try {
      for await (const chunk of this.#deps.disk.read(`${this.#request.dataDir}/${path}`)) {
        return Buffer.from(chunk.subarray(0, SQLITE_HEADER.length)).toString('latin1') === SQLITE_HEADER;
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    return false;
  }

  /** The hash of a file that is not staged; `undefined` when it is gone or would not stand still. */
  async #hashInPlace(file: ScannedEntry): Promise<Content | undefined> {
    const mark = fileMark(file.stat);
    const known = this.#bulkHashes.get(file.path);
    if (known?.mark === mark) return known.content;
    const path = `${this.#request.dataDir}/${file.path}`;
    const content = await this.#deps.disk.hash(path).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    });
    const after = await this.#deps.disk.stat(path);
    if (content === undefined || after === undefined || fileMark(after) !== mark) return undefined;
    this.#bulkHashes.set(file.path, { mark, content });
    return content;
  }

  async #describe(scan: Scan, staged: Staged, signal?: AbortSignal): Promise<SnapshotResult> {
    const { disk, profile } = this.#deps;
    const stagedSettings = `${this.#staging}/${profile.settingsFile}`;
    const wizard = staged.files.has(profile.settingsFile)
      ? (wizardCompleted(await readAll(disk, stagedSettings)) ?? 'unreadable')
      : 'missing';
    const verdict = judge(profile, { wizard, databases: staged.facts });
    if (verdict.kind === 'unconfigured') return verdict;
    if (verdict.kind === 'damaged') {
      throw new AgentError('source_damaged', `nothing is published: ${verdict.why}`, {
        hint: 'the backups made before stay as they are; restore one of them, or repair the server',
      });
    }
    const entries: ManifestEntry[] = scan.directories.map((directory) => ({
      path: directory.path,
      type: 'directory',
      sizeBytes: 0,
      ...attributesOf(directory.stat),
    }));
    let unpackedBytes = 0;
    const inPlace = new Set<string>();
    for (const file of scan.files) {
      signal?.throwIfAborted();
      const content =
        staged.files.get(file.path) ?? (file.tier === 'bulk' ? await this.#hashInPlace(file) : undefined);
      if (content === undefined) continue;
      if (file.tier === 'bulk') inPlace.add(file.path);
      unpackedBytes += content.sizeBytes;
      entries.push({ path: file.path, type: 'file', ...content, ...attributesOf(file.stat) });
    }
    for (const path of this.#bulkHashes.keys()) if (!inPlace.has(path)) this.#bulkHashes.delete(path);
    const snapshot: Snapshot = {
      verdict,
      entries,
      databases: [...staged.facts].map(([path, facts]) => ({ path, isWal: facts.isWal })),
      unpackedBytes,
      treeDigest: digestOf(entries),
      mark: observationOf(scan, profile).mark,
      sourceOf: (path) => `${inPlace.has(path) ? this.#request.dataDir : this.#staging}/${path}`,
    };
    return { kind: 'snapshot', snapshot };
  }
}

async function readAll(disk: Disk, path: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of disk.read(path)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/** The manifest of a snapshot, as the first entry of its archive. */
export function manifestOf(
  snapshot: Snapshot,
  facts: Pick<Manifest, 'profile' | 'createdUtc' | 'epoch' | 'sequence' | 'cleanStop'> & {
    version: string | undefined;
    serverId: string | undefined;
  },
): { manifest: Manifest; bytes: Uint8Array } {
  const { version, serverId, ...rest } = facts;
  const manifest: Manifest = {
    format: 1,
    ...rest,
    jellyfin: { version: version ?? null, serverId: serverId ?? null, migration: snapshot.verdict.migration },
    counts: snapshot.verdict.counts,
    wizardCompleted: true,
    databases: snapshot.databases,
    unpackedBytes: snapshot.unpackedBytes,
    treeDigest: snapshot.treeDigest,
    entries: snapshot.entries,
  };
  return { manifest, bytes: serializeManifest(manifest) };
}
