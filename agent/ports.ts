import type { Library, MediaFolder, NewLibrary } from './libraries.ts';
import type { Secret } from './secret.ts';

/**
 * What the agent needs of the outside world. Adapters implement these; everything else is written against them, so that
 * a test can stop the world between any two calls.
 */

export interface BlobItem {
  name: string;
  sizeBytes: number;
  etag: string;
  lastModified: Date;
  /** Keys in lower case, as the service returns them. */
  metadata: Readonly<Record<string, string>>;
}

export interface BlobPage {
  items: BlobItem[];
  continuation: string | undefined;
}

export interface FoundBlob {
  bytes: Uint8Array;
  etag: string;
  /** Since it was last written, by the service's own times (`Date` less `Last-Modified`), in whole seconds. */
  ageMs: number;
}

export interface WriteCondition {
  /** Only if the blob still has this etag. */
  ifMatch?: string;
  /** Only if no such blob exists. */
  ifAbsent?: true;
}

/**
 * A container of blobs. Every call throws an `AgentError` whose code says which question was answered:
 * `store_container_missing`, `store_denied`, `store_unreachable` (retryable), `store_conflict` (a condition did not hold),
 * `store_rejected` (the service says the request is wrong). "Absent" is never an error: it is `undefined`, and only a
 * `BlobNotFound` means it.
 */
export interface BlobStore {
  describe(): string;
  /** One page of a flat listing with metadata; at most 5,000 items, maybe none although more follow. */
  listPage(prefix: string, continuation: string | undefined, signal?: AbortSignal): Promise<BlobPage>;
  head(name: string, signal?: AbortSignal): Promise<BlobItem | undefined>;
  /** Exactly `count` bytes from `offset`, or fewer at the end of the blob. `ifMatch` keeps a reader on one version. */
  readRange(
    name: string,
    range: { offset: number; count: number; ifMatch?: string },
    signal?: AbortSignal,
  ): Promise<Uint8Array>;
  /** A small blob as a whole. */
  find(name: string, signal?: AbortSignal): Promise<FoundBlob | undefined>;
  /** Writes a small blob in one request; answers its etag. */
  put(name: string, bytes: Uint8Array, condition: WriteCondition, signal?: AbortSignal): Promise<string>;
  /**
   * Stages one block with its MD5, so that the service refuses bytes that changed on the way. The caller uses the bytes
   * again once the call has ended.
   */
  stageBlock(name: string, blockId: string, bytes: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** Makes the staged blocks visible as a blob, all or nothing, and only if no blob of that name exists. */
  commitNew(
    name: string,
    blockIds: readonly string[],
    metadata: Readonly<Record<string, string>>,
    signal?: AbortSignal,
  ): Promise<void>;
  setMetadata(
    name: string,
    metadata: Readonly<Record<string, string>>,
    condition: WriteCondition,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Deletes the blob if it still is the one with `ifMatch`; a blob that is gone is fine. */
  remove(name: string, ifMatch: string, signal?: AbortSignal): Promise<void>;
}

export interface Clock {
  /** Wall time: for names and display, never for order. */
  now(): Date;
  /** Milliseconds that never jump: for windows and deadlines. */
  monotonicMs(): number;
  /** Resolves early, without error, when the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface FileStat {
  type: 'file' | 'directory' | 'link' | 'other';
  sizeBytes: number;
  /** Nanoseconds since the epoch as a string: numbers would lose the last digits that tell two writes apart. */
  mtimeNs: string;
  inode: string;
  mode: number;
  uid: number;
  gid: number;
}

export interface FileAttributes {
  mode: number;
  uid: number;
  gid: number;
  mtimeMs: number;
}

/** The local file system. Only `ENOENT` reads as `undefined`; everything else throws. */
export interface Disk {
  stat(path: string): Promise<FileStat | undefined>;
  /** Names in a folder, sorted; `undefined` when there is no such folder. */
  names(dir: string): Promise<string[] | undefined>;
  /** A whole file that stood still while it was read; `undefined` when it is not there. */
  readStable(path: string): Promise<{ bytes: Uint8Array; stat: FileStat } | undefined>;
  read(path: string): AsyncIterable<Uint8Array>;
  hash(path: string, signal?: AbortSignal): Promise<{ sizeBytes: number; sha256: string }>;
  /**
   * Copies a file into a new one, as soon as it stands still while it is read; after two seconds as it is, and says so.
   * `undefined` when it is not there. `head` holds the first bytes, one character a byte.
   */
  copyStable(
    source: string,
    target: string,
  ): Promise<{ sizeBytes: number; sha256: string; head: string; stoodStill: boolean } | undefined>;
  /** Creates a new file with mode 0600 and answers its size and SHA-256; existing files are refused. */
  create(path: string, content: AsyncIterable<Uint8Array>): Promise<{ sizeBytes: number; sha256: string }>;
  /** Replaces a small file so that a reader sees the old or the new one, also after a power cut. */
  replace(path: string, bytes: Uint8Array): Promise<void>;
  makeDir(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  removeFile(path: string): Promise<void>;
  removeTree(path: string): Promise<void>;
  /** Owner, mode, time. A process that may not give files away keeps its own as owner and answers false. */
  setAttributes(path: string, attributes: FileAttributes): Promise<boolean>;
  /** Flushes a file or a folder. */
  sync(path: string): Promise<void>;
  freeBytes(path: string): Promise<number>;
}

export interface DatabaseQuestion {
  name: string;
  /** Asked only where this table exists. */
  table: string;
  /** One row, one column named `answer`. */
  sql: string;
}

export interface DatabaseFacts {
  /** `ok`, or what SQLite found. */
  quickCheck: string;
  /** Header bytes 18 and 19 are both 2: the file opens in WAL mode. */
  isWal: boolean;
  tables: string[];
  answers: Record<string, number | string | null>;
}

export interface DatabaseEngine {
  /**
   * Copies a live database through SQLite, opened read-only, in one step.
   * @returns `not_a_database` when the file has no SQLite header; nothing is written then.
   */
  snapshot(source: string, target: string, signal?: AbortSignal): Promise<'copied' | 'not_a_database'>;
  /** Examines a private copy; never a live database. */
  inspect(copy: string, questions: readonly DatabaseQuestion[]): Promise<DatabaseFacts>;
  /**
   * Folds the `-wal` beside a private copy into it, as the server's next start would have done.
   * @param setWal Also sets WAL mode: Jellyfin expects it and never sets it itself.
   */
  settle(copy: string, setWal: boolean): Promise<void>;
  /**
   * Compares two private copies, table by table: how many rows are new or changed, or gone, whichever is
   * more. A table that only one of them has counts with all of its rows; tables without a difference are left out.
   */
  compare(copy: string, earlier: string, signal?: AbortSignal): Promise<Record<string, number>>;
}

export interface ArchiveEntry {
  path: string;
  type: 'file' | 'directory';
  sizeBytes: number;
  attributes: FileAttributes;
}

export interface UnpackedEntry extends Omit<ArchiveEntry, 'type'> {
  /** Anything that is neither file nor directory keeps tar's own name for it, so that it can be refused by name. */
  type: string;
}

export interface Archiver {
  /** `manifest.json` alone, as its own frame at the head of the archive. */
  packManifest(manifest: Uint8Array): Promise<Uint8Array>;
  packTree(
    entries: Iterable<ArchiveEntry>,
    open: (entry: ArchiveEntry) => AsyncIterable<Uint8Array>,
  ): AsyncIterable<Uint8Array>;
  unpackManifest(frame: Uint8Array): Promise<Uint8Array>;
  /** Calls `receive` for each entry in order; `manifestBytes` is where the first frame ends, `undefined` for gzip. */
  unpack(
    archive: AsyncIterable<Uint8Array>,
    format: { kind: 'zstd'; manifestBytes: number } | { kind: 'gzip' },
    receive: (entry: UnpackedEntry, content: AsyncIterable<Uint8Array>) => Promise<void>,
  ): Promise<void>;
  /** Where the first zstd frame of an archive ends, for a blob that lost its metadata; `undefined`: more bytes needed. */
  firstFrameBytes(head: Uint8Array): number | undefined;
}

export interface ExaminedZip {
  /** Of all entries, folders end in `/`. */
  paths: string[];
  /** The content of the entries that were asked for, by path; one that is not in the archive is missing here. */
  kept: ReadonlyMap<string, Uint8Array>;
}

export interface ZipReader {
  /**
   * Reads a whole archive: its directory, every entry, every checksum.
   * @throws AgentError `backup_damaged` when it is cut, still being written, or no archive at all.
   */
  examine(file: string, keep: readonly string[], signal?: AbortSignal): Promise<ExaminedZip>;
}

export type JellyfinHealth = 'healthy' | 'starting' | 'refused';

export interface JellyfinServer {
  /** `healthy` only on a body that is exactly `Healthy`: the start-up server answers 200 `Degraded`. */
  health(signal?: AbortSignal): Promise<JellyfinHealth>;
  /** Version and id; only to be believed after `healthy`. `undefined` when it does not answer. */
  publicInfo(signal?: AbortSignal): Promise<{ version: string; serverId: string } | undefined>;
}

/**
 * The calls of Jellyfin's own setup wizard. Throws as `JellyfinKeys` does. With a session they work also when the wizard is
 * closed; without one it is open to anybody.
 */
export interface JellyfinSetup {
  /** `undefined` when the server is not ready to say. Only to be believed after `healthy`. */
  wizardCompleted(signal?: AbortSignal): Promise<boolean | undefined>;
  /** Names the first user and sets its password; false when it already has one (Jellyfin 12). */
  createAdministrator(admin: { name: string; password: Secret }, signal?: AbortSignal): Promise<boolean>;
  /** Closes the wizard: from now on only the administrator configures the server. */
  finishWizard(signal?: AbortSignal): Promise<void>;
  /** The server's name, language, and that it answers from outside its network. */
  configureServer(session: Secret, signal?: AbortSignal): Promise<void>;
  /** Folders directly below `path`, as the server sees them. */
  folders(session: Secret, path: string, signal?: AbortSignal): Promise<MediaFolder[]>;
  libraries(session: Secret, signal?: AbortSignal): Promise<Library[]>;
  /** Also begins a scan. */
  addLibrary(session: Secret, library: NewLibrary, signal?: AbortSignal): Promise<void>;
}

export interface ServerApiKey {
  /** The name that whoever made it gave; not unique. */
  appName: string;
  token: Secret;
}

/**
 * The API keys of a server that is set up, through a session of its administrator. Every call throws an `AgentError`:
 * `external_failed` when the server refuses who asks, `jellyfin_unavailable` (retryable) when it does not answer, is
 * starting, or forgot the session.
 */
export interface JellyfinKeys {
  /** @returns the token of a new session of its own: signing in elsewhere does not end it. */
  signIn(admin: { name: string; password: Secret }, signal?: AbortSignal): Promise<Secret>;
  /** Ends a session; one that is gone is fine. */
  signOut(session: Secret, signal?: AbortSignal): Promise<void>;
  /** In the order in which the server stored them. */
  apiKeys(session: Secret, signal?: AbortSignal): Promise<ServerApiKey[]>;
  /** The server answers nothing about the key: it is read back with `apiKeys`. */
  createApiKey(session: Secret, appName: string, signal?: AbortSignal): Promise<void>;
  /** One that is gone is fine. */
  deleteApiKey(session: Secret, key: Secret, signal?: AbortSignal): Promise<void>;
  /** Whether the server takes `key` for an administrator's. */
  isKeyValid(key: Secret, signal?: AbortSignal): Promise<boolean>;
}

/** What a server holds, asked with an API key. Every call throws an `AgentError` as `JellyfinKeys` does. */
export interface ServerInventory {
  /** Sorted. */
  userNames(key: Secret, signal?: AbortSignal): Promise<string[]>;
  /** Sorted. */
  libraryNames(key: Secret, signal?: AbortSignal): Promise<string[]>;
}
