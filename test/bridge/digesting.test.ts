/** What a store's buffer says of a range of its events. */

import { expect, test } from "vitest";
import { type DigestPart, digestsOf } from "../../src/bridge/digesting.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { systemClock } from "../../src/clock.ts";
import { type DigestCell, DigestCells, dayOf, digestOf } from "../../src/event-digest.ts";
import { inMemory } from "../../src/sqlite.ts";
import type { StoreEvent } from "../../src/store-event.ts";
import { eventOf, idsOf } from "../support/oracle.ts";

const never = new AbortController().signal;
const ever = { fromDay: "0000-01-01", toDay: "9999-12-31", type: "" };

function open(ids: readonly string[]): Disposable & { readonly outbox: Outbox } {
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now: () => 1 });
  outbox.append(ids.map(eventOf));
  return { outbox, [Symbol.dispose]: () => outbox.close() };
}

/** What `prune` does: the events are gone, and in the sums. */
function prune(outbox: Outbox, events: readonly StoreEvent[]): void {
  const { database } = outbox;
  database.write(() => {
    for (const event of events) {
      const { type, timestamp, eventId } = event;
      const known = database
        .prepare("SELECT count, digest FROM pruned WHERE type = ? AND day = ?")
        .get(type, dayOf(timestamp));
      const cells = new DigestCells();
      cells.add(event);
      if (known !== undefined) {
        const { count, digest } = known as unknown as DigestCell;
        cells.addCell({ type, day: dayOf(timestamp), count: Number(count), digest });
      }
      const [cell] = cells.all();
      database
        .prepare("INSERT OR REPLACE INTO pruned (type, day, count, digest) VALUES (?, ?, ?, ?)")
        .run(type, dayOf(timestamp), cell?.count ?? 0, cell?.digest ?? null);
      database.prepare("DELETE FROM events WHERE event_id = ?").run(eventId);
    }
  });
}

async function partsOf(
  outbox: Outbox,
  { withEvents = false, range = ever, onPage = () => {}, signal = never } = {},
): Promise<DigestPart[]> {
  const clock = {
    ...systemClock,
    async sleep(ms: number, options: { signal: AbortSignal }) {
      await systemClock.sleep(ms, options);
      onPage();
    },
  };
  const parts: DigestPart[] = [];
  for await (const part of digestsOf({ ...range, withEvents }, { outbox, clock, signal })) {
    parts.push(part);
  }
  return parts;
}

function sumsOf(events: readonly StoreEvent[]): DigestCell[] {
  const cells = new DigestCells();
  for (const event of events) {
    cells.add(event);
  }
  return cells.all();
}

const cellsIn = (parts: readonly DigestPart[]) =>
  parts.flatMap((part) => (part.kind === "cell" ? [part.cell] : []));
const prunedIn = (parts: readonly DigestPart[]) =>
  parts.reduce((sum, part) => sum + (part.kind === "cell" ? part.pruned : 0), 0);

test("the cells are the sums of the events, whatever has become of them", async () => {
  using box = open(idsOf("event", 500));
  box.outbox.settle([
    { kind: "acked", position: 1 },
    { kind: "parked", position: 2, reason: "no" },
  ]);
  const parts = await partsOf(box.outbox);
  expect(cellsIn(parts)).toEqual(sumsOf(idsOf("event", 500).map(eventOf)));
  expect(prunedIn(parts)).toBe(0);
});

test("an empty buffer, and a range without an event, say nothing", async () => {
  using empty = open([]);
  expect(await partsOf(empty.outbox)).toEqual([]);
  using box = open(idsOf("event", 10));
  const range = { ...ever, fromDay: "2999-01-01" };
  expect(await partsOf(box.outbox, { range })).toEqual([]);
  expect(await partsOf(box.outbox, { range, withEvents: true })).toEqual([]);
});

test("with events, each comes with its state, in the order of the bytes of its id", async () => {
  // In UTF-16 the last two would be the other way round.
  const ids = ["b", "B", "a-10", "a-9", "\u{ff61}", "\u{1f600}"];
  using box = open(ids);
  box.outbox.settle([{ kind: "acked", position: 1 }]);
  box.outbox.settle([{ kind: "parked", position: 2, reason: "no" }]);
  const parts = await partsOf(box.outbox, { withEvents: true });
  const states: Record<string, string> = { b: "acked", B: "parked" };
  expect(parts).toEqual(
    ["B", "a-10", "a-9", "b", "\u{ff61}", "\u{1f600}"].map((id) => {
      const { eventId, type, timestamp } = eventOf(id);
      const digest = digestOf(eventOf(id));
      const state = states[id] ?? "pending";
      return { kind: "event", eventId, type, timestamp, digest, state };
    }),
  );
});

test("pruned sums are in the cells, once, and said apart", async () => {
  using box = open(idsOf("event", 300));
  const events = idsOf("event", 300).map(eventOf);
  prune(box.outbox, events.slice(0, 120));
  const parts = await partsOf(box.outbox);
  expect(cellsIn(parts)).toEqual(sumsOf(events));
  expect(prunedIn(parts)).toBe(120);
  expect(await partsOf(box.outbox, { withEvents: true })).toHaveLength(180);
});

test("pruned sums of other days and types are left out", async () => {
  const at = (type: string, day: number): StoreEvent => ({
    ...{ eventId: `${type}-${day}`, type, payload: "" },
    timestamp: Date.UTC(2026, 0, day),
  });
  const events = [at("Sale", 1), at("Sale", 2), at("Sale", 3), at("TillClose", 2)];
  using box = open([]);
  box.outbox.append(events);
  prune(box.outbox, events);
  const range = { fromDay: "2026-01-02", toDay: "2026-01-02", type: "Sale" };
  expect(cellsIn(await partsOf(box.outbox, { range }))).toEqual(sumsOf([at("Sale", 2)]));
});

test("events that are pruned during the walk count once", async () => {
  using box = open(idsOf("event", 450));
  const events = idsOf("event", 450).map(eventOf);
  const byId = events.toSorted((a, b) => (a.eventId < b.eventId ? -1 : 1));
  let pages = 0;
  const onPage = () => {
    pages += 1;
    if (pages === 1) {
      // Of those already counted, and of those still to come.
      prune(box.outbox, [...byId.slice(0, 50), ...byId.slice(-50)]);
    }
  };
  const parts = await partsOf(box.outbox, { onPage });
  expect(cellsIn(parts)).toEqual(sumsOf(events));
  expect(prunedIn(parts)).toBe(100);
});

test("pruning that never ends is said, and not answered with a wrong sum", async () => {
  using box = open(idsOf("event", 450));
  const events = idsOf("event", 450).map(eventOf);
  let next = 0;
  const onPage = () => {
    prune(box.outbox, events.slice(next, next + 1));
    next += 1;
  };
  await expect(partsOf(box.outbox, { onPage })).rejects.toMatchObject({ code: "ABORTED" });
});

test("an event that is recorded during the walk may be in it, and nothing else changes", async () => {
  using box = open(idsOf("event", 250));
  let isFirst = true;
  const onPage = () => {
    if (isFirst) {
      isFirst = false;
      box.outbox.append([eventOf("a")]);
    }
  };
  // "a" is before the page where the walk is by now.
  const parts = await partsOf(box.outbox, { onPage });
  expect(cellsIn(parts)).toEqual(sumsOf(idsOf("event", 250).map(eventOf)));
});

test("a walk ends with the signal's reason", async () => {
  using box = open(idsOf("event", 450));
  const over = new AbortController();
  const onPage = () => over.abort(new Error("the bridge is over"));
  await expect(partsOf(box.outbox, { onPage, signal: over.signal })).rejects.toThrow(
    "the bridge is over",
  );
});
