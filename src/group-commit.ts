/**
 * Many small writes share one commit, which is what makes an fsync before every answer affordable.
 *
 * By default a batch is committed at the end of the event-loop turn in which its first item was added.
 * Everything that was read from the sockets in that turn shares the fsync. The fsync blocks the event
 * loop, so the requests that arrive meanwhile wait in the kernel's socket buffers, are read together
 * in the next turn and share the next one. The batches therefore grow with the load and with the time
 * that the disk takes, and nobody waits while the disk is idle.
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
  /**
   * How long a batch waits for more items if the previous batch had more than one, in milliseconds.
   * After a batch of one the next is committed at the end of the turn, so that a lone caller never
   * waits. The default is 0: every batch is committed at the end of the turn.
   */
  readonly lingerMs?: number;
}

/** This was the best value between 64 and 4096, measured over loopback: see docs/performance.md. */
const defaultMaxItems = 512;

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
    this.#lingerMs = options.lingerMs ?? 0;
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
        // A sleep of 0 ends when the event loop has handled everything that was ready in this turn.
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
