/** Bundles: a StoreEvent that carries further ones, from our own stores and from strangers. */

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { maxBundle } from "../../src/bridge/uplink.ts";
import {
  EventAckSchema,
  RefusalCode,
  type StoreEvent,
  StoreEventSchema,
  SyncEngine,
} from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { type Handlers, implement } from "../../src/grpc/serve.ts";
import { syncEngineBounds } from "../../src/server/bounds.ts";
import { noon } from "../support/open-ledger.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each } from "../support/serve-handlers.ts";
import { never, serveImplementations } from "../support/start-server.ts";
import { openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";

type Sent = MessageInitShape<typeof StoreEventSchema>;

const sale = (n: number, changes: Sent = {}): Sent => ({
  ...{ eventId: `sale-${n}`, type: "Sale", payload: `${n}` },
  ...{ timestamp: BigInt(noon + n), seq: BigInt(n) },
  ...changes,
});

/** These events as a bundle; the first one names the store. */
const bundle = ([first = {}, ...more]: Sent[]) =>
  create(StoreEventSchema, {
    ...{ storeId: "store-01", epoch: "aaaaaaaaaaaaaaaa" },
    ...first,
    more: more.map((event) => create(StoreEventSchema, event)),
  });

const channel = ({ client }: TestCloud, ...messages: Sent[]) =>
  collect(client.operationalChannel(each(messages), { signal: never }));

const ledgerOf = async ({ office }: TestCloud) => {
  const { messages } = await collect(office.listEvents({}, { signal: never }));
  return messages.map(({ storeId, eventId, seq, epoch }) => ({ storeId, eventId, seq, epoch }));
};

describe("the cloud", () => {
  test("takes each event of a bundle in order, and answers in one message", async () => {
    await using cloud = await serveCloud();
    const { messages, error } = await channel(cloud, bundle([1, 2, 3].map((n) => sale(n))), {
      ...sale(4),
      ...{ storeId: "store-01", epoch: "aaaaaaaaaaaaaaaa" },
    });
    expect(error).toBeUndefined();
    expect(messages).toMatchObject([
      { eventId: "sale-1", ok: true, duplicate: false, also: ["sale-2", "sale-3"] },
      { eventId: "sale-4", ok: true, also: [] },
    ]);
    expect(await ledgerOf(cloud)).toEqual(
      [1, 2, 3, 4].map((n) => ({
        ...{ storeId: "store-01", eventId: `sale-${n}`, seq: BigInt(n) },
        epoch: "aaaaaaaaaaaaaaaa",
      })),
    );
  });

  test("a bad event, a duplicate and a conflict have answers of their own, in their places", async () => {
    await using cloud = await serveCloud();
    await channel(cloud, bundle([sale(2), sale(4)]));
    const { messages } = await channel(
      cloud,
      bundle([
        ...[sale(1), sale(2), sale(3), sale(4, { payload: "another" })],
        ...[sale(5, { type: "" }), sale(6, { storeId: "store-99" }), sale(7), sale(8)],
      ]),
    );
    expect(messages).toMatchObject([
      { eventId: "sale-1", ok: true, also: [] },
      { eventId: "sale-2", ok: true, duplicate: true, also: [] },
      { eventId: "sale-3", ok: true, also: [] },
      { eventId: "sale-4", ok: false, code: RefusalCode.CONFLICT },
      { eventId: "sale-5", ok: false, code: RefusalCode.INVALID },
      { eventId: "sale-6", ok: false, code: RefusalCode.INVALID },
      { eventId: "sale-7", ok: true, also: ["sale-8"] },
    ]);
  });

  test("counts each event of a bundle in a summary", async () => {
    await using cloud = await serveCloud();
    await channel(cloud, bundle([sale(2)]));
    const bundles = [bundle([sale(1), sale(2), sale(3, { type: "" })]), bundle([sale(4)])];
    const summary = await cloud.client.uploadBufferedEvents(each(bundles), { signal: never });
    expect(summary).toMatchObject({
      ...{ accepted: 2, duplicates: 1, refused: 1, rejected: 2 },
      refusals: [{ eventId: "sale-3" }],
    });
  });

  test("reads no bundle within a bundle", async () => {
    await using cloud = await serveCloud();
    const nested = { ...bundle([sale(2), sale(3)]), storeId: "" };
    const { messages } = await channel(cloud, bundle([sale(1), nested]));
    expect(messages).toMatchObject([{ eventId: "sale-1", also: ["sale-2"] }]);
    expect(await ledgerOf(cloud)).toHaveLength(2);
  });

  test("a bundle of 256 is taken, one of 257 ends the call, and what came before counts", async () => {
    await using cloud = await serveCloud();
    const of = (first: number, count: number) =>
      bundle(Array.from({ length: count }, (_, i) => sale(first + i)));
    const { messages, error } = await channel(cloud, of(1, 256), of(300, 257));
    expect(messages).toMatchObject([{ eventId: "sale-1", also: { length: 255 } }]);
    expect(error).toMatchObject({
      ...{ code: "INVALID_ARGUMENT", message: "a bundle of 257; expected 256 at most" },
    });
    expect(await ledgerOf(cloud)).toHaveLength(256);
  });

  test("a call that ends within a bundle has answered what was before that", async () => {
    await using cloud = await serveCloud({ faults: { dropAfter: 2 } });
    const { messages, error } = await channel(cloud, bundle([1, 2, 3].map((n) => sale(n))));
    expect(messages).toMatchObject([{ eventId: "sale-1", also: ["sale-2"] }]);
    expect(error).toMatchObject({ code: "UNAVAILABLE" });
  });
});

describe("a store", () => {
  test.each(["flush", "channel"] as const)(
    "sends bundles by %s once the cloud has said that it takes them",
    async (way) => {
      using folder = tempFolder();
      await using cloud = await serveCloud();
      using box = openBox({ path: folder.file("a.db") });
      const ids = idsOf("sale", 2_000);
      box.record(ids);
      await using drain =
        way === "flush"
          ? box.flush(cloud.address)
          : box.channel(cloud.address, { untilDrained: true });
      await drain.done;
      expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 2_000 });
      const { messages } = await collect(cloud.office.listEvents({}, { signal: never }));
      expect(
        messages.map(({ eventId, type, payload, timestamp }) => ({
          ...{ eventId, type, payload, timestamp: Number(timestamp) },
        })),
      ).toEqual(ids.map(eventOf));
      expect(messages.map(({ seq }) => Number(seq))).toEqual(ids.map((_, i) => i + 1));
    },
  );

  test("sends none to a cloud that has never heard of them", async () => {
    const got: StoreEvent[] = [];
    const unused = () => {
      throw new Error("not to be called");
    };
    const handlers: Handlers<typeof SyncEngine> = {
      ...{ watchCommands: unused, reportStatus: unused, answerDigest: unused },
      async uploadBufferedEvents(events) {
        let accepted = 0;
        for await (const event of events) {
          got.push(event);
          accepted += 1;
        }
        return { accepted };
      },
      async *operationalChannel(events) {
        for await (const event of events) {
          got.push(event);
          yield create(EventAckSchema, { eventId: event.eventId, ok: true });
        }
      },
    };
    await using cloud = await serveImplementations(
      implement(SyncEngine, handlers, { bounds: syncEngineBounds }),
    );
    using folder = tempFolder();
    for (const way of ["flush", "channel"] as const) {
      using box = openBox({ path: folder.file(`${way}.db`) });
      const ids = idsOf(way, 1_200);
      box.record(ids);
      got.length = 0;
      await using drain =
        way === "flush"
          ? box.flush(cloud.address, { maxBatch: 1_000 })
          : box.channel(cloud.address, { untilDrained: true });
      await drain.done;
      expect(got.map(({ eventId }) => eventId)).toEqual(ids);
      expect(got.filter(({ more }) => more.length > 0)).toEqual([]);
      expect(new Set(got.map(({ storeId }) => storeId))).toEqual(new Set(["store-01"]));
    }
  });

  test("bundles are no larger than a cloud of ours takes", () => {
    expect(maxBundle).toBeLessThanOrEqual(256);
  });
});
