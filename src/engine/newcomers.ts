/**
 * Limits how many stores the cloud gets to know, and how fast: anyone who reaches the server can
 * invent store ids, and each of them costs disk and memory for ever. A store that is known already
 * is never affected.
 */

/** The most stores that a ledger knows; a command for all stores has to reach every one of them. */
export const maxStores = 10_000;

/** The most new stores a minute, and in one burst after a quiet minute. */
export const maxNewStoresPerMinute = 600;

const minuteMs = 60_000;

export class Newcomers {
  readonly #now: () => number;
  /** How many may come now: a token bucket, filled with time. */
  #tokens = maxNewStoresPerMinute;
  #filledAt: number;

  /** `now`: Unix milliseconds. */
  constructor({ now }: { readonly now: () => number }) {
    this.#now = now;
    this.#filledAt = now();
  }

  /** Admits one new store beside those that are known, or returns why it cannot come now. */
  admit(known: number): string | undefined {
    if (known >= maxStores) {
      return `the cloud knows ${known} stores, and takes no new one beyond ${maxStores}`;
    }
    const now = this.#now();
    const cameMs = Math.max(0, now - this.#filledAt);
    const gained = (cameMs / minuteMs) * maxNewStoresPerMinute;
    this.#tokens = Math.min(maxNewStoresPerMinute, this.#tokens + gained);
    this.#filledAt = now;
    if (this.#tokens < 1) {
      return `the cloud takes at most ${maxNewStoresPerMinute} new stores a minute; try again later`;
    }
    this.#tokens -= 1;
    return undefined;
  }
}
