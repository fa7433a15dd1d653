/** Two sides, compared: against lists of events that the test makes up. */

import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type Cell,
  type Compared,
  compare,
  type Entry,
  type Side,
} from "../../../src/commands/head-office/comparing.ts";
import { DigestCells, dayOf, digestOf } from "../../../src/event-digest.ts";
import type { StoreEvent } from "../../../src/store-event.ts";

interface Event extends StoreEvent {
  readonly state?: string;
}

const noon = Date.UTC(2026, 0, 2, 12);

const sale = (eventId: string, changes: Partial<Event> = {}): Event => ({
  ...{ eventId, type: "Sale", payload: eventId, timestamp: noon, state: "acked" },
  ...changes,
});

/** A side with these events, which may have changed by the time it is asked for entries. */
function sideOf(events: readonly Event[], later = events, pruned: readonly Event[] = []): Side {
  return {
    async *cells(): AsyncGenerator<Cell, void> {
      const cells = new DigestCells();
      for (const event of [...events, ...pruned]) {
        cells.add(event);
      }
      for (const cell of cells.all()) {
        const isHere = ({ type, timestamp }: Event) =>
          type === cell.type && dayOf(timestamp) === cell.day;
        yield { ...cell, pruned: pruned.filter(isHere).length };
      }
    },
    async *entries({ day, type }): AsyncGenerator<Entry, void> {
      const chosen = later.filter((event) => event.type === type && dayOf(event.timestamp) === day);
      const bytes = ({ eventId }: Event) => Buffer.from(eventId);
      for (const event of chosen.sort((a, b) => Buffer.compare(bytes(a), bytes(b)))) {
        const { eventId, state = "" } = event;
        yield { eventId, digest: digestOf(event), state };
      }
    },
  };
}

async function all(compared: AsyncIterable<Compared>): Promise<Compared[]> {
  const list: Compared[] = [];
  for await (const one of compared) {
    list.push(one);
  }
  return list;
}

const differencesOf = (compared: readonly Compared[]) =>
  compared.flatMap(({ differences }) =>
    differences.map(({ eventId, what, state }) => `${eventId} ${what}${state && ` ${state}`}`),
  );

test("the same events in any order are the same, and nothing more is asked", async () => {
  const ledger = [sale("a"), sale("b"), sale("c", { type: "Stock" })];
  const store = sideOf([...ledger].reverse());
  const silent: Side = {
    ...store,
    entries() {
      throw new Error("not to be asked");
    },
  };
  const compared = await all(compare(sideOf(ledger), silent));
  expect(compared).toMatchObject([
    { day: "2026-01-02", type: "Sale", same: 2, differences: [], unnamed: 0 },
    { day: "2026-01-02", type: "Stock", same: 1, differences: [], unnamed: 0 },
  ]);
});

test("names what is on one side alone, and what has another content", async () => {
  const ledger = [sale("a"), sale("b"), sale("l"), sale("ü")];
  const store = [
    ...[sale("a"), sale("b", { payload: "changed" })],
    ...[sale("p", { state: "pending" }), sale("x", { state: "parked" }), sale("ü")],
  ];
  const compared = await all(compare(sideOf(ledger), sideOf(store)));
  expect(compared).toMatchObject([{ same: 2 }]);
  expect(differencesOf(compared)).toEqual([
    "b another content acked",
    "l in the ledger only",
    "p at the store only pending",
    "x at the store only parked",
  ]);
});

test("a day that one side does not have at all is named too", async () => {
  const [there, here] = [sale("a", { timestamp: 0 }), sale("b")];
  const compared = await all(compare(sideOf([there]), sideOf([here])));
  expect(compared.map(({ day }) => day)).toEqual(["1970-01-01", "2026-01-02"]);
  expect(differencesOf(compared)).toEqual(["a in the ledger only", "b at the store only acked"]);
});

test("what has gone up between the two questions is no difference", async () => {
  const before = [sale("a")];
  const after = [sale("a"), sale("b")];
  const compared = await all(compare(sideOf(before, after), sideOf(after)));
  expect(compared).toMatchObject([{ same: 2, differences: [], unnamed: 0 }]);
});

test("what the store has removed counts, and is not taken for lost", async () => {
  const events = [sale("a"), sale("b"), sale("c")];
  const kept = sideOf([sale("c")], undefined, [sale("a"), sale("b")]);
  expect(await all(compare(sideOf(events), kept))).toMatchObject([
    { same: 3, differences: [], unnamed: 0, store: { count: 3, pruned: 2 } },
  ]);
  // The ledger has lost one of those: the sums tell, but not which.
  const [lost] = await all(compare(sideOf([sale("a"), sale("c")]), kept));
  expect(lost).toMatchObject({ same: 1, differences: [], unnamed: 2 });
});

test("whatever the two sides have, each difference is named once", async () => {
  const id = fc.string({ unit: "binary", minLength: 1, maxLength: 3 });
  const side = fc.uniqueArray(fc.record({ eventId: id, payload: fc.constantFrom("1", "2") }), {
    selector: ({ eventId }) => eventId,
    maxLength: 30,
  });
  await fc.assert(
    fc.asyncProperty(side, side, async (left, right) => {
      const [ledger, store] = [left, right].map((list) =>
        list.map(({ eventId, payload }) => sale(eventId, { payload, state: "" })),
      ) as [Event[], Event[]];
      const compared = await all(compare(sideOf(ledger), sideOf(store)));
      const there = new Map(ledger.map(({ eventId, payload }) => [eventId, payload]));
      const here = new Map(store.map(({ eventId, payload }) => [eventId, payload]));
      const expected = [...new Set([...there.keys(), ...here.keys()])].flatMap((eventId) => {
        const pair = [there.get(eventId), here.get(eventId)];
        return pair[0] === pair[1]
          ? []
          : [
              pair[0] === undefined
                ? `${eventId} at the store only`
                : pair[1] === undefined
                  ? `${eventId} in the ledger only`
                  : `${eventId} another content`,
            ];
      });
      expect(differencesOf(compared).sort()).toEqual(expected.sort());
    }),
  );
});
