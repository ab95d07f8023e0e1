import type { Secret } from '../secret.ts';

/** What the engine names its archives, in the server's local time. */
export const ENGINE_FILE_NAME = /^jellyfin-backup-\d{14}\.zip$/;

/** One archive in Jellyfin's backup folder, as the engine lists it: an archive that is still written is not listed. */
export interface EngineBackup {
  /** Without a folder: the path is one of Jellyfin's container (facts/jellyroller.md 4). */
  fileName: string;
  serverVersion: string;
  engineVersion: string;
  /** In UTC; the file name holds the server's local time. */
  createdUtc: string;
}

export type CreateAnswer =
  /** The engine says that the archive is complete. The list and the file decide all the same. */
  | { kind: 'done' }
  /** No answer: the engine may still be writing (the CLI gives up after 30 s, the server does not). */
  | { kind: 'unknown'; why: string }
  /** The engine did not begin, or gave up and deleted what it had. */
  | { kind: 'refused'; why: string; isRetryable: boolean };

/**
 * Gives the API key. `refused` is the key that the server has just refused: a restore replaces the table of keys, so
 * another one may have to be made. A source that has no other answers with the same key again.
 */
export type ApiKeySource = (refused: Secret | undefined, signal?: AbortSignal) => Promise<Secret>;

/**
 * Jellyfin's own backup engine. Two drivers: the JellyRoller CLI and the HTTP API that it calls. Both pass one suite.
 *
 * Every call throws an `AgentError`: `jellyfin_unavailable` (retryable) when nobody answers or the server is starting,
 * `external_failed` when the key is refused, or the answer is not what the API promises. An aborted call throws the
 * signal's reason, but for a `create` that has begun: that one answers `unknown`.
 */
export interface BackupEngine {
  readonly driver: 'jellyroller' | 'http';
  /** Complete archives, in no order that means anything. Proves also that the key is good. */
  list(signal?: AbortSignal): Promise<EngineBackup[]>;
  /**
   * Begins a backup and waits for the answer, as long as it takes or the driver can. Never call it while another may be
   * running: the engine has no lock, two would run side by side.
   *
   * A server that says no, or is not there, is an answer (`refused`) and not an error. Thrown is only what makes the driver
   * itself useless: an answer that is not Jellyfin's, a CLI that cannot run.
   */
  create(signal?: AbortSignal): Promise<CreateAnswer>;
  /**
   * Asks the server to restart into a restore of `fileName`. When this resolves the restore is accepted, not done. A
   * `jellyfin_unavailable` that is not retryable: the connection was lost, the restore may have been accepted.
   * @throws AgentError `backup_missing` when the archive is not in Jellyfin's backup folder.
   */
  restore(fileName: string, signal?: AbortSignal): Promise<void>;
}
