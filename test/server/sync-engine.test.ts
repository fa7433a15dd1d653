/** SyncEngine over a real wire: its three streams, and what bad input gets. */

import { existsSync } from "node:fs";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, test, vi } from "vitest";
import { Ledger } from "../../src/engine/ledger.ts";
import { Health } from "../../src/gen/grpc/health/v1/health_pb.ts";
import {
  RefusalCode,
  type StoreEventSchema,
  SyncEngine,
  type UploadSummary,
} from "../../src/gen/sync/v1/sync_engine_pb.ts";
import type { AnswerHeaders } from "../../src/grpc/dial.ts";
import { brewctl, serve } from "../support/brewctl.ts";
import { cutWire } from "../support/cut-wire.ts";
import { noon } from "../support/open-ledger.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { atRest, collect, counted, each, failure, thenWait } from "../support/serve-handlers.ts";
import { enoughMs, never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

type Sent = MessageInitShape<typeof StoreEventSchema>;

const storeId = "store-01";
const epoch = "aaaaaaaaaaaaaaaa";

const sale = (n: number, changes: Sent = {}) => ({
  ...{ storeId, eventId: `sale-${n}`, type: "Sale", payload: `{"total":${n}}`, epoch },
  ...{ timestamp: BigInt(noon + n), seq: BigInt(n) },
  ...changes,
});

const sales = (first: number, last: number, changes: Sent = {}) =>
  Array.from({ length: last - first + 1 }, (_, i) => sale(first + i, changes));

const silence = () => new Promise<void>(() => {});

/** The ids in the ledger, in order. */
async function ledgerOf({ office }: TestCloud): Promise<string[]> {
  const { messages } = await collect(office.listEvents({}, { signal: never }));
  return messages.map(({ eventId }) => eventId);
}

function upload({ client }: TestCloud, events: Sent[], metadata = {}): Promise<UploadSummary> {
  return client.uploadBufferedEvents(each(events), { signal: never, metadata });
}

function channel({ client }: TestCloud, events: AsyncIterable<Sent>, metadata = {}) {
  return client.operationalChannel(events, { signal: never, metadata });
}

const issue = (cloud: TestCloud, n: number) =>
  cloud.office.issueCommand(
    {
      storeIds: [storeId],
      commandId: `cmd-${n}`,
      type: "PriceUpdate",
      payloadJson: `{"newPrice":${n}}`,
    },
    { signal: never },
  );

/** What a store of ours and bad clients may send, and what they are told. */
const bad: [string, Sent, RefusalCode, RegExp][] = [
  ["no event_id", { eventId: "" }, RefusalCode.INVALID, /^event_id is empty$/],
  ["an event_id of 129 bytes", { eventId: "e".repeat(129) }, RefusalCode.INVALID, /^event_id has/],
  ["no type", { type: "" }, RefusalCode.INVALID, /^type is empty$/],
  [
    "a payload over 2 MiB",
    { payload: "x".repeat(2 * 1024 * 1024 + 1) },
    RefusalCode.INVALID,
    /^payload has 2097153 bytes; at most 2097152/,
  ],
  ["a time before 1970", { timestamp: -1n }, RefusalCode.INVALID, /^timestamp is -1;/],
  ["a time beyond 2^53", { timestamp: 2n ** 53n + 1n }, RefusalCode.INVALID, /^timestamp is 9007/],
  ["the last int64", { timestamp: 2n ** 63n - 1n }, RefusalCode.INVALID, /^timestamp is 922/],
  ["seq 0", { seq: 0n }, RefusalCode.INVALID, /^seq is 0; expected 1 to 1099511627776$/],
  ["a negative seq", { seq: -(2n ** 63n) }, RefusalCode.INVALID, /^seq is -922/],
  ["another store", { storeId: "store-02" }, RefusalCode.INVALID, /^store_id is not "store-01", /],
  ["no store", { storeId: "" }, RefusalCode.INVALID, /^store_id is empty$/],
  ["a known id", { eventId: "sale-1" }, RefusalCode.CONFLICT, /^event_id is taken by an event /],
  ["a seq of another event", { seq: 1n }, RefusalCode.SEQ_TAKEN, /^seq 1 of this epoch is /],
];

/** The good event behind it, in an epoch of its own: one with a taken seq takes nothing new. */
const next = sale(3, { epoch: "b", seq: 1n });

describe("UploadBufferedEvents", () => {
  test("takes what is sent, and counts it", async () => {
    await using cloud = await serveCloud();
    expect(await upload(cloud, sales(1, 100))).toMatchObject({
      ...{ accepted: 100, rejected: 0, duplicates: 0, refused: 0, refusals: [] },
    });
    expect(await ledgerOf(cloud)).toEqual(sales(1, 100).map(({ eventId }) => eventId));
    await cloud.log.line("flush ended store=store-01 accepted=100 duplicates=0 refused=0");
  });

  test("without an event is answered with a summary of nothing", async () => {
    await using cloud = await serveCloud();
    expect(await upload(cloud, [])).toMatchObject({ accepted: 0, rejected: 0, refusals: [] });
    await cloud.log.line("flush ended store=unknown accepted=0");
  });

  test("rejected is duplicates and refused together, as the original contract counts", async () => {
    await using cloud = await serveCloud();
    await upload(cloud, sales(1, 5));
    const summary = await upload(cloud, [...sales(3, 8), sale(9, { type: "" })]);
    expect(summary).toMatchObject({ accepted: 3, rejected: 4, duplicates: 3, refused: 1 });
  });

  test.each(bad)("%s is refused by name, and the stream goes on", async (_, changes, code, why) => {
    await using cloud = await serveCloud();
    const summary = await upload(cloud, [sale(1), sale(2, changes), next]);
    expect(summary).toMatchObject({ accepted: 2, rejected: 1, duplicates: 0, refused: 1 });
    expect(summary.refusals).toMatchObject([
      { eventId: sale(2, changes).eventId, code, reason: expect.stringMatching(why) },
    ]);
    expect(summary.refusals[0]?.retryable).toBe(false);
    expect(await ledgerOf(cloud)).toEqual(["sale-1", "sale-3"]);
  });

  test("of 600 refusals the first 500 are named, and all are counted", async () => {
    await using cloud = await serveCloud();
    const { refused, refusals, accepted } = await upload(cloud, [
      ...sales(1, 600, { type: "" }),
      sale(601),
    ]);
    expect({ refused, accepted }).toEqual({ refused: 600, accepted: 1 });
    expect(refusals.map(({ eventId }) => eventId)).toEqual(
      sales(1, 500).map(({ eventId }) => eventId),
    );
  });

  test("refused ids of a megabyte do not make a summary that nobody can read", async () => {
    await using cloud = await serveCloud();
    const events = sales(1, 8).map((event, i) => ({ ...event, eventId: `${i}`.repeat(2 ** 20) }));
    const { refused, refusals } = await upload(cloud, events);
    expect(refused).toBe(8);
    expect(refusals.map(({ eventId }) => eventId[0])).toEqual([..."01234567"]);
  });

  test("a bad first event does not decide whose stream it is", async () => {
    await using cloud = await serveCloud();
    const summary = await upload(cloud, [sale(1, { storeId: "" }), sale(2), sale(3)]);
    expect(summary).toMatchObject({ accepted: 2, refused: 1 });
    expect(summary.refusals).toMatchObject([{ reason: "store_id is empty" }]);
  });

  test("a client that cancels has told everything that it sent, and is told nothing", async () => {
    await using cloud = await serveCloud();
    const stop = new AbortController();
    const reason = new Error("enough");
    const answer = cloud.client.uploadBufferedEvents(thenWait(sales(1, 50), silence()), {
      signal: stop.signal,
    });
    const seen: string[] = [];
    for await (const { eventId } of cloud.office.listEvents({ follow: true }, { signal: never })) {
      seen.push(eventId);
      if (seen.length === 50) {
        break;
      }
    }
    stop.abort(reason);
    await expect(answer).rejects.toBe(reason);
    await cloud.log.line("flush ended: client gone store=store-01");
    expect(await upload(cloud, sales(1, 50))).toMatchObject({ accepted: 0, duplicates: 50 });
  });

  test("a deadline ends it on both sides, without a summary", async () => {
    await using cloud = await serveCloud();
    const deadline = performance.now() + enoughMs;
    const events = thenWait([sale(1)], silence());
    const error = await failure(
      cloud.client.uploadBufferedEvents(events, { signal: never, deadline }),
    );
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await cloud.log.line("flush ended: deadline exceeded");
  });

  test("a graceful stop lets it finish, and the summary still comes", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const summary = upload(cloud, [sale(1)]);
    // The event waits for its commit.
    await clock.sleeping();
    const stopped = cloud.server.stop({ graceMs: 60_000, force: never });
    await clock.advance(0);
    expect(await summary).toMatchObject({ accepted: 1 });
    await stopped;
  });

  test("a forced stop ends it with UNAVAILABLE, and what waited for its commit is kept", async () => {
    using folder = tempFolder();
    const clock = testClock();
    {
      await using cloud = await serveCloud({ dataDir: folder.path, clock });
      const answer = failure(upload(cloud, [sale(1)]));
      await clock.sleeping();
      await cloud.server.stop({ graceMs: 0, force: never });
      expect(await answer).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
    }
    await using cloud = await serveCloud({ dataDir: folder.path });
    expect(await upload(cloud, [sale(1)])).toMatchObject({ accepted: 0, duplicates: 1 });
  });

  test("a disk that takes nothing is no event's fault: the call ends, and all may come again", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ dataDir: folder.path });
    await upload(cloud, [sale(1)]);
    // Only this process's writes fail, as they would on a broken disk.
    const take = Ledger.prototype.take;
    Ledger.prototype.take = () => {
      throw new Error("the disk is on fire");
    };
    try {
      const unavailable = {
        code: "UNAVAILABLE",
        message: "the ledger cannot store events now; the server's log says why",
      };
      expect(await failure(upload(cloud, sales(2, 3)))).toMatchObject(unavailable);
      const { messages, error } = await collect(channel(cloud, each(sales(2, 3))));
      expect(messages).toEqual([]);
      expect(error).toMatchObject(unavailable);
      await cloud.log.line('ERROR the ledger takes nothing why="the disk is on fire"');
    } finally {
      Ledger.prototype.take = take;
    }
    expect(await upload(cloud, sales(2, 3))).toMatchObject({ accepted: 2 });
  });
});

describe("OperationalChannel", () => {
  test("answers each event, in order, after it is in the ledger", async () => {
    await using cloud = await serveCloud();
    const { messages, error } = await collect(channel(cloud, each(sales(1, 1000))));
    expect(error).toBeUndefined();
    expect(messages.map(({ eventId, ok }) => ok && eventId)).toEqual(
      sales(1, 1000).map(({ eventId }) => eventId),
    );
    await cloud.log.line("channel ended: store closed send store=store-01 accepted=1000");
  });

  test("without an event ends with OK", async () => {
    await using cloud = await serveCloud();
    expect(await collect(channel(cloud, each([])))).toEqual({ messages: [], error: undefined });
  });

  test("the answer comes while the store has more to send", async () => {
    await using cloud = await serveCloud();
    for await (const ack of channel(cloud, thenWait([sale(1)], silence()))) {
      expect(ack).toMatchObject({ eventId: "sale-1", ok: true, duplicate: false });
      expect(await ledgerOf(cloud)).toEqual(["sale-1"]);
      break;
    }
    await cloud.log.line("channel ended: client gone");
  });

  test("a duplicate is ok, and says that it is one", async () => {
    await using cloud = await serveCloud();
    const { messages } = await collect(channel(cloud, each([sale(1), sale(1)])));
    expect(messages.map(({ ok, duplicate }) => ({ ok, duplicate }))).toEqual([
      { ok: true, duplicate: false },
      { ok: true, duplicate: true },
    ]);
  });

  test.each(bad)("%s is refused, and the stream goes on", async (_, changes, code, why) => {
    await using cloud = await serveCloud();
    const events = [sale(1), sale(2, changes), next];
    const { messages, error } = await collect(channel(cloud, each(events)));
    expect(error).toBeUndefined();
    expect(messages.map(({ ok }) => ok)).toEqual([true, false, true]);
    const eventId = sale(2, changes).eventId;
    const reason = expect.stringMatching(why);
    expect(messages[1]).toMatchObject({ eventId, code, reason, retryable: false });
  });

  test("the answers that are due after the half-close still come, then OK", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const ended = collect(channel(cloud, each(sales(1, 20))));
    // All are sent and half-closed before anything is committed.
    await clock.sleeping();
    await atRest(cloud, () => 0);
    await clock.advance(100);
    const { messages, error } = await ended;
    expect(messages).toHaveLength(20);
    expect(error).toBeUndefined();
  });

  test("no answer leaves before the commit", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const answers = channel(cloud, thenWait([sale(1)], silence()))[Symbol.asyncIterator]();
    let hasCome = false;
    const first = answers.next().then(({ value }) => {
      hasCome = true;
      return value;
    });
    await clock.sleeping();
    await atRest(cloud, () => 0);
    expect(hasCome).toBe(false);
    await clock.advance(0);
    expect(await first).toMatchObject({ ok: true });
    await answers.return?.();
  });

  test("a store that does not read its answers is no longer read", async () => {
    await using cloud = await serveCloud();
    const payload = "x".repeat(2048);
    // Ids as long as they may be, so that few answers fit on the wire.
    const source = counted((n) => sale(n, { payload, eventId: `${n}`.padStart(128, "0") }), 6_500);
    const answers = channel(cloud, source.messages)[Symbol.asyncIterator]();
    await answers.next();
    // 4096 without an answer, and what fits on the wire in both directions.
    const taken = await atRest(cloud, () => source.taken);
    expect(taken).toBeGreaterThan(4096);
    expect(taken).toBeLessThan(6000);
    const { messages, error } = await collect({ [Symbol.asyncIterator]: () => answers });
    expect(error).toBeUndefined();
    expect(messages).toHaveLength(6_499);
  });

  test("what the store's source throws cancels the call, and what was sent is kept", async () => {
    await using cloud = await serveCloud();
    const fault = new Error("the till broke");
    const acked = Promise.withResolvers<void>();
    const source = (async function* () {
      yield sale(1);
      await acked.promise;
      throw fault;
    })();
    const answers = channel(cloud, source)[Symbol.asyncIterator]();
    await answers.next();
    acked.resolve();
    await expect(answers.next()).rejects.toBe(fault);
    expect(await ledgerOf(cloud)).toEqual(["sale-1"]);
    await cloud.log.line("channel ended: client gone");
  });

  test("a deadline ends it on both sides", async () => {
    await using cloud = await serveCloud();
    const deadline = performance.now() + enoughMs;
    const events = thenWait([sale(1)], silence());
    const { messages, error } = await collect(
      cloud.client.operationalChannel(events, { signal: never, deadline }),
    );
    expect(messages).toHaveLength(1);
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await cloud.log.line("channel ended: deadline exceeded");
  });

  test("does not hold a graceful stop up, and is told", async () => {
    await using cloud = await serveCloud();
    const answers = channel(cloud, thenWait([sale(1)], silence()))[Symbol.asyncIterator]();
    await answers.next();
    const next = failure(answers.next());
    await cloud.server.stop({ graceMs: 60_000, force: never });
    expect(await next).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
    await cloud.log.line("channel ended: server shutting down");
  });

  test("a stop while events wait for their commit keeps them, without an answer", async () => {
    using folder = tempFolder();
    const clock = testClock();
    {
      await using cloud = await serveCloud({ dataDir: folder.path, clock });
      const ended = collect(channel(cloud, thenWait(sales(1, 10), silence())));
      await clock.sleeping();
      await atRest(cloud, () => 0);
      await cloud.server.stop({ graceMs: 0, force: never });
      const { messages, error } = await ended;
      expect(messages).toEqual([]);
      expect(error).toMatchObject({ code: "UNAVAILABLE" });
    }
    await using cloud = await serveCloud({ dataDir: folder.path });
    const { messages } = await collect(channel(cloud, each(sales(1, 11))));
    expect(messages.map(({ duplicate }) => duplicate)).toEqual([...Array(10).fill(true), false]);
  });

  test("a stream that breaks off leaves the others alone", async () => {
    await using cloud = await serveCloud();
    await using raw = rawClient(cloud.port);
    const other = thenWait([sale(1)], silence());
    const answers = channel(cloud, other)[Symbol.asyncIterator]();
    await answers.next();
    const path = "/sync.v1.SyncEngine/OperationalChannel";
    const answer = await raw.call(path, frame(Buffer.from([0xff, 0xff, 0xff])));
    expect(answer).toMatchObject({ code: 3 });
    expect(answer.message).toMatch(/^malformed sync\.v1\.StoreEvent of 3 bytes/);
    expect((await collect(channel(cloud, each([sale(2)])))).messages).toMatchObject([{ ok: true }]);
    await answers.return?.();
  });
});

describe("WatchCommands", () => {
  const watch = (cloud: TestCloud, cursor: object = {}, signal = never) =>
    cloud.client
      .watchCommands({ storeId, lastAppliedSequence: 0n, ...cursor }, { signal })
      [Symbol.asyncIterator]();

  test("what was queued comes first, in order, then each as it is issued", async () => {
    await using cloud = await serveCloud();
    await issue(cloud, 1);
    await issue(cloud, 2);
    const commands = watch(cloud);
    expect((await commands.next()).value).toMatchObject({
      ...{ commandId: "cmd-1", type: "PriceUpdate", payloadJson: '{"newPrice":1}', sequence: 1n },
    });
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-2", sequence: 2n });
    await cloud.log.line("Store store-01 connected. Streaming commands...");
    const next = commands.next();
    expect(await issue(cloud, 3)).toMatchObject({ queued: [{ sequence: 3n, isWatching: true }] });
    expect((await next).value).toMatchObject({ commandId: "cmd-3" });
    await commands.return?.();
    await cloud.log.line("Store store-01 disconnected: client gone sent=3");
    expect(await issue(cloud, 4)).toMatchObject({ queued: [{ isWatching: false }] });
  });

  test("with a cursor only what is behind it comes", async () => {
    await using cloud = await serveCloud();
    await issue(cloud, 1);
    await issue(cloud, 2);
    const commands = watch(cloud, { lastAppliedSequence: 1n, lastAppliedCommandId: "cmd-1" });
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-2" });
    await commands.return?.();
  });

  test.each(["", "s".repeat(129), "a\nb"])("a store_id such as %j is refused", async (bad) => {
    await using cloud = await serveCloud();
    const error = await failure(Promise.resolve(watch(cloud, { storeId: bad }).next()));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect(String(error)).toContain("store_id");
  });

  test.each([-1n, 2n ** 53n, 2n ** 63n - 1n, -(2n ** 63n)])(
    "a cursor of %s is INVALID_ARGUMENT",
    async (n) => {
      await using cloud = await serveCloud();
      await issue(cloud, 1);
      const error = await failure(Promise.resolve(watch(cloud, { lastAppliedSequence: n }).next()));
      expect(error).toMatchObject({
        code: "INVALID_ARGUMENT",
        message: `last_applied_sequence is ${n}; expected 0 to 9007199254740991`,
      });
    },
  );

  test("the largest cursor waits, and holds nobody up", async () => {
    await using cloud = await serveCloud();
    await issue(cloud, 1);
    const stop = new AbortController();
    const cursor = { lastAppliedSequence: BigInt(Number.MAX_SAFE_INTEGER) };
    const first = watch(cloud, cursor, stop.signal).next();
    await cloud.log.line("connected");
    expect(await issue(cloud, 2)).toMatchObject({ queued: [{ isWatching: true }] });
    stop.abort(new Error("enough"));
    await expect(first).rejects.toThrow("enough");
  });

  test("without a cursor, what was written to a peer that had died comes again, and nothing else", async () => {
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    await issue(cloud, 1);
    await issue(cloud, 2);
    const connection = cloud.dial(wire.port);
    const original = connection.client(SyncEngine).watchCommands({ storeId }, { signal: never });
    const commands = original[Symbol.asyncIterator]();
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-1" });
    expect((await commands.next()).value).toMatchObject({ commandId: "cmd-2" });
    // The second call leaves after the answers to all that came before the first one's answer.
    const health = connection.client(Health);
    await health.check({}, { signal: never });
    await health.check({}, { signal: never });
    wire.blackhole();
    await issue(cloud, 3);
    await cloud.office.listStores({}, { signal: never })[Symbol.asyncIterator]().next();
    wire.cut();
    await expect(commands.next()).rejects.toMatchObject({ code: "UNAVAILABLE" });
    // It was written.
    await cloud.log.line("Store store-01 disconnected: client gone sent=3");

    const again = cloud.client.watchCommands({ storeId }, { signal: never });
    expect((await again[Symbol.asyncIterator]().next()).value).toMatchObject({
      commandId: "cmd-3",
      sequence: 3n,
    });
  });

  test("an empty queue is silence until the deadline", async () => {
    await using cloud = await serveCloud();
    const deadline = performance.now() + enoughMs;
    const { messages, error } = await collect(
      cloud.client.watchCommands({ storeId }, { signal: never, deadline }),
    );
    expect(messages).toEqual([]);
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await cloud.log.line("Store store-01 disconnected: deadline exceeded sent=0");
  });

  test("a stop of the server is told to whoever watches", async () => {
    await using cloud = await serveCloud();
    const next = failure(Promise.resolve(watch(cloud).next()));
    await cloud.log.line("connected");
    await cloud.server.stop({ graceMs: 60_000, force: never });
    expect(await next).toMatchObject({ code: "UNAVAILABLE", message: "server shutting down" });
  });

  test("a store that does not read holds up nobody, and the server holds no queue for it", async () => {
    await using cloud = await serveCloud();
    const large = `"${"x".repeat(500_000)}"`;
    for (let n = 1; n <= 12; n++) {
      const command = {
        storeIds: [storeId],
        commandId: `cmd-${n}`,
        type: "StockAlert",
        payloadJson: large,
      };
      await cloud.office.issueCommand(command, { signal: never });
    }
    const commands = watch(cloud);
    await commands.next();
    expect(await issue(cloud, 13)).toMatchObject({ queued: [{ isWatching: true }] });
    for (let n = 2; n <= 13; n++) {
      expect((await commands.next()).value).toMatchObject({ commandId: `cmd-${n}` });
    }
    await commands.return?.();
  });

  test("a name that turns the text around is spelled out in the log", async () => {
    await using cloud = await serveCloud();
    const commands = watch(cloud, { storeId: "store\u202e10" });
    const next = commands.next();
    expect(await cloud.log.line("connected")).toContain("store\\u202e10");
    await commands.return?.();
    await next.catch(() => {});
  });
});

describe("what the answer's headers tell of the ledger", () => {
  async function headersOf(cloud: TestCloud, metadata: Record<string, string>) {
    let seen: AnswerHeaders | undefined;
    const onHeaders = (headers: AnswerHeaders) => {
      seen = headers;
    };
    await cloud.client.uploadBufferedEvents(each([]), { signal: never, metadata, onHeaders });
    return { ledger: seen?.get("brewctl-ledger"), seen: seen?.get("brewctl-seen") };
  }

  test("its id always, and what it has seen of an epoch if it is asked", async () => {
    using folder = tempFolder();
    let ledger: readonly (string | Buffer)[] | undefined;
    const asked = { "brewctl-store": storeId, "brewctl-epoch": epoch };
    {
      await using cloud = await serveCloud({ dataDir: folder.path });
      ({ ledger } = await headersOf(cloud, {}));
      expect(ledger).toEqual([expect.stringMatching(/^[0-9a-f]{16}$/)]);
      expect(await headersOf(cloud, asked)).toEqual({ ledger, seen: ["0"] });
      await upload(cloud, sales(1, 7));
      expect(await headersOf(cloud, asked)).toEqual({ ledger, seen: ["7"] });
      expect(await headersOf(cloud, { "brewctl-store": storeId })).toEqual({ ledger, seen: [] });
      expect(await headersOf(cloud, { ...asked, "brewctl-epoch": "another" })).toEqual({
        ...{ ledger, seen: ["0"] },
      });
    }
    await using cloud = await serveCloud({ dataDir: folder.path });
    expect(await headersOf(cloud, asked)).toEqual({ ledger, seen: ["7"] });
  });

  test("a store of any name can say who it is", async () => {
    await using cloud = await serveCloud();
    const name = "Füllhorn 1/2 %";
    await upload(cloud, [sale(1, { storeId: name })]);
    const metadata = { "brewctl-store": encodeURIComponent(name), "brewctl-epoch": epoch };
    expect(await headersOf(cloud, metadata)).toMatchObject({ seen: ["1"] });
  });

  test("the stream is that of the store in the request's headers, whoever comes first", async () => {
    await using cloud = await serveCloud();
    const events = [sale(1, { storeId: "store-02" }), sale(2)];
    expect(await upload(cloud, events, { "brewctl-store": storeId })).toMatchObject({
      accepted: 1,
      refusals: [{ eventId: "sale-1", reason: 'store_id is not "store-01", whose stream this is' }],
    });
  });

  test.each([
    ["brewctl-store", "%E0%A4%A", "brewctl-store in the metadata is not URI-encoded"],
    ["brewctl-box", "", "brewctl-box in the metadata is not 1 to 64 letters and digits"],
    ["brewctl-box", "a b", "brewctl-box in the metadata is not 1 to 64 letters and digits"],
    [
      "brewctl-box",
      "a".repeat(65),
      "brewctl-box in the metadata is not 1 to 64 letters and digits",
    ],
  ])("a header %s of '%s' ends the call, and only that", async (name, value, message) => {
    await using cloud = await serveCloud();
    const metadata = { [name]: value };
    const told = { code: "INVALID_ARGUMENT", message };
    expect(await failure(upload(cloud, [sale(1)], metadata))).toMatchObject(told);
    expect((await collect(channel(cloud, each([sale(1)]), metadata))).error).toMatchObject(told);
    expect(await upload(cloud, [sale(1)])).toMatchObject({ accepted: 1 });
  });
});

describe("ReportStatus", () => {
  const report = { storeId, depth: 3n, bytes: 4096n, oldestUnacked: 1n, parked: 0n, epoch };

  test("tells the offset of the store's clock, as the cloud sees it", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ clock });
    const sentAt = BigInt(clock.now() - 172_800_000);
    const answer = await clock.settled(
      cloud.client.reportStatus({ ...report, sentAt }, { signal: never }),
    );
    expect(answer.clockOffsetMs).toBe(-172_800_000n);
    expect(answer.ledgerId).toMatch(/^[0-9a-f]{16}$/);
  });

  test.each([
    { storeId: "" },
    { storeId: "a\u0000b" },
    { sentAt: 2n ** 63n - 1n },
    { sentAt: -(2n ** 63n) },
    { depth: -1n },
    { parked: 2n ** 53n },
    { receivedSequence: -1n },
    { epoch: "e".repeat(129) },
  ])("%o is INVALID_ARGUMENT", async (changes) => {
    await using cloud = await serveCloud();
    const answer = cloud.client.reportStatus({ ...report, ...changes }, { signal: never });
    expect(await failure(answer)).toMatchObject({ code: "INVALID_ARGUMENT" });
  });

  test("many stores that report at once share a commit, and each gets its own answer", async () => {
    await using cloud = await serveCloud();
    const commits = vi.spyOn(Ledger.prototype, "report");
    const answers = await Promise.all(
      Array.from({ length: 300 }, (_, i) =>
        cloud.client.reportStatus(
          { ...report, storeId: `store-${i}`, sentAt: BigInt((i + 1) * 1_000_000_000) },
          { signal: never },
        ),
      ),
    );
    const distances = answers.map(({ clockOffsetMs }, i) =>
      Math.round((Number(clockOffsetMs) - Number(answers[0]?.clockOffsetMs)) / 1e9 - i),
    );
    expect(new Set(distances)).toEqual(new Set([0]));
    expect(commits.mock.calls.length).toBeLessThan(30);
    commits.mockRestore();
  });

  test("a number that makes no sense is named, and the list of stores stays whole", async () => {
    await using cloud = await serveCloud();
    const answer = cloud.client.reportStatus(
      { ...report, oldestUnacked: 2n ** 63n - 1n },
      { signal: never },
    );
    expect(await failure(answer)).toMatchObject({
      message: "oldest_unacked is 9223372036854775807; expected 0 to 9007199254740991",
    });
    const most = BigInt(Number.MAX_SAFE_INTEGER);
    await cloud.client.reportStatus({ ...report, depth: most, sentAt: most }, { signal: never });
    const { messages } = await collect(cloud.office.listStores({}, { signal: never }));
    expect(messages).toMatchObject([{ storeId, depth: most }]);
  });
});

describe("faults that were asked for", () => {
  /** As many rolls as needed, over and over. */
  const rolls = (...given: number[]) => {
    let i = -1;
    return () => {
      i += 1;
      return given[i % given.length] ?? 0;
    };
  };

  test("--fault-nack refuses a share for now, and never for good", async () => {
    await using cloud = await serveCloud({ faults: { nack: 0.5 }, random: rolls(0.4, 0.6) });
    const { messages } = await collect(channel(cloud, each(sales(1, 4))));
    expect(messages.map(({ ok }) => ok)).toEqual([false, true, false, true]);
    expect(messages[0]).toMatchObject({
      ...{ code: RefusalCode.TRY_LATER, retryable: true, retryAfterMs: 200 },
      reason: "refused on purpose (--fault-nack)",
    });
    expect(await ledgerOf(cloud)).toEqual(["sale-2", "sale-4"]);
  });

  test("--fault-drop-after ends each call, with what came before in the ledger", async () => {
    await using cloud = await serveCloud({ faults: { dropAfter: 3 } });
    expect(await failure(upload(cloud, sales(1, 5)))).toMatchObject({
      ...{ code: "UNAVAILABLE", message: "dropped on purpose (--fault-drop-after 3)" },
    });
    expect(await ledgerOf(cloud)).toEqual(["sale-1", "sale-2", "sale-3"]);
    const { messages, error } = await collect(channel(cloud, each(sales(1, 5))));
    expect(messages.map(({ eventId }) => eventId)).toEqual(["sale-1", "sale-2", "sale-3"]);
    expect(error).toMatchObject({ code: "UNAVAILABLE" });
  });

  test("--fault-lose-ack commits, and then says nothing", async () => {
    await using cloud = await serveCloud({ faults: { loseAck: 0.5 }, random: rolls(0.4, 0.6) });
    const { messages, error } = await collect(channel(cloud, each(sales(1, 4))));
    expect(error).toBeUndefined();
    expect(messages.map(({ eventId }) => eventId)).toEqual(["sale-2", "sale-4"]);
    expect(await failure(upload(cloud, sales(5, 6)))).toMatchObject({ code: "UNAVAILABLE" });
    expect(await ledgerOf(cloud)).toHaveLength(6);
  });

  test("--fault-latency holds an answer back, but not the commit", async () => {
    const clock = testClock();
    await using cloud = await serveCloud({ faults: { latencyMs: 5000 }, clock });
    let hasCome = false;
    const ended = collect(channel(cloud, each([sale(1)]))).finally(() => {
      hasCome = true;
    });
    await clock.sleeping();
    await clock.advance(4999);
    expect(await ledgerOf(cloud)).toEqual(["sale-1"]);
    expect(hasCome).toBe(false);
    await clock.advance(1);
    expect((await ended).messages).toMatchObject([{ ok: true }]);
  });
});

describe("the ledger's file", () => {
  test("a server of the lessons alone touches no disk; the first store's call opens it", async () => {
    using folder = tempFolder();
    const dataDir = folder.file("cloud");
    await using cloud = await serveCloud({ dataDir });
    await atRest(cloud, () => 0);
    expect(existsSync(dataDir)).toBe(false);
    await upload(cloud, [sale(1)]);
    expect(existsSync(`${dataDir}/ledger.db`)).toBe(true);
    expect(cloud.log.lines.filter((line) => line.startsWith("ledger opened"))).toHaveLength(1);
  });

  test("a ledger that cannot be opened is the server's trouble, and the store comes again", async () => {
    using folder = tempFolder();
    await using first = await serveCloud({ dataDir: folder.path, opensLedger: true });
    await using second = await serveCloud({ dataDir: folder.path });
    const error = await failure(upload(second, [sale(1)]));
    expect(error).toMatchObject({
      code: "UNAVAILABLE",
      message: "the ledger cannot be opened; the server's log says why",
    });
    expect(await second.log.line("ERROR the ledger cannot be opened")).toContain(
      `another brewctl serve, process ${process.pid}, has the ledger`,
    );
    await first.server.stop({ graceMs: 0, force: never });
    expect(await upload(second, [sale(1)])).toMatchObject({ accepted: 1 });
  });

  test("brewctl serve keeps it in the state folder, where it is made by the first store", async () => {
    using folder = tempFolder();
    const env = { XDG_STATE_HOME: folder.path };
    await using server = await serve([], { env });
    const cloud = folder.file("brewctl/cloud");
    expect(existsSync(cloud)).toBe(false);
    await brewctl(["head-office", "events", "--addr", server.addr], { env });
    await server.output(new RegExp(`^ledger opened folder=${cloud} ledger=\\w{16} events=0$`, "m"));
    expect(existsSync(`${cloud}/ledger.db`)).toBe(true);
  });

  test("--data-dir opens it at the start, --memory never touches a disk, and both say so", async () => {
    using folder = tempFolder();
    const env = { XDG_STATE_HOME: folder.file("state") };
    const data = folder.file("data");
    {
      await using server = await serve(["--data-dir", data], { env });
      await server.output(new RegExp(`^ledger opened folder=${data} `, "m"));
      // A second one is told at once, and does not start.
      const { code, stderr } = await brewctl(
        ["serve", "--addr", "127.0.0.1:0", "--data-dir", data],
        { env },
      );
      expect(stderr).toMatch(/another brewctl serve, process \d+, has the ledger /);
      expect(code).not.toBe(0);
    }
    await using server = await serve(["--memory"], { env });
    await brewctl(["head-office", "events", "--addr", server.addr], { env });
    await server.output(/^ledger opened folder="in memory, forgotten at the end" /m);
    expect(existsSync(folder.file("state"))).toBe(false);
  });
});
