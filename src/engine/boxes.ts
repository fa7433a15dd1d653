/**
 * Notices when two boxes speak for one store: a disk image that was cloned, a store that was moved while
 * its old box runs on, or two shops with one `--store`. No event is lost or doubled by it, but both boxes
 * get each command, and people would look for the events of one shop at another.
 *
 * Each bridge gives itself a random id when it starts. A bridge that restarts has a new id, and its old id
 * is never heard again. So an id that is heard again after a newer one was heard shows that both run.
 * One such return proves nothing: the last message of a bridge that was killed may arrive after the first
 * one of its successor. Two returns do.
 *
 * It is kept in memory. After a restart of the cloud two boxes are noticed again within two reports.
 */

/** A bridge as it names itself, and the address that it calls from. */
export interface Box {
  readonly id: string;
  readonly from: string;
}

interface HeardBox {
  readonly id: string;
  from: string;
  /** How often it was heard again after a newer box. */
  returns: number;
}

interface StoreBoxes {
  /** In the order in which they were first heard. */
  readonly heard: HeardBox[];
  last: HeardBox;
  /** The two that were last seen to take turns, and when, in Unix milliseconds. */
  rivals?: { readonly older: HeardBox; readonly newer: HeardBox; readonly at: number };
}

/** The most boxes of one store that are remembered; a further one takes the place of the oldest. */
export const maxBoxes = 4;

/** How many returns of an older box show that two run at once. */
const returnsToBelieve = 2;

/**
 * How long two boxes are reported after they were last seen to take turns, in milliseconds. While both
 * run, each reports every ten seconds.
 */
export const rivalsForMs = 900_000;

export class Boxes {
  readonly #now: () => number;
  readonly #isKnown: (storeId: string) => boolean;
  readonly #stores = new Map<string, StoreBoxes>();

  /** Nothing is kept of a store that `isKnown` says no to, so that invented names take no memory. */
  constructor({
    now,
    isKnown,
  }: {
    readonly now: () => number;
    readonly isKnown: (storeId: string) => boolean;
  }) {
    this.#now = now;
    this.#isKnown = isKnown;
  }

  /** Notes that this box has sent something for the store. Cheap: it is called for each message. */
  hear(storeId: string, { id, from }: Box): void {
    const store = this.#stores.get(storeId);
    if (store === undefined) {
      if (this.#isKnown(storeId)) {
        const box = { id, from, returns: 0 };
        this.#stores.set(storeId, { heard: [box], last: box });
      }
      return;
    }
    const { heard, last } = store;
    if (last.id === id) {
      last.from = from;
      return;
    }
    let box = heard.find((other) => other.id === id);
    if (box === undefined) {
      box = { id, from, returns: 0 };
      heard.push(box);
      heard.splice(0, Math.max(0, heard.length - maxBoxes));
    } else if (heard.indexOf(box) < heard.indexOf(last)) {
      box.from = from;
      box.returns += 1;
      if (box.returns >= returnsToBelieve) {
        store.rivals = { older: box, newer: last, at: this.#now() };
      }
    }
    store.last = box;
  }

  /** The other one of two boxes that speak for a store; undefined for a box that is not one of two. */
  rivalOf(storeId: string, { id }: Box): Box | undefined {
    const { older, newer } = this.#rivals(storeId) ?? {};
    return older?.id === id ? newer : newer?.id === id ? older : undefined;
  }

  /** What an operator should be told of a store's boxes; undefined if nothing. */
  alarm(storeId: string): string | undefined {
    const rivals = this.#rivals(storeId);
    if (rivals === undefined) {
      return undefined;
    }
    const [one, other] = [rivals.older, rivals.newer].map(({ id, from }) => `${id} at ${from}`);
    return (
      `two boxes speak for this store, ${one} and ${other}; ` +
      "one was cloned or moved, or has the wrong --store"
    );
  }

  #rivals(storeId: string) {
    const rivals = this.#stores.get(storeId)?.rivals;
    // A clock that was set back must not keep an alarm for ever.
    const isRecent = rivals !== undefined && Math.abs(this.#now() - rivals.at) < rivalsForMs;
    return isRecent ? rivals : undefined;
  }
}
