/**
 * What a store's buffer says of a range of its events, for whoever compares it with the ledger. See
 * docs/decisions/reconcile.md.
 */

import type { Clock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import {
  type DigestCell,
  DigestCells,
  type DigestRange,
  digestOf,
  eventsIn,
} from "../event-digest.ts";
import type { EventState, Outbox } from "./outbox.ts";
import { openLosses, tellLoss } from "./salvage-mark.ts";

export type DigestPart =
  /** Events that a salvage has lost and that nobody has acknowledged, in a sentence. */
  | { readonly kind: "loss"; readonly what: string }
  | { readonly kind: "cell"; readonly cell: DigestCell; readonly pruned: number }
  | {
      readonly kind: "event";
      readonly eventId: string;
      readonly type: string;
      readonly timestamp: number;
      readonly digest: Uint8Array;
      readonly state: EventState;
    };

export interface DigestingOptions {
  readonly outbox: Outbox;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/** A walk is begun anew if events were pruned meanwhile, so often at most. */
const maxWalks = 5;

/**
 * The losses that nobody has acknowledged and cells by day and type, or, with `withEvents`, events in the order of the bytes of their ids. Events that were pruned are
 * in the cells alone. What is recorded meanwhile may be in it or not.
 */
export async function* digestsOf(
  range: DigestRange & { readonly withEvents: boolean },
  { outbox, clock, signal }: DigestingOptions,
): AsyncGenerator<DigestPart, void> {
  const events = () =>
    eventsIn(range, {
      read: (after, limit) => outbox.eventsById(after, limit),
      pause: () => clock.sleep(0, { signal }),
    });
  if (range.withEvents) {
    for await (const event of events()) {
      const { eventId, type, timestamp, state } = event;
      yield { kind: "event", eventId, type, timestamp, state, digest: digestOf(event) };
    }
    return;
  }
  for (const loss of openLosses(outbox.salvaged())) {
    yield { kind: "loss", what: tellLoss(loss) };
  }
  const { fromDay, toDay, type } = range;
  const removed = () => outbox.pruned({ fromDay, toDay, ...(type === "" ? {} : { type }) });
  for (let walks = 1; walks <= maxWalks; walks += 1) {
    const pruned = removed();
    const cells = new DigestCells();
    for (const cell of pruned) {
      cells.addCell(cell);
    }
    for await (const event of events()) {
      cells.add(event);
    }
    // An event that was pruned on the way may have been counted twice, or not at all.
    if (sumOf(removed()) === sumOf(pruned)) {
      for (const cell of cells.all()) {
        const own = pruned.find(({ type, day }) => type === cell.type && day === cell.day);
        yield { kind: "cell", cell, pruned: own?.count ?? 0 };
      }
      return;
    }
  }
  throw new StatusError("ABORTED", "events were removed again and again while they were counted", {
    hint: "ask again when store-sync prune is done",
  });
}

function sumOf(cells: readonly DigestCell[]): number {
  return cells.reduce((sum, { count }) => sum + count, 0);
}
