/** Digests of events: what docs/decisions/reconcile.md promises to whoever computes them elsewhere. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type DigestCell,
  DigestCells,
  dayOf,
  digestBytes,
  digestOf,
  eventsIn,
} from "../src/event-digest.ts";
import type { StoreEvent } from "../src/store-event.ts";
import { eventOf, idsOf } from "./support/oracle.ts";

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

// Computed with Python's hashlib and struct.
const sale: StoreEvent = {
  ...{ eventId: "till-1-0042", type: "Sale", payload: '{"total":299}' },
  timestamp: Date.UTC(2026, 0, 2, 4),
};
const saleDigest = "b8ecd817a91dc8a228ee5d0ba5e729611043f6b0a58e9696a8a570f4beed6137";
const coffee: StoreEvent = { eventId: "till-1-0043", type: "Sale", payload: "☕", timestamp: 0 };
const coffeeDigest = "061788f78a3f3ec28947e7489dff75b98a55b216a55b48e93463c53b2d381047";

function cellsOf(events: Iterable<StoreEvent>): DigestCell[] {
  const cells = new DigestCells();
  for (const event of events) {
    cells.add(event);
  }
  return cells.all();
}

describe("the digest of an event", () => {
  test("is SHA-256 over its fields, each text behind its length in bytes", () => {
    expect(sale.timestamp).toBe(1_767_326_400_000);
    expect(hex(digestOf(sale))).toBe(saleDigest);
    expect(hex(digestOf(coffee))).toBe(coffeeDigest);
    expect(digestOf(sale)).toHaveLength(digestBytes);
  });

  test("differs for any change, also where two texts would read the same together", () => {
    const changes: Partial<StoreEvent>[] = [
      { eventId: "till-1-0041" },
      { type: "Sales" },
      { payload: "" },
      { payload: '{"total":299}\0' },
      { timestamp: sale.timestamp + 1 },
      { eventId: "till-1-0042S", type: "ale" },
      { type: 'Sale{"total"', payload: ":299}" },
    ];
    const digests = [{}, ...changes].map((change) => hex(digestOf({ ...sale, ...change })));
    expect(new Set(digests).size).toBe(changes.length + 1);
  });
});

describe("a day is that of UTC", () => {
  test.each([
    [0, "1970-01-01"],
    [Date.UTC(2026, 0, 2) - 1, "2026-01-01"],
    [Date.UTC(2026, 0, 2), "2026-01-02"],
    [Date.UTC(2026, 0, 3) - 1, "2026-01-02"],
    [253_402_300_799_999, "9999-12-31"],
  ])("%i is of %s", (timestamp, day) => {
    expect(dayOf(timestamp)).toBe(day);
  });
});

describe("sums", () => {
  test("are those of the digests as big-endian numbers, modulo 2^256", () => {
    const [one] = cellsOf([sale, { ...coffee, timestamp: 0 }].slice(0, 1));
    expect(one).toMatchObject({ type: "Sale", day: "2026-01-02", count: 1 });
    expect(hex(one?.digest ?? Buffer.alloc(0))).toBe(saleDigest);
    const cells = new DigestCells();
    const cell = { type: "Sale", day: "2026-01-02", count: 1 };
    cells.addCell({ ...cell, digest: Buffer.from(saleDigest, "hex") });
    cells.addCell({ ...cell, digest: Buffer.from(coffeeDigest, "hex") });
    const [two] = cells.all();
    expect(two?.count).toBe(2);
    expect(hex(two?.digest ?? Buffer.alloc(0))).toBe(
      "bf04610f335d0764b236445443e69f1a9a99a8c74ae9df7fdd09362fec25717e",
    );
  });

  test("that overflow begin anew, and keep their 32 bytes", () => {
    const [three] = cellsOf([sale, sale, sale]);
    expect(hex(three?.digest ?? Buffer.alloc(0))).toBe(
      "2ac68846fb5959e67acb1722f1b57c2330cbe411f0abc3c3f9f052de3cc823a5",
    );
    const cells = new DigestCells();
    const cell = { type: "Sale", day: "2026-01-02", count: 1 };
    cells.addCell({ ...cell, digest: Buffer.alloc(32, 0xff) });
    cells.addCell({ ...cell, digest: Buffer.from("01".padStart(64, "0"), "hex") });
    expect(cells.all()[0]?.digest).toEqual(Buffer.alloc(32));
  });

  test("are the same in any order, and of any parts", () => {
    const events = idsOf("event", 40).map(eventOf);
    const ids = fc.shuffledSubarray(events, { minLength: events.length });
    fc.assert(
      fc.property(ids, fc.nat(events.length), (shuffled, cut) => {
        const parts = new DigestCells();
        for (const cell of [...cellsOf(shuffled.slice(0, cut)), ...cellsOf(shuffled.slice(cut))]) {
          parts.addCell(cell);
        }
        expect(parts.all()).toEqual(cellsOf(events));
        expect(cellsOf(shuffled)).toEqual(cellsOf(events));
      }),
      { numRuns: 30 },
    );
  });

  test("come by day, then by type", () => {
    const cells = cellsOf([
      { ...sale, type: "b" },
      { ...coffee, type: "c" },
      { ...sale, type: "a" },
      { ...coffee, type: "b" },
    ]);
    expect(cells.map(({ day, type }) => `${day} ${type}`)).toEqual([
      ...["1970-01-01 b", "1970-01-01 c", "2026-01-02 a", "2026-01-02 b"],
    ]);
  });
});

describe("the events of a range", () => {
  const day = Date.UTC(2026, 0, 2);
  const events: StoreEvent[] = Array.from({ length: 450 }, (_, i) => ({
    eventId: String(i).padStart(4, "0"),
    type: i % 3 === 0 ? "TillClose" : "Sale",
    payload: "",
    timestamp: day + (i - 225) * 3_600_000,
  }));
  const read = (after: string, limit: number) =>
    events.filter(({ eventId }) => eventId > after).slice(0, limit);

  async function inRange(fromDay: string, toDay: string, type = "") {
    let pauses = 0;
    const found: StoreEvent[] = [];
    const pause = async () => {
      pauses += 1;
    };
    for await (const event of eventsIn({ fromDay, toDay, type }, { read, pause })) {
      found.push(event);
    }
    return { found, pauses };
  }

  test("are those from the first to the last day, both included, in the order of their ids", async () => {
    const { found, pauses } = await inRange("2026-01-02", "2026-01-03");
    expect(found).toEqual(events.slice(225, 273));
    // After each of its three pages others have their turn.
    expect(pauses).toBe(3);
  });

  test("may be of one type alone", async () => {
    const { found } = await inRange("2026-01-02", "2026-01-02", "TillClose");
    expect(found).toEqual(events.slice(225, 249).filter(({ type }) => type === "TillClose"));
    expect((await inRange("2026-01-02", "2026-01-02", "till")).found).toEqual([]);
  });

  test("are none where there are none", async () => {
    expect((await inRange("2027-01-01", "2027-12-31")).found).toEqual([]);
  });
});
