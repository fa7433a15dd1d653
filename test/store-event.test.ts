/** Which events are refused. */

import { expect, test } from "vitest";
import { faultOfEvent, maxNameBytes, maxRecordedPayloadBytes } from "../src/store-event.ts";

const sale = { eventId: "till-1-0001", type: "Sale", payload: '{"total":299}', timestamp: 1 };
const faultOf = (change: Partial<typeof sale>, max = maxRecordedPayloadBytes) =>
  faultOfEvent({ ...sale, ...change }, max);

test.each<[string, Partial<typeof sale>]>([
  ["an ordinary sale", {}],
  ["one without a payload", { payload: "" }],
  ["one of the first millisecond of 1970", { timestamp: 0 }],
  ["one of the last millisecond of 9999", { timestamp: Date.UTC(9999, 11, 31, 23, 59, 59, 999) }],
  ["an id of as many bytes as there may be", { eventId: "é".repeat(maxNameBytes / 2) }],
  ["a payload with a NUL, a line end and an emoji", { payload: "\0\n😀" }],
])("%s is taken", (_, change) => {
  expect(faultOf(change)).toBeUndefined();
});

test.each<[string, Partial<typeof sale>]>([
  ["event_id is empty", { eventId: "" }],
  ["type is empty", { type: "" }],
  ["event_id has 129 bytes; at most 128 are allowed", { eventId: "x".repeat(129) }],
  ["event_id has 130 bytes; at most 128 are allowed", { eventId: "é".repeat(65) }],
  ["event_id has control characters", { eventId: "a\nb" }],
  ["type has control characters", { type: "Sale\u0085" }],
  ["event_id is not valid Unicode: half a surrogate pair", { eventId: "\ud83d" }],
  ["payload is not valid Unicode: half a surrogate pair", { payload: "\ude00\ud83d" }],
  ["timestamp is -1; expected Unix milliseconds from 1970 to 9999", { timestamp: -1 }],
  ["timestamp is 0.5; expected Unix milliseconds from 1970 to 9999", { timestamp: 0.5 }],
  ["timestamp is NaN; expected Unix milliseconds from 1970 to 9999", { timestamp: Number.NaN }],
  [
    "timestamp is 253402300800000; expected Unix milliseconds from 1970 to 9999",
    { timestamp: Date.UTC(10_000, 0) },
  ],
])("%s", (fault, change) => {
  expect(faultOf(change)).toBe(fault);
});

test("a payload is measured in bytes, whatever its characters take", () => {
  for (const character of ["x", "é", "€", "😀"]) {
    const size = Buffer.byteLength(character);
    const count = 12 / size;
    expect(faultOf({ payload: character.repeat(count) }, 12)).toBeUndefined();
    expect(faultOf({ payload: character.repeat(count + 1) }, 12)).toBe(
      `payload has ${12 + size} bytes; at most 12 are allowed`,
    );
  }
});
