/** BridgeApi over a real wire and a real disk: what tills are promised, and what bad ones cannot do. */

import { once } from "node:events";
import { connect } from "node:net";
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { describe, expect, test } from "vitest";
import { type Address, formatAddress } from "../../src/address.ts";
import { type Appended, type NewEvent, Outbox } from "../../src/bridge/outbox.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { StatusError, statusCodes } from "../../src/errors.ts";
import { checksumOf } from "../../src/event-checksum.ts";
import {
  Health,
  HealthCheckResponse_ServingStatus,
} from "../../src/gen/grpc/health/v1/health_pb.ts";
import { ServerReflection } from "../../src/gen/grpc/reflection/v1/reflection_pb.ts";
import { BridgeApi, type TillAck, TillEventSchema } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { GroupCommit } from "../../src/group-commit.ts";
import { type Connection, dial } from "../../src/grpc/dial.ts";
import { type BridgeServer, serveBridgeApi } from "../../src/server/bridge-api.ts";
import { type TillLimits, tillIdleMs } from "../../src/server/till-streams.ts";
import { cutWire } from "../support/cut-wire.ts";
import { frame, rawClient } from "../support/raw-call.ts";
import { atRest, collect, counted, each, failure, thenWait } from "../support/serve-handlers.ts";
import { enoughMs, loopback, never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";
import { testLog } from "../support/test-log.ts";

type Sent = MessageInitShape<typeof TillEventSchema>;

const storeId = "store-01";
const path = "/sync.v1.BridgeApi/RecordEvents";
const silence = () => new Promise<void>(() => {});
const { INVALID_ARGUMENT, ALREADY_EXISTS, PERMISSION_DENIED, RESOURCE_EXHAUSTED } = statusCodes;

const sale = (n: number, changes: Sent = {}) => ({
  ...{ eventId: `till-1-${n}`, type: "Sale", payload: `{"total":${n}}`, timestamp: BigInt(n) },
  ...changes,
});
const sales = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, i) => sale(first + i));

/** A bridge's port, without a bridge. */
async function serveTills({
  addresses = [loopback(0)],
  clock = systemClock,
  tillLimits,
}: {
  addresses?: readonly Address[];
  clock?: Clock;
  tillLimits?: TillLimits;
} = {}) {
  const folder = tempFolder();
  let freeBytes = 1e12;
  let broken: Error | undefined;
  let commits = 0;
  const outbox = new Outbox({
    ...{ path: folder.file("buffer.db"), storeId, now: Date.now },
    free: () => freeBytes,
  });
  const log = testLog();
  const server: BridgeServer = await serveBridgeApi({
    ...{ addresses, storeId, clock, log, ...(tillLimits && { tillLimits }) },
    commits: new GroupCommit<NewEvent, Appended>({
      // No time passes: how many turns of the event loop fit into the 2 ms of a batch is the machine's
      // affair.
      clock: { ...systemClock, monotonic: () => 0 },
      commit(events) {
        commits += 1;
        if (broken !== undefined) {
          throw broken;
        }
        return outbox.append(events);
      },
    }),
    status: () => ({
      ...{ storeId, pending: BigInt(outbox.unsettled().pending), parked: 0n, oldestUnacked: 1n },
      ...{ link: "offline", why: "no server", receivedSequence: 0n, appliedSequence: 0n },
      ...{ commandsParked: 0n, epoch: outbox.epoch(), bytes: 4096n, version: "1", alarms: ["!"] },
    }),
  });
  const connections: Connection[] = [];
  const [first = loopback(0)] = server.addresses;
  const dialTill = (to: Address = first) => {
    const connection = dial(to);
    connections.push(connection);
    return connection;
  };
  let stopped: Promise<void> | undefined;
  const stop = (graceMs = 0) => {
    stopped ??= server.stop({ graceMs, force: never });
    return stopped;
  };
  return {
    ...{ server, outbox, log, stop, port: first.kind === "tcp" ? first.port : 0 },
    dial: dialTill,
    till: (to?: Address) => dialTill(to).client(BridgeApi),
    ids: () => outbox.events({ limit: 1_000_000 }).map(({ eventId }) => eventId),
    get commits() {
      return commits;
    },
    /** What the disk has left, in bytes. */
    leave(bytes: number) {
      freeBytes = bytes;
    },
    /** From now on nothing can be committed. */
    fail(error: Error) {
      broken = error;
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections) {
        connection.close();
      }
      await stop();
      outbox.close();
      folder[Symbol.dispose]();
    },
  };
}

type Tills = Awaited<ReturnType<typeof serveTills>>;
type Till = ReturnType<Tills["till"]>;

const record = (till: Till, event: Sent) => till.recordEvent(event, { signal: never });
const stream = (till: Till, events: AsyncIterable<Sent> | Sent[], signal = never) =>
  till.recordEvents(Array.isArray(events) ? each(events) : events, { signal });

/** What it has answered, without the fields that are empty. */
const told = ({ eventId, seq, duplicate, code }: TillAck) => ({
  eventId,
  ...(seq === 0n ? {} : { seq: Number(seq) }),
  ...(duplicate ? { duplicate } : {}),
  ...(code === 0 ? {} : { code }),
});

/** As many turns as it takes. */
async function until(is: () => boolean): Promise<void> {
  while (!is()) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Resolves when the bridge has let go of all streams. */
async function noneOpen(tills: Tills): Promise<void> {
  const till = tills.till();
  while ((await till.bridgeStatus({}, { signal: never })).tills > 0) {}
}

/** What a till may send, and what it is told. */
const bad: [string, Sent, RegExp][] = [
  ["no event_id", { eventId: "" }, /^event "": event_id is empty$/],
  ["an event_id of 129 bytes", { eventId: "é".repeat(65) }, /event_id has 130 bytes; at most 128/],
  ["control characters in its id", { eventId: "a\nb" }, /event_id has control characters$/],
  ["no type", { type: "" }, /type is empty$/],
  ["a type of 129 bytes", { type: "t".repeat(129) }, /type has 129 bytes; at most 128/],
  ["control characters in its type", { type: "\u001b[2J" }, /type has control characters$/],
  [
    "a payload over 1 MiB",
    { payload: "x".repeat(1024 * 1024 + 1) },
    /payload has 1048577 bytes; at most 1048576 are allowed$/,
  ],
  [
    "a time before 1970",
    { timestamp: -1n },
    /timestamp is -1; expected Unix milliseconds from 1970/,
  ],
  [
    "a time after 9999",
    { timestamp: 253_402_300_800_000n },
    /timestamp is 253402300800000; expect/,
  ],
  ["a time beyond 2^53", { timestamp: 2n ** 53n + 1n }, /timestamp is 9007199254740992; expected/],
  ["the last int64", { timestamp: 2n ** 63n - 1n }, /timestamp is 9223372036854776000; expected/],
  ["the first int64", { timestamp: -(2n ** 63n) }, /timestamp is -9223372036854776000; expected/],
];

describe("RecordEvent", () => {
  test("answers when the event is on the disk", async () => {
    await using tills = await serveTills();
    const ack = await record(tills.till(), sale(1));
    expect(told(ack)).toEqual({ eventId: "till-1-1", seq: 1 });
    expect(ack.epoch).toBe(tills.outbox.epoch());
    const { seq, state, timestamp, payload } = tills.outbox.event("till-1-1") ?? {};
    expect({ seq, state, timestamp, payload }).toEqual({
      ...{ seq: 1, state: "pending", timestamp: 1, payload: '{"total":1}' },
    });
  });

  test("an event without a time is of now, and keeps that when it is repeated", async () => {
    await using tills = await serveTills();
    const { timestamp: _, ...event } = sale(1);
    const before = Date.now();
    await record(tills.till(), event);
    const first = tills.outbox.event("till-1-1")?.timestamp ?? 0;
    expect(first).toBeGreaterThanOrEqual(before);
    expect(await record(tills.till(), event)).toMatchObject({ duplicate: true, seq: 1n });
    expect(tills.outbox.event("till-1-1")?.timestamp).toBe(first);
  });

  test("an event that was changed on the way is UNAVAILABLE, and is taken when it comes again", async () => {
    await using tills = await serveTills();
    const { timestamp: _, ...untimed } = sale(2);
    for (const [event, timestamp] of [
      [sale(1), 1],
      [untimed, undefined],
    ] as const) {
      const checksum = checksumOf({ ...event, timestamp });
      for (const changes of [
        { payload: "{}" },
        { type: "Tale" },
        { eventId: "e" },
        { timestamp: 7n },
      ]) {
        const error = await failure(record(tills.till(), { ...event, checksum, ...changes }));
        expect(error).toMatchObject({
          code: "UNAVAILABLE",
          message: expect.stringMatching(/^the event does not have its checksum/),
        });
      }
      await record(tills.till(), { ...event, checksum });
    }
    expect(tills.ids()).toEqual(["till-1-1", "till-1-2"]);
  });

  test("an event of 1970, and the last one of 9999, are no event of now", async () => {
    await using tills = await serveTills();
    await record(tills.till(), sale(1, { timestamp: 0n }));
    await record(tills.till(), sale(2, { timestamp: 253_402_300_799_999n }));
    expect(tills.outbox.event("till-1-1")?.timestamp).toBe(0);
    expect(tills.outbox.event("till-1-2")?.timestamp).toBe(253_402_300_799_999);
  });

  test("the same event again is the same answer, another one under its id is ALREADY_EXISTS", async () => {
    await using tills = await serveTills();
    const till = tills.till();
    const first = await record(till, sale(1));
    expect(await record(till, sale(1))).toEqual({ ...first, duplicate: true });
    for (const changes of [{ payload: "" }, { type: "TillClose" }, { timestamp: 2n }]) {
      const error = await failure(record(till, sale(1, changes)));
      expect(error).toMatchObject({ code: "ALREADY_EXISTS" });
      expect((error as Error).message).toMatch(/^event "till-1-1" is recorded already, with anoth/);
    }
    expect(tills.ids()).toEqual(["till-1-1"]);
  });

  test("another store's event is PERMISSION_DENIED, and the own store's name is welcome", async () => {
    await using tills = await serveTills();
    const error = await failure(record(tills.till(), sale(1, { storeId: "store-02" })));
    const message = "this is the bridge of store store-01, not of store-02";
    expect(error).toMatchObject({ code: "PERMISSION_DENIED", message });
    expect(tills.ids()).toEqual([]);
    expect(told(await record(tills.till(), sale(1, { storeId })))).toMatchObject({ seq: 1 });
  });

  test.each(bad)("%s is INVALID_ARGUMENT", async (_, changes, why) => {
    await using tills = await serveTills();
    const error = await failure(record(tills.till(), sale(1, changes)));
    expect(error).toMatchObject({ code: "INVALID_ARGUMENT" });
    expect((error as Error).message).toMatch(why);
    expect(tills.ids()).toEqual([]);
  });

  test("a payload of 1 MiB is recorded, one over gRPC's own limit is refused by it", async () => {
    await using tills = await serveTills();
    await record(tills.till(), sale(1, { payload: "x".repeat(1024 * 1024) }));
    const huge = sale(2, { payload: "x".repeat(5 * 1024 * 1024) });
    expect(await failure(record(tills.till(), huge))).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    expect(tills.ids()).toEqual(["till-1-1"]);
  });

  test("a message that is no protobuf is INVALID_ARGUMENT", async () => {
    await using tills = await serveTills();
    await using raw = rawClient(tills.port);
    const { code } = await raw.call("/sync.v1.BridgeApi/RecordEvent", frame(Buffer.from([0xff])));
    expect(code).toBe(INVALID_ARGUMENT);
  });

  test("a disk that is busy is UNAVAILABLE, and a fault of ours INTERNAL, without our stack", async () => {
    await using tills = await serveTills();
    tills.fail(new StatusError("UNAVAILABLE", "another process has kept it busy for 5 s"));
    expect(await failure(record(tills.till(), sale(1)))).toMatchObject({ code: "UNAVAILABLE" });
    tills.fail(new TypeError("a secret of ours"));
    const error = await failure(record(tills.till(), sale(1)));
    expect(error).toMatchObject({ code: "INTERNAL" });
    expect(String(error)).not.toContain("secret");
    await tills.log.line("ERROR handler failed");
  });

  test("a graceful stop lets a call finish that is under way", async () => {
    await using tills = await serveTills();
    const till = tills.till();
    await record(till, sale(1));
    const ended = Promise.allSettled(sales(2, 20).map((event) => record(till, event)));
    await until(() => tills.commits > 1);
    await tills.stop(5_000);
    const outcomes = await ended;
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") {
        expect(outcome.reason).toMatchObject({ code: "UNAVAILABLE" });
      }
    }
    const answered = outcomes.flatMap((it) =>
      it.status === "fulfilled" ? [it.value.eventId] : [],
    );
    expect(answered.length).toBeGreaterThan(0);
    expect(tills.ids()).toEqual(expect.arrayContaining(answered));
  });
});

describe("RecordEvents", () => {
  test("answers each event in order, and ends with OK", async () => {
    await using tills = await serveTills();
    const { messages, error } = await collect(stream(tills.till(), sales(1, 1000)));
    expect(error).toBeUndefined();
    expect(messages.map(told)).toEqual(
      sales(1, 1000).map(({ eventId }, i) => ({ eventId, seq: i + 1 })),
    );
    expect(tills.ids()).toEqual(sales(1, 1000).map(({ eventId }) => eventId));
    // One fsync for many: a few dozen, and more where the events come in small portions.
    expect(tills.commits).toBeLessThan(500);
  });

  test("without an event ends with OK", async () => {
    await using tills = await serveTills();
    expect(await collect(stream(tills.till(), []))).toEqual({ messages: [], error: undefined });
  });

  test("answers come while the till has more to say", async () => {
    await using tills = await serveTills();
    for await (const ack of stream(tills.till(), thenWait([sale(1)], silence()))) {
      expect(told(ack)).toEqual({ eventId: "till-1-1", seq: 1 });
      expect(tills.ids()).toEqual(["till-1-1"]);
      break;
    }
  });

  test("a refused event is an answer in its place, and costs no other", async () => {
    await using tills = await serveTills();
    const events: Sent[] = [
      sale(1),
      ...bad.map(([, changes], i) => sale(100 + i, changes)),
      sale(1),
      sale(1, { payload: "another" }),
      sale(2, { storeId: "store-02" }),
      sale(2),
    ];
    const { messages, error } = await collect(stream(tills.till(), events));
    expect(error).toBeUndefined();
    expect(messages.map(({ code }) => code)).toEqual([
      ...[0, ...bad.map(() => INVALID_ARGUMENT)],
      ...[0, ALREADY_EXISTS, PERMISSION_DENIED, 0],
    ]);
    for (const [i, [, , why]] of bad.entries()) {
      expect(messages[i + 1]?.reason).toMatch(why);
      expect(told(messages[i + 1] as TillAck)).not.toHaveProperty("seq");
    }
    expect(told(messages.at(-4) as TillAck)).toEqual({
      eventId: "till-1-1",
      seq: 1,
      duplicate: true,
    });
    expect(told(messages.at(-1) as TillAck)).toEqual({ eventId: "till-1-2", seq: 2 });
    expect(tills.ids()).toEqual(["till-1-1", "till-1-2"]);
    // What it says in the log, it says in one line.
    expect(tills.log.lines.filter((line) => /[\p{Cc}]/u.test(line))).toEqual([]);
  });

  test("a full disk refuses each event and ends no stream; with room again it goes on", async () => {
    await using tills = await serveTills();
    const room = Promise.withResolvers<void>();
    async function* events() {
      yield sale(1);
      await until(() => tills.ids().length === 1);
      tills.leave(0);
      yield* sales(2, 50);
      await room.promise;
      yield* sales(2, 50);
    }
    const acks: TillAck[] = [];
    for await (const ack of stream(tills.till(), events())) {
      acks.push(ack);
      if (acks.length === 50) {
        tills.leave(1e12);
        room.resolve();
      }
    }
    const codes = acks.map(({ code }) => code);
    expect(codes).toEqual([0, ...Array(49).fill(RESOURCE_EXHAUSTED), ...Array(49).fill(0)]);
    expect(acks[1]?.reason).toMatch(/^the disk of .* is full: 0 bytes are left/);
    expect(tills.ids()).toHaveLength(50);
    // Said once, and not for each event.
    const said = tills.log.lines.filter((line) =>
      /nothing can be recorded|event refused/.test(line),
    );
    expect(said).toHaveLength(1);
    await tills.log.line("recording again");
  });

  test("many tills at once: each gets its own answers, in its own order", async () => {
    await using tills = await serveTills();
    const ids = Array.from({ length: 20 }, (_, till) =>
      Array.from({ length: 50 }, (_, i) => `till-${till}-${i}`),
    );
    const streams = await Promise.all(
      ids.map((own) =>
        collect(
          stream(
            tills.till(),
            own.map((eventId, i) => sale(i, { eventId })),
          ),
        ),
      ),
    );
    expect(streams.map(({ messages }) => messages.map(({ eventId }) => eventId))).toEqual(ids);
    expect(tills.ids().sort()).toEqual(ids.flat().sort());
    const seqs = streams.flatMap(({ messages }) => messages.map(({ seq }) => Number(seq)));
    expect(seqs.sort((a, b) => a - b)).toEqual(Array.from({ length: 1000 }, (_, i) => i + 1));
  });

  test("two tills with the same event: one records it, the other one hears so", async () => {
    await using tills = await serveTills();
    const both = await Promise.all([0, 1].map(() => collect(stream(tills.till(), sales(1, 100)))));
    for (let i = 0; i < 100; i++) {
      const [one, two] = both.map(({ messages }) => messages[i]);
      expect(one?.seq).toBe(two?.seq);
      expect([one?.duplicate, two?.duplicate].sort()).toEqual([false, true]);
    }
    expect(tills.ids()).toHaveLength(100);
  });
});

describe("a till that behaves badly", () => {
  test("by not reading its answers is no longer read, and others have theirs", async () => {
    await using tills = await serveTills();
    const source = counted((i) => sale(i, { type: "" }), 100_000);
    const flooding = stream(tills.till(), source.messages)[Symbol.asyncIterator]();
    await flooding.next();
    const other = tills.dial().client(Health);
    const server = { dial: () => ({ client: () => other }) } as unknown as Parameters<
      typeof atRest
    >[0];
    const taken = await atRest(server, () => source.taken);
    // 256 without an answer, the answers on the wire, and what waits in both directions.
    expect(taken).toBeLessThan(15_000);
    expect(told(await record(tills.till(), sale(1, { eventId: "other" })))).toHaveProperty("seq");
    await flooding.return?.();
    await source.closed;
  });

  test("by sending ids of megabytes gets short answers, and makes no long log", async () => {
    await using tills = await serveTills();
    const huge = "☕".repeat(1_000_000);
    const events = [
      { eventId: huge },
      { type: huge },
      { storeId: huge },
      { eventId: `a\n${huge}` },
    ];
    const { messages } = await collect(
      stream(
        tills.till(),
        events.map((changes, i) => sale(i, changes)),
      ),
    );
    expect(messages.map(({ code }) => code)).toEqual([
      ...[INVALID_ARGUMENT, INVALID_ARGUMENT, INVALID_ARGUMENT, INVALID_ARGUMENT],
    ]);
    expect(messages[0]).toMatchObject({ eventId: "☕".repeat(128) });
    expect(messages[0]?.reason).toHaveLength(512);
    expect(Math.max(...tills.log.lines.map((line) => line.length))).toBeLessThan(1000);
  });

  test("by sending half a message and vanishing costs no other", async () => {
    await using tills = await serveTills();
    await using raw = rawClient(tills.port);
    const whole = frame(toBinary(TillEventSchema, create(TillEventSchema, sale(1))));
    const call = raw.open(path);
    call.write(Buffer.concat([whole, whole.subarray(0, 9)]));
    await until(() => tills.ids().length === 1);
    raw.session.destroy();
    expect(told(await record(tills.till(), sale(2)))).toEqual({ eventId: "till-1-2", seq: 2 });
    await noneOpen(tills);
  });

  test("by resetting its stream has recorded what was recorded", async () => {
    await using tills = await serveTills();
    await using raw = rawClient(tills.port);
    const call = raw.open(path);
    for (const event of sales(1, 3)) {
      call.write(frame(toBinary(TillEventSchema, create(TillEventSchema, event))));
    }
    await until(() => tills.ids().length === 3);
    call.close(8);
    await once(call, "close");
    await noneOpen(tills);
    expect(tills.ids()).toHaveLength(3);
  });

  test("by half-closing within a message has recorded nothing of it", async () => {
    await using tills = await serveTills();
    await using raw = rawClient(tills.port);
    const whole = frame(toBinary(TillEventSchema, create(TillEventSchema, sale(1))));
    const { body } = await raw.call(path, whole.subarray(0, 9));
    expect(body).toHaveLength(0);
    expect(tills.ids()).toEqual([]);
  });

  test("by sending no protobuf hears so, behind the answers that were due", async () => {
    await using tills = await serveTills();
    await using raw = rawClient(tills.port);
    const body = frame(Buffer.from([0x0a, 0xff]));
    const { code } = await raw.call(path, body);
    expect(code).toBe(INVALID_ARGUMENT);
    expect(told(await record(tills.till(), sale(2)))).toHaveProperty("seq");
  });

  test("by not speaking HTTP/2 costs no other", async () => {
    await using tills = await serveTills();
    const socket = connect(tills.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.write("GET / HTTP/1.1\r\nHost: bridge\r\n\r\n");
    socket.resume();
    await once(socket, "close");
    expect(told(await record(tills.till(), sale(1)))).toHaveProperty("seq");
  });

  test("by opening more streams than its share is told so, until one ends", async () => {
    await using tills = await serveTills({ tillLimits: { maxStreams: 9, maxStreamsPerPeer: 2 } });
    const till = tills.till();
    const over = new AbortController();
    const opened = await Promise.all(
      [1, 2].map(async (i) => {
        const call = stream(till, thenWait([sale(i)], silence()), over.signal);
        const answers = call[Symbol.asyncIterator]();
        await answers.next();
        return answers;
      }),
    );
    const { error } = await collect(stream(tills.till(), [sale(3)]));
    const message = "2 streams of 127.0.0.1 are open already; at most 2 are allowed at a time";
    expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", message });
    // A till that has one sale to record needs no stream.
    expect(told(await record(tills.till(), sale(4)))).toHaveProperty("seq");
    await opened[0]?.return?.();
    while ((await tills.till().bridgeStatus({}, { signal: never })).tills === 2) {}
    expect((await collect(stream(tills.till(), [sale(5)]))).messages).toHaveLength(1);
    over.abort(new Error("enough"));
  });

  test("by leaving a stream open for long gives its place to one that comes", async () => {
    const clock = testClock();
    await using tills = await serveTills({
      clock,
      tillLimits: { maxStreams: 1, maxStreamsPerPeer: 1 },
    });
    const left = stream(tills.till(), thenWait([sale(1)], silence()))[Symbol.asyncIterator]();
    await left.next();
    const next = failure(left.next());
    await clock.advance(tillIdleMs);
    expect((await collect(stream(tills.till(), [sale(2)]))).messages).toHaveLength(1);
    const message = "silent for 10 minutes, and another till needed the place; connect again";
    expect(await next).toMatchObject({ code: "UNAVAILABLE", message });
  });

  test("by holding its stream open for ever does not hold a stop up", async () => {
    await using tills = await serveTills();
    const call = stream(tills.till(), thenWait([sale(1)], silence()))[Symbol.asyncIterator]();
    await call.next();
    const next = failure(call.next());
    await tills.stop(60_000);
    const message = "server shutting down";
    expect(await next).toMatchObject({ code: "UNAVAILABLE", message });
    expect(tills.ids()).toEqual(["till-1-1"]);
  });

  test("by stopping to read does not hold a stop up for long", async () => {
    await using tills = await serveTills();
    const source = counted((i) => sale(i), 200_000);
    const flooding = stream(tills.till(), source.messages)[Symbol.asyncIterator]();
    await flooding.next();
    await until(() => tills.commits > 5);
    await tills.stop(60_000);
    await collect({ [Symbol.asyncIterator]: () => flooding });
  });
});

describe("a call", () => {
  test("has its answers that are due after the half-close", async () => {
    await using tills = await serveTills();
    await using wire = await cutWire(tills.port);
    wire.delay(50);
    const till = tills.till(loopback(wire.port));
    const { messages, error } = await collect(stream(till, sales(1, 300)));
    expect(error).toBeUndefined();
    expect(messages).toHaveLength(300);
  });

  test("ends with the till's deadline, and what was answered is recorded", async () => {
    await using tills = await serveTills();
    const deadline = performance.now() + enoughMs;
    const { messages, error } = await collect(
      tills.till().recordEvents(thenWait([sale(1)], silence()), { signal: never, deadline }),
    );
    expect(error).toMatchObject({ code: "DEADLINE_EXCEEDED" });
    expect(messages.map(told)).toEqual([{ eventId: "till-1-1", seq: 1 }]);
  });

  test("that the till cancels ends with its reason, and the bridge lets go of it", async () => {
    await using tills = await serveTills();
    const stop = new AbortController();
    const call = stream(tills.till(), thenWait([sale(1)], silence()), stop.signal);
    const acks = call[Symbol.asyncIterator]();
    await acks.next();
    const reason = new Error("closing time");
    stop.abort(reason);
    await expect(acks.next()).rejects.toBe(reason);
    await noneOpen(tills);
  });

  test("whose wire is cut is repeated by the till, and nothing is recorded twice", async () => {
    await using tills = await serveTills();
    await using wire = await cutWire(tills.port);
    const till = tills.till(loopback(wire.port));
    const source = counted((i) => sale(i), 500);
    const acks: TillAck[] = [];
    const first = await collect(
      (async function* () {
        for await (const ack of stream(till, source.messages)) {
          acks.push(ack);
          yield ack;
          if (acks.length === 100) {
            wire.cut();
          }
        }
      })(),
    );
    expect(first.error).toMatchObject({ code: "UNAVAILABLE" });
    const again = await collect(stream(tills.till(), sales(1, 500)));
    expect(again.messages).toHaveLength(500);
    expect(again.messages.filter(({ duplicate }) => duplicate).length).toBeGreaterThanOrEqual(100);
    expect(tills.ids()).toHaveLength(500);
  });
});

describe("the port", () => {
  test("says how the store is, with the tills that are there", async () => {
    await using tills = await serveTills();
    const call = stream(tills.till(), thenWait([sale(1)], silence()))[Symbol.asyncIterator]();
    await call.next();
    const { $typeName, ...status } = await tills.till().bridgeStatus({}, { signal: never });
    expect(status).toEqual({
      ...{ storeId, pending: 1n, parked: 0n, oldestUnacked: 1n, link: "offline", why: "no server" },
      ...{ receivedSequence: 0n, appliedSequence: 0n, commandsParked: 0n, bytes: 4096n },
      ...{ epoch: tills.outbox.epoch(), version: "1", alarms: ["!"], tills: 1 },
    });
    await call.return?.();
  });

  test("has health and reflection", async () => {
    await using tills = await serveTills();
    const health = tills.dial().client(Health);
    const { SERVING, NOT_SERVING } = HealthCheckResponse_ServingStatus;
    const service = "sync.v1.BridgeApi";
    expect(await health.check({ service }, { signal: never })).toMatchObject({ status: SERVING });
    const { messages } = await collect(
      tills
        .dial()
        .client(ServerReflection)
        .serverReflectionInfo(
          each([{ messageRequest: { case: "listServices" as const, value: "" } }]),
          { signal: never },
        ),
    );
    const [answer] = messages;
    const names =
      answer?.messageResponse.case === "listServicesResponse"
        ? answer.messageResponse.value.service.map(({ name }) => name)
        : [];
    expect(names).toContain(service);
    expect(names).not.toContain("sync.v1.SyncEngine");
    const watched = health.watch({ service }, { signal: never })[Symbol.asyncIterator]();
    expect((await watched.next()).value).toMatchObject({ status: SERVING });
    const stopped = tills.stop();
    expect((await watched.next()).value).toMatchObject({ status: NOT_SERVING });
    await failure(watched.next());
    await stopped;
  });

  test("may be several, TCP and a unix socket, of one and the same store", async () => {
    using folder = tempFolder();
    const socket: Address = { kind: "unix", path: folder.file("tills.sock") };
    await using tills = await serveTills({ addresses: [loopback(0), socket] });
    expect(tills.server.addresses.map(formatAddress)).toEqual([
      `127.0.0.1:${tills.port}`,
      `unix:${socket.path}`,
    ]);
    const [tcp, unix] = await Promise.all(
      [tills.till(), tills.till(socket)].map((till) => record(till, sale(1))),
    );
    expect([tcp?.duplicate, unix?.duplicate].sort()).toEqual([false, true]);
  });

  test("that is taken is said, and the ones that were open before are closed again", async () => {
    await using tills = await serveTills();
    const taken = loopback(tills.port);
    using folder = tempFolder();
    const socket: Address = { kind: "unix", path: folder.file("tills.sock") };
    const error = await failure(serveTills({ addresses: [socket, taken] }));
    expect((error as Error).message).toBe(
      `cannot listen on 127.0.0.1:${tills.port}: it is already in use`,
    );
    // It can be had again at once.
    await using _ = await serveTills({ addresses: [socket] });
  });
});
