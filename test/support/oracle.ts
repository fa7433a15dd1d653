/**
 * Events whose content is a function of their id. Whoever finds one anywhere can tell whether it is
 * whole, and whether anybody has made it up.
 */

import { createHash } from "node:crypto";
import { expect } from "vitest";
import { Ledger, type TakenEvent } from "../../src/engine/ledger.ts";
import type { StoreEvent } from "../../src/store-event.ts";

const types = ["Sale", "StockMovement", "TillClose"];

export function eventOf(eventId: string): StoreEvent {
  const digest = createHash("sha256").update(eventId).digest("hex");
  const number = Number.parseInt(digest.slice(0, 8), 16);
  return {
    eventId,
    type: types[number % types.length] ?? "",
    payload: JSON.stringify({ digest, note: "☕".repeat(number % 40) }),
    // Anywhere between 1970 and 2106: the order of the timestamps is not that of the events.
    timestamp: number * 1000,
  };
}

/** `prefix-1` to `prefix-n`. */
export function idsOf(prefix: string, n: number): string[] {
  return Array.from({ length: n }, (_, i) => `${prefix}-${i + 1}`);
}

export interface Expected {
  /** Whatever was given to a store to record. */
  readonly offered: Iterable<string>;
  /** What a store has said that it recorded; all offered ones if left out. */
  readonly recorded?: Iterable<string>;
}

/** Nothing lost, nothing doubled, nothing invented, nothing changed. */
export function expectExactly(
  events: readonly TakenEvent[],
  { offered, recorded = offered }: Expected,
) {
  const ids = events.map(({ eventId }) => eventId);
  const has = new Set(ids);
  const wasOffered = new Set(offered);
  expect(
    ids.filter((id, i) => ids.indexOf(id) !== i),
    "doubled",
  ).toEqual([]);
  expect(
    ids.filter((id) => !wasOffered.has(id)),
    "invented",
  ).toEqual([]);
  expect(
    [...recorded].filter((id) => !has.has(id)),
    "lost",
  ).toEqual([]);
  for (const { eventId, type, payload, timestamp } of events) {
    expect({ eventId, type, payload, timestamp }).toEqual(eventOf(eventId));
  }
}

/** All that is in the ledger of a folder that no server has open. */
export function readLedger(folder: string): TakenEvent[] {
  const ledger = new Ledger({ folder, now: () => 0 });
  try {
    return ledger.events({ after: 0, limit: 1_000_000 });
  } finally {
    ledger.close();
  }
}
