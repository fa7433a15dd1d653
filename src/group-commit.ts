/**
 * Many small writes, one commit: what makes an fsync before every answer affordable.
 *
 * A write that comes alone is committed at once. When others keep coming, as on a busy stream, a
 * batch waits a few milliseconds for them, since each commit costs an fsync however much is in it.
 */

export interface GroupCommitOptions<T, R> {
  /** Writes a batch in order and makes it last; the results are in the order of the items. */
  readonly commit: (items: readonly T[]) => readonly R[];
  readonly clock: Sleeper;
  /** A batch of so many is committed without waiting any longer. */
  readonly maxItems?: number;
  /** How long a batch waits for more, in milliseconds. */
  readonly lingerMs?: number;
}

/** Measured as best of 64 to 4096, over loopback: see docs/performance.md. */
const defaultMaxItems = 512;

/** Below it a busy stream's batches are small, above it its window stands full and waits. */
const defaultLingerMs = 4;

/** What it needs of a clock. */
interface Sleeper {
  sleep(ms: number, options: { signal: AbortSignal }): Promise<void>;
}

const never = new AbortController().signal;

export class GroupCommit<T, R> {
  readonly #commit: (items: readonly T[]) => readonly R[];
  readonly #clock: Sleeper;
  readonly #maxItems: number;
  readonly #lingerMs: number;
  #waiting: { item: T; resolve: (result: R) => void; reject: (error: unknown) => void }[] = [];
  #isBusy = false;

  constructor(options: GroupCommitOptions<T, R>) {
    this.#commit = options.commit;
    this.#clock = options.clock;
    this.#maxItems = options.maxItems ?? defaultMaxItems;
    this.#lingerMs = options.lingerMs ?? defaultLingerMs;
  }

  /**
   * Resolves when the item's batch is committed, in the order of the calls. Rejects with what
   * `commit` throws, and so do all others of the batch.
   */
  add(item: T): Promise<R> {
    return new Promise((resolve, reject) => {
      const batch = this.#waiting;
      batch.push({ item, resolve, reject });
      if (batch.length === 1) {
        const lingerMs = this.#isBusy ? this.#lingerMs : 0;
        this.#clock.sleep(lingerMs, { signal: never }).then(() => {
          if (batch === this.#waiting) {
            this.flush();
          }
        });
      } else if (batch.length >= this.#maxItems) {
        this.flush();
      }
    });
  }

  /** Commits what waits, now. */
  flush(): void {
    const batch = this.#waiting;
    if (batch.length === 0) {
      return;
    }
    this.#waiting = [];
    this.#isBusy = batch.length > 1;
    try {
      const results = this.#commit(batch.map(({ item }) => item));
      for (const [i, { resolve }] of batch.entries()) {
        resolve(results[i] as R);
      }
    } catch (error) {
      for (const { reject } of batch) {
        reject(error);
      }
    }
  }
}
