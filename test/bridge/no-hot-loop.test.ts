/**
 * Nothing that a cloud answers makes a store call it in a loop without a pause. Each test plays one
 * kind of cloud for ten minutes of a clock that stands still otherwise, and counts the calls.
 */

import { expect, test } from "vitest";
import { type ChannelOptions, channel } from "../../src/bridge/channel.ts";
import { flush } from "../../src/bridge/flush.ts";
import { type Command, Inbox } from "../../src/bridge/inbox.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import type { Uplink } from "../../src/bridge/uplink.ts";
import { watch } from "../../src/bridge/watch.ts";
import { inMemory } from "../../src/sqlite.ts";
import { type FakeCloud, fakeUplink, refusal } from "../support/fake-uplink.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { each } from "../support/serve-handlers.ts";
import { testClock } from "../support/test-clock.ts";

const minutes = 10;

/** With the waits at their longest of 30 s there is room for some at the beginning. */
const maxCalls = 40;

/** What the three drainers have in common, and how often the cloud was called. */
function store(cloud: FakeCloud) {
  const clock = testClock();
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now: () => clock.now() });
  outbox.append(idsOf("sale", 50).map(eventOf));
  const { uplink } = fakeUplink(cloud);
  const kill = new AbortController();
  const states: LinkState[] = [];
  const alarms: string[] = [];
  const common = {
    ...{ outbox, clock, random: () => 1, signal: kill.signal },
    onState: (state: LinkState) => states.push(state),
    onAlarm: (why: string) => alarms.push(why),
  };
  return {
    ...{ outbox, uplink, common, states, alarms },
    inbox: new Inbox(outbox.database, { now: () => clock.now() }),
    /** Lets it go on for ten minutes. */
    async pass(done: Promise<unknown>) {
      done.catch(() => {});
      for (let i = 0; i < minutes * 60 * 2; i += 1) {
        await clock.advance(500);
      }
      kill.abort(new Error("over"));
      await done.catch(() => {});
      outbox.close();
    },
  };
}

const channelOptions = (
  uplink: Uplink,
): Omit<ChannelOptions, keyof ReturnType<typeof store>["common"]> => ({
  ...{ uplink, untilDrained: false, stop: new AbortController().signal, onAnswer() {} },
});

const flushOptions = (uplink: Uplink) => ({
  ...{ uplink, onSending: () => undefined, onSummary() {} },
});

const seqTaken = { isSeqTaken: true, isRetryable: false, reason: "the seq is taken" };

test("a channel whose numbers are taken for ever waits longer and longer", async () => {
  let calls = 0;
  const { outbox, uplink, common, states, pass } = store({
    onEvent(event, call) {
      calls += call.sent.length === 1 ? 1 : 0;
      call.answer(refusal(event, seqTaken));
    },
  });
  await pass(channel({ ...common, ...channelOptions(uplink) }));
  expect(calls).toBeGreaterThan(3);
  expect(calls).toBeLessThan(maxCalls);
  expect(states).toContainEqual(
    expect.objectContaining({ kind: "offline", why: expect.stringMatching(/numbers .* taken/) }),
  );
  expect(outbox.path).toBe(inMemory);
});

test("a bundle in which every number is taken is numbered again once", async () => {
  const epochs = new Set<string>();
  const { uplink, common, outbox, pass } = store({
    onEvent(event, call) {
      epochs.add(event.epoch);
      if (call.sent.length === 50) {
        call.answer(...call.sent.map((one) => refusal(one, seqTaken)));
      }
    },
  });
  let mints = 0;
  const renumber = outbox.renumber.bind(outbox);
  outbox.renumber = () => {
    mints += 1;
    renumber();
  };
  await pass(channel({ ...common, ...channelOptions(uplink) }));
  expect(mints).toBeLessThanOrEqual(epochs.size);
});

test("a flush whose numbers are taken for ever waits longer and longer", async () => {
  let calls = 0;
  const { uplink, common, states, pass } = store({
    upload(events) {
      calls += 1;
      const refusals = events.map((event) => refusal(event, seqTaken));
      return { accepted: 0, duplicates: 0, refused: events.length, refusals };
    },
  });
  await pass(flush({ ...common, ...flushOptions(uplink) }));
  expect(calls).toBeGreaterThan(3);
  expect(calls).toBeLessThan(maxCalls);
  expect(states.some(({ kind }) => kind === "offline")).toBe(true);
});

test("a flush whose events are refused for now, with no time to wait, parks them in the end", async () => {
  let calls = 0;
  const { uplink, common, pass } = store({
    upload(events) {
      calls += 1;
      const refusals = events.map((event) => refusal(event, { isRetryable: true }));
      return { accepted: 0, duplicates: 0, refused: events.length, refusals };
    },
  });
  await pass(flush({ ...common, ...flushOptions(uplink) }));
  expect(calls).toBeLessThan(maxCalls);
});

test("a flush whose summaries say nothing of use waits longer and longer", async () => {
  let calls = 0;
  const { uplink, common, pass } = store({
    upload() {
      calls += 1;
      return { accepted: 7, duplicates: 0, refused: 0, refusals: [] };
    },
  });
  await pass(flush({ ...common, ...flushOptions(uplink) }));
  expect(calls).toBeLessThan(maxCalls);
});

test("a cloud with another ledger at each call is an alarm a session, and not one a call", async () => {
  let calls = 0;
  const { outbox, uplink, common, alarms, states, pass } = store({
    upload(events, { onLedger }) {
      calls += 1;
      onLedger({ ledgerId: `ledger-${calls}`, epoch: "", seen: undefined });
      return { accepted: events.length, duplicates: 0, refused: 0, refusals: [] };
    },
  });
  outbox.append(idsOf("more", 950).map(eventOf));
  await pass(flush({ ...common, ...flushOptions(uplink), maxBatch: 10 }));
  const sessions = 1 + states.filter(({ kind }) => kind === "offline").length;
  expect(alarms.length).toBeGreaterThan(0);
  expect(alarms.length).toBeLessThanOrEqual(sessions);
});

const command = (sequence: number): Command => ({
  ...{
    commandId: `cmd-${sequence}`,
    type: "PriceUpdate",
    payloadJson: "{}",
    sequence,
    issuedAt: 1,
  },
});

test.each<[string, readonly Command[]]>([
  ["with nothing", []],
  ["with a command that has come before", [command(1)]],
  ["with a command that has no place in the queue", [command(-1)]],
])("a watch whose stream ends at once %s waits longer and longer", async (_, commands) => {
  let calls = 0;
  const { inbox, uplink, common, pass } = store({
    async *watch(_cursor, { onLedger }) {
      calls += 1;
      onLedger({ ledgerId: "ledger-1", epoch: "", seen: undefined });
      yield* commands;
    },
  });
  await pass(watch({ ...common, inbox, uplink, onCommand: async () => {} }));
  expect(calls).toBeGreaterThan(3);
  expect(calls).toBeLessThan(maxCalls);
});

test("a channel that the cloud ends at once waits longer and longer", async () => {
  let calls = 0;
  const { uplink, common, pass } = store({});
  const ending: Uplink = {
    ...uplink,
    channel() {
      calls += 1;
      return each([]);
    },
  };
  await pass(channel({ ...common, ...channelOptions(ending) }));
  expect(calls).toBeGreaterThan(3);
  expect(calls).toBeLessThan(maxCalls);
});
