/**
 * The store bridge's promise: whatever happens to the wire, the store and the cloud, in the end each
 * event is in the ledger, once, as it was recorded, and nothing else is.
 */

import { cpSync, rmSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/clock.ts";
import { brewctl, start } from "../support/brewctl.ts";
import { cutWire } from "../support/cut-wire.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { serveCloud, type TestCloud } from "../support/serve-cloud.ts";
import { collect } from "../support/serve-handlers.ts";
import { loopback, never } from "../support/start-server.ts";
import { type Box, type Drain, isLive, isOffline, openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";

const day = 24 * 3_600_000;

/** What the cloud tells head office that it has, as the oracle reads it. */
async function ledgerOf({ office }: TestCloud) {
  const { messages, error } = await collect(office.listEvents({}, { signal: never }));
  expect(error).toBeUndefined();
  return messages.map(({ position, timestamp, seq, receivedAt, ...rest }) => ({
    ...rest,
    position: Number(position),
    timestamp: Number(timestamp),
    seq: Number(seq),
    receivedAt: Number(receivedAt),
  }));
}

/** Resolves when so many events are in the ledger. */
async function inLedger({ office }: TestCloud, count: number): Promise<void> {
  let seen = 0;
  for await (const _ of office.listEvents({ follow: true }, { signal: never })) {
    seen += 1;
    if (seen === count) {
      return;
    }
  }
}

const sum = (drain: Drain, what: "accepted" | "duplicates" | "refused") =>
  drain.told.summaries.reduce((total, summary) => total + summary[what], 0);

const answered = (drain: Drain, kind: string) =>
  drain.told.answers.filter((answer) => answer.kind === kind).length;

/** The two ways of draining, to the end. */
const ways = [
  ["flush", (box: Box, { address }: TestCloud) => box.flush(address)],
  ["channel", (box: Box, { address }: TestCloud) => box.channel(address, { untilDrained: true })],
] as const;

/** A seeded generator, so that a failure can be had again. */
function rolls(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

describe("a lost answer is not a sale counted twice", () => {
  test("the wire breaks between the commit and the answer", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    using box = openBox({ path: folder.file("a.db") });
    await using drain = box.channel(loopback(wire.port));
    await drain.told.until(isLive);
    // From now on what is sent takes half a second, in which the wire can be cut.
    wire.delay(500);
    using till = openBox({ path: folder.file("a.db") });
    till.record(["sale-1"]);
    await inLedger(cloud, 1);
    expect(drain.told.answers).toEqual([]);
    wire.cut();
    await drain.told.until(isOffline);
    expect(box.outbox.counts().pending).toBe(1);
    wire.delay(0);
    wire.heal();
    await drain.told.until(({ answers }) => answers.length === 1);
    expect(drain.told.answers).toEqual([{ kind: "duplicate", eventId: "sale-1" }]);
    expectExactly(await ledgerOf(cloud), { offered: ["sale-1"] });
    expect(box.outbox.counts()).toMatchObject({ pending: 0, acked: 1 });
  });

  test("answers get lost on a link that stays healthy, and hold up nobody", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ faults: { loseAck: 0.3 }, random: rolls(7) });
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 60);
    box.record(ids);
    // A small window: a lost answer that pinned its place would soon stop everything.
    await using drain = box.channel(cloud.address, {
      ...{ untilDrained: true, window: 4, ackTimeoutMs: 100 },
    });
    await drain.done;
    expect(isOffline(drain.told)).toBe(false);
    expect(answered(drain, "duplicate")).toBeGreaterThan(0);
    expect(answered(drain, "accepted") + answered(drain, "duplicate")).toBe(60);
    expectExactly(await ledgerOf(cloud), { offered: ids });
  });

  test("a lost summary has told nothing, and all of its call comes again", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ faults: { loseAck: 0.4 }, random: rolls(2) });
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 100);
    box.record(ids);
    await using drain = box.flush(cloud.address, { maxBatch: 20 });
    await drain.done;
    expect(isOffline(drain.told)).toBe(true);
    expect(sum(drain, "duplicates")).toBeGreaterThan(0);
    expect(sum(drain, "accepted") + sum(drain, "duplicates")).toBe(100);
    expectExactly(await ledgerOf(cloud), { offered: ids });
  });
});

describe("outages", () => {
  test.each(ways)("a second one in the middle of the drain: %s", async (way) => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 3000);
    box.record(ids);
    // Slow enough for being cut in the middle.
    wire.delay(5);
    const to = loopback(wire.port);
    await using drain =
      way === "flush"
        ? box.flush(to, { maxBatch: 200 })
        : box.channel(to, { untilDrained: true, window: 100 });
    for (const soMany of [300, 1200]) {
      const before = drain.told.states.length;
      await inLedger(cloud, soMany);
      wire.cut();
      await drain.told.until(({ states }) =>
        states.slice(before).some(({ kind }) => kind === "offline"),
      );
      expect(box.outbox.isDrained()).toBe(false);
      wire.heal();
    }
    await drain.done;
    expectExactly(await ledgerOf(cloud), { offered: ids });
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 3000 });
  });

  test("one that tells nobody is noticed within ten seconds and a little patience", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    using box = openBox({ path: folder.file("a.db") });
    box.record(["sale-1"]);
    await using drain = box.channel(loopback(wire.port));
    await drain.told.until(isLive);
    wire.blackhole();
    const since = systemClock.monotonic();
    using till = openBox({ path: folder.file("a.db") });
    till.record(["sale-2"]);
    await drain.told.until(isOffline);
    expect(systemClock.monotonic() - since).toBeLessThan(12_000);
    wire.heal();
    await drain.told.until(({ answers }) => answers.length === 2);
    expectExactly(await ledgerOf(cloud), { offered: ["sale-1", "sale-2"] });
  });

  test("the backlog drains when the cloud comes, without anything new being recorded", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    wire.cut();
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 5);
    box.record(ids);
    await using drain = box.channel(loopback(wire.port));
    await drain.told.until(({ states }) => states.filter((s) => s.kind === "offline").length >= 3);
    wire.heal();
    await drain.told.until(isLive);
    expectExactly(await ledgerOf(cloud), { offered: ids });
  });

  test("what is recorded while the link is live goes out at once, by whoever records it", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    using box = openBox({ path: folder.file("a.db") });
    await using drain = box.channel(cloud.address);
    await drain.told.until(isLive);
    // Another process's connection to the same file.
    using till = openBox({ path: folder.file("a.db") });
    for (const id of idsOf("sale", 5)) {
      till.record([id]);
      await inLedger(cloud, Number(id.slice(5)));
    }
    await drain.stop();
    expectExactly(await ledgerOf(cloud), { offered: idsOf("sale", 5) });
    expect(box.outbox.counts()).toMatchObject({ pending: 0, acked: 5 });
  });

  test("a cloud that stops and comes back is found again", async () => {
    using folder = tempFolder();
    const dataDir = folder.file("cloud");
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 20);
    let port: number;
    {
      await using first = await serveCloud({ dataDir });
      ({ port } = first);
      box.record(ids.slice(0, 10));
      await using drain = box.channel(first.address, { untilDrained: true });
      await drain.done;
    }
    await using wire = await cutWire(port);
    box.record(ids.slice(10));
    await using drain = box.channel(loopback(wire.port));
    await drain.told.until(isOffline);
    await using second = await serveCloud({ dataDir, port });
    await drain.told.until(isLive);
    expect(drain.told.alarms).toEqual([]);
    expectExactly(await ledgerOf(second), { offered: ids });
  });
});

describe("clocks", () => {
  // For describe("clocks") of test/story/bridge.test.ts; red until the outbox bounds its waits.
  test.each(["flush", "channel"])(
    "a clock set back by two days after a refusal holds nothing up: %s",
    async (way) => {
      using folder = tempFolder();
      let rolled = 0;
      // The first event is refused for now, and nothing after it.
      const random = () => (rolled++ === 0 ? 0 : 1);
      await using cloud = await serveCloud({ faults: { nack: 0.5 }, random });
      let off = 0;
      const clock = { ...systemClock, now: () => systemClock.now() + off };
      using box = openBox({ path: folder.file("a.db"), clock });
      box.record(["sale-1"]);
      await using drain =
        way === "flush"
          ? box.flush(cloud.address, { random: () => 0.9 })
          : box.channel(cloud.address, { untilDrained: true });
      await drain.told.until(({ answers, summaries }) => answers.length + summaries.length > 0);
      off = -2 * day;
      await drain.done;
      expectExactly(await ledgerOf(cloud), { offered: ["sale-1"] });
    },
  );

  test.each([2 * day, -2 * day])(
    "a store's clock that is %i ms off changes nothing",
    async (off) => {
      using folder = tempFolder();
      await using cloud = await serveCloud();
      const clock = { ...systemClock, now: () => systemClock.now() + off };
      using box = openBox({ path: folder.file("a.db"), clock });
      const ids = idsOf("sale", 30);
      box.record(ids.slice(0, 15));
      await using first = box.flush(cloud.address);
      await first.done;
      box.record(ids.slice(15));
      await using second = box.channel(cloud.address, { untilDrained: true });
      await second.done;
      const ledger = await ledgerOf(cloud);
      expectExactly(ledger, { offered: ids });
      expect(ledger.map(({ seq }) => seq)).toEqual(ids.map((_, i) => i + 1));
      for (const { receivedAt } of ledger) {
        expect(Math.abs(receivedAt - systemClock.now())).toBeLessThan(day);
      }
    },
  );
});

describe("copies of a store's buffer", () => {
  test.each(ways)("an old copy is restored, and more is recorded: %s", async (_, drainBy) => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    const [path, copy] = [folder.file("a.db"), folder.file("copy.db")];
    {
      using box = openBox({ path });
      box.record(idsOf("old", 5));
      await using drain = drainBy(box, cloud);
      await drain.done;
    }
    const mark = "-high-water";
    cpSync(path, copy);
    cpSync(path + mark, copy + mark);
    {
      using box = openBox({ path });
      box.record(idsOf("lost", 3));
      await using drain = drainBy(box, cloud);
      await drain.done;
    }
    cpSync(copy, path);
    cpSync(copy + mark, path + mark);
    using box = openBox({ path });
    const epoch = box.outbox.epoch();
    box.record(idsOf("new", 7));
    await using drain = drainBy(box, cloud);
    await drain.done;
    expect(box.outbox.epoch()).not.toBe(epoch);
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 12 });
    const ledger = await ledgerOf(cloud);
    expectExactly(ledger, {
      offered: [...idsOf("old", 5), ...idsOf("lost", 3), ...idsOf("new", 7)],
    });
    // All of them have new numbers, in the order of recording: none overtook those that were taken.
    const anew = ledger.filter((event) => event.epoch === box.outbox.epoch());
    expect(anew).toMatchObject(idsOf("new", 7).map((eventId, i) => ({ eventId, seq: i + 1 })));
  });

  test("an old copy of the file alone is restored: the numbers go on after the lost ones, and it is told", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    const [path, copy] = [folder.file("a.db"), folder.file("copy.db")];
    const recordAll = async (ids: string[]) => {
      using box = openBox({ path });
      box.record(ids);
      await using drain = box.flush(cloud.address);
      await drain.done;
      return { epoch: box.outbox.epoch(), losses: box.outbox.salvaged()?.losses };
    };
    const { epoch } = await recordAll(idsOf("old", 5));
    cpSync(path, copy);
    await recordAll(idsOf("lost", 3));
    cpSync(copy, path);
    const { losses } = await recordAll(idsOf("new", 2));
    expect(losses).toMatchObject([{ epoch, atLeast: 3, numbers: [[6, 8]] }]);
    const all = [...idsOf("old", 5), ...idsOf("lost", 3), ...idsOf("new", 2)];
    expect(await ledgerOf(cloud)).toMatchObject(
      all.map((eventId, i) => ({ eventId, epoch, seq: i + 1 })),
    );
  });

  test.each(ways)("a clone on a second box records on its own: %s", async (_, drainBy) => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    const paths = [folder.file("a.db"), folder.file("b.db")] as const;
    {
      using box = openBox({ path: paths[0] });
      box.record(idsOf("both", 10));
    }
    cpSync(paths[0], paths[1]);
    using a = openBox({ path: paths[0] });
    using b = openBox({ path: paths[1] });
    a.record(idsOf("a", 10));
    b.record(idsOf("b", 10));
    await using first = drainBy(a, cloud);
    await using second = drainBy(b, cloud);
    await Promise.all([first.done, second.done]);
    a.record(idsOf("a2", 10));
    b.record(idsOf("b2", 10));
    await using third = drainBy(a, cloud);
    await using fourth = drainBy(b, cloud);
    await Promise.all([third.done, fourth.done]);
    const offered = ["both", "a", "b", "a2", "b2"].flatMap((prefix) => idsOf(prefix, 10));
    expectExactly(await ledgerOf(cloud), { offered });
    expect(a.outbox.epoch()).not.toBe(b.outbox.epoch());
  });
});

describe("a cloud that forgets", () => {
  test("its disk is restored from an old copy: loud, and a replay brings all back", async () => {
    using folder = tempFolder();
    const [dataDir, copy] = [folder.file("cloud"), folder.file("copy")];
    using box = openBox({ path: folder.file("a.db") });
    const flushTo = async (ids: string[]) => {
      await using cloud = await serveCloud({ dataDir });
      box.record(ids);
      await using drain = box.flush(cloud.address);
      await drain.done;
      return drain.told.alarms;
    };
    expect(await flushTo(idsOf("early", 10))).toEqual([]);
    cpSync(dataDir, copy, { recursive: true });
    expect(await flushTo(idsOf("late", 10))).toEqual([]);
    rmSync(dataDir, { recursive: true });
    cpSync(copy, dataDir, { recursive: true });

    const alarms = await flushTo(["after-1"]);
    expect(alarms).toEqual([
      expect.stringMatching(
        /^the cloud's ledger \w+ ends at seq 10, and 20 was acknowledged: it was restored from an older copy$/,
      ),
    ]);
    expect(box.outbox.alarm()).toBe(alarms[0]);
    expect(box.outbox.replay()).toBe(21);
    expect(box.outbox.alarm()).toBe("");
    expect(await flushTo([])).toEqual([]);
    expectExactly(readLedger(dataDir), {
      offered: [...idsOf("early", 10), ...idsOf("late", 10), "after-1"],
    });
  });

  test.each(ways)(
    "its disk is lost: loud, and a replay brings all back: %s",
    async (_, drainBy) => {
      using folder = tempFolder();
      const dataDir = folder.file("cloud");
      using box = openBox({ path: folder.file("a.db") });
      const drainTo = async (ids: string[]) => {
        await using cloud = await serveCloud({ dataDir });
        box.record(ids);
        await using drain = drainBy(box, cloud);
        await drain.done;
        return drain.told.alarms;
      };
      expect(await drainTo(idsOf("sale", 10))).toEqual([]);
      rmSync(dataDir, { recursive: true });
      expect(await drainTo(["after-1"])).toEqual([
        expect.stringMatching(
          /^the cloud has another ledger now, \w+; \w+ had acknowledged events$/,
        ),
      ]);
      box.outbox.replay();
      expect(await drainTo([])).toEqual([]);
      expectExactly(readLedger(dataDir), { offered: [...idsOf("sale", 10), "after-1"] });
    },
  );
});

describe("who drains and who records", () => {
  test("a second drainer is told which process drains, and harms nothing", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 10);
    box.record(ids);
    const flags = ["--buffer", box.outbox.path, "--addr", `127.0.0.1:${cloud.port}`];
    await using running = start(["store-sync", "channel", ...flags]);
    await running.output(/^live: /m);
    for (const args of [["flush"], ["channel", "--until-drained"]]) {
      const { code, stderr } = await brewctl(["store-sync", ...args, ...flags]);
      expect(stderr).toMatch(/another process, \d+, drains the buffer of store store-01/);
      expect(stderr).toContain(`another process, ${running.child.pid},`);
      expect(code).not.toBe(0);
    }
    running.child.kill("SIGKILL");
    await running.ended;
    box.record(["sale-11"]);
    // The lock went with the process.
    expect(await brewctl(["store-sync", "flush", ...flags])).toMatchObject({
      ...{ code: 0, stdout: expect.stringMatching(/^Upload complete — 1 accepted, 0 rejected$/m) },
    });
    expectExactly(await ledgerOf(cloud), { offered: [...ids, "sale-11"] });
  });

  test("a till that repeats gets the same answer, and the cloud one event", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 10);
    const first = box.record(ids);
    const again = box.record([...ids, ...ids]);
    const seqOf = (appended: (typeof first)[number]) =>
      appended.kind === "recorded" ? appended.event.seq : undefined;
    expect(again.map(seqOf)).toEqual([...first, ...first].map(seqOf));
    await using drain = box.flush(cloud.address);
    await drain.done;
    box.record(ids);
    expect(box.outbox.isDrained()).toBe(true);
    const [other] = box.outbox.append([{ ...eventOf("sale-1"), payload: "another" }]);
    expect(other).toMatchObject({ kind: "refused", why: { code: "ALREADY_EXISTS" } });
    expectExactly(await ledgerOf(cloud), { offered: ids });
  });
});

describe("faults that were asked for end with each event in the cloud once", () => {
  test.each(
    ways.flatMap(([way, drainBy]) =>
      [
        { nack: 0.3 },
        { dropAfter: 7 },
        { latencyMs: 30 },
        { nack: 0.2, dropAfter: 40, loseAck: way === "flush" ? 0.2 : 0, latencyMs: 5 },
      ].map((faults) => [way, faults, drainBy] as const),
    ),
  )("%s, %j", async (_, faults, drainBy) => {
    using folder = tempFolder();
    await using cloud = await serveCloud({ faults, random: rolls(3) });
    using box = openBox({ path: folder.file("a.db") });
    const ids = idsOf("sale", 120);
    box.record(ids);
    await using drain = drainBy(box, cloud);
    await drain.done;
    expectExactly(await ledgerOf(cloud), { offered: ids });
    expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 120 });
  });
});

describe("commands", () => {
  const issue = ({ office }: TestCloud, n: number) =>
    office.issueCommand(
      {
        ...{ storeIds: ["store-01"], commandId: `cmd-${n}`, type: "PriceUpdate" },
        payloadJson: `{"newPrice":${n}}`,
      },
      { signal: never },
    );

  test("three price updates queued while the store was away come in order, within a second", async () => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    using box = openBox({ path: folder.file("a.db") });
    const got: { id: string; at: number }[] = [];
    const all = Promise.withResolvers<void>();
    await using drain = box.watch(loopback(wire.port), async ({ commandId }, { kind }) => {
      got.push({ id: `${commandId} ${kind}`, at: systemClock.monotonic() });
      if (got.length === 4) {
        all.resolve();
      }
    });
    await issue(cloud, 1);
    await drain.told.until(isLive);
    while (got.length < 1) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    wire.cut();
    await drain.told.until(isOffline);
    for (const n of [2, 3, 4]) {
      await issue(cloud, n);
    }
    const lives = () => drain.told.states.filter(({ kind }) => kind === "live").length;
    const before = lives();
    wire.heal();
    await drain.told.until(() => lives() > before);
    const since = systemClock.monotonic();
    await all.promise;
    expect(got.map(({ id }) => id)).toEqual([1, 2, 3, 4].map((n) => `cmd-${n} applied`));
    expect((got.at(-1)?.at ?? Number.POSITIVE_INFINITY) - since).toBeLessThan(1000);
    expect(box.inbox.counts()).toEqual({ received: 0, applied: 4, parked: 0 });
  });

  test("a cloud restored from an old copy sends what it has; nothing is applied twice", async () => {
    using folder = tempFolder();
    const [dataDir, copy] = [folder.file("cloud"), folder.file("copy")];
    using box = openBox({ path: folder.file("a.db") });
    const got: string[] = [];
    const watchUntil = async (cloud: TestCloud, count: number) => {
      const enough = Promise.withResolvers<void>();
      await using _ = box.watch(cloud.address, async ({ commandId }, { kind }) => {
        got.push(`${commandId} ${kind}`);
        if (got.length === count) {
          enough.resolve();
        }
      });
      await enough.promise;
    };
    {
      await using cloud = await serveCloud({ dataDir });
      await issue(cloud, 1);
      await watchUntil(cloud, 1);
    }
    cpSync(dataDir, copy, { recursive: true });
    {
      await using cloud = await serveCloud({ dataDir });
      await issue(cloud, 2);
      await watchUntil(cloud, 2);
    }
    rmSync(dataDir, { recursive: true });
    cpSync(copy, dataDir, { recursive: true });
    await using cloud = await serveCloud({ dataDir });
    // Under a number that the store has seen already.
    expect(await issue(cloud, 3)).toMatchObject({ queued: [{ sequence: 2n }] });
    await watchUntil(cloud, 4);
    expect(got).toEqual(["cmd-1 applied", "cmd-2 applied", "cmd-1 known", "cmd-3 applied"]);
    expect(box.inbox.counts()).toMatchObject({ applied: 3, parked: 0 });
  });
});
