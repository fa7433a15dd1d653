/** Two sides of the bridge, compared by what each says of its events. Knows no wire. */

/** What a side says of all events of a type and a day. */
export interface Cell {
  readonly day: string;
  readonly type: string;
  readonly count: number;
  readonly digest: Uint8Array;
  /** How many of them it knows by their sum alone. */
  readonly pruned: number;
}

/** What a side says of one event. */
export interface Entry {
  readonly eventId: string;
  readonly digest: Uint8Array;
  /** At the store: pending, acked or parked. */
  readonly state: string;
}

export interface Side {
  readonly cells: () => AsyncIterable<Cell>;
  /** Of a day and a type, in the order of the bytes of the ids. */
  readonly entries: (of: Pick<Cell, "day" | "type">) => AsyncIterable<Entry>;
}

/** A type and a day, as both sides have it. */
export interface Compared {
  readonly day: string;
  readonly type: string;
  readonly ledger: Cell;
  readonly store: Cell;
  /** How many events both have, with the same content. */
  readonly same: number;
  readonly differences: readonly Difference[];
  /** Differences that cannot be named: the store knows these events by their sum alone. */
  readonly unnamed: number;
}

export interface Difference {
  readonly eventId: string;
  readonly what: "at the store only" | "in the ledger only" | "another content";
  /** At the store; empty if it is not there. */
  readonly state: string;
}

/**
 * Compares the cells in order; where they differ, asks both for their events. What was recorded or went
 * up between the two questions is seen by the second.
 */
export async function* compare(ledger: Side, store: Side): AsyncGenerator<Compared, void> {
  const cells = new Map<string, { ledger?: Cell; store?: Cell }>();
  for (const [name, side] of Object.entries({ ledger, store })) {
    for await (const cell of side.cells()) {
      const key = `${cell.day} ${cell.type}`;
      cells.set(key, { ...cells.get(key), [name]: cell });
    }
  }
  for (const [, pair] of [...cells].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const { day = "", type = "" } = pair.ledger ?? pair.store ?? {};
    const none: Cell = { day, type, count: 0, digest: new Uint8Array(), pruned: 0 };
    const { ledger: there = none, store: here = none } = pair;
    const both = { day, type, ledger: there, store: here };
    if (there.count === here.count && isSame(there.digest, here.digest)) {
      yield { ...both, same: there.count, differences: [], unnamed: 0 };
    } else {
      yield { ...both, ...(await compareEntries(both, ledger, store)) };
    }
  }
}

async function compareEntries(
  { day, type, store: { pruned } }: { day: string; type: string; store: Cell },
  ledger: Side,
  store: Side,
): Promise<Pick<Compared, "same" | "differences" | "unnamed">> {
  const differences: Difference[] = [];
  let same = 0;
  let inLedgerOnly = 0;
  for await (const [there, here] of paired(
    ledger.entries({ day, type }),
    store.entries({ day, type }),
  )) {
    if (there !== undefined && here !== undefined) {
      if (isSame(there.digest, here.digest)) {
        same += 1;
      } else {
        const { eventId, state } = here;
        differences.push({ eventId, what: "another content", state });
      }
    } else if (here !== undefined) {
      const { eventId, state } = here;
      differences.push({ eventId, what: "at the store only", state });
    } else if (there !== undefined) {
      inLedgerOnly += 1;
      // The store may have had it, among those that it has removed.
      if (pruned === 0) {
        differences.push({ eventId: there.eventId, what: "in the ledger only", state: "" });
      }
    }
  }
  return { same, differences, unnamed: pruned === 0 ? 0 : Math.max(inLedgerOnly, pruned) };
}

/** Two lists in the same order as one list of pairs: what is in one alone has no partner. */
async function* paired(
  left: AsyncIterable<Entry>,
  right: AsyncIterable<Entry>,
): AsyncGenerator<[Entry | undefined, Entry | undefined], void> {
  const [lefts, rights] = [left[Symbol.asyncIterator](), right[Symbol.asyncIterator]()];
  try {
    let [one, two] = await Promise.all([lefts.next(), rights.next()]);
    while (!one.done || !two.done) {
      const order = one.done ? 1 : two.done ? -1 : byId(one.value, two.value);
      yield [
        order <= 0 ? one.value || undefined : undefined,
        order >= 0 ? two.value || undefined : undefined,
      ];
      [one, two] = await Promise.all([
        order <= 0 ? lefts.next() : one,
        order >= 0 ? rights.next() : two,
      ]);
    }
  } finally {
    await Promise.all([lefts.return?.(), rights.return?.()]);
  }
}

function byId(one: Entry, two: Entry): number {
  return Buffer.compare(Buffer.from(one.eventId), Buffer.from(two.eventId));
}

function isSame(one: Uint8Array, two: Uint8Array): boolean {
  return Buffer.compare(one, two) === 0;
}
