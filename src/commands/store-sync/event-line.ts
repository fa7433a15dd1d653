/** An event of a store's buffer as a line of data. */

import { create } from "@bufbuild/protobuf";
import type { Recorded } from "../../bridge/outbox.ts";
import { isCorrupt } from "../../event-checksum.ts";
import { StoreEventSchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import { jsonOf } from "../output.ts";

/**
 * ProtoJSON of sync.v1.StoreEvent, with what the buffer knows of it beside. The checksum is that of the
 * row, which says nothing of the store and the numbers, and not yet that of a message.
 */
export function eventJson(event: Omit<Recorded, "position">, storeId: string): string {
  const { eventId, type, payload, timestamp, seq, epoch } = event;
  const { state, attempts, reason, notBefore, settledAt, checksum } = event;
  const message = create(StoreEventSchema, {
    ...{ eventId, storeId, type, payload, epoch },
    timestamp: BigInt(timestamp),
    seq: BigInt(seq),
  });
  // One event, and no bundle.
  const { more: _, ...json } = jsonOf(StoreEventSchema, message);
  const beside = {
    ...{ state, attempts, reason, notBefore, settledAt, checksum },
    // Only if it is so: a program that takes the payload must look for it.
    ...(isCorrupt(event) ? { corrupt: true } : {}),
  };
  return plain(JSON.stringify({ ...json, ...beside }));
}

/** The time of day where we are, as the original prints it. */
export function localTime(timestamp: number): string {
  const date = new Date(timestamp);
  return [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((part) => String(part).padStart(2, "0"))
    .join(":");
}
