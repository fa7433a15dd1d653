/** A line of `store-sync record --input` as an event. */

import type { JsonValue } from "@bufbuild/protobuf";
import type { NewEvent } from "../../bridge/outbox.ts";
import { UsageError } from "../../errors.ts";
import { type Line, parseJson } from "../input.ts";

const fields = ["type", "payload", "eventId", "timestamp"];
/** What `-o ndjson` prints beside them, so that one store's events can be given to another. */
const ignoredFields = [
  "storeId",
  "seq",
  "epoch",
  "state",
  "attempts",
  "reason",
  "notBefore",
  "settledAt",
  "checksum",
  "corrupt",
  "position",
  "receivedAt",
];

/**
 * `newId` is for a line that gives none. Throws `UsageError` naming the line and what was expected.
 */
export function parseEvent(line: Line, newId: () => string): NewEvent {
  const json = parseJson(line, '{"type": "Sale", "payload": {"total": 299}}');
  const unknown = Object.keys(json).find(
    (name) => !fields.includes(name) && !ignoredFields.includes(name),
  );
  const wrong = (what: string) => new UsageError(`${line.where}: ${what}`);
  if (unknown !== undefined) {
    throw wrong(`unknown field ${JSON.stringify(unknown)}; expected ${fields.join(", ")}`);
  }
  const { type, payload = "", eventId = newId(), timestamp } = json;
  if (typeof type !== "string") {
    throw wrong(`expected type to be a text, such as "Sale"`);
  }
  if (typeof eventId !== "string") {
    throw wrong("expected eventId to be a text");
  }
  return { type, eventId, payload: textOf(payload), timestamp: millisecondsOf(timestamp, wrong) };
}

function textOf(payload: JsonValue): string {
  return typeof payload === "string" ? payload : JSON.stringify(payload);
}

/** A number, or one as text, as ProtoJSON writes it. */
function millisecondsOf(
  value: JsonValue | undefined,
  wrong: (what: string) => UsageError,
): number | undefined {
  if (value === undefined) {
    return undefined;
  }
  const isNumber =
    typeof value === "number" || (typeof value === "string" && /^-?\d+$/.test(value));
  if (!isNumber) {
    throw wrong("expected timestamp to be Unix milliseconds");
  }
  return Number(value);
}
