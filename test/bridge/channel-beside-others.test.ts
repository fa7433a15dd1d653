/** The channel beside others: what is overdue while its window is full, and what another process does. */

import { expect, test } from "vitest";
import { type ChannelOptions, channel } from "../../src/bridge/channel.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { Stop } from "../../src/shutdown.ts";
import { inMemory } from "../../src/sqlite.ts";
import { type FakeCloud, fakeUplink, refusal } from "../support/played-cloud.ts";
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
