/** The parts of a bridge: each goes on by itself, and one that fails costs no other. */

import { describe, expect, test } from "vitest";
import { Bell } from "../../src/bell.ts";
import { Bridge, type BridgeNews, type BridgeOptions } from "../../src/bridge/bridge.ts";
import type { DigestPart } from "../../src/bridge/digesting.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import type { Question, StoreReport, Uplink, WatchCallOptions } from "../../src/bridge/uplink.ts";
import { StatusError } from "../../src/errors.ts";
import { DamagedError, inMemory } from "../../src/sqlite.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { fakeUplink, lost } from "../support/played-cloud.ts";
import { testClock } from "../support/test-clock.ts";

const second = 1_000;

function bridge(options: Partial<BridgeOptions> = {}, control: Partial<Uplink> = {}) {
  const clock = testClock();
  const now = () => clock.now();
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now });
  const inbox = new Inbox(outbox.database, { now });
  const news: BridgeNews[] = [];
  const reports: StoreReport[] = [];
  const events = fakeUplink();
  const it = new Bridge({
    ...{
      outbox,
      inbox,
      events,
      clock,
      random: () => 0.5,
      maxAttempts: 5,
      keepMs: 3_600_000,
      alarms: () => [],
    },
    control: {
      ...fakeUplink(),
      // biome-ignore lint/correctness/useYield: nothing comes
      async *watch(_, { signal }) {
        await new Bell().next({ signal });
      },
      async report(report) {
        reports.push(report);
        return 0;
      },
      ...control,
    },
    tell: (one) => news.push(one),
    ...options,
  });
  const told = (kind: BridgeNews["kind"]) => news.filter((one) => one.kind === kind);
  return {
    ...{ it, clock, outbox, inbox, news, reports, events, told },
    async stop() {
      const stopped = it.stop({ graceMs: 0, force: AbortSignal.abort() });
      await clock.advance(second);
      await stopped;
      outbox.close();
    },
  };
}

const final = () => new StatusError("UNIMPLEMENTED", "no such service");

describe("a cloud that refuses for good", () => {
  test("is said with the part that it concerns, and asked again every 30 s", async () => {
    let calls = 0;
    const events: Uplink = {
      ...fakeUplink(),
      // biome-ignore lint/correctness/useYield: nothing comes
      async *channel() {
        calls += 1;
        throw final();
      },
    };
    const shop = bridge({ events });
    await shop.clock.advance(95 * second);
    expect(calls).toBe(4);
    expect(shop.told("failed")).toHaveLength(4);
    expect(shop.told("failed")[0]).toMatchObject({ part: "events", waitMs: 30_000 });
    expect(shop.it.link).toMatchObject({ kind: "offline", why: "no such service" });
    // The others go on: head office hears how the store is.
    expect(shop.reports).toHaveLength(10);
    await shop.stop();
  });

  test("and takes events all the same is said to be so, after three attempts", async () => {
    const shop = bridge(
      {},
      {
        // biome-ignore lint/correctness/useYield: nothing comes
        async *watch() {
          throw new StatusError("INTERNAL", "a broken cloud");
        },
      },
    );
    await shop.clock.advance(2 * second);
    expect(shop.it.link.kind).toBe("live");
    expect(shop.told("not watching")[0]).toEqual({
      ...{ kind: "not watching", why: "a broken cloud", attempt: 1 },
    });
    await shop.clock.advance(60 * second);
    expect(shop.told("not watching").length).toBeGreaterThan(4);
    await shop.stop();
  });

  test("a cloud that is away is said by one link alone", async () => {
    const away = { connect: () => Promise.reject(lost()) };
    const shop = bridge({ events: { ...fakeUplink(), ...away } }, away);
    await shop.clock.advance(60 * second);
    expect(shop.it.link.kind).toBe("offline");
    expect(shop.told("not watching")).toEqual([]);
    await shop.stop();
  });
});

test("a flood of questions is not a flood of calls", async () => {
  let calls = 0;
  const shop = bridge(
    {},
    {
      async *watch(_, { onQuestion, signal }) {
        for (let i = 0; i < 1_000; i += 1) {
          const range = { fromDay: "2026-01-01", toDay: "2026-01-02", type: "", withEvents: false };
          onQuestion?.({ questionId: `question-${i}`, range });
        }
        await new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      },
      async answer(_id, _parts, { signal }) {
        signal.throwIfAborted();
        calls += 1;
        await new Promise((_, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
        });
      },
    },
  );
  await shop.clock.advance(2 * second);
  // One that reads the buffer, and four refusals.
  expect(calls).toBe(5);
  await shop.stop();
});

test("a link that has recovered is still replaying, until all has gone up", async () => {
  const shop = bridge();
  shop.outbox.append(idsOf("event", 2).map(eventOf));
  const first = await shop.events.nextCall();
  first.end(lost());
  await shop.clock.advance(5 * second);
  expect(shop.told("link").map((one) => one.kind === "link" && one.state.kind)).toContain(
    "offline",
  );
  const call = await shop.events.nextCall();
  await shop.clock.advance(100);
  call.accept("event-1");
  await shop.clock.advance(0);
  expect(shop.told("link").at(-1)).toMatchObject({ state: { kind: "recovered" } });
  expect(shop.it.link.kind).toBe("replaying");
  call.accept("event-2");
  await shop.clock.advance(second);
  expect(shop.it.link.kind).toBe("live");
  await shop.stop();
});

test("a buffer that is damaged ends the bridge", async () => {
  const damage = new DamagedError("the disk lies");
  const shop = bridge({
    alarms() {
      throw damage;
    },
  });
  await shop.clock.advance(0);
  await expect(shop.it.failed).rejects.toBe(damage);
  await shop.stop();
});

test("a fault of ours in one part does not end the others", async () => {
  const shop = bridge({
    async apply() {},
  });
  shop.inbox.next = () => {
    throw new TypeError("ours");
  };
  await shop.clock.advance(61 * second);
  expect(shop.told("failed").map((one) => one.kind === "failed" && one.part)).toEqual([
    ...["applying", "applying", "applying"],
  ]);
  expect(shop.reports.length).toBeGreaterThan(5);
  expect(shop.it.link.kind).toBe("live");
  await shop.stop();
});

describe("questions", () => {
  /** A bridge that was asked, and an asker who takes its time. */
  function asked() {
    const answers: { readonly id: string; readonly parts: DigestPart[]; fault?: unknown }[] = [];
    const mayRead: PromiseWithResolvers<void>[] = [];
    let ask: (question: Question) => void = () => {};
    const shop = bridge(
      {},
      {
        async *watch(_, { signal, onQuestion }: WatchCallOptions) {
          ask = (question) => onQuestion?.(question);
          await new Bell().next({ signal });
        },
        async answer(id, parts) {
          const answer: (typeof answers)[number] = { id, parts: [] };
          answers.push(answer);
          try {
            for await (const part of parts) {
              answer.parts.push(part);
            }
          } catch (error) {
            answer.fault = error;
            return;
          }
          const read = Promise.withResolvers<void>();
          mayRead.push(read);
          await read.promise;
        },
      },
    );
    const range = { fromDay: "0000-01-01", toDay: "9999-12-31", type: "", withEvents: true };
    const put = (...ids: string[]) => {
      for (const questionId of ids) {
        ask({ questionId, range });
      }
    };
    return { shop, answers, mayRead, put };
  }

  test("are answered one after the other, in their order", async () => {
    const { shop, answers, mayRead, put } = asked();
    shop.outbox.append([eventOf("event-1")]);
    await shop.clock.advance(0);
    put("a", "b", "c");
    await shop.clock.advance(100);
    expect(answers.map(({ id }) => id)).toEqual(["a"]);
    expect(answers[0]?.parts).toMatchObject([{ kind: "event", eventId: "event-1" }]);
    for (let i = 0; i < 3; i++) {
      mayRead[i]?.resolve();
      await shop.clock.advance(100);
    }
    expect(answers.map(({ id }) => id)).toEqual(["a", "b", "c"]);
    expect(shop.told("answered")).toHaveLength(3);
    await shop.stop();
  });

  test("that are too many are refused at once, and the others are not forgotten", async () => {
    const { shop, answers, mayRead, put } = asked();
    await shop.clock.advance(0);
    put("a", "b", "c", "d", "e", "f");
    await shop.clock.advance(100);
    expect(answers.map(({ id }) => id).sort()).toEqual(["a", "e", "f"]);
    for (const id of ["e", "f"]) {
      const { fault } = answers.find((answer) => answer.id === id) ?? {};
      expect(fault).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    }
    for (let i = 0; i < 4; i++) {
      mayRead[i]?.resolve();
      await shop.clock.advance(100);
    }
    expect(answers.map(({ id }) => id).sort()).toEqual(["a", "b", "c", "d", "e", "f"]);
    // And now there is room again.
    put("g");
    await shop.clock.advance(100);
    expect(answers.at(-1)).toMatchObject({ id: "g" });
    expect(answers.at(-1)?.fault).toBeUndefined();
    mayRead.at(-1)?.resolve();
    await shop.stop();
  });
});

describe("a cloud that is back", () => {
  test("is tried by both links as soon as a report has got through", async () => {
    let isBack = false;
    const attempts: string[] = [];
    const connect = (name: string) => async () => {
      attempts.push(name);
      if (!isBack) {
        throw lost();
      }
    };
    const shop = bridge(
      { events: { ...fakeUplink(), connect: connect("events") }, random: () => 1 },
      {
        connect: connect("control"),
        async report() {
          if (!isBack) {
            throw lost();
          }
          return 0;
        },
      },
    );
    // The attempts come after 1, 3, 7, 15, 31, 61, ... seconds, and the next one would after 211.
    await shop.clock.advance(182 * second);
    isBack = true;
    const before = attempts.length;
    await shop.clock.advance(10 * second);
    expect(new Set(attempts.slice(before))).toEqual(new Set(["events", "control"]));
    expect(shop.it.link.kind).toBe("live");
    await shop.stop();
  });
});
