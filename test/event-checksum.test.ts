/** Checksums of events: what docs/decisions/event-checksums.md promises to anyone who computes them. */

import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  checkedText,
  checksumOf,
  type EventOrigin,
  isCorrupt,
  messageChecksum,
} from "../src/event-checksum.ts";
import { faultOfEvent, faultOfName, maxTimestamp, type StoreEvent } from "../src/store-event.ts";

const sale: StoreEvent = {
  ...{ eventId: "till-1-0042", type: "Sale", payload: '{"total":299,"what":"☕"}' },
  timestamp: Date.UTC(2026, 0, 2, 4),
};
const origin: EventOrigin = { storeId: "store-01", epoch: "00c0ffee00c0ffee", seq: 42 };

/** Short texts of few characters, the separator among them, so that likely collisions are tried. */
const tricky = fc.string({ unit: fc.constantFrom("\0", "1", "a", "é", "☕"), maxLength: 4 });
const text = fc.oneof(tricky, fc.string({ unit: "grapheme", maxLength: 8 }));
const name = text.filter((text) => faultOfName("name", text) === undefined);
const event: fc.Arbitrary<StoreEvent> = fc
  .record({
    ...{ eventId: name, type: name, payload: text },
    timestamp: fc.oneof(fc.nat({ max: 111 }), fc.nat({ max: maxTimestamp })),
  })
  .filter((event) => faultOfEvent(event, 1024) === undefined);

describe("the checksum of an event", () => {
  test("is the CRC-32 of its fields with a NUL between each two", () => {
    // Computed with Python's zlib.crc32.
    expect(checksumOf(sale)).toBe(0xc4d32fe2);
    expect(checksumOf({ ...sale, timestamp: undefined })).toBe(0xab0b593b);
    expect(messageChecksum(checksumOf(sale), origin)).toBe(0xe7f631ca);
  });

  test("is of bytes that no other event has, whatever its texts are", () => {
    fc.assert(
      fc.property(event, event, (one, other) => {
        const isSame = (["eventId", "type", "payload", "timestamp"] as const).every(
          (field) => one[field] === other[field],
        );
        expect(checkedText(one) === checkedText(other)).toBe(isSame);
      }),
      { numRuns: 5_000 },
    );
  });

  test("can be taken apart again into the event that it was made of", () => {
    fc.assert(
      fc.property(event, (event) => {
        const [eventId, type, ...rest] = checkedText(event).split("\0");
        const timestamp = Number(rest.pop());
        expect({ eventId, type, payload: rest.join("\0"), timestamp }).toEqual(event);
      }),
    );
  });

  test("changes with any single bit of the event", () => {
    const checksum = checksumOf(sale);
    const bytes = Buffer.from(checkedText(sale));
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      const [eventId = "", type = "", ...rest] = flipped.toString().split("\0");
      const timestamp = rest.length > 1 ? Number(rest.pop()) : 0;
      const event = { eventId, type, payload: rest.join("\0"), timestamp, checksum };
      expect(isCorrupt(event), `bit ${bit}`).toBe(true);
    }
    expect(isCorrupt({ ...sale, checksum })).toBe(false);
  });

  test("is not asked for where there is none", () => {
    expect(isCorrupt({ ...sale, checksum: undefined })).toBe(false);
  });

  test("in a message also covers the store and the numbers, and a fault of the event itself", () => {
    const checksum = messageChecksum(checksumOf(sale), origin);
    const others = [{ storeId: "store-02" }, { epoch: "00c0ffee00c0ffef" }, { seq: 43 }];
    for (const other of others) {
      expect(messageChecksum(checksumOf(sale), { ...origin, ...other })).not.toBe(checksum);
    }
    const changed = checksumOf({ ...sale, payload: '{"total":298}' });
    expect(messageChecksum(changed, origin)).not.toBe(checksum);
  });
});
