/** The channel: a window in flight, an answer an event, and nothing that one lost answer can pin. */

import { expect, test } from "vitest";
import { type ChannelOptions, channel } from "../../src/bridge/channel.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { StatusError } from "../../src/errors.ts";
import { Stop } from "../../src/shutdown.ts";
import { inMemory } from "../../src/sqlite.ts";
import { type FakeCloud, fakeUplink, lost, refusal } from "../support/fake-uplink.ts";
import { tempFolder } from "../support/temp.ts";
import { testClock } from "../support/test-clock.ts";

const ids = (events: readonly { eventId: string }[]) => events.map(({ eventId }) => eventId);

function open(
  count: number,
  options: Partial<ChannelOptions> = {},
  cloud: FakeCloud = {},
  path = inMemory,
) {
  const clock = testClock();
  const outbox = new Outbox({ path, storeId: "store-01", now: () => clock.now() });
  outbox.append(
    Array.from({ length: count }, (_, i) => ({
      ...{ eventId: `e${i + 1}`, type: "Sale", payload: "", timestamp: 1 },
    })),
  );
  const uplink = fakeUplink(cloud);
  const states: LinkState[] = [];
  const answers: string[] = [];
  const stop = new AbortController();
  const kill = new AbortController();
  const run = () =>
    channel({
      ...{ outbox, uplink, clock, random: () => 0.5 },
      ...{ signal: kill.signal, stop: stop.signal, untilDrained: true },
      onState: (state) => states.push(state),
      onAnswer: (answer, { kind }) => answers.push(`${answer.eventId} ${kind}`),
      onAlarm: (why) => answers.push(`alarm: ${why}`),
      ...options,
    });
  return { clock, outbox, uplink, states, answers, stop, kill, run };
}

/** Lets time pass in small steps until something is so. */
async function passUntil(clock: ReturnType<typeof testClock>, isSo: () => boolean) {
  for (let i = 0; i < 100_000 && !isSo(); i += 1) {
    await clock.advance(10);
  }
  expect(isSo()).toBe(true);
}

test("sends what is pending, in order, marks what is answered, and half-closes when it is drained", async () => {
  const { clock, outbox, uplink, answers, run } = open(3);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(3);
  expect(ids(call.sent)).toEqual(["e1", "e2", "e3"]);
  expect(outbox.counts().pending).toBe(3);
  call.accept();
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  await call.halfClosed;
  call.end();
  await done;
  expect(answers).toEqual(["e1 acked", "e2 acked", "e3 acked"]);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 3 });
});

test("never has more than the window in flight", async () => {
  const { clock, uplink, kill, run } = open(10, { window: 4 });
  const done = run();
  const call = await uplink.nextCall();
  await call.received(4);
  await clock.advance(1000);
  expect(call.sent).toHaveLength(4);
  call.accept("e2");
  await call.received(5);
  await clock.advance(100);
  expect(ids(call.sent)).toEqual(["e1", "e2", "e3", "e4", "e5"]);
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});

test("an event whose answer is lost is sent again, though the others progress", async () => {
  const { clock, outbox, uplink, run } = open(3, { ackTimeoutMs: 1000 });
  const done = run();
  const call = await uplink.nextCall();
  await call.received(3);
  call.accept("e1", "e3");
  await passUntil(clock, () => call.sent.length === 4);
  expect(call.sent[3]?.eventId).toBe("e2");
  call.answer({ kind: "duplicate", eventId: "e2" });
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  call.end();
  await done;
  expect(outbox.counts()).toMatchObject({ acked: 3 });
});

test("overdue events go again though the window is full of them", async () => {
  const { clock, uplink, kill, run } = open(2, { window: 2, ackTimeoutMs: 1000 });
  const done = run();
  const call = await uplink.nextCall();
  await call.received(2);
  await passUntil(clock, () => call.sent.length === 4);
  expect(ids(call.sent)).toEqual(["e1", "e2", "e1", "e2"]);
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});

test("what is refused for now waits as long as the cloud asks, and goes again on the same call", async () => {
  const { clock, outbox, uplink, answers, run } = open(2);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(2);
  call.answer(refusal("e1", { isRetryable: true, retryAfterMs: 3000 }));
  call.accept("e2");
  await clock.advance(2900);
  expect(call.sent).toHaveLength(2);
  expect(outbox.event("e1")).toMatchObject({ state: "pending", attempts: 1, reason: "no" });
  await passUntil(clock, () => call.sent.length === 3);
  call.accept("e1");
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  call.end();
  await done;
  expect(answers).toEqual(["e1 retry", "e2 acked", "e1 acked"]);
});

test("what is refused for good is parked at once, and costs no other", async () => {
  const { clock, outbox, uplink, run } = open(3);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(3);
  call.answer(refusal("e2", { reason: "event_id is taken" }));
  call.accept("e1", "e3");
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  call.end();
  await done;
  expect(outbox.event("e2")).toMatchObject({ state: "parked", reason: "event_id is taken" });
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 2, parked: 1 });
});

test("what stays refused is parked after so many attempts", async () => {
  const { clock, outbox, uplink, run } = open(1, { maxAttempts: 3 });
  const done = run();
  const call = await uplink.nextCall();
  for (let attempt = 1; attempt <= 3; attempt += 1) {
    await passUntil(clock, () => call.sent.length === attempt);
    call.answer(refusal("e1", { isRetryable: true }));
  }
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  call.end();
  await done;
  expect(outbox.event("e1")).toMatchObject({ state: "parked", reason: "refused 3 times: no" });
});

test("a lost call is made again, and sends only what has no answer", async () => {
  const { clock, outbox, uplink, states, run } = open(3);
  const done = run();
  const first = await uplink.nextCall();
  await first.received(3);
  first.accept("e1", "e2");
  await passUntil(clock, () => outbox.counts().acked === 2);
  first.end(lost());
  let second: Awaited<ReturnType<typeof uplink.nextCall>> | undefined;
  uplink.nextCall().then((call) => {
    second = call;
  });
  await passUntil(clock, () => second !== undefined);
  await second?.received(1);
  expect(ids(second?.sent ?? [])).toEqual(["e3"]);
  second?.accept();
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  second?.end();
  await done;
  expect(states.map(({ kind }) => kind)).toEqual([
    ...["connecting", "replaying", "offline", "connecting", "replaying", "recovered", "draining"],
  ]);
});

test("answers that came before the call was lost count", async () => {
  const { clock, outbox, uplink, kill, run } = open(3);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(3);
  call.accept("e1", "e2", "e3");
  call.end(lost());
  await passUntil(clock, () => outbox.counts().acked === 3);
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});

test("a call that the cloud ends with OK is lost as well", async () => {
  const { clock, uplink, states, kill, run } = open(1);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(1);
  call.end();
  await passUntil(clock, () => states.some(({ kind }) => kind === "offline"));
  expect(states.find(({ kind }) => kind === "offline")).toMatchObject({
    why: "the cloud ended the channel",
  });
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});

test("a call without any answer for 10 s, though one is due, is given up", async () => {
  const { clock, uplink, states, kill, run } = open(1);
  const done = run();
  const call = await uplink.nextCall();
  await call.received(1);
  await clock.advance(9_900);
  expect(states.some(({ kind }) => kind === "offline")).toBe(false);
  await passUntil(clock, () => states.some(({ kind }) => kind === "offline"));
  expect(states.find(({ kind }) => kind === "offline")).toMatchObject({
    why: "no answer for 10 s",
  });
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});

test("stays up when it is drained, and sends what another process records and retries", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const { clock, outbox, uplink, states, stop, run } = open(1, { untilDrained: false }, {}, path);
  const other = new Outbox({ path, now: () => clock.now() });
  const done = run();
  const call = await uplink.nextCall();
  await call.received(1);
  call.answer(refusal("e1"));
  await passUntil(clock, () => states.some(({ kind }) => kind === "live"));
  other.append([{ eventId: "late", type: "Sale", payload: "", timestamp: 1 }]);
  other.retry("all");
  await passUntil(clock, () => call.sent.length === 3);
  expect(ids(call.sent).sort()).toEqual(["e1", "e1", "late"]);
  call.accept("e1", "late");
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  stop.abort(new Stop("--for 1s"));
  await clock.advance(100);
  call.end();
  await done;
  other.close();
  outbox.close();
});

test("a stop sends nothing more, and waits for the answers that are due", async () => {
  const { clock, outbox, uplink, states, stop, run } = open(5, { window: 2 });
  const done = run();
  const call = await uplink.nextCall();
  await call.received(2);
  stop.abort(new Stop("Ctrl+C"));
  await clock.advance(100);
  expect(states.at(-1)?.kind).toBe("draining");
  call.accept();
  await passUntil(clock, () => outbox.counts().acked === 2);
  await clock.advance(100);
  await call.halfClosed;
  call.end();
  await done;
  expect(call.sent).toHaveLength(2);
  expect(outbox.counts()).toMatchObject({ pending: 3, acked: 2 });
});

test("a taken seq mints an epoch, and all that has no answer is sent anew at once", async () => {
  const { clock, outbox, uplink, run } = open(3);
  const before = outbox.epoch();
  const done = run();
  const first = await uplink.nextCall();
  await first.received(3);
  first.accept("e1");
  await passUntil(clock, () => outbox.counts().acked === 1);
  const next = uplink.nextCall();
  first.answer(refusal("e2", { isSeqTaken: true }));
  const second = await next;
  await second.received(2);
  expect(outbox.epoch()).not.toBe(before);
  expect(second.sent.map(({ eventId, seq, epoch }) => ({ eventId, seq, epoch }))).toEqual([
    { eventId: "e2", seq: 1, epoch: outbox.epoch() },
    { eventId: "e3", seq: 2, epoch: outbox.epoch() },
  ]);
  second.accept();
  await passUntil(clock, () => outbox.isDrained());
  await clock.advance(100);
  second.end();
  await done;
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 3, parked: 0 });
});

test("an event that the wire never takes is found, and parked in the end; the others pass", async () => {
  const { clock, outbox, uplink, run } = open(8, { maxAttempts: 2 });
  const done = run();
  let isDone = false;
  done.then(() => {
    isDone = true;
  });
  const play = async () => {
    while (!isDone) {
      const call = await uplink.nextCall();
      const answered = new Set<string>();
      call.halfClosed.then(() => call.end());
      for (;;) {
        await call.received(answered.size + 1);
        const culprit = call.sent.some(({ eventId }) => eventId === "e5");
        if (culprit) {
          call.end(new StatusError("RESOURCE_EXHAUSTED", "message larger than max"));
          break;
        }
        for (const { eventId } of call.sent) {
          if (!answered.has(eventId)) {
            answered.add(eventId);
            call.accept(eventId);
          }
        }
      }
    }
  };
  play();
  await passUntil(clock, () => isDone);
  expect(outbox.event("e5")).toMatchObject({ state: "parked" });
  expect(outbox.event("e5")?.reason).toMatch(/^refused 2 times: the call that carried it alone/);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 7, parked: 1 });
});

test("a cloud that forgot what it had acknowledged is an alarm", async () => {
  const ledger = { ledgerId: "another", epoch: "", seen: undefined };
  const { clock, outbox, uplink, answers, kill, run } = open(2, {}, { ledger });
  outbox.meet({ ledgerId: "the first", epoch: outbox.epoch(), seen: 0 });
  outbox.settle([{ kind: "acked", position: 1 }]);
  const done = run();
  await uplink.nextCall();
  await clock.advance(10);
  expect(answers).toEqual([
    "alarm: the cloud has another ledger now, another; the first had acknowledged events",
  ]);
  expect(outbox.alarm()).toContain("another ledger");
  kill.abort(new Stop("enough"));
  await expect(done).rejects.toThrow("enough");
});
