/**
 * Many small writes share one commit, which is what makes an fsync before every answer affordable.
 *
 * By default a batch stays open while every turn of the event loop adds to it, and is committed at the
 * end of the first turn that adds nothing. So nobody waits while the disk and the processor are idle,
 * and a lone caller waits for no more than a turn in which nothing else was ready. The fsync blocks the
 * event loop: requests that arrive meanwhile wait in the kernel's socket buffers, are read in the turns
 * after it, and share the next one. Batches therefore grow with the load and with the time that the
 * disk takes.
 *
 * Where throughput matters more than the time until an answer, `lingerMs` lets a batch wait for
 * company, as Kafka's `linger.ms` does: each commit costs an fsync however much is in it.
 */

export interface GroupCommitOptions<T, R> {
  /** Writes a batch in order and makes it last; the results are in the order of the items. */
  readonly commit: (items: readonly T[]) => readonly R[];
  readonly clock: Sleeper;
  /** A batch of so many is committed without waiting any longer. */
  readonly maxItems?: number;
  /** How large an item is, in any unit. Left out, items have no size. */
  readonly sizeOf?: (item: T) => number;
  /** A batch of so much is committed at once: a commit must not hold up everything else for long. */
  readonly maxSize?: number;
  /**
   * How long a batch waits for more items if the previous batch had more than one, in milliseconds;
   * after a batch of one the next is committed at the end of the turn. Without it, a batch is committed
   * as soon as a turn adds nothing to it.
   */
  readonly lingerMs?: number;
}

/** This was the best value between 64 and 4096, measured over loopback: see docs/performance.md. */
const defaultMaxItems = 512;

/**
 * How long a batch may stay open because every turn adds to it, in milliseconds. A till that shares the
 * bridge with a stream of thousands of events waits no longer than this for them.
 */
const maxOpenMs = 2;

/** What it needs of a clock. */
interface Sleeper {
  monotonic(): number;
  sleep(ms: number, options: { signal: AbortSignal }): Promise<void>;
}

const never = new AbortController().signal;

export class GroupCommit<T, R> {
  readonly #commit: (items: readonly T[]) => readonly R[];
  readonly #clock: Sleeper;
  readonly #maxItems: number;
  readonly #lingerMs: number | undefined;
  readonly #sizeOf: (item: T) => number;
  readonly #maxSize: number;
  #size = 0;
  #waiting: { item: T; resolve: (result: R) => void; reject: (error: unknown) => void }[] = [];
  #isBusy = false;

  constructor(options: GroupCommitOptions<T, R>) {
    this.#commit = options.commit;
    this.#clock = options.clock;
    this.#maxItems = options.maxItems ?? defaultMaxItems;
    this.#lingerMs = options.lingerMs;
    this.#sizeOf = options.sizeOf ?? (() => 0);
    this.#maxSize = options.maxSize ?? Number.POSITIVE_INFINITY;
  }

  /**
   * Resolves when the item's batch is committed, in the order of the calls. Rejects with what
   * `commit` throws, and so do all others of the batch.
   */
  add(item: T): Promise<R> {
    return new Promise((resolve, reject) => {
      const batch = this.#waiting;
      batch.push({ item, resolve, reject });
      this.#size += this.#sizeOf(item);
      if (batch.length >= this.#maxItems || this.#size >= this.#maxSize) {
        this.flush();
      } else if (batch.length === 1) {
        this.#wait(batch);
      }
    });
  }

  /** Commits the batch when it has waited long enough, unless that has happened before. */
  async #wait(batch: readonly unknown[]): Promise<void> {
    const turn = () => this.#clock.sleep(0, { signal: never });
    if (this.#lingerMs !== undefined) {
      const lingerMs = this.#isBusy ? this.#lingerMs : 0;
      await this.#clock.sleep(lingerMs, { signal: never });
    } else {
      const until = this.#clock.monotonic() + maxOpenMs;
      await turn();
      for (let size = 0; size < batch.length && this.#clock.monotonic() < until; ) {
        size = batch.length;
        await turn();
      }
    }
    if (batch === this.#waiting) {
      this.flush();
    }
  }

  /** Commits what waits, now. */
  flush(): void {
    const batch = this.#waiting;
    if (batch.length === 0) {
      return;
    }
    this.#waiting = [];
    this.#size = 0;
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
