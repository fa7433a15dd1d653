/** The channel: events up, an answer for each down, against a cloud that the test plays. */

import { describe, expect, test } from "vitest";
import { type ChannelOptions, channel } from "../../src/bridge/channel.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox, type Recorded } from "../../src/bridge/outbox.ts";
import { StatusError } from "../../src/errors.ts";
import { inMemory } from "../../src/sqlite.ts";
import { accepted, type FakeCloud, fakeUplink, refusal } from "../support/fake-uplink.ts";
import { failure } from "../support/serve-handlers.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const later = { isRetryable: true, retryAfterMs: 700, reason: "busy" };

function opened(
  cloud: FakeCloud,
  events: number,
  more: Partial<ChannelOptions> = {},
  path = inMemory,
) {
  const clock = testClock();
  const outbox = new Outbox({ path, storeId: "store-01", now: () => clock.now() });
  const record = (...ids: string[]) =>
    outbox.append(
      ids.map((eventId) => ({ eventId, type: "Sale", payload: eventId, timestamp: 1 })),
    );
  record(...Array.from({ length: events }, (_, i) => `e${i + 1}`));
  const fake = fakeUplink(cloud);
  const stop = new AbortController();
  const states: LinkState[] = [];
  const told: string[] = [];
  const alarms: string[] = [];
  const over = channel({
    ...{ outbox, uplink: fake.uplink, clock, random: () => 0.5, signal: never, stop: stop.signal },
    untilDrained: true,
    onState: (state) => states.push(state),
    onAnswer: (answer, { kind }) => told.push(`${answer.eventId} ${kind}`),
    onAlarm: (why) => alarms.push(why),
    ...more,
  });
  over.catch(() => {});
  return { clock, outbox, fake, stop, states, told, alarms, over };
}

const ids = (events: readonly Recorded[]) => events.map(({ eventId }) => eventId);

test("the backlog goes out in order and without anything new, and then it ends", async () => {
  const { clock, outbox, fake, told, states, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event)) },
    600,
  );
  await clock.advance(1000);
  await over;
  expect(ids(fake.calls[0]?.sent ?? [])).toEqual(
    Array.from({ length: 600 }, (_, i) => `e${i + 1}`),
  );
  expect(told).toHaveLength(600);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 600 });
  expect(states.map(({ kind }) => kind)).toEqual(["connecting", "replaying", "draining"]);
});

test("answers that keep coming are marked together, half a second's at a time", async () => {
  const { clock, fake, stop, told, over } = opened({}, 4, { untilDrained: false });
  await clock.advance(100);
  const [call] = fake.calls;
  const answer = (from: number, to: number) =>
    call?.answer(...call.sent.slice(from, to).map(accepted));
  answer(0, 2);
  await clock.advance(10);
  expect(told).toEqual(["e1 acked", "e2 acked"]);
  answer(2, 3);
  await clock.advance(400);
  expect(told).toHaveLength(2);
  answer(3, 4);
  await clock.advance(100);
  expect(told).toEqual(["e1 acked", "e2 acked", "e3 acked", "e4 acked"]);
  stop.abort(new Error("enough"));
  await clock.advance(10);
  await over;
});

test("a replay of many does not wait for the marks of each page", async () => {
  const { clock, outbox, fake, stop, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event)) },
    2_000,
    { untilDrained: false },
  );
  await clock.advance(2_000);
  expect(outbox.replay()).toBe(2_000);
  await clock.advance(2_000);
  expect(fake.calls[0]?.sent).toHaveLength(4_000);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 2_000 });
  stop.abort(new Error("enough"));
  await clock.advance(10);
  await over;
});

test("a drain does not wait for more marks when the last answer has come", async () => {
  const { clock, fake, told, over } = opened({}, 3);
  await clock.advance(100);
  const [call] = fake.calls;
  call?.answer(...call.sent.slice(0, 2).map(accepted));
  await clock.advance(10);
  call?.answer(...call.sent.slice(2).map(accepted));
  await clock.advance(10);
  expect(told).toEqual(["e1 acked", "e2 acked", "e3 acked"]);
  await over;
});

test("never are more in flight than the window", async () => {
  const { clock, fake, over } = opened({}, 30, { window: 4 });
  await clock.advance(100);
  const [call] = fake.calls;
  expect(call?.sent).toHaveLength(4);
  let answered = 0;
  while (answered < 30) {
    call?.answer(...call.sent.slice(answered, answered + 1).map(accepted));
    answered += 1;
    await clock.advance(50);
    expect((call?.sent.length ?? 0) - answered).toBeLessThanOrEqual(4);
  }
  await over;
  expect(call?.sent).toHaveLength(30);
});

test("an event without an answer is sent again, although others progress", async () => {
  const { clock, fake, outbox, over } = opened(
    {
      onEvent(event, call) {
        const isFirst = call.sent.filter(({ eventId }) => eventId === "e1").length === 1;
        if (event.eventId !== "e1" || !isFirst) {
          // One answer each 100 ms.
          clock
            .sleep(100 * call.sent.length, { signal: never })
            .then(() => call.answer(accepted(event)));
        }
      },
    },
    100,
    { ackTimeoutMs: 5000, window: 100 },
  );
  await clock.advance(4900);
  const [call] = fake.calls;
  expect(outbox.counts().acked).toBeGreaterThan(40);
  expect(call?.sent).toHaveLength(100);
  await clock.advance(200);
  expect(ids(call?.sent ?? []).filter((id) => id === "e1")).toHaveLength(2);
  await clock.advance(20_000);
  await over;
  expect(fake.calls).toHaveLength(1);
  expect(outbox.counts().acked).toBe(100);
});

test("what waits for its turn on a slow link is not sent twice", async () => {
  const { clock, fake, outbox, over } = opened(
    {
      onEvent(event, call) {
        clock
          .sleep(100 * call.sent.length, { signal: never })
          .then(() => call.answer(accepted(event)));
      },
    },
    100,
    { ackTimeoutMs: 5000 },
  );
  await clock.advance(20_000);
  await over;
  expect(fake.calls[0]?.sent).toHaveLength(100);
  expect(outbox.counts().acked).toBe(100);
});

test("an event that is refused for now waits its time and goes once more on the same call", async () => {
  const sentAt: number[] = [];
  const { clock, outbox, fake, told, over } = opened(
    {
      onEvent(event, call) {
        sentAt.push(clock.monotonic());
        call.answer(sentAt.length < 3 ? refusal(event, later) : accepted(event));
      },
    },
    1,
  );
  await clock.advance(100);
  expect(outbox.event("e1")).toMatchObject({ state: "pending", attempts: 1, reason: "busy" });
  await clock.advance(3000);
  await over;
  expect(sentAt).toHaveLength(3);
  expect(sentAt[0]).toBe(0);
  expect(sentAt[1]).toBeGreaterThanOrEqual(700);
  expect((sentAt[2] ?? 0) - (sentAt[1] ?? 0)).toBeGreaterThanOrEqual(700);
  expect(sentAt[2]).toBeLessThan(1600);
  expect(told).toEqual(["e1 retry", "e1 retry", "e1 acked"]);
  expect(fake.calls).toHaveLength(1);
});

test.each([
  ["back by eight minutes", -480_000],
  ["forward by eight minutes", 480_000],
])("a refused event waits as long when the clock is set %s", async (_, jumpMs) => {
  const sentAt: number[] = [];
  const { clock, over } = opened(
    {
      onEvent(event, call) {
        sentAt.push(clock.monotonic());
        call.answer(
          sentAt.length === 1
            ? refusal(event, { ...later, retryAfterMs: 30_000 })
            : accepted(event),
        );
      },
    },
    1,
  );
  await clock.advance(1_000);
  clock.jump(jumpMs);
  await clock.advance(28_000);
  expect(sentAt).toEqual([0]);
  await clock.advance(3_000);
  await over;
  expect(sentAt).toHaveLength(2);
});

test("one that is refused for good is parked at once, with the reason", async () => {
  const { clock, outbox, fake, over } = opened(
    {
      onEvent: (event, call) =>
        call.answer(event.eventId === "e2" ? refusal(event) : accepted(event)),
    },
    3,
  );
  await clock.advance(100);
  await over;
  expect(outbox.event("e2")).toMatchObject({ state: "parked", reason: "no such product" });
  expect(outbox.counts()).toMatchObject({ acked: 2, parked: 1, pending: 0 });
  expect(fake.calls[0]?.sent).toHaveLength(3);
});

test("one that is refused too often is parked", async () => {
  const { clock, outbox, fake, over } = opened(
    { onEvent: (event, call) => call.answer(refusal(event, later)) },
    1,
    { maxAttempts: 3 },
  );
  await clock.advance(5000);
  await over;
  expect(outbox.event("e1")).toMatchObject({
    state: "parked",
    attempts: 3,
    reason: "refused 3 times: busy",
  });
  expect(fake.calls[0]?.sent).toHaveLength(3);
});

test("the second answer to an event that was sent twice changes nothing", async () => {
  const { clock, outbox, told, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event), refusal(event)) },
    2,
  );
  await clock.advance(100);
  await over;
  expect(told).toEqual(["e1 acked", "e2 acked"]);
  expect(outbox.counts()).toMatchObject({ acked: 2, parked: 0 });
});

test("answers to events that were never sent change nothing", async () => {
  const { clock, outbox, told, over } = opened(
    {
      onEvent: (event, call) => {
        const [sent, recorded] = ["never-sent", "never-recorded"].map((eventId) => ({
          ...event,
          eventId,
        })) as [Recorded, Recorded];
        call.answer(accepted(sent), refusal(recorded));
        call.answer(accepted(event));
      },
    },
    2,
  );
  await clock.advance(100);
  await over;
  expect(told).toEqual(["e1 acked", "e2 acked"]);
  expect(outbox.counts()).toMatchObject({ acked: 2, parked: 0, pending: 0 });
});

test("what another process records goes out on the same call", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const { clock, outbox, fake, states, stop, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event)) },
    1,
    { untilDrained: false },
    path,
  );
  await clock.advance(100);
  expect(states.at(-1)).toEqual({ kind: "live" });
  const other = new Outbox({ path, now: () => clock.now() });
  other.append([{ eventId: "late", type: "Sale", payload: "", timestamp: 1 }]);
  other.close();
  await clock.advance(100);
  expect(fake.calls.map(({ sent }) => ids(sent))).toEqual([["e1", "late"]]);
  stop.abort(new Error("enough"));
  await clock.advance(100);
  await over;
  expect(outbox.counts()).toMatchObject({ acked: 2, pending: 0 });
  outbox.close();
});

test("a stop sends nothing more, and waits for the answers that are due", async () => {
  const { clock, outbox, fake, stop, over } = opened({}, 10, { window: 4 });
  await clock.advance(100);
  const [call] = fake.calls;
  stop.abort(new Error("enough"));
  call?.answer(...call.sent.slice(0, 2).map(accepted));
  await clock.advance(100);
  expect(call?.isHalfClosed).toBe(false);
  call?.answer(...call.sent.slice(2).map(accepted));
  await clock.advance(100);
  await over;
  expect(call?.sent).toHaveLength(4);
  expect(call?.isHalfClosed).toBe(true);
  expect(outbox.counts()).toMatchObject({ acked: 4, pending: 6 });
});

test("a call on which nothing is answered is given up, and all of it is sent again", async () => {
  const { clock, outbox, fake, states, over } = opened(
    {
      onEvent(event, call) {
        if (fake.calls.length > 1) {
          call.answer(accepted(event));
        }
      },
    },
    3,
    { ackTimeoutMs: 60_000 },
  );
  await clock.advance(10_000);
  expect(fake.calls).toHaveLength(1);
  await clock.advance(2000);
  await over;
  expect(states).toContainEqual({
    kind: "offline",
    why: "no answer for 10 s",
    attempt: 1,
    waitMs: 500,
  });
  expect(ids(fake.calls[1]?.sent ?? [])).toEqual(["e1", "e2", "e3"]);
  expect(outbox.counts().pending).toBe(0);
});

test("a call with nothing due may be silent for as long as it likes", async () => {
  const { clock, fake, stop, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event)) },
    1,
    { untilDrained: false },
  );
  await clock.advance(60_000);
  expect(fake.calls).toHaveLength(1);
  stop.abort(new Error("enough"));
  await clock.advance(100);
  await over;
});

test("answers that came before the call was lost count", async () => {
  const { clock, outbox, fake, over } = opened(
    {
      onEvent(event, call) {
        if (fake.calls.length > 1) {
          call.answer(accepted(event));
        } else if (call.sent.length === 3) {
          call.answer(...call.sent.slice(0, 2).map(accepted));
          call.fail(new StatusError("UNAVAILABLE", "gone"));
        }
      },
    },
    3,
  );
  await clock.advance(2000);
  await over;
  expect(ids(fake.calls[1]?.sent ?? [])).toEqual(["e3"]);
  expect(outbox.counts().acked).toBe(3);
});

test("the cloud that ends the channel by itself is called again", async () => {
  const { clock, fake, over } = opened(
    {
      onEvent(event, call) {
        if (fake.calls.length > 1) {
          call.answer(accepted(event));
        } else {
          call.fail(new StatusError("CANCELLED", "the server went away"));
        }
      },
    },
    1,
  );
  await clock.advance(2000);
  await over;
  expect(fake.calls).toHaveLength(2);
});

describe("an event that is too much for the wire", () => {
  test("is found among the others, which pass, and is parked in the end", async () => {
    const { clock, outbox, fake, over } = opened(
      {
        onEvent(event, call) {
          if (event.eventId === "e5") {
            call.fail(new StatusError("RESOURCE_EXHAUSTED", "message too large"));
          } else {
            call.answer(accepted(event));
          }
        },
      },
      9,
      { maxAttempts: 3, window: 8 },
    );
    await clock.advance(600_000);
    await over;
    expect(outbox.counts()).toMatchObject({ acked: 8, parked: 1, pending: 0 });
    expect(outbox.event("e5")?.reason).toContain("message too large");
    expect(fake.calls.length).toBeLessThan(20);
  });
});

test("a seq that is taken renumbers what is not acked, and sends it on a new call", async () => {
  const { clock, outbox, fake, over } = opened(
    {
      onEvent(event, call) {
        call.answer(
          fake.calls.length === 1 && event.eventId !== "e1"
            ? refusal(event, { isSeqTaken: true, isRetryable: true })
            : accepted(event),
        );
      },
    },
    3,
  );
  const epoch = outbox.epoch();
  await clock.advance(100);
  await over;
  expect(outbox.epoch()).not.toBe(epoch);
  const [, second] = fake.calls;
  expect(second?.sent.map(({ eventId, seq }) => [eventId, seq])).toEqual([
    ["e2", 1],
    ["e3", 2],
  ]);
  expect(second?.sent.every((event) => event.epoch === outbox.epoch())).toBe(true);
  expect(outbox.event("e1")).toMatchObject({ state: "acked", epoch });
});

test("a cloud that has forgotten what it acknowledged is told of", async () => {
  const { clock, alarms, outbox, fake, stop, over } = opened(
    { onEvent: (event, call) => call.answer(accepted(event)) },
    1,
    { untilDrained: false },
  );
  await clock.advance(200);
  const meet = (ledgerId: string) =>
    fake.calls[0]?.options.onLedger({ ledgerId, epoch: outbox.epoch(), seen: undefined });
  meet("one");
  expect(alarms).toEqual([]);
  meet("two");
  expect(alarms).toEqual([expect.stringContaining("another ledger now, two; one had")]);
  expect(outbox.alarm()).toBe(alarms[0]);
  stop.abort(new Error("enough"));
  await clock.advance(100);
  await over;
});

/** Has the outbox refuse marks until the given time of the test's clock. Returns when it was asked. */
function refuseMarks(outbox: Outbox, clock: { monotonic(): number }, untilMs: number): number[] {
  const { settle } = outbox;
  const asked: number[] = [];
  outbox.settle = (settlements) => {
    asked.push(clock.monotonic());
    if (clock.monotonic() < untilMs) {
      throw new StatusError("RESOURCE_EXHAUSTED", "the disk is full");
    }
    settle.call(outbox, settlements);
  };
  return asked;
}

describe("a disk that takes no marks", () => {
  test("is left by all events, each once, and only the marks are tried again, ever more seldom", async () => {
    const waits: number[] = [];
    const { clock, outbox, fake, states, told, stop, over } = opened(
      { onEvent: (event, call) => call.answer(accepted(event)) },
      3_000,
      {
        untilDrained: false,
        onUnmarked: (why, waitMs) => {
          expect(why.message).toBe("the disk is full");
          waits.push(waitMs);
        },
      },
    );
    const asked = refuseMarks(outbox, clock, 60_000);
    await clock.advance(59_000);
    expect(fake.connects).toBe(1);
    expect(fake.calls[0]?.sent).toHaveLength(3_000);
    expect(told).toEqual([]);
    expect(waits).toEqual(
      [500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000].slice(0, waits.length),
    );
    expect(waits.length).toBeGreaterThan(5);
    expect(asked).toHaveLength(waits.length);
    await clock.advance(31_000);
    expect(told).toHaveLength(3_000);
    expect(outbox.counts()).toMatchObject({ pending: 0, acked: 3_000 });
    expect(states.some(({ kind }) => kind === "offline")).toBe(false);
    stop.abort(new Error("enough"));
    await clock.advance(10);
    await over;
  });

  test("makes no lost link hurry: answers without a mark are no progress", async () => {
    const { clock, outbox, fake, states } = opened(
      {
        onEvent(event, call) {
          call.answer(accepted(event));
          call.fail(new StatusError("UNAVAILABLE", "gone"));
        },
      },
      200,
      { untilDrained: false, window: 2 },
    );
    refuseMarks(outbox, clock, Number.POSITIVE_INFINITY);
    await clock.advance(60_000);
    const waits = states.flatMap((state) => (state.kind === "offline" ? [state.waitMs] : []));
    expect(waits.slice(0, 5)).toEqual([500, 1_000, 2_000, 4_000, 8_000]);
    expect(states).not.toContainEqual({ kind: "recovered" });
    const sent = fake.calls.flatMap((call) => ids(call.sent));
    expect(new Set(sent).size).toBeGreaterThan(5);
  });

  test("passes for nothing that is too much for the wire: no event is refused for it", async () => {
    const { clock, outbox, fake, stop, over } = opened(
      { onEvent: (event, call) => call.answer(accepted(event)) },
      1,
      { maxAttempts: 1 },
    );
    refuseMarks(outbox, clock, Number.POSITIVE_INFINITY);
    await clock.advance(5_000);
    stop.abort(new Error("enough"));
    await clock.advance(100);
    await over;
    expect(outbox.counts()).toMatchObject({ pending: 1, parked: 0 });
    expect(fake.calls[0]?.sent).toHaveLength(1);
  });
});

test("what no attempt would change ends it", async () => {
  const { clock, fake, over } = opened(
    {
      onEvent: (_, call) => call.fail(new StatusError("UNAUTHENTICATED", "who are you?")),
    },
    1,
  );
  const failed = failure(over);
  await clock.advance(100);
  expect(await failed).toMatchObject({ code: "UNAUTHENTICATED" });
  expect(fake.calls).toHaveLength(1);
});
