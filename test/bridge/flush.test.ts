/** The flush: batches, summaries that must add up, and links that break. */

import { expect, test, vi } from "vitest";
import { type FlushOptions, flush } from "../../src/bridge/flush.ts";
import type { LinkState } from "../../src/bridge/link.ts";
import { Outbox, type OutboxCounts, type Recorded } from "../../src/bridge/outbox.ts";
import type { Summary } from "../../src/bridge/uplink.ts";
import { StatusError } from "../../src/errors.ts";
import { Stop } from "../../src/shutdown.ts";
import { inMemory } from "../../src/sqlite.ts";
import { accepted, type FakeCloud, fakeUplink, lost, refusal } from "../support/played-cloud.ts";
import { testClock } from "../support/test-clock.ts";

function open(count: number, cloud: FakeCloud, options: Partial<FlushOptions> = {}) {
  const clock = testClock();
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now: () => clock.now() });
  outbox.append(
    Array.from({ length: count }, (_, i) => ({
      ...{ eventId: `e${i + 1}`, type: "Sale", payload: "", timestamp: 1 },
    })),
  );
  const batches: number[] = [];
  const states: LinkState[] = [];
  const summaries: Summary[] = [];
  const kill = new AbortController();
  const uplink = fakeUplink({
    ...cloud,
    upload(batch) {
      batches.push(batch.length);
      return cloud.upload?.(batch) ?? accepted(batch);
    },
  });
  let isDone = false;
  const run = async () => {
    const done = flush({
      ...{ outbox, uplink, clock, random: () => 0.5, signal: kill.signal },
      onState: (state) => states.push(state),
      onSending: () => undefined,
      onSummary: (summary) => summaries.push(summary),
      onAlarm() {},
      ...options,
    }).finally(() => {
      isDone = true;
    });
    done.catch(() => {});
    for (let i = 0; i < 100_000 && !isDone; i += 1) {
      await clock.advance(100);
    }
    await done;
  };
  return { clock, outbox, uplink, batches, states, summaries, kill, run };
}

test("an empty outbox needs no call", async () => {
  const { batches, run } = open(0, {});
  await run();
  expect(batches).toEqual([]);
});

test("a backlog goes in batches of 500, in order", async () => {
  const seen: string[] = [];
  const { outbox, batches, run } = open(1200, {
    upload(batch) {
      seen.push(...batch.map(({ eventId }) => eventId));
      return accepted(batch);
    },
  });
  await run();
  expect(batches).toEqual([500, 500, 200]);
  expect(seen).toEqual(Array.from({ length: 1200 }, (_, i) => `e${i + 1}`));
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 1200 });
});

test("a disk that takes no marks is left by all events, each once, and only the marks are tried again", async () => {
  const waits: number[] = [];
  const { clock, outbox, batches, states, run } = open(
    1200,
    {},
    { onUnmarked: (_, waitMs) => waits.push(waitMs) },
  );
  const { settle } = outbox;
  const healsAt = clock.monotonic() + 20_000;
  outbox.settle = (settlements) => {
    if (clock.monotonic() < healsAt) {
      throw new StatusError("RESOURCE_EXHAUSTED", "the disk is full");
    }
    settle.call(outbox, settlements);
  };
  await run();
  expect(batches).toEqual([500, 500, 200]);
  expect(waits.slice(0, 4)).toEqual([500, 1_000, 2_000, 4_000]);
  expect(states.some(({ kind }) => kind === "offline")).toBe(false);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 1200 });
});

test("at most three calls are under way together", async () => {
  let underWay = 0;
  let most = 0;
  const { run } = open(5000, {
    async upload(batch) {
      underWay += 1;
      most = Math.max(most, underWay);
      await new Promise((resolve) => setImmediate(resolve));
      underWay -= 1;
      return accepted(batch);
    },
  });
  await run();
  expect(most).toBe(3);
});

test("a lost call halves the batch, so that a link which breaks after ten still drains", async () => {
  const { outbox, batches, run } = open(100, {
    async upload(batch) {
      if (batch.length > 10) {
        throw lost();
      }
      return accepted(batch);
    },
  });
  await run();
  expect(batches.slice(0, 5)).toEqual([100, 50, 25, 12, 6]);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 100 });
});

test("batches grow again when calls succeed", async () => {
  let failures = 1;
  const { batches, run } = open(5000, {
    async upload(batch) {
      if (failures > 0) {
        failures -= 1;
        throw lost();
      }
      return accepted(batch);
    },
  });
  await run();
  expect(batches[0]).toBe(500);
  const small = batches.filter((size) => size === 250).length;
  // After eight successes; those that were under way beside the lost one count.
  expect(small).toBeGreaterThanOrEqual(6);
  expect(small).toBeLessThanOrEqual(8);
  expect(batches.filter((size) => size === 500).length).toBeGreaterThan(5);
});

const wrongSummaries: [string, (batch: readonly Recorded[]) => Summary][] = [
  ["too few", (batch) => ({ ...accepted(batch), accepted: batch.length - 1 })],
  ["too many", (batch) => ({ ...accepted(batch), duplicates: 1 })],
  ["a refusal that is not named", (batch) => ({ ...accepted(batch.slice(1)), refused: 1 })],
  [
    "a refusal of an event that was not sent",
    (batch) => ({ ...accepted(batch.slice(1)), refused: 1, refusals: [refusal("stranger")] }),
  ],
  [
    "a refusal that is named twice",
    (batch) => ({
      ...accepted(batch.slice(2)),
      refused: 2,
      refusals: [refusal("e1"), refusal("e1")],
    }),
  ],
];
test.each(wrongSummaries)(
  "a summary with %s marks nothing, and all is sent again",
  async (_, wrong) => {
    let isFirst = true;
    const after: OutboxCounts[] = [];
    const { outbox, batches, states, run } = open(
      4,
      {
        upload(batch) {
          if (isFirst) {
            isFirst = false;
            return wrong(batch);
          }
          after.push(outbox.counts());
          return accepted(batch);
        },
      },
      { maxBatch: 4 },
    );
    await run();
    expect(after[0]).toMatchObject({ pending: 4, acked: 0, parked: 0 });
    expect(batches).toEqual([4, 2, 2]);
    expect(states.find(({ kind }) => kind === "offline")).toMatchObject({
      why: expect.stringMatching(
        /^the cloud's summary does not say what became of each of 4 events/,
      ),
    });
  },
);

test("refusals are parked or wait, the others are acked, by name", async () => {
  const { outbox, run } = open(3, {
    upload(batch) {
      const refusals = [
        refusal("e1", { reason: "another content" }),
        refusal("e2", { isRetryable: true, reason: "busy" }),
      ].filter(({ eventId }) => batch.some((event) => event.eventId === eventId));
      if (batch.length === 1) {
        return accepted(batch);
      }
      return { ...accepted(batch.slice(refusals.length)), refused: refusals.length, refusals };
    },
  });
  await run();
  expect(outbox.event("e1")).toMatchObject({ state: "parked", reason: "another content" });
  expect(outbox.event("e2")).toMatchObject({ state: "acked", attempts: 1 });
  expect(outbox.event("e3")).toMatchObject({ state: "acked" });
});

test("a summary with a corrupt event marks nothing, since the event's id may be another's", async () => {
  let calls = 0;
  const seen: string[][] = [];
  const { outbox, states, run } = open(4, {
    upload(batch) {
      calls += 1;
      seen.push(batch.map(({ eventId }) => eventId));
      // What came as e2 was e1, and e2 was taken beside it.
      return calls <= 3
        ? {
            ...{ accepted: batch.length - 1, duplicates: 0, refused: 1 },
            refusals: [refusal("e2", { isRetryable: true, isCorrupt: true })],
          }
        : accepted(batch);
    },
  });
  await run();
  expect(seen).toEqual([
    ["e1", "e2", "e3", "e4"],
    ["e1", "e2"],
    ["e1"],
    ["e1"],
    ["e2"],
    ["e3"],
    ["e4"],
  ]);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 4, parked: 0 });
  const waits = states.flatMap((state) => (state.kind === "offline" ? [state.waitMs] : []));
  // The first two calls had brought something; random is 0.5.
  expect(waits).toEqual([500, 500, 1000]);
});

test("taken seqs mint an epoch, and are sent under new numbers", async () => {
  const sent: Recorded[][] = [];
  const { outbox, run } = open(3, {
    upload(batch) {
      sent.push([...batch]);
      if (sent.length > 1) {
        return accepted(batch);
      }
      const refusals = batch.slice(1).map(({ eventId }) => refusal(eventId, { isSeqTaken: true }));
      return { ...accepted(batch.slice(0, 1)), refused: 2, refusals };
    },
  });
  await run();
  expect(sent[1]?.map(({ eventId, seq }) => [eventId, seq])).toEqual([
    ["e2", 1],
    ["e3", 2],
  ]);
  expect(sent[1]?.[0]?.epoch).not.toBe(sent[0]?.[0]?.epoch);
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 3, parked: 0 });
});

test("a call beside one with a taken seq is marked by the numbers that it was sent with", async () => {
  const refused = Promise.withResolvers<void>();
  const sent: Recorded[][] = [];
  const { outbox, run } = open(
    4,
    {
      async upload(batch) {
        sent.push([...batch]);
        if (sent.length === 1) {
          refused.resolve();
          const refusals = batch.map(({ eventId }) => refusal(eventId, { isSeqTaken: true }));
          return { ...accepted([]), refused: 2, refusals };
        }
        await refused.promise;
        return accepted(batch);
      },
    },
    { maxBatch: 2 },
  );
  await run();
  const [, beside, again] = sent;
  for (const { eventId, epoch, seq } of [...(beside ?? []), ...(again ?? [])]) {
    expect(outbox.event(eventId)).toMatchObject({ state: "acked", epoch, seq });
  }
  expect(again?.map(({ eventId, seq }) => [eventId, seq])).toEqual([
    ["e1", 1],
    ["e2", 2],
  ]);
});

test("after a replay it is not looked for new events again and again", async () => {
  const { outbox, batches, run } = open(2000, {});
  await run();
  outbox.replay();
  const looked = vi.spyOn(outbox, "pending");
  await run();
  expect(batches.slice(4)).toEqual([500, 500, 500, 500]);
  expect(looked).toHaveBeenCalledTimes(1);
});

test("an event that the wire never takes is parked in the end, and the others pass", async () => {
  const { outbox, run } = open(
    20,
    {
      async upload(batch) {
        if (batch.some(({ eventId }) => eventId === "e7")) {
          throw new StatusError("RESOURCE_EXHAUSTED", "message larger than max");
        }
        return accepted(batch);
      },
    },
    { maxAttempts: 3 },
  );
  await run();
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 19, parked: 1 });
  expect(outbox.event("e7")?.reason).toContain("message larger than max");
});

test("what is recorded and what is retried meanwhile goes too", async () => {
  let isFirst = true;
  const { outbox, run } = open(3, {
    upload(batch) {
      if (isFirst) {
        isFirst = false;
        outbox.append([{ eventId: "late", type: "Sale", payload: "", timestamp: 1 }]);
        return { ...accepted(batch.slice(1)), refused: 1, refusals: [refusal("e1")] };
      }
      if (outbox.event("e1")?.state === "parked") {
        outbox.retry(["e1"]);
      }
      return accepted(batch);
    },
  });
  await run();
  expect(outbox.counts()).toMatchObject({ pending: 0, acked: 4, parked: 0 });
});

test("a fault that no other attempt would change ends it, with everything pending", async () => {
  const { outbox, run } = open(3, {
    upload: () => Promise.reject(new StatusError("UNIMPLEMENTED", "no SyncEngine here")),
  });
  await expect(run()).rejects.toThrow("no SyncEngine here");
  expect(outbox.counts()).toMatchObject({ pending: 3 });
});

test("an abort ends it, with what has no answer pending", async () => {
  const { outbox, kill, run } = open(3, {
    upload: () => {
      kill.abort(new Stop("Ctrl+C"));
      return Promise.reject(lost());
    },
  });
  await expect(run()).rejects.toThrow("Ctrl+C");
  expect(outbox.counts()).toMatchObject({ pending: 3 });
});
