/** HeadOffice over a real wire: commands into the queues, events out of the ledger. */

import { describe, expect, test } from "vitest";
import { noon } from "../support/open-ledger.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each, failure } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { testClock } from "../support/test-clock.ts";

const storeId = "store-01";
const command = {
  storeIds: [storeId],
  commandId: "cmd-1",
  type: "PriceUpdate",
  payloadJson: '{"sku":"A"}',
};

async function record({ client }: TestCloud, store: string, first: number, last: number) {
  const events = Array.from({ length: last - first + 1 }, (_, i) => ({
    ...{ storeId: store, eventId: `sale-${first + i}`, type: "Sale", payload: `${first + i}` },
    ...{ timestamp: BigInt(noon), seq: BigInt(first + i), epoch: `epoch of ${store}` },
  }));
  const { accepted } = await client.uploadBufferedEvents(each(events), { signal: never });
  expect(accepted).toBe(events.length);
}

describe("IssueCommand", () => {
  test("queues the command, and says whether its store watches", async () => {
    await using cloud = await serveCloud();
    const issue = () => cloud.office.issueCommand(command, { signal: never });
    expect(await issue()).toMatchObject({
      commandId: "cmd-1",
      queued: [{ storeId, sequence: 1n, isWatching: false, isKnown: false }],
    });
    await cloud.log.line("command queued store=store-01 command_id=cmd-1 type=PriceUpdate");
    const commands = cloud.client
      .watchCommands({ storeId }, { signal: never })
      [Symbol.asyncIterator]();
    await commands.next();
    // The same again is the same answer.
    expect(await issue()).toMatchObject({
      queued: [{ sequence: 1n, isWatching: true, isKnown: true }],
    });
    await commands.return?.();
  });

  test("a command without an id gets one", async () => {
    await using cloud = await serveCloud();
    const { commandId } = await cloud.office.issueCommand(
      { ...command, commandId: "" },
      { signal: never },
    );
    expect(commandId).toMatch(/^cmd-[0-9a-f]{12}$/);
  });

  test.each([
    [{ storeIds: [""] }, "INVALID_ARGUMENT", "store_id is empty"],
    [{ storeIds: [] }, "INVALID_ARGUMENT", "store_ids is empty; expected at least one store"],
    [{ allStores: true }, "INVALID_ARGUMENT", "store_ids and all_stores; expected one of them"],
    [
      { allStores: true, storeIds: [] },
      "FAILED_PRECONDITION",
      "the cloud has heard of no store yet",
    ],
    [
      { storeIds: Array.from({ length: 10_001 }, (_, i) => `store-${i}`) },
      "INVALID_ARGUMENT",
      "a command for 10001 stores; at most 10000 are allowed",
    ],
    [{ commandId: "c".repeat(129) }, "INVALID_ARGUMENT", "command_id has 129 bytes"],
    [{ type: "\u0007" }, "INVALID_ARGUMENT", "type has control characters"],
    [{ payloadJson: "sku" }, "INVALID_ARGUMENT", "payload_json is not JSON"],
    [{ payloadJson: "{}" }, "ALREADY_EXISTS", "store store-01 has a command cmd-1 already"],
  ])("%.60j is %s: %s", async (changes, code, message) => {
    await using cloud = await serveCloud();
    await cloud.office.issueCommand(command, { signal: never });
    const answer = cloud.office.issueCommand({ ...command, ...changes }, { signal: never });
    expect(await failure(answer)).toMatchObject({
      ...{ code, message: expect.stringContaining(message) },
    });
  });
});

describe("ListEvents", () => {
  const list = ({ office }: TestCloud, request = {}) =>
    collect(office.listEvents(request, { signal: never }));

  test("an empty ledger is an empty list", async () => {
    await using cloud = await serveCloud();
    expect(await list(cloud)).toEqual({ messages: [], error: undefined });
  });

  test("an event comes whole, with where and when the ledger took it", async () => {
    const clock = testClock(noon + 5000);
    await using cloud = await serveCloud({ clock });
    const recorded = record(cloud, storeId, 7, 7);
    await clock.sleeping();
    await clock.advance(0);
    await recorded;
    const { messages } = await list(cloud);
    expect(messages).toEqual([
      {
        $typeName: "sync.v1.ListEventsResponse",
        ...{ position: 1n, storeId, eventId: "sale-7", type: "Sale", payload: "7", seq: 7n },
        ...{ epoch: "epoch of store-01", timestamp: BigInt(noon) },
        receivedAt: BigInt(noon + 5000),
      },
    ]);
  });

  test("page after page in the order of taking, of all or of one store, from a place on", async () => {
    await using cloud = await serveCloud();
    await record(cloud, storeId, 1, 450);
    await record(cloud, "store-02", 1, 50);
    await record(cloud, storeId, 451, 452);
    const positions = async (request: object) =>
      (await list(cloud, request)).messages.map(({ position }) => Number(position));
    const range = (first: number, last: number) =>
      Array.from({ length: last - first + 1 }, (_, i) => first + i);
    expect(await positions({})).toEqual(range(1, 502));
    expect(await positions({ storeId: "store-02" })).toEqual(range(451, 500));
    expect(await positions({ storeId, after: 449n })).toEqual([450, 501, 502]);
    expect(await positions({ after: 502n })).toEqual([]);
    expect(await positions({ after: 2n ** 63n - 1n })).toEqual([]);
    expect(await positions({ after: -(2n ** 63n), storeId: "nobody" })).toEqual([]);
  });

  test("with follow those still to come come too, each once", async () => {
    await using cloud = await serveCloud();
    await record(cloud, storeId, 1, 3);
    const events = cloud.office
      .listEvents({ follow: true, after: 1n, storeId }, { signal: never })
      [Symbol.asyncIterator]();
    const take = async (count: number) => {
      const ids: string[] = [];
      while (ids.length < count) {
        ids.push((await events.next()).value.eventId);
      }
      return ids;
    };
    expect(await take(2)).toEqual(["sale-2", "sale-3"]);
    const next = take(2);
    await record(cloud, "store-02", 1, 5);
    await record(cloud, storeId, 4, 5);
    expect(await next).toEqual(["sale-4", "sale-5"]);
    const ended = failure(Promise.resolve(events.next()));
    await cloud.server.stop({ graceMs: 60_000, force: never });
    expect(await ended).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  });

  test("a store_id that cannot be one is INVALID_ARGUMENT", async () => {
    await using cloud = await serveCloud();
    const { error } = await list(cloud, { storeId: "s".repeat(129) });
    expect(error).toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringMatching(/^store_id has 129/),
    });
  });
});
