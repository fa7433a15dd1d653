/** What head office hears of a store, and when. */

import { getEventListeners } from "node:events";
import { describe, expect, test } from "vitest";
import { Bell } from "../../src/bell.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { keepReporting, type ReportingOptions, reportOf } from "../../src/bridge/reporting.ts";
import type { StoreReport, Uplink } from "../../src/bridge/uplink.ts";
import { systemClock } from "../../src/clock.ts";
import { uplinkTo } from "../../src/commands/store-sync/uplink.ts";
import { StatusError } from "../../src/errors.ts";
import { type ReportStatusRequest, SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import { implement } from "../../src/grpc/serve.ts";
import { syncEngineBounds } from "../../src/server/bounds.ts";
import { DamagedError, inMemory } from "../../src/sqlite.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { fakeUplink, lost } from "../support/played-cloud.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { failure } from "../support/serve-handlers.ts";
import { isLinked, shopBridge } from "../support/shop-bridge.ts";
import { never, serveImplementations } from "../support/start-server.ts";
import { testClock } from "../support/test-clock.ts";

function reporting(options: Partial<ReportingOptions> = {}) {
  const clock = testClock();
  const now = () => clock.now();
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now });
  const inbox = new Inbox(outbox.database, { now });
  const over = new AbortController();
  const changed = new Bell();
  const start = clock.monotonic();
  /** When each came, in milliseconds. */
  const times: number[] = [];
  const reports: StoreReport[] = [];
  const failures: string[] = [];
  const offsets: number[] = [];
  const uplink = {
    ...fakeUplink(),
    async report(report: StoreReport) {
      times.push(clock.monotonic() - start);
      reports.push(report);
      return 42;
    },
  };
  const ended = failure(
    keepReporting({
      ...{ outbox, inbox, uplink, clock, signal: over.signal, changed },
      alarms: () => [],
      onReported: (offset) => offsets.push(offset),
      onFailure: (why) => failures.push(why),
      ...options,
    }),
  );
  return {
    ...{ clock, outbox, inbox, changed, times, reports, failures, offsets, ended },
    signal: over.signal,
    async stop() {
      over.abort(new Error("over"));
      outbox.close();
      return await ended;
    },
  };
}

const second = 1_000;

test("a report comes at once, and then every 10 seconds", async () => {
  const it = reporting();
  await it.clock.advance(35 * second);
  expect(it.times).toEqual([0, 10 * second, 20 * second, 30 * second]);
  expect(it.offsets).toEqual([42, 42, 42, 42]);
  expect(await it.stop()).toMatchObject({ message: "over" });
});

test("a cloud that takes no reports is asked every ten minutes, whatever changes", async () => {
  let asked = 0;
  const it = reporting({
    uplink: {
      ...fakeUplink(),
      async report() {
        asked += 1;
        throw new StatusError("UNIMPLEMENTED", "unknown method ReportStatus");
      },
    },
  });
  for (let i = 0; i < 59; i += 1) {
    it.changed.ring();
    await it.clock.advance(30 * second);
  }
  expect(asked).toBe(3);
  expect(it.failures).toEqual(Array.from({ length: 3 }, () => "unknown method ReportStatus"));
  expect(await it.stop()).toMatchObject({ message: "over" });
});

test("a change is told at once, if the last report is a second old", async () => {
  const it = reporting();
  await it.clock.advance(3 * second);
  it.changed.ring();
  await it.clock.advance(0);
  expect(it.times).toEqual([0, 3 * second]);
  // The ten seconds begin anew.
  await it.clock.advance(10 * second);
  expect(it.times).toEqual([0, 3 * second, 13 * second]);
  await it.stop();
});

test("changes that come thick and fast are told once a second, and the last one too", async () => {
  const it = reporting();
  for (let i = 0; i < 25; i++) {
    it.changed.ring();
    await it.clock.advance(100);
  }
  await it.clock.advance(9 * second);
  expect(it.times).toEqual([0, second, 2 * second, 3 * second]);
  await it.stop();
});

test("a change during a report is told by the next one", async () => {
  const arrived = Promise.withResolvers<void>();
  const it = reporting();
  await it.stop();
  let reports = 0;
  const slow = reporting({
    uplink: {
      ...fakeUplink(),
      async report() {
        reports += 1;
        if (reports === 1) {
          await arrived.promise;
        }
        return 0;
      },
    },
  });
  await slow.clock.advance(0);
  slow.changed.ring();
  arrived.resolve();
  await slow.clock.advance(second);
  expect(reports).toBe(2);
  await slow.stop();
});

test("a cloud that fails costs its report alone", async () => {
  let reports = 0;
  const it = reporting({
    uplink: {
      ...fakeUplink(),
      async report() {
        reports += 1;
        throw lost();
      },
    },
  });
  await it.clock.advance(20 * second);
  expect(reports).toBe(3);
  expect(it.failures).toEqual(Array(3).fill("the connection was lost"));
  await it.stop();
});

test("a buffer that is damaged ends it: the next start salvages it", async () => {
  const damage = new DamagedError("the disk lies");
  const it = reporting({
    alarms() {
      throw damage;
    },
  });
  expect(await it.ended).toBe(damage);
  await it.stop();
});

test("weeks without a change leave nothing behind", async () => {
  const it = reporting();
  await it.clock.advance(1000 * second);
  expect(it.times).toHaveLength(101);
  // Of the wait that is going on.
  expect(getEventListeners(it.signal, "abort").length).toBeLessThan(5);
  await it.stop();
});

describe("a report says", () => {
  const command = (sequence: number) => ({
    ...{ commandId: `cmd-${sequence}`, type: "PriceUpdate", payloadJson: "{}" },
    ...{ sequence, issuedAt: 1 },
  });

  test("how full the buffer is, and what it is by the store's clock", async () => {
    const it = reporting();
    const [first, ...others] = idsOf("event", 5).map(eventOf);
    it.outbox.append([first, ...others].filter((event) => event !== undefined));
    it.outbox.settle([
      { kind: "acked", position: 2 },
      { kind: "parked", position: 3, reason: "no" },
    ]);
    expect(reportOf({ ...it, alarms: () => ["look at me"] })).toEqual({
      ...{ pending: 3, parked: 1, oldestUnacked: first?.timestamp },
      ...{ ledgerId: "", receivedSequence: 0, appliedSequence: 0 },
      ...{ commandsParked: 0, parkedCommands: [], alarms: ["look at me"] },
      bytes: expect.any(Number),
      sentAt: it.clock.now(),
    });
    await it.stop();
  });

  test("nothing as the oldest event where all have their answer", async () => {
    const it = reporting();
    expect(reportOf({ ...it, alarms: () => [] }).oldestUnacked).toBeUndefined();
    await it.stop();
  });

  test("how far the store is with its commands: to before the first that waits", async () => {
    const it = reporting();
    const { inbox } = it;
    const progress = () => {
      const { receivedSequence, appliedSequence } = reportOf({ ...it, alarms: () => [] });
      return [receivedSequence, appliedSequence];
    };
    for (const sequence of [1, 2, 3, 4]) {
      inbox.receive(command(sequence), "ledger-1", { appliesLater: true });
    }
    expect(progress()).toEqual([4, 0]);
    inbox.settle(1, { kind: "applied" });
    expect(progress()).toEqual([4, 1]);
    // The one in the middle fails, and holds the others up.
    inbox.settle(2, { kind: "retry", notBefore: 5, reason: "no" });
    expect(progress()).toEqual([4, 1]);
    inbox.settle(2, { kind: "parked", reason: "no" });
    expect(progress()).toEqual([4, 2]);
    inbox.settle(3, { kind: "applied" });
    inbox.settle(4, { kind: "applied" });
    expect(progress()).toEqual([4, 4]);
    // A person has put it back.
    inbox.retry(["cmd-2"]);
    expect(progress()).toEqual([4, 1]);
    await it.stop();
  });

  test("with a new ledger: what that one has sent, also a command that had come from the old one", async () => {
    const it = reporting();
    const { inbox } = it;
    const progress = () => {
      const { ledgerId, receivedSequence, appliedSequence } = inbox.progress();
      return [ledgerId, receivedSequence, appliedSequence];
    };
    const later = { appliesLater: true };
    for (const sequence of [1, 2, 3]) {
      inbox.receive(command(sequence), "ledger-1", later);
    }
    inbox.settle(1, { kind: "applied" });
    expect(progress()).toEqual(["ledger-1", 3, 1]);
    // Head office repeats the third alone: there it is the first.
    expect(inbox.receive({ ...command(3), sequence: 1 }, "ledger-2", later).kind).toBe("known");
    expect(progress()).toEqual(["ledger-2", 1, 0]);
    inbox.receive({ ...command(9), sequence: 2 }, "ledger-2", later);
    inbox.settle(2, { kind: "applied" });
    expect(progress()).toEqual(["ledger-2", 2, 0]);
    inbox.settle(3, { kind: "applied" });
    expect(progress()).toEqual(["ledger-2", 2, 1]);
    inbox.settle(inbox.next()?.number ?? 0, { kind: "applied" });
    expect(progress()).toEqual(["ledger-2", 2, 2]);
    await it.stop();
  });

  test("the commands that are parked, the last twenty of them by name", async () => {
    const it = reporting();
    for (let sequence = 1; sequence <= 25; sequence++) {
      it.inbox.receive(command(sequence), "ledger-1", { appliesLater: true });
      it.inbox.settle(sequence, { kind: "parked", reason: `failed ${sequence}` });
    }
    const { commandsParked, parkedCommands } = reportOf({ ...it, alarms: () => [] });
    expect(commandsParked).toBe(25);
    expect(parkedCommands).toHaveLength(20);
    expect(parkedCommands[0]).toEqual({ commandId: "cmd-25", reason: "failed 25" });
    await it.stop();
  });
});

test("what goes over the wire is within the contract's bounds", async () => {
  const came = Promise.withResolvers<ReportStatusRequest>();
  const unexpected = () => {
    throw new Error("only a report was expected");
  };
  await using cloud = await serveImplementations(
    implement(
      SyncEngine,
      {
        async reportStatus(report) {
          came.resolve(report);
          return { clockOffsetMs: 7n };
        },
        ...{ watchCommands: unexpected, operationalChannel: unexpected },
        ...{ uploadBufferedEvents: unexpected, answerDigest: unexpected },
      },
      { bounds: syncEngineBounds },
    ),
  );
  const it = reporting();
  const clock = systemClock;
  const uplink = uplinkTo(cloud.address, { storeId: "store-01", epoch: () => "e", clock });
  const command = { commandId: "cmd-1", type: "x", payloadJson: "{}", sequence: 1, issuedAt: 1 };
  it.inbox.receive(command, "ledger-1", { appliesLater: true });
  const reason = `${"x".repeat(1023)}\u{1f600}${"y".repeat(5_000_000)}`;
  it.inbox.settle(1, { kind: "parked", reason });
  const report = reportOf({ ...it, alarms: () => Array(1000).fill("z".repeat(5_000)) });
  // Without bounds it would be larger than a message may be.
  expect(await uplink.report(report, { signal: never })).toBe(7);
  const { parkedCommands, alarms, sentAt, commandsParked } = await came.promise;
  // Not half a surrogate pair.
  expect(parkedCommands[0]?.reason).toBe(`${"x".repeat(1023)}\ufffd`);
  expect(alarms).toEqual(Array(10).fill("z".repeat(1024)));
  expect({ sentAt, commandsParked }).toEqual({
    sentAt: BigInt(it.clock.now()),
    commandsParked: 1n,
  });
  uplink.close();
  await it.stop();
});

describe("a bridge that stops", () => {
  /** Beside a real link for its events. */
  function control(report: Uplink["report"]): Uplink {
    return {
      ...fakeUplink(),
      report,
      // biome-ignore lint/correctness/useYield: nothing comes
      async *watch(_, { signal }) {
        await new Bell().next({ signal });
      },
    };
  }

  test("tells head office its last state, behind its last event", async () => {
    await using cloud = await serveCloud();
    const reports: StoreReport[] = [];
    await using shop = shopBridge(cloud.address, {
      control: control(async (report) => {
        reports.push(report);
        return 0;
      }),
    });
    await shop.told(isLinked);
    shop.outbox.append(idsOf("event", 3).map(eventOf));
    const before = reports.length;
    await shop.stop(5_000);
    expect(shop.outbox.counts()).toMatchObject({ pending: 0, acked: 3 });
    expect(reports.length).toBeGreaterThan(before);
    expect(reports.at(-1)).toMatchObject({ pending: 0 });
  });

  test("does not wait long for a cloud that does not listen", async () => {
    await using cloud = await serveCloud();
    await using shop = shopBridge(cloud.address, {
      control: control((_, { signal }) => new Bell().next({ signal }).then(() => 0)),
    });
    await shop.told(isLinked);
    await shop.stop(5_000);
  });

  test("goes on if that report fails, and says so", async () => {
    await using cloud = await serveCloud();
    await using shop = shopBridge(cloud.address, {
      control: control(async () => {
        throw lost();
      }),
    });
    await shop.told(isLinked);
    await shop.stop(5_000);
    expect(shop.news.at(-1)).toEqual({ kind: "not reported", why: "the connection was lost" });
  });
});
