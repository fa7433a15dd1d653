/** HeadOffice over a real wire: commands into the queues, events out of the ledger. */

import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { checksumOf, messageChecksum } from "../../src/event-checksum.ts";
import { CommandState, type ListStoresResponse } from "../../src/gen/sync/v1/head_office_pb.ts";
import { knowStores, noon, openLedger, sale } from "../support/open-ledger.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect, each, failure, thenWait } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
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

const report = ({ client }: TestCloud, of: string, changes: object = {}) =>
  client.reportStatus({ storeId: of, ...changes }, { signal: never });

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
    ["INVALID_ARGUMENT", "store_ids[0] is empty", { storeIds: [""] }],
    [
      "INVALID_ARGUMENT",
      "store_ids is empty; expected at least one store, or all_stores",
      { storeIds: [] },
    ],
    ["INVALID_ARGUMENT", "store_ids and all_stores; expected one of them", { allStores: true }],
    [
      "FAILED_PRECONDITION",
      "the cloud has heard of no store yet",
      { allStores: true, storeIds: [] },
    ],
    [
      "INVALID_ARGUMENT",
      "store_ids has 10001 items; at most 10000 are allowed",
      { storeIds: Array.from({ length: 10_001 }, (_, i) => `store-${i}`) },
    ],
    ["INVALID_ARGUMENT", "command_id has 129 bytes", { commandId: "c".repeat(129) }],
    ["INVALID_ARGUMENT", "type has control characters", { type: "\u0007" }],
    ["INVALID_ARGUMENT", "payload_json is not JSON", { payloadJson: "sku" }],
    ["ALREADY_EXISTS", "store store-01 has a command cmd-1 already", { payloadJson: "{}" }],
  ])("%s: %s", async (code, message, changes) => {
    await using cloud = await serveCloud();
    await cloud.office.issueCommand(command, { signal: never });
    const answer = cloud.office.issueCommand({ ...command, ...changes }, { signal: never });
    expect(await failure(answer)).toMatchObject({
      ...{ code, message: expect.stringContaining(message) },
    });
  });
});

describe("IssueCommand for many", () => {
  test("all that the cloud has ever heard of, and whether each is there", async () => {
    await using cloud = await serveCloud();
    await record(cloud, "b", 1, 1);
    await report(cloud, "c");
    const watching = cloud.client
      .watchCommands({ storeId: "a" }, { signal: never })
      [Symbol.asyncIterator]();
    const next = watching.next();
    await cloud.log.line("Store a connected");
    const { storeIds: _, ...rest } = command;
    const issue = () => cloud.office.issueCommand({ ...rest, allStores: true }, { signal: never });
    const { queued } = await issue();
    expect(queued).toMatchObject([
      { storeId: "a", sequence: 1n, isWatching: true, isKnown: true },
      { storeId: "b", sequence: 1n, isWatching: false, isKnown: true },
      { storeId: "c", sequence: 1n, isWatching: false, isKnown: true },
    ]);
    expect((await next).value).toMatchObject({ commandId: "cmd-1" });
    await cloud.log.line('store="3 stores" command_id=cmd-1 type=PriceUpdate watching=1');
    expect((await issue()).queued).toEqual(queued);
    await watching.return?.();
  });

  test("a store that was never heard of is said to be so, and gets it all the same", async () => {
    await using cloud = await serveCloud();
    const storeIds = ["nobody", storeId];
    await report(cloud, storeId);
    const { queued } = await cloud.office.issueCommand({ ...command, storeIds }, { signal: never });
    expect(queued.map(({ isKnown }) => isKnown)).toEqual([false, true]);
    const commands = cloud.client
      .watchCommands({ storeId: "nobody" }, { signal: never })
      [Symbol.asyncIterator]();
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-1" });
    await commands.return?.();
  });
});

describe("ListStores", () => {
  const list = async ({ office }: TestCloud, storeIds: string[] = []) => {
    const { messages, error } = await collect(office.listStores({ storeIds }, { signal: never }));
    expect(error).toBeUndefined();
    return messages;
  };
  const follow = ({ office }: TestCloud, storeIds: string[] = []) =>
    office.listStores({ storeIds, follow: true }, { signal: never })[Symbol.asyncIterator]();

  test("no store is an empty list", async () => {
    await using cloud = await serveCloud();
    expect(await list(cloud)).toEqual([]);
  });

  test("a store comes whole, by the cloud's clock, and its oldest event goes on ageing", async () => {
    const clock = testClock(noon);
    await using cloud = await serveCloud({ clock });
    await clock.settled(
      report(cloud, storeId, {
        ...{ depth: 3n, bytes: 4096n, oldestUnacked: BigInt(noon - 60_000), parked: 1n },
        ...{ sentAt: BigInt(noon + 2_000), epoch: "aa", version: "1.2.3", commandsParked: 2n },
        alarms: ["the buffer was salvaged"],
      }),
    );
    await clock.advance(60_000);
    expect(await list(cloud)).toEqual([
      {
        $typeName: "sync.v1.ListStoresResponse",
        ...{ storeId, isConnected: false, lastSeen: BigInt(noon), reportedAt: BigInt(noon) },
        ...{ depth: 3n, bytes: 4096n, oldestUnacked: BigInt(noon - 60_000), parked: 1n },
        ...{
          gaps: 0n,
          currentGaps: 0n,
          seen: 0n,
          conflicts: 0n,
          openConflicts: 0n,
          isForgotten: false,
          clockOffsetMs: 2_000n,
          epoch: "aa",
          epochs: 0,
        },
        ...{ queuedSequence: 0n, receivedSequence: 0n, appliedSequence: 0n, commandsParked: 2n },
        ...{ version: "1.2.3", alarms: ["the buffer was salvaged"], asOf: BigInt(noon + 60_000) },
      },
    ]);
  });

  test("a watch, a channel and an upload each make a store connected while they last", async () => {
    await using cloud = await serveCloud();
    const isConnected = async (id: string) =>
      (await list(cloud)).find((store) => store.storeId === id)?.isConnected;
    const stop = new AbortController();
    const watching = cloud.client
      .watchCommands({ storeId: "watching" }, { signal: stop.signal })
      [Symbol.asyncIterator]();
    const next = watching.next();
    await cloud.log.line("Store watching connected");
    expect(await isConnected("watching")).toBe(true);
    stop.abort(new Error("enough"));
    await expect(next).rejects.toThrow("enough");
    await cloud.log.line("Store watching disconnected");
    expect(await isConnected("watching")).toBe(false);

    const over = Promise.withResolvers<void>();
    const event = (id: string) => ({ eventId: "1", storeId: id, type: "Sale", timestamp: 1n });
    const acks = cloud.client
      .operationalChannel(thenWait([event("channel")], over.promise), { signal: never })
      [Symbol.asyncIterator]();
    await acks.next();
    expect(await isConnected("channel")).toBe(true);
    const uploaded = cloud.client.uploadBufferedEvents(thenWait([event("upload")], over.promise), {
      signal: never,
      metadata: { "brewctl-store": "upload" },
    });
    while ((await isConnected("upload")) === undefined) {
      await nextTurn();
    }
    expect(await isConnected("upload")).toBe(true);
    over.resolve();
    await uploaded;
    expect((await acks.next()).done).toBe(true);
    expect(await isConnected("upload")).toBe(false);
    expect(await isConnected("channel")).toBe(false);
  });

  test("those that are named, by id; one that was never heard of is NOT_FOUND", async () => {
    await using cloud = await serveCloud();
    for (const id of ["c", "a", "b"]) {
      await report(cloud, id);
    }
    const ids = async (named: string[]) => (await list(cloud, named)).map((store) => store.storeId);
    expect(await ids([])).toEqual(["a", "b", "c"]);
    expect(await ids(["c", "a", "c"])).toEqual(["a", "c"]);
    for (const [storeIds, code, message] of [
      [["a", "d"], "NOT_FOUND", 'the cloud has never heard of a store "d"'],
      [["a", ""], "INVALID_ARGUMENT", "store_ids[1] is empty"],
    ] as const) {
      const { messages, error } = await collect(
        cloud.office.listStores({ storeIds: [...storeIds] }, { signal: never }),
      );
      expect(messages).toEqual([]);
      expect(error).toMatchObject({ code, message });
    }
  });

  test("follow goes on with each change, whoever made it, and with stores that are new", async () => {
    await using cloud = await serveCloud();
    await report(cloud, storeId);
    const states = follow(cloud);
    expect((await states.next()).value).toMatchObject({ storeId, queuedSequence: 0n });
    await cloud.office.issueCommand(command, { signal: never });
    expect((await states.next()).value).toMatchObject({ storeId, queuedSequence: 1n });
    await record(cloud, "store-02", 1, 3);
    expect((await states.next()).value).toMatchObject({ storeId: "store-02", seen: 3n });
    await report(cloud, storeId, { depth: 7n });
    expect((await states.next()).value).toMatchObject({ storeId, depth: 7n });
    const ended = failure(Promise.resolve(states.next()));
    await cloud.server.stop({ graceMs: 60_000, force: never });
    expect(await ended).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  });

  test("follow of one store says nothing of the others", async () => {
    await using cloud = await serveCloud();
    await report(cloud, storeId);
    await report(cloud, "store-02");
    const states = follow(cloud, [storeId]);
    expect((await states.next()).value).toMatchObject({ storeId });
    const next = states.next();
    await report(cloud, "store-02", { depth: 1n });
    await report(cloud, "store-03", { depth: 1n });
    await report(cloud, storeId, { depth: 9n });
    expect((await next).value).toMatchObject({ storeId, depth: 9n });
    await states.return?.();
  });

  test("a store that changes often comes once a second, as it is then", async () => {
    const clock = testClock(noon);
    await using cloud = await serveCloud({ clock });
    await clock.settled(report(cloud, storeId));
    const states = follow(cloud);
    await clock.settled(Promise.resolve(states.next()));
    const got: bigint[] = [];
    for (let second = 1n; second <= 3n; second++) {
      const next = states.next();
      for (let i = 1n; i <= 50n; i++) {
        await clock.settled(report(cloud, storeId, { depth: second * 100n + i }));
      }
      await clock.sleeping();
      await clock.advance(1_000);
      got.push((await next).value.depth);
    }
    expect(got).toEqual([150n, 250n, 350n]);
    await states.return?.();
  });

  test("a reader that is slow gets the latest, and the server keeps no queue for it", async () => {
    await using cloud = await serveCloud();
    // Ten KiB of each store: more of them than the wire takes before somebody reads.
    const ids = Array.from({ length: 60 }, (_, i) => `store-${String(i).padStart(2, "0")}`);
    const alarms = Array.from({ length: 10 }, () => "x".repeat(1024));
    for (const id of ids) {
      await report(cloud, id, { alarms });
    }
    const states = follow(cloud);
    await states.next();
    // Of the last stores no state has been read yet: as they are when there is room.
    for (let depth = 1n; depth <= 5n; depth++) {
      await report(cloud, "store-59", { depth, alarms });
    }
    let last: ListStoresResponse | undefined;
    for (let i = 1; i < ids.length; i++) {
      last = (await states.next()).value;
    }
    expect(last).toMatchObject({ storeId: "store-59", depth: 5n });
    await states.return?.();
  });

  test("3,000 stores are listed within a second or two", async () => {
    using folder = tempFolder();
    const events = Array.from({ length: 3_000 }, (_, i) =>
      sale(2, { storeId: `store-${String(i).padStart(4, "0")}` }),
    );
    {
      using box = openLedger(folder.path);
      knowStores(
        box.ledger,
        events.map(({ storeId }) => storeId),
      );
      box.ledger.take(events);
    }
    await using cloud = await serveCloud({ dataDir: folder.path });
    const since = systemClock.monotonic();
    const stores = await list(cloud);
    const tookMs = systemClock.monotonic() - since;
    expect(stores.map((store) => store.storeId)).toEqual(events.map((event) => event.storeId));
    expect(stores.at(-1)).toMatchObject({ gaps: 1n, seen: 1n, epochs: 1 });
    expect(tookMs).toBeLessThan(3_000);
  });
});

describe("ListCommands", () => {
  const list = async ({ office }: TestCloud, of = "") =>
    collect(office.listCommands({ storeId: of }, { signal: never }));

  test("page after page, by store and sequence, with what has become of each", async () => {
    await using cloud = await serveCloud();
    const { commandId: _, ...rest } = command;
    for (let n = 1; n <= 120; n++) {
      await cloud.office.issueCommand(
        { ...rest, storeIds: ["b"], commandId: `cmd-${n}` },
        { signal: never },
      );
    }
    await cloud.office.issueCommand({ ...command, storeIds: ["a", "c"] }, { signal: never });
    const { ledgerId } = await report(cloud, "b");
    await report(cloud, "b", {
      ...{ ledgerId, receivedSequence: 119n, appliedSequence: 118n, commandsParked: 1n },
      parkedCommands: [{ commandId: "cmd-2", reason: "no such item" }],
    });
    const { messages } = await list(cloud);
    expect(messages.map(({ storeId: of, sequence }) => `${of} ${sequence}`)).toEqual([
      "a 1",
      ...Array.from({ length: 120 }, (_, i) => `b ${i + 1}`),
      "c 1",
    ]);
    const of = (await list(cloud, "b")).messages;
    expect([0, 1, 117, 118, 119].map((i) => of[i]?.state)).toEqual([
      ...[CommandState.APPLIED, CommandState.PARKED, CommandState.APPLIED],
      ...[CommandState.RECEIVED, CommandState.QUEUED],
    ]);
    expect(of[1]).toMatchObject({
      ...{ commandId: "cmd-2", type: "PriceUpdate", payloadJson: '{"sku":"A"}' },
      reason: "no such item",
    });
  });

  test("a store without commands has none, and an id that cannot be one is an error", async () => {
    await using cloud = await serveCloud();
    expect(await list(cloud, "nobody")).toEqual({ messages: [], error: undefined });
    expect((await list(cloud, "a\nb")).error).toMatchObject({
      ...{ code: "INVALID_ARGUMENT", message: "store_id has control characters" },
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
        checksum: messageChecksum(
          checksumOf({ eventId: "sale-7", type: "Sale", payload: "7", timestamp: noon }),
          { storeId, epoch: "epoch of store-01", seq: 7 },
        ),
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

  test("a store whose events lie far apart is found, and others are served meanwhile", async () => {
    await using cloud = await serveCloud();
    await record(cloud, "store-02", 1, 12_000);
    await record(cloud, storeId, 1, 1);
    const { messages, error } = await list(cloud, { storeId });
    expect(error).toBeUndefined();
    expect(messages.map(({ position }) => position)).toEqual([12_001n]);
    expect((await list(cloud, { storeId, after: 12_001n })).messages).toEqual([]);
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
