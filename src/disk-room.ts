/**
 * How much a database may still grow, so that a disk that is nearly full keeps room for what must go on:
 * marks of acknowledged events, pruning, reports.
 *
 * Three places give room. The file system has free bytes. The log (`-wal`) keeps its file when it
 * begins again at its start, so its bytes are written again and again. And the file has free pages where
 * rows were removed: new rows use them before the file grows. Free pages do not help the log, so what it
 * needs is counted apart.
 */

import { formatBytes } from "./bytes.ts";
import { StatusError } from "./errors.ts";
import type { Database } from "./sqlite.ts";

export interface Room {
  /** The bytes that the file system still gives to this user. */
  readonly free: number;
  /** The bytes of the log's file, at most what the log keeps when it begins again. */
  readonly log: number;
  /** The bytes of the free pages inside the file. Not looked for, and 0, while `free` is enough. */
  readonly unused: number;
  /** Whether less than twice the reserve is free, so that transactions should be small. */
  readonly isShort: boolean;
  /** Whether new rows may be written. */
  readonly isEnough: boolean;
}

export interface DiskRoomOptions {
  readonly database: Database;
  /** Returns the free bytes of the file system. */
  readonly free: () => number;
  /** The bytes that new rows leave for other writes. Half of them must be there for the log alone. */
  readonly reserveBytes: number;
}

export class DiskRoom {
  readonly #options: DiskRoomOptions;

  constructor(options: DiskRoomOptions) {
    this.#options = options;
  }

  /**
   * Looks at the disk, which takes some microseconds. While less than twice the reserve is free, every
   * commit of this connection is followed by a checkpoint. Then the log stays as small as one
   * transaction, and the file has grown to its size before another program takes what is free.
   */
  look(): Room {
    const { database, reserveBytes } = this.#options;
    // A disk that does not answer is not full. Whoever writes to it learns what is wrong.
    const free = this.#free() ?? Number.POSITIVE_INFINITY;
    const isShort = free < 2 * reserveBytes;
    database.checkpointEachCommit(isShort);
    if (free >= reserveBytes) {
      return { free, log: 0, unused: 0, isShort, isEnough: true };
    }
    const log = database.keptLogBytes();
    const unused = database.unusedBytes();
    const isEnough = free + log + unused >= reserveBytes && free + log >= reserveBytes / 2;
    return { free, log, unused, isShort, isEnough };
  }

  #free(): number | undefined {
    try {
      return this.#options.free();
    } catch {
      return undefined;
    }
  }

  /**
   * Throws RESOURCE_EXHAUSTED, with the numbers, if new rows may not be written now. `keptFor` says what
   * the reserve is for, and `hint` what a person can do.
   */
  insistOnEnough({ keptFor, hint }: { readonly keptFor: string; readonly hint: string }): void {
    const { database, reserveBytes } = this.#options;
    const { free, log, unused, isEnough } = this.look();
    if (!isEnough) {
      const left = `${formatBytes(free)} are left, with ${formatBytes(log)} in its log and ${formatBytes(unused)} in its free pages`;
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `the disk of ${database.path} is full: ${left}, and ${formatBytes(reserveBytes)} are kept for ${keptFor}`,
        { hint },
      );
    }
  }
}
