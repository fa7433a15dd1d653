/**
 * Notes in the outbox what the cloud has answered. Nobody waits for a mark, but each commit is an fsync
 * on the disk that the tills wait for, so marks are written together.
 *
 * A disk that is full or dying takes no marks, and the sales on it are the ones that should leave it. So
 * marks that cannot be written are kept in memory and tried again after a growing wait, while the drain
 * goes on. Those that are lost with the process cost a repetition, which the cloud recognizes.
 */

import { backoffMs } from "../backoff.ts";
import type { Clock, Random } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { GroupCommit } from "../group-commit.ts";
import { DamagedError } from "../sqlite.ts";
import type { Outbox, Settlement } from "./outbox.ts";

/** Is told why marks cannot be written, and after how many milliseconds they are tried again. */
export type OnUnmarked = (why: StatusError, waitMs: number) => void;

export interface MarksOptions {
  readonly outbox: Pick<Outbox, "settle">;
  readonly clock: Clock;
  readonly random: Random;
  /** Ends the attempts; what is kept then rejects with its reason. */
  readonly signal: AbortSignal;
  readonly onUnmarked?: OnUnmarked | undefined;
  /** These two mean what they mean in `GroupCommitOptions`. */
  readonly maxItems: number;
  readonly lingerMs: number;
}

/** The waits between attempts to write, in milliseconds. */
const markBackoff = { baseMs: 1_000, capMs: 30_000 };

interface Item {
  readonly settlements: readonly Settlement[];
  readonly written: PromiseWithResolvers<void>;
}

export class Marks {
  readonly #options: MarksOptions;
  readonly #group: GroupCommit<Item, undefined>;
  /** The positions whose mark is not on the disk. */
  readonly #positions = new Set<number>();
  #kept: Item[] = [];
  #failures = 0;
  #isWaiting = false;

  constructor(options: MarksOptions) {
    const { clock, maxItems, lingerMs } = options;
    this.#options = options;
    this.#group = new GroupCommit({
      ...{ clock, maxItems, lingerMs },
      commit: (items): readonly undefined[] => {
        this.#kept.push(...items);
        if (this.#failures === 0) {
          this.#write();
        }
        return [];
      },
    });
  }

  /** Counts the events that wait for their marks to be written. */
  get size(): number {
    return this.#positions.size;
  }

  /** Whether the event at this position has its answer, and the outbox does not know yet. */
  has(position: number): boolean {
    return this.#positions.has(position);
  }

  /**
   * Resolves when the marks are on the disk, whenever that may be. Rejects with what time does not
   * heal, such as `DamagedError`, and with the signal's reason.
   */
  async add(settlements: readonly Settlement[]): Promise<void> {
    for (const { position } of settlements) {
      this.#positions.add(position);
    }
    const item: Item = { settlements, written: Promise.withResolvers() };
    await Promise.all([this.#group.add(item), item.written.promise]);
  }

  /** Writes what has gathered, unless the disk has just refused some: that has its own time. */
  flush(): void {
    this.#group.flush();
  }

  /** Writes everything now, whatever the disk has said before. Returns why that was not possible. */
  force(): unknown {
    this.#group.flush();
    return this.#kept.length > 0 ? this.#write() : undefined;
  }

  /** Returns the error, if there was one. */
  #write(): unknown {
    const { outbox, random, onUnmarked } = this.#options;
    try {
      outbox.settle(this.#kept.flatMap(({ settlements }) => settlements));
    } catch (error) {
      if (!(error instanceof StatusError) || error instanceof DamagedError) {
        this.#giveUp(error);
        return error;
      }
      this.#failures += 1;
      const waitMs = backoffMs(this.#failures, markBackoff, random);
      onUnmarked?.(error, waitMs);
      this.#retry(waitMs);
      return localError(error);
    }
    this.#failures = 0;
    for (const { settlements, written } of this.#take()) {
      for (const { position } of settlements) {
        this.#positions.delete(position);
      }
      written.resolve();
    }
    return undefined;
  }

  async #retry(waitMs: number): Promise<void> {
    if (this.#isWaiting) {
      return;
    }
    this.#isWaiting = true;
    try {
      await this.#options.clock.sleep(waitMs, this.#options);
    } catch (reason) {
      this.#giveUp(reason);
      return;
    } finally {
      this.#isWaiting = false;
    }
    if (this.#kept.length > 0) {
      this.#write();
    }
  }

  #giveUp(reason: unknown): void {
    for (const { settlements, written } of this.#take()) {
      for (const { position } of settlements) {
        this.#positions.delete(position);
      }
      written.reject(reason);
    }
  }

  #take(): Item[] {
    const kept = this.#kept;
    this.#kept = [];
    return kept;
  }
}

/**
 * What a drainer throws when the store's own disk fails. It is UNAVAILABLE, whatever the disk said: to a
 * drainer RESOURCE_EXHAUSTED means that the cloud cannot take an event, and it would search for the event.
 */
export function localError(error: unknown): unknown {
  return error instanceof StatusError && !(error instanceof DamagedError)
    ? new StatusError("UNAVAILABLE", error.message, { cause: error, ...hintOf(error) })
    : error;
}

/** Does something with the store's own disk; throws `localError`. */
export function onOurDisk<T>(act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw localError(error);
  }
}

const hintOf = ({ hint }: StatusError) => (hint === undefined ? {} : { hint });
