/**
 * Events whose content is a function of their id. Whoever finds one anywhere can tell whether it is
 * whole, and whether anybody has made it up.
 */

import { deepEqual } from "node:assert/strict";
import { createHash } from "node:crypto";
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
    // Anywhere between 1970 and 2106: the order of the timestamps is not that of the events. None of the
    // first months, where a number of milliseconds looks like today in seconds.
    timestamp: Math.max(number, 10_000_000) * 1000,
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
  /** What an id stands for; `eventOf` if left out. */
  readonly content?: (eventId: string) => StoreEvent;
}

/** Nothing lost, nothing doubled, nothing invented, nothing changed; throws an `AssertionError`. */
export function expectExactly(
  events: Iterable<TakenEvent>,
  { offered, recorded = offered, content = eventOf }: Expected,
): void {
  const wasOffered = new Set(offered);
  const has = new Set<string>();
  const doubled: string[] = [];
  const invented: string[] = [];
  for (const { eventId, type, payload, timestamp } of events) {
    if (has.has(eventId)) {
      doubled.push(eventId);
    }
    if (!wasOffered.has(eventId)) {
      invented.push(eventId);
    }
    has.add(eventId);
    deepEqual({ eventId, type, payload, timestamp }, content(eventId), "changed");
  }
  const lost = Iterator.from(recorded)
    .filter((id) => !has.has(id))
    .toArray();
  deepEqual({ lost, doubled, invented }, { lost: [], doubled: [], invented: [] });
}

/** All that is in the ledger of a folder that no server has open. */
export function* readLedger(folder: string): Generator<TakenEvent, void> {
  const ledger = new Ledger({ folder, now: () => 0 });
  try {
    let page = ledger.events({ after: 0, limit: pageSize });
    while (page.length > 0) {
      yield* page;
      page = ledger.events({ after: page.at(-1)?.position ?? 0, limit: pageSize });
    }
  } finally {
    ledger.close();
  }
}

/** Read at a time. */
const pageSize = 10_000;
