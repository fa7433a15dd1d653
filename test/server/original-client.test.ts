/**
 * A client that knows only the contract as it was at first: no numbers, no epochs, no cursor, no
 * codes.
 */

import type { DescMethod } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import type { CallOptions, Connection } from "../../src/grpc/dial.ts";
import { noon } from "../support/open-ledger.ts";
import { originalSyncEngine } from "../support/original-contract.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { collect, each } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";

/** What the descriptor's types would say if it came from a file. */
interface Event {
  readonly eventId: string;
  readonly storeId: string;
  readonly type: string;
  readonly payload: string;
  readonly timestamp: bigint;
}

interface Original {
  watchCommands(
    handshake: { storeId: string },
    call: CallOptions,
  ): AsyncIterable<{
    $typeName: string;
    commandId: string;
    type: string;
    payloadJson: string;
  }>;
  uploadBufferedEvents(
    events: AsyncIterable<Event>,
    call: CallOptions,
  ): Promise<{ accepted: number; rejected: number }>;
  operationalChannel(
    events: AsyncIterable<Event>,
    call: CallOptions,
  ): AsyncIterable<{ eventId: string; ok: boolean; reason: string }>;
}

const original = (connection: Connection): Original =>
  connection.client(originalSyncEngine) as unknown as Original;

const sale = (n: number, changes: Partial<Event> = {}): Event => ({
  ...{ eventId: `sale-${n}`, storeId: "store-01", type: "Sale", payload: `{"total":${n}}` },
  timestamp: BigInt(noon + n),
  ...changes,
});

const sales = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, i) => sale(first + i));

describe("a client of the original contract", () => {
  test("knows its own fields and nothing else", () => {
    const known = originalSyncEngine.methods.flatMap(({ input, output }: DescMethod) =>
      [input, output].map(({ name, fields }) => `${name} ${fields.map((f) => f.number)}`),
    );
    expect(new Set(known)).toEqual(
      new Set([
        ...["StoreHandshake 1", "CloudCommand 1,2,3", "StoreEvent 1,2,3,4,5"],
        ...["UploadSummary 1,2", "EventAck 1,2,3"],
      ]),
    );
  });

  test("uploads 700 events in one call, and those that come again are rejected", async () => {
    await using cloud = await serveCloud();
    const client = original(cloud.dial());
    const upload = (events: Event[]) =>
      client.uploadBufferedEvents(each(events), { signal: never });
    expect(await upload(sales(1, 700))).toMatchObject({ accepted: 700, rejected: 0 });
    expect(await upload(sales(1, 701))).toMatchObject({ accepted: 1, rejected: 700 });
    const bad = [sale(702), sale(703, { type: "" }), sale(1, { payload: "another" })];
    expect(await upload(bad)).toMatchObject({ accepted: 1, rejected: 2 });
    const { messages } = await collect(cloud.office.listEvents({}, { signal: never }));
    expect(messages.map(({ eventId }) => eventId)).toEqual(
      sales(1, 702).map(({ eventId }) => eventId),
    );
    expect(messages.every(({ seq, epoch }) => seq === 0n && epoch === "")).toBe(true);
  });

  test("gets an answer for each event of its channel", async () => {
    await using cloud = await serveCloud();
    const events = [...sales(1, 100), sale(1), sale(101, { timestamp: -1n }), sale(102)];
    const { messages, error } = await collect(
      original(cloud.dial()).operationalChannel(each(events), { signal: never }),
    );
    expect(error).toBeUndefined();
    expect(messages.map(({ eventId }) => eventId)).toEqual(events.map(({ eventId }) => eventId));
    expect(messages.filter(({ ok }) => !ok)).toMatchObject([
      { eventId: "sale-101", reason: expect.stringMatching(/^timestamp is -1/) },
    ]);
  });

  test("watches without a cursor: what waits for it, then what is issued, and not again", async () => {
    await using cloud = await serveCloud();
    const issue = (n: number) =>
      cloud.office.issueCommand(
        { storeIds: ["store-01"], commandId: `cmd-${n}`, type: "PriceUpdate", payloadJson: `${n}` },
        { signal: never },
      );
    const watch = () =>
      original(cloud.dial())
        .watchCommands({ storeId: "store-01" }, { signal: never })
        [Symbol.asyncIterator]();
    await issue(1);
    const commands = watch();
    expect((await commands.next()).value).toMatchObject({
      ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: "1" },
    });
    await issue(2);
    await issue(3);
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-2" });
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-3" });
    await commands.return?.();
    await cloud.log.line("Store store-01 disconnected: client gone");

    await issue(4);
    const later = watch();
    // The last one of the lost stream may come again, and those before it do not.
    const first = (await later.next()).value.commandId;
    expect(["cmd-3", "cmd-4"]).toContain(first);
    if (first === "cmd-3") {
      expect((await later.next()).value).toMatchObject({ commandId: "cmd-4" });
    }
    await later.return?.();
  });
});
