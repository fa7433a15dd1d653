/** Events whose bits flip between a store and the cloud, on the wire and on either disk. */

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { Recorded } from "../../src/bridge/outbox.ts";
import { checksumOf, messageChecksum } from "../../src/event-checksum.ts";
import {
  RefusalCode,
  type StoreEvent,
  StoreEventSchema,
} from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { cutWire } from "../support/cut-wire.ts";
import { noon } from "../support/open-ledger.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each } from "../support/serve-handlers.ts";
import { loopback, never } from "../support/start-server.ts";
import { openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";

type Sent = MessageInitShape<typeof StoreEventSchema>;

const storeId = "store-01";
const epoch = "aaaaaaaaaaaaaaaa";
const promised = { "brewctl-store": storeId, "brewctl-checksums": "1" };

/** The nth event as a store of ours sends it. */
function sale(n: number, changes: Sent = {}): StoreEvent {
  const event = { eventId: `sale-${n}`, type: "Sale", payload: `☕ ${n}`, timestamp: noon + n };
  return create(StoreEventSchema, {
    ...{ ...event, storeId, epoch, timestamp: BigInt(event.timestamp), seq: BigInt(n) },
    checksum: messageChecksum(checksumOf(event), { storeId, epoch, seq: n }),
    ...changes,
  });
}

const channel = ({ client }: TestCloud, messages: Sent[], metadata = {}) =>
  collect(client.operationalChannel(each(messages), { signal: never, metadata }));

async function ledgerOf({ office }: TestCloud) {
  const { messages } = await collect(office.listEvents({}, { signal: never }));
  return messages.map(({ eventId, type, payload, timestamp, epoch, seq, storeId }) => ({
    ...{ eventId, type, payload, timestamp, epoch, seq, storeId },
  }));
}

const kept = (n: number) => {
  const { eventId, type, payload, timestamp, epoch, seq, storeId } = sale(n);
  return { eventId, type, payload, timestamp, epoch, seq, storeId };
};

describe("the cloud", () => {
  test("takes an event that has its checksum, and one that has none", async () => {
    await using cloud = await serveCloud();
    const { messages } = await channel(cloud, [sale(1), sale(2, { checksum: undefined })]);
    expect(messages).toMatchObject([{ ok: true }, { ok: true }]);
    expect(await ledgerOf(cloud)).toEqual([kept(1), kept(2)]);
  });

  test.each<[field: string, changes: Sent]>([
    ["event_id", { eventId: "sale-3" }],
    ["store_id", { storeId: "store-00" }],
    ["type", { type: "Tale" }],
    ["payload", { payload: "☕ 2" }],
    ["timestamp", { timestamp: BigInt(noon) }],
    ["seq", { seq: 3n }],
    ["epoch", { epoch: "aaaaaaaaaaaaaaab" }],
    ["checksum", { checksum: 0 }],
    ["type, to something that is not valid either", { type: "S\nle" }],
  ])("refuses an event with another %s as corrupt, for now", async (_, changes) => {
    await using cloud = await serveCloud();
    const bad = sale(1, changes);
    const { messages, error } = await channel(cloud, [bad, sale(2), sale(1)]);
    expect(error).toBeUndefined();
    expect(messages).toMatchObject([
      { eventId: bad.eventId, ok: false, code: RefusalCode.CORRUPT, retryable: true },
      { eventId: "sale-2", ok: true },
      { eventId: "sale-1", ok: true },
    ]);
    expect(await ledgerOf(cloud)).toEqual([kept(2), kept(1)]);
  });

  test("refuses an event that has lost the checksum which its client promises", async () => {
    await using cloud = await serveCloud();
    const events = [sale(1, { checksum: undefined }), sale(2)];
    const summary = await cloud.client.uploadBufferedEvents(each(events), {
      ...{ signal: never, metadata: promised },
    });
    expect(summary).toMatchObject({
      ...{ accepted: 1, refused: 1 },
      refusals: [{ eventId: "sale-1", code: RefusalCode.CORRUPT, retryable: true }],
    });
    expect(await ledgerOf(cloud)).toEqual([kept(2)]);
  });

  test("ends a call whose metadata names another store than an intact event", async () => {
    await using cloud = await serveCloud();
    const { error } = await channel(cloud, [sale(1)], { ...promised, "brewctl-store": "store-00" });
    expect(error).toMatchObject({ code: "DATA_LOSS" });
    expect(await ledgerOf(cloud)).toEqual([]);
  });

  test("takes nothing but what was sent, whichever bit of a bundle flips", async () => {
    await using cloud = await serveCloud();
    const more = [2, 3].map((n) => sale(n, { storeId: "", epoch: "" }));
    const bytes = toBinary(StoreEventSchema, sale(1, { more }));
    const flipped: StoreEvent[] = [];
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const copy = Buffer.from(bytes);
      copy.writeUInt8(copy.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
      try {
        flipped.push(fromBinary(StoreEventSchema, copy));
      } catch {
        // Malformed: it ends the call, and the store sends the bundle again.
      }
    }
    expect(flipped.length).toBeGreaterThan(bytes.length * 4);
    const { error } = await channel(cloud, flipped, promised);
    expect(error).toBeUndefined();
    const taken = await ledgerOf(cloud);
    const byId = (one: { eventId: string }, other: { eventId: string }) =>
      one.eventId < other.eventId ? -1 : 1;
    expect(taken.sort(byId)).toEqual([kept(1), kept(2), kept(3)]);
  });
});

describe("a store", () => {
  /** The message that the store sends for an event alone. */
  const messageOf = ({ eventId, type, payload, timestamp, epoch, seq }: Recorded) =>
    Buffer.from(
      toBinary(
        StoreEventSchema,
        create(StoreEventSchema, {
          ...{ eventId, storeId, type, payload, epoch },
          ...{ timestamp: BigInt(timestamp), seq: BigInt(seq) },
          checksum: messageChecksum(checksumOf({ eventId, type, payload, timestamp }), {
            ...{ storeId, epoch, seq },
          }),
        }),
      ),
    );

  /** Flips bits of this byte of a message, once, on its way to the cloud. */
  function flipOnce(message: Buffer, offset: number, bits = 1): (chunk: Buffer) => Buffer {
    let isDone = false;
    return (chunk) => {
      const at = chunk.indexOf(message);
      if (at < 0 || isDone) {
        return chunk;
      }
      isDone = true;
      const copy = Buffer.from(chunk);
      copy.writeUInt8(copy.readUInt8(at + offset) ^ bits, at + offset);
      return copy;
    };
  }

  test("begins a new call within its usual backoff when the cloud cannot read a message", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    using box = openBox({ path: folder.file("buffer.db") });
    const [appended] = box.record(["sale-1"]);
    if (appended?.kind !== "recorded") {
      throw new Error("nothing was recorded");
    }
    // The tag of its first field: the wire type is then none that there is.
    wire.alter(flipOnce(messageOf(appended.event), 0, 4));
    await using drain = box.channel(loopback(wire.port), { untilDrained: true });
    await drain.done;
    expect(drain.told.states).toContainEqual(
      expect.objectContaining({
        kind: "offline",
        attempt: 1,
        why: expect.stringMatching(/wire|tag/),
      }),
    );
    expect(await ledgerOf(cloud)).toHaveLength(1);
  });

  const fields: [field: keyof Sent, value: (event: Recorded) => Sent][] = [
    ["eventId", ({ eventId }) => ({ eventId })],
    ["storeId", () => ({ storeId })],
    ["type", ({ type }) => ({ type })],
    ["payload", ({ payload }) => ({ payload })],
    ["timestamp", ({ timestamp }) => ({ timestamp: BigInt(timestamp) })],
    ["seq", ({ seq }) => ({ seq: BigInt(seq) })],
    ["epoch", ({ epoch }) => ({ epoch })],
  ];

  for (const verb of ["channel", "flush"] as const) {
    test.each(fields)(
      `sends its own copy by ${verb} when a bit of %s has flipped`,
      async (_, of) => {
        using folder = tempFolder();
        await using cloud = await serveCloud();
        await using wire = await cutWire(cloud.port);
        using box = openBox({ path: folder.file("buffer.db") });
        const [event] = box.record(["sale-1"]).map((appended) => {
          expect(appended.kind).toBe("recorded");
          return appended.kind === "recorded" ? appended.event : undefined;
        });
        if (event === undefined) {
          throw new Error("nothing was recorded");
        }
        const message = messageOf(event);
        const field = Buffer.from(toBinary(StoreEventSchema, create(StoreEventSchema, of(event))));
        wire.alter(flipOnce(message, message.indexOf(field) + field.length - 1));
        await using drain =
          verb === "flush"
            ? box.flush(loopback(wire.port))
            : box.channel(loopback(wire.port), { untilDrained: true, ackTimeoutMs: 50 });
        await drain.done;
        expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 1 });
        const { eventId, type, payload, timestamp, seq, epoch } = event;
        expect(await ledgerOf(cloud)).toEqual([
          {
            eventId,
            type,
            payload,
            timestamp: BigInt(timestamp),
            epoch,
            seq: BigInt(seq),
            storeId,
          },
        ]);
        expect(cloud.log.lines.join("")).toContain("event refused: corrupt");
      },
    );
  }
});
