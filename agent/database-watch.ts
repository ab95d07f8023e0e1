import type { Disk } from './ports.ts';
import { fileMark } from './scan.ts';

/**
 * Looks at the main database's `-wal`: the last connection that closes removes it.
 *
 * An empty one is ambiguous. A server that has only read since its start, or since its last truncating checkpoint, has
 * one; and our own read-only snapshot of a database that the server has closed makes one. So an empty `-wal` means
 * "closed" only if it was another one, or not empty, when it was last looked at.
 */
export class DatabaseWatch {
  readonly #disk: Disk;
  readonly #walFile: string;
  #mark: string | undefined;
  #isClosed = false;

  /** @param databaseFile The main database, with its folder. */
  constructor(disk: Disk, databaseFile: string) {
    this.#disk = disk;
    this.#walFile = `${databaseFile}-wal`;
  }

  /** @param isStopping Only a server that stops closes its database. */
  async look(isStopping: boolean): Promise<void> {
    const wal = await this.#disk.stat(this.#walFile);
    const mark = wal === undefined ? undefined : fileMark(wal);
    if (!isStopping || (wal !== undefined && wal.sizeBytes > 0)) this.#isClosed = false;
    else if (wal === undefined || mark !== this.#mark) this.#isClosed = true;
    this.#mark = mark;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }
}
