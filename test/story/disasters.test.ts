/**
 * What may befall a store with a daemon and tills at its port, and the ledger is what was recorded all
 * the same: the cloud loses its memory, a buffer is run twice, the clock jumps, a daemon is started
 * where one runs, or is stopped while tills stream.
 */

import { cpSync, existsSync, renameSync, rmSync } from "node:fs";
import { expect, test, vi } from "vitest";
import { Bridge } from "../../src/bridge/bridge.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox, retentionMs } from "../../src/bridge/outbox.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { uplinkTo } from "../../src/commands/store-sync/uplink.ts";
import { type DaemonOptions, ledgerWatch, startCloud, startDaemon } from "../soak/processes.ts";
import { openTill, type TillOptions } from "../soak/till.ts";
import { brewctl } from "../support/brewctl.ts";
import { dice } from "../support/dice.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const storeId = "store-01";

// Each starts several processes; the waits have limits of their own.
vi.setConfig({ testTimeout: 120_000 });

/** A cloud and a daemon, in a folder of their own. */
function places(folder: TempFolder) {
  const path = folder.file("s");
  return {
    path,
    dataDir: folder.file("cloud"),
    buffer: folder.file("buffer.db"),
    daemon: (options: Partial<DaemonOptions> = {}) =>
      startDaemon({
        ...{ storeId, buffer: folder.file("buffer.db"), addr: `unix:${path}` },
        socket: folder.file("t"),
        ...options,
      }),
  };
}

const till = (options: Pick<TillOptions, "name" | "address"> & Partial<TillOptions>) =>
  openTill({ way: "stream", dice: dice(1), pauseMs: 3, ...options });

async function untilTaken(dataDir: string, count: number): Promise<void> {
  using ledger = ledgerWatch(dataDir);
  await ledger.until(count, { signal: AbortSignal.timeout(20_000) });
}

/** Resolves when the store knows that so many are in the ledger. */
async function untilAcked(buffer: string, count: number): Promise<void> {
  const outbox = new Outbox({ path: buffer, now: () => systemClock.now() });
  try {
    const signal = AbortSignal.timeout(20_000);
    while (outbox.counts().acked < count) {
      await systemClock.sleep(5, { signal });
    }
  } finally {
    outbox.close();
  }
}

/** Rejects with what `describe` says if it takes too long. */
async function soon<T>(promise: Promise<T>, describe: () => string): Promise<T> {
  const over = new AbortController();
  const late = systemClock.sleep(60_000, { signal: over.signal }).then(() => {
    throw new Error(describe());
  });
  late.catch(() => {});
  return await Promise.race([promise, late]).finally(() => over.abort());
}

test("the cloud's disk is an old copy: the daemon says so, and a replay brings the rest", async () => {
  using folder = tempFolder();
  const { path, dataDir, buffer, daemon: startOurs } = places(folder);
  await using first = await startCloud(path, dataDir);
  await using daemon = await startOurs();
  const sales = till({ name: "sale", address: () => daemon.unix });
  await untilAcked(buffer, 50);
  first.child.kill("SIGTERM");
  await first.ended;
  cpSync(dataDir, folder.file("copy"), { recursive: true });
  const copied = Array.from(readLedger(folder.file("copy"))).length;
  await using second = await startCloud(path, dataDir);
  // More than the copy has: else the second cloud may be killed before anything is to be missed.
  await untilAcked(buffer, copied + 250);
  second.child.kill("SIGKILL");
  await second.ended;
  rmSync(dataDir, { recursive: true });
  renameSync(folder.file("copy"), dataDir);

  await using third = await startCloud(path, dataDir);
  const said = daemon.running.output(
    /^ERROR the cloud's ledger .* was restored from an older copy/m,
  );
  await soon(said, () => `no alarm: ${daemon.running.stderr}`);
  await soon(sales.close(), () => `the till waits: ${daemon.running.stderr}`);
  const store = ["--store", storeId, "--buffer", buffer];
  expect(await brewctl(["store-sync", "replay", ...store])).toMatchObject({ code: 0 });
  await untilTaken(dataDir, sales.offered.size);
  third.child.kill("SIGKILL");
  await third.ended;
  expectExactly(readLedger(dataDir), { offered: sales.offered });
});

test("a buffer is copied and run on two boxes: each event of both is in the ledger once", async () => {
  using folder = tempFolder();
  const { path, dataDir, buffer, daemon } = places(folder);
  await using cloud = await startCloud(path, dataDir);
  const offered: string[] = [];
  {
    await using original = await daemon();
    const shared = till({ name: "shared", address: () => original.unix, events: 200 });
    await shared.closed;
    offered.push(...shared.offered);
  }
  const copy = folder.file("copy.db");
  for (const suffix of ["", "-wal", "-drainer"].filter((suffix) => existsSync(buffer + suffix))) {
    cpSync(buffer + suffix, copy + suffix);
  }
  await using one = await daemon();
  await using other = await daemon({ buffer: copy, socket: folder.file("t2") });
  const tills = [one, other].map((box, i) =>
    till({
      ...{ name: `box-${i + 1}`, address: () => box.unix, events: 200 },
      // It may be numbered anew between two answers.
      oneIn: Number.POSITIVE_INFINITY,
    }),
  );
  await Promise.all(tills.map(({ closed }) => closed));
  offered.push(...tills.flatMap((till) => [...till.offered]));
  await untilTaken(dataDir, offered.length);
  expect(cloud.stderr).toContain("seq taken");
  for (const box of [one, other]) {
    box.running.child.kill("SIGTERM");
    const { code, stderr } = await box.running.ended;
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/^store-bridge stopped pending=0 parked=0$/m),
    });
  }
  cloud.child.kill("SIGKILL");
  await cloud.ended;
  expectExactly(readLedger(dataDir), { offered });
});

test("the clock jumps by days, forward and back, while the cloud refuses for now", async () => {
  using folder = tempFolder();
  let jumped = 0;
  const clock: Clock = { ...systemClock, now: () => systemClock.now() + jumped };
  await using cloud = await serveCloud({ faults: { nack: 0.3 } });
  const outbox = new Outbox({ path: folder.file("b.db"), storeId, now: () => clock.now() });
  const inbox = new Inbox(outbox.database, { now: () => clock.now() });
  const uplink = { storeId, epoch: () => outbox.epoch(), clock: systemClock };
  const [events, control] = [uplinkTo(cloud.address, uplink), uplinkTo(cloud.address, uplink)];
  const failures: unknown[] = [];
  const bridge = new Bridge({
    ...{ outbox, inbox, events, control, clock, random: () => 0.005 },
    ...{ maxAttempts: 5, keepMs: retentionMs, alarms: () => [] },
    tell: (news) => news.kind === "failed" && failures.push(news.error),
  });
  const drained = async () => {
    const signal = AbortSignal.timeout(20_000);
    while (!outbox.isDrained()) {
      await systemClock.sleep(5, { signal });
    }
  };
  try {
    const day = 24 * 3_600_000;
    const offered: string[] = [];
    for (const days of [2, -2, -400, 30, 0]) {
      const ids = idsOf(`day${days}`, 50);
      offered.push(...ids);
      outbox.append(ids.map(eventOf));
      // Some wait for their next attempt, by the clock that now jumps.
      jumped = days * day;
      await drained();
    }
    // Nothing expires by the clock but what is acknowledged.
    expect(outbox.counts().parked).toBe(0);
    expect(failures).toEqual([]);
    const taken = [];
    for await (const event of cloud.office.listEvents(
      {},
      { signal: AbortSignal.timeout(20_000) },
    )) {
      taken.push({ ...event, ...numbersOf(event) });
    }
    expectExactly(taken, { offered });
  } finally {
    await bridge.stop({ graceMs: 0, force: AbortSignal.abort() });
    events.close();
    control.close();
    outbox.close();
  }
});

const numbersOf = ({
  position,
  timestamp,
  seq,
  receivedAt,
}: {
  readonly [name in "position" | "timestamp" | "seq" | "receivedAt"]: bigint;
}) => ({
  position: Number(position),
  timestamp: Number(timestamp),
  seq: Number(seq),
  receivedAt: Number(receivedAt),
});

test("many daemons are started for one buffer: one runs, the others say which, and one takes over", async () => {
  using folder = tempFolder();
  const { path, dataDir, buffer, daemon } = places(folder);
  await using cloud = await startCloud(path, dataDir);
  await using first = await daemon();
  const sales = till({ name: "sale", address: () => first.unix, events: 100 });
  const others = [1, 2, 3].map((n) =>
    brewctl([
      ...["store-sync", "run", "--store", storeId, "--buffer", buffer, "--addr", `unix:${path}`],
      ...["--listen", `unix:${folder.file(`other-${n}`)}`],
    ]),
  );
  for (const { code, stderr } of await Promise.all(others)) {
    expect({ code, stderr }).toMatchObject({
      code: 73,
      stderr: expect.stringContaining(`another process, ${first.running.child.pid}, drains`),
    });
  }
  await sales.closed;
  first.running.child.kill("SIGKILL");
  await first.running.ended;
  // While others look at what the dead one has left.
  const lookers = [1, 2, 3].map(() =>
    brewctl(["store-sync", "events", "--store", storeId, "--buffer", buffer]),
  );
  await using second = await daemon({ socket: folder.file("t2") });
  for (const { code } of await Promise.all(lookers)) {
    expect(code).toBe(0);
  }
  const more = till({ name: "more", address: () => second.unix, events: 20 });
  await more.closed;
  const offered = [...sales.offered, ...more.offered];
  await untilTaken(dataDir, offered.length);
  cloud.child.kill("SIGKILL");
  await cloud.ended;
  expectExactly(readLedger(dataDir), { offered });
});

test("SIGTERM while tills stream: they are let go at once, and what was answered goes up", async () => {
  using folder = tempFolder();
  const { path, dataDir, daemon } = places(folder);
  await using cloud = await startCloud(path, dataDir);
  await using ours = await daemon({ flags: ["--grace", "20s"] });
  const tills = [1, 2, 3].map((n) =>
    till({ name: `till-${n}`, address: () => ours.tcp, pauseMs: 0, events: 2_000 }),
  );
  const answered = () => tills.flatMap((till) => [...till.answered.keys()]);
  const signal = AbortSignal.timeout(20_000);
  while (answered().length < 1_000) {
    await systemClock.sleep(1, { signal });
  }
  const before = ours.running;
  const stopped = ours.kill({ signal: "SIGTERM" });
  const { code, stderr } = await before.ended;
  expect({ code, stderr }).toMatchObject({
    code: 0,
    stderr: expect.stringMatching(/^store-bridge stopped pending=0 parked=0$/m),
  });
  await stopped;
  await Promise.all(tills.map(({ closed }) => closed));
  await untilTaken(dataDir, 6_000);
  cloud.child.kill("SIGKILL");
  await cloud.ended;
  expectExactly(readLedger(dataDir), { offered: tills.flatMap(({ offered }) => [...offered]) });
});
