/** Events whose bits flip between a store and the cloud, on the wire and on either disk. */

import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { Recorded } from "../../src/bridge/outbox.ts";
import {
  ackChecksum,
  checksumOf,
  messageChecksum,
  summaryChecksum,
} from "../../src/event-checksum.ts";
import {
  EventAckSchema,
  RefusalCode,
  type StoreEvent,
  StoreEventSchema,
  SyncEngine,
} from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { type Handlers, implement } from "../../src/grpc/serve.ts";
import { syncEngineBounds } from "../../src/server/bounds.ts";
import { cutWire } from "../support/cut-wire.ts";
import { noon } from "../support/open-ledger.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each } from "../support/serve-handlers.ts";
import { loopback, never, serveImplementations } from "../support/start-server.ts";
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

describe("an answer of the cloud", () => {
  test("has a checksum for a client that says it knows them, and none for any other", async () => {
    await using cloud = await serveCloud();
    const bundle = sale(1, { more: [sale(2), sale(2, { type: "" })] });
    const { messages } = await channel(cloud, [bundle], promised);
    expect(messages).toMatchObject([{ also: ["sale-2"] }, { code: RefusalCode.CORRUPT }]);
    expect(messages.map(({ checksum }) => checksum)).toEqual(messages.map(ackChecksum));
    const [other] = (await channel(cloud, [sale(3)])).messages;
    expect(other?.checksum).toBeUndefined();
    const upload = (metadata: Record<string, string>) =>
      cloud.client.uploadBufferedEvents(each([bundle]), { signal: never, metadata });
    const summary = await upload(promised);
    expect(summary).toMatchObject({ duplicates: 2, refused: 1 });
    expect(summary.checksum).toBe(summaryChecksum(summary));
    expect((await upload({})).checksum).toBeUndefined();
  });

  test("has another checksum with any other field that decides something", () => {
    const ack = {
      ...{ eventId: "e1", ok: false, duplicate: false, retryable: true, retryAfterMs: 200 },
      ...{ code: RefusalCode.TRY_LATER, also: ["e2"] },
    };
    const acks = [
      ...[ack, { ...ack, eventId: "e2" }, { ...ack, ok: true }, { ...ack, duplicate: true }],
      ...[
        { ...ack, retryable: false },
        { ...ack, retryAfterMs: 0 },
        { ...ack, code: 1 },
      ],
      ...[
        { ...ack, also: [] },
        { ...ack, also: ["e3"] },
        { ...ack, also: ["e2", "e2"] },
      ],
    ];
    expect(new Set(acks.map(ackChecksum)).size).toBe(acks.length);
    const summary = {
      ...{ accepted: 2, rejected: 1, duplicates: 0, refused: 1 },
      refusals: [{ eventId: "e1", code: 4, retryable: true }],
    };
    const summaries = [
      ...[summary, { ...summary, accepted: 1 }, { ...summary, rejected: 2 }],
      ...[
        { ...summary, duplicates: 1 },
        { ...summary, refused: 0 },
        { ...summary, refusals: [] },
      ],
      ...[{ eventId: "e2" }, { code: 1 }, { retryable: false }].map((changes) => ({
        ...summary,
        refusals: [{ eventId: "e1", code: 4, retryable: true, ...changes }],
      })),
    ];
    expect(new Set(summaries.map(summaryChecksum)).size).toBe(summaries.length);
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

  /** A cloud whose first answer names the second event instead of the first, under the first one's sum. */
  async function serveMistaken({ promises, checksum }: { promises: boolean; checksum: boolean }) {
    let answers = 0;
    const unused = () => {
      throw new Error("not to be called");
    };
    const promised: Record<string, string> = promises ? { "brewctl-checksums": "1" } : {};
    const handlers: Handlers<typeof SyncEngine> = {
      ...{ watchCommands: unused, reportStatus: unused, answerDigest: unused },
      async uploadBufferedEvents(events, { sendHeaders }) {
        sendHeaders(promised);
        const { length: accepted } = (await collect(events)).messages;
        const summary = {
          accepted: 0,
          rejected: 0,
          duplicates: 0,
          refused: accepted,
          refusals: [],
        };
        answers += 1;
        return answers === 1
          ? { accepted, ...(checksum ? { checksum: summaryChecksum(summary) } : {}) }
          : { accepted, checksum: summaryChecksum({ ...summary, accepted, refused: 0 }) };
      },
      async *operationalChannel(events, { sendHeaders }) {
        sendHeaders(promised);
        for await (const { eventId } of events) {
          const ack = create(EventAckSchema, { eventId, ok: true });
          answers += 1;
          yield answers === 1
            ? create(EventAckSchema, {
                ...{ eventId: "sale-2", ok: true },
                ...(checksum ? { checksum: ackChecksum(ack) } : {}),
              })
            : Object.assign(ack, { checksum: ackChecksum(ack) });
        }
      },
    };
    return serveImplementations(implement(SyncEngine, handlers, { bounds: syncEngineBounds }));
  }

  test.each([
    ["channel", "has another checksum", { promises: false, checksum: true }],
    ["channel", "has lost the checksum that was promised", { promises: true, checksum: false }],
    ["flush", "has another checksum", { promises: false, checksum: true }],
    ["flush", "has lost the checksum that was promised", { promises: true, checksum: false }],
  ] as const)("takes no answer of a %s that %s", async (verb, _, faults) => {
    using folder = tempFolder();
    await using cloud = await serveMistaken(faults);
    using box = openBox({ path: folder.file("buffer.db") });
    box.record(["sale-1", "sale-2"]);
    await using drain =
      verb === "flush"
        ? box.flush(cloud.address)
        : box.channel(cloud.address, { untilDrained: true });
    await drain.done;
    expect(drain.told.states).toContainEqual(
      expect.objectContaining({
        kind: "offline",
        why: expect.stringMatching(/^an answer of the cloud does not have its checksum/),
      }),
    );
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 2 });
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
