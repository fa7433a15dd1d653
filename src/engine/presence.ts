/**
 * Which stores are there now, when each was heard of last, and of which something has changed. In
 * memory: the ledger writes down when a store was seen, within seconds.
 */

import { Bell } from "../bell.ts";

interface Heard {
  /** How many of its streams are open now. */
  streams: number;
  /** Unix milliseconds. */
  at: number;
  /** Grows with every change of any store. */
  revision: number;
}

export class Presence {
  /** Rings when something of a store has changed. */
  readonly changed = new Bell();
  readonly #now: () => number;
  readonly #isKnown: (storeId: string) => boolean;
  readonly #onHeard: (storeId: string) => void;
  readonly #heard = new Map<string, Heard>();
  readonly #unsaved = new Set<string>();
  #revision = 0;

  /**
   * A store that `isKnown` says no of is forgotten when its last stream ends, so that invented names
   * take no memory for longer than the streams that bear them. `onHeard` is called at every contact with a
   * store.
   */
  constructor({
    now,
    isKnown,
    onHeard = () => {},
  }: {
    readonly now: () => number;
    readonly isKnown: (storeId: string) => boolean;
    readonly onHeard?: (storeId: string) => void;
  }) {
    this.#now = now;
    this.#isKnown = isKnown;
    this.#onHeard = onHeard;
  }

  /** A stream of the store is open, until the function that is returned is called. */
  enter(storeId: string): () => void {
    this.#hear(storeId, this.#now()).streams += 1;
    this.changed.ring();
    let isOpen = true;
    return () => {
      if (isOpen) {
        isOpen = false;
        const heard = this.#hear(storeId, this.#now());
        heard.streams -= 1;
        if (heard.streams === 0 && !this.#isKnown(storeId)) {
          this.#heard.delete(storeId);
          this.#unsaved.delete(storeId);
        }
        this.changed.ring();
      }
    };
  }

  /** The store has sent something. Whoever calls this rings the bell. */
  hear(storeId: string, at: number): void {
    this.#hear(storeId, at);
  }

  /** Notes a change of these stores that they did not make themselves; unknown ones are left out. */
  touch(storeIds: readonly string[]): void {
    for (const storeId of storeIds) {
      if (!this.#isKnown(storeId)) {
        continue;
      }
      const heard = this.#heard.get(storeId);
      this.#revision += 1;
      if (heard === undefined) {
        this.#heard.set(storeId, { streams: 0, at: 0, revision: this.#revision });
      } else {
        heard.revision = this.#revision;
      }
    }
    this.changed.ring();
  }

  isConnected(storeId: string): boolean {
    return (this.#heard.get(storeId)?.streams ?? 0) > 0;
  }

  /** When the store was heard of last, in Unix milliseconds; 0 if not since this server began. */
  seenAt(storeId: string): number {
    const heard = this.#heard.get(storeId);
    return heard === undefined ? 0 : heard.streams > 0 ? this.#now() : heard.at;
  }

  /** A place in the order of changes. */
  get revision(): number {
    return this.#revision;
  }

  /** The stores of which something has changed behind that place. */
  changedSince(revision: number): string[] {
    return this.#revision === revision
      ? []
      : Array.from(this.#heard)
          .filter(([, heard]) => heard.revision > revision)
          .map(([storeId]) => storeId);
  }

  /** At most so many stores that were heard of and not yet taken from here to be written down. */
  *unsaved(limit: number): Generator<{ storeId: string; seenAt: number }> {
    for (const storeId of Array.from(this.#unsaved.values().take(limit))) {
      this.#unsaved.delete(storeId);
      yield { storeId, seenAt: this.seenAt(storeId) };
    }
  }

  #hear(storeId: string, at: number): Heard {
    this.#onHeard(storeId);
    let heard = this.#heard.get(storeId);
    if (heard === undefined) {
      heard = { streams: 0, at, revision: 0 };
      this.#heard.set(storeId, heard);
    }
    heard.at = at;
    this.#revision += 1;
    heard.revision = this.#revision;
    this.#unsaved.add(storeId);
    return heard;
  }
}
