/** A line of `store-sync record --input` as an event. */

import type { NewEvent } from "../../bridge/outbox.ts";
import { messageOf, UsageError } from "../../errors.ts";
import { expectedTimestamp, parseTimestamp } from "../../timestamp.ts";
import type { Line } from "../input.ts";
import { exactInteger, parseJson } from "../json-line.ts";

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
 * Reads a line. The payload of the event is the text of a JSON string, and of any other JSON value its
 * own text, as it stands in the line. `newId` makes an id for a line that has none. Throws `UsageError`
 * naming the line and what was expected.
 */
export function parseEvent(
  line: Line,
  { newId, now }: { readonly newId: () => string; readonly now: () => number },
): NewEvent {
  const { values, texts } = parseJson(line, '{"type": "Sale", "payload": {"total": 299}}');
  const unknown = Object.keys(values).find(
    (name) => !fields.includes(name) && !ignoredFields.includes(name),
  );
  const wrong = (what: string) => new UsageError(`${line.where}: ${what}`);
  if (unknown !== undefined) {
    throw wrong(`unknown field ${JSON.stringify(unknown)}; expected ${fields.join(", ")}`);
  }
  const { type, payload = "", eventId = newId(), timestamp } = values;
  if (typeof type !== "string") {
    throw wrong(`expected type to be a text, such as "Sale"`);
  }
  if (typeof eventId !== "string") {
    throw wrong("expected eventId to be a text");
  }
  return {
    ...{ type, eventId },
    payload: typeof payload === "string" ? payload : (texts.get("payload") ?? ""),
    timestamp: timestamp === undefined ? undefined : millisecondsOf(),
  };

  /** A number, or a text as `--timestamp` takes it; ProtoJSON writes an int64 as a text. */
  function millisecondsOf(): number {
    const digits = exactInteger(texts.get("timestamp") ?? "");
    const text = typeof timestamp === "string" ? timestamp : digits;
    if (text === undefined) {
      throw wrong(`timestamp: ${expectedTimestamp}`);
    }
    try {
      return parseTimestamp(text, now());
    } catch (error) {
      throw wrong(`timestamp: ${messageOf(error)}`);
    }
  }
}
