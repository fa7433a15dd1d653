/**
 * A stampede: one cloud, and many stores that have recorded while it was away and reconnect at the
 * same moment when it comes up. While they drain, wires are cut, swallowed and slowed, and stores and
 * the cloud are killed. When all that is over, everything must drain, a fresh event of each store too,
 * and the ledger must be what was recorded: each event once, whole, and nothing else.
 *
 * Most stores are bridges in a few fleet processes; some are daemons of their own, with tills that go
 * on recording all the time. What goes wrong is chosen by the seed; when, by how many events the ledger
 * has, so that all of it happens while there is still much to be done.
 */

import { deepEqual, ok } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Outbox } from "../../src/bridge/outbox.ts";
import { Ledger } from "../../src/engine/ledger.ts";
import { type CutWire, cutWire } from "../support/cut-wire.ts";
import { dice } from "../support/dice.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { residentBytes } from "../support/process-figures.ts";
import { tempFolder } from "../support/temp.ts";
import { type Daemon, ledgerWatch, startCloud, startDaemon, startFleet } from "./processes.ts";
import { type Revenant, revenant } from "./revenant.ts";
import { openTill, type Till } from "./till.ts";

export interface StampedeOptions {
  readonly seed: number;
  /** In the fleets. */
  readonly stores: number;
  /** That each of them has recorded before. */
  readonly events: number;
  /** Processes. */
  readonly fleets: number;
  /** Stores beside those of the fleets. */
  readonly daemons: number;
  /** How often each of these happens. */
  readonly faults: Readonly<Record<Fault, number>>;
  /** See fleet.ts. */
  readonly haste: number;
  readonly say?: (line: string) => void;
}

/** As `make soak` has it, for so many stores: the faults grow with them. */
export function stampedeOf({
  seed,
  stores,
  events,
}: Pick<StampedeOptions, "seed" | "stores" | "events">): StampedeOptions {
  const fleets = Math.max(2, Math.round(stores / 25));
  const daemons = 6;
  return {
    ...{ seed, stores, events, fleets, daemons, haste: 1 },
    faults: {
      "cloud killed": 6,
      "fleet killed": 2 * fleets,
      "daemon killed": 2 * daemons,
      "wire cut": Math.ceil(stores * 0.3),
      "wire swallowed": Math.ceil(stores * 0.1),
      "wire slowed": Math.ceil(stores * 0.15),
    },
  };
}

const faults = [
  "cloud killed",
  "fleet killed",
  "daemon killed",
  "wire cut",
  "wire swallowed",
  "wire slowed",
] as const;
type Fault = (typeof faults)[number];

export interface StampedeResult {
  readonly events: number;
  readonly seconds: number;
  /** Of the cloud's processes, in bytes. */
  readonly peakMemory: number;
  /** Of processes. */
  readonly kills: number;
  /** Times that a store of a fleet was answered again after it had lost the cloud. */
  readonly reconnects: number;
  /** Events of fleets that were sent though the ledger had them. */
  readonly duplicates: number;
  /** Times that a till lost its bridge, and answers to events that it had sent before. */
  readonly tillsLost: number;
  readonly tillsRepeated: number;
}

/** Stores of a fleet that share a wire. */
const storesPerWire = 5;

/** Of the cloud, in bytes: about twice what was seen, and far less than what 200 backlogs would take. */
const maxCloudMemory = 384 * 1024 * 1024;

/** Once nothing goes wrong any more, in milliseconds; twice the longest wait between two attempts. */
const drainTimeoutMs = 120_000;

/** Throws an `AssertionError` if anything was lost, doubled or invented, or the cloud grew too large. */
export async function stampede(options: StampedeOptions): Promise<StampedeResult> {
  const { seed, stores, events, haste, say = () => {} } = options;
  const chance = dice(seed);
  const { below, pick } = chance;
  using folder = tempFolder("stampede-");
  await using stack = new AsyncDisposableStack();
  const cloudPath = folder.file("cloud.sock");
  const dataDir = folder.file("cloud");
  const newWire = async () => stack.use(await cutWire(cloudPath));

  // Recorded while the cloud is away.
  const all = await Promise.all(
    Array.from({ length: stores }, async (_, i) => ({
      storeId: `store-${i + 1}`,
      buffer: folder.file(`store-${i + 1}.db`),
      wire: i,
    })),
  );
  const offered = new Set<string>();
  for (const { storeId, buffer } of all) {
    const outbox = new Outbox({ path: buffer, storeId, now: Date.now });
    const ids = idsOf(`${storeId}:early`, events);
    outbox.append(ids.map(eventOf));
    outbox.close();
    for (const id of ids) {
      offered.add(id);
    }
  }
  say(`recorded ${offered.size} events in ${stores} stores`);

  const wires: CutWire[] = [];
  for (let i = 0; i < Math.ceil(stores / storesPerWire); i++) {
    wires.push(await newWire());
  }
  const fleets: Revenant[] = [];
  const tally = { reconnects: 0, duplicates: 0 };
  for (let i = 0; i < options.fleets; i++) {
    const own = all.flatMap(({ storeId, buffer }, n) => {
      const port = wires[Math.floor(n / storesPerWire)]?.port ?? 0;
      return n % options.fleets === i ? [{ storeId, buffer, port }] : [];
    });
    fleets.push(
      stack.use(
        await revenant(async () => {
          const fleet = await startFleet({ stores: own, seed: below(2 ** 31), haste });
          fleet.child.stdout?.on("data", (text: string) => {
            for (const line of text.split("\n").filter((line) => line.startsWith("{"))) {
              const more = JSON.parse(line);
              tally.reconnects += more.reconnects;
              tally.duplicates += more.duplicates;
            }
          });
          return fleet;
        }),
      ),
    );
  }
  const daemons: Daemon[] = [];
  const tills: { storeId: string; till: Till }[] = [];
  for (let i = 0; i < options.daemons; i++) {
    const wire = await newWire();
    wires.push(wire);
    const storeId = `shop-${i + 1}`;
    const daemon = stack.use(
      await startDaemon({
        ...{ storeId, buffer: folder.file(`${storeId}.db`), addr: `127.0.0.1:${wire.port}` },
        socket: folder.file(`${storeId}.sock`),
      }),
    );
    daemons.push(daemon);
    const common = { dice: dice(below(2 ** 31)), pauseMs: 20 };
    tills.push(
      {
        storeId,
        till: openTill({
          ...{ ...common, name: `${storeId}:a`, way: "stream", address: () => daemon.tcp },
        }),
      },
      {
        storeId,
        till: openTill({
          ...{ ...common, name: `${storeId}:b`, way: "unary", address: () => daemon.unix },
        }),
      },
    );
  }
  for (const { till } of tills) {
    await Promise.race([till.closed, untilTrue(() => till.answered.size >= 20)]);
  }
  say(
    `${fleets.length} fleets, ${daemons.length} daemons and ${tills.length} tills wait for a cloud`,
  );

  const began = performance.now();
  const cloud = stack.use(await revenant(() => startCloud(cloudPath, dataDir)));
  let peakMemory = 0;
  const over = new AbortController();
  stack.defer(() => over.abort());
  const sampling = (async () => {
    while (!over.signal.aborted) {
      peakMemory = Math.max(peakMemory, (await residentBytes(cloud.running.child.pid)) ?? 0);
      await sleep(100);
    }
  })();
  stack.defer(() => sampling);

  const happen: Record<Fault, () => Promise<void>> = {
    "cloud killed": () => cloud.kill({ downMs: below(500) }),
    "fleet killed": () => pick(fleets).kill({ downMs: below(500) }),
    "daemon killed": () => pick(daemons).kill({ downMs: below(500) }),
    async "wire cut"() {
      const wire = pick(wires);
      wire.cut();
      await sleep(below(1000));
      wire.heal();
    },
    async "wire swallowed"() {
      const wire = pick(wires);
      wire.blackhole();
      await sleep(below(1000));
      wire.heal();
    },
    async "wire slowed"() {
      const wire = pick(wires);
      wire.delay(1 + below(200));
      await sleep(below(2000));
      wire.delay(0);
    },
  };
  const early = offered.size;
  const plan = faults
    .flatMap((fault) => Array.from({ length: options.faults[fault] }, () => fault))
    .map((fault) => ({ fault, at: below(early * 0.9) }))
    .sort((a, b) => a.at - b.at);

  using ledger = ledgerWatch(dataDir);
  /** Whatever fails in the background fails the run. */
  const failed = Promise.race([...tills.map(({ till }) => rejectionOf(till.closed)), sampling]);
  const within = async (count: number, ms: number, what: string) => {
    const signal = AbortSignal.timeout(ms);
    await Promise.race([ledger.until(count, { signal }), failed]).catch((error) => {
      throw signal.aborted
        ? new Error(`${what}: the ledger has ${ledger.size()} of ${count} events after ${ms} ms`)
        : error;
    });
  };
  const happening: Promise<void>[] = [];
  for (const { fault, at } of plan) {
    await within(at, drainTimeoutMs, `before ${fault}`);
    say(`${String(ledger.size()).padStart(7)} in the ledger: ${fault}`);
    happening.push(happen[fault]());
  }
  await Promise.all(happening);
  say(`${String(ledger.size()).padStart(7)} in the ledger: nothing goes wrong any more`);

  // Each store records once more, and all of it arrives.
  const outboxes = all.map(({ storeId, buffer }) => {
    const outbox = stack.adopt(new Outbox({ path: buffer, storeId, now: Date.now }), (outbox) =>
      outbox.close(),
    );
    outbox.append([eventOf(`${storeId}:fresh`)]);
    offered.add(`${storeId}:fresh`);
    return outbox;
  });
  for (const { till } of tills) {
    await till.close();
    deepEqual(new Set(till.answered.keys()), till.offered);
    for (const id of till.offered) {
      offered.add(id);
    }
  }
  await within(offered.size, drainTimeoutMs, "draining");
  const seconds = (performance.now() - began) / 1000;
  const settled = AbortSignal.timeout(drainTimeoutMs);
  await untilTrue(() => outboxes.every((outbox) => outbox.isDrained()), settled);
  for (const outbox of outboxes) {
    deepEqual(
      { ...outbox.counts(), storeId: outbox.storeId },
      {
        pending: 0,
        acked: events + 1,
        parked: 0,
        oldestUnacked: undefined,
        storeId: outbox.storeId,
      },
    );
  }
  for (const daemon of daemons) {
    daemon.running.child.kill("SIGTERM");
    const { code, stderr } = await daemon.running.ended;
    deepEqual(
      { code, left: /pending=\d+ parked=\d+$/m.exec(stderr.slice(-200))?.[0] },
      {
        code: 0,
        left: "pending=0 parked=0",
      },
    );
  }
  over.abort();
  await sampling;
  cloud.running.child.kill("SIGKILL");
  await cloud.running.ended;

  expectExactly(readLedger(dataDir), { offered });
  for (const { eventId, storeId } of readLedger(dataDir)) {
    ok(eventId.startsWith(`${storeId}:`), `${eventId} is in the ledger as one of ${storeId}`);
  }
  const result = {
    events: offered.size,
    seconds,
    peakMemory,
    kills: [cloud, ...fleets, ...daemons].reduce((sum, { kills }) => sum + kills, 0),
    ...tally,
    tillsLost: tills.reduce((sum, { till }) => sum + till.lost, 0),
    tillsRepeated: tills.reduce((sum, { till }) => sum + till.duplicates, 0),
  };
  isRough(result, options);
  noGaps(dataDir, [
    ...all.map(({ storeId }) => storeId),
    ...daemons.map((_, i) => `shop-${i + 1}`),
  ]);
  return result;
}

/** A run in which too little went wrong has shown nothing. */
function isRough(result: StampedeResult, { stores, events, daemons, faults }: StampedeOptions) {
  const { kills, reconnects, duplicates, tillsLost, tillsRepeated, peakMemory } = result;
  const planned = faults["cloud killed"] + faults["fleet killed"] + faults["daemon killed"];
  // Some moments fall together.
  ok(kills >= planned / 2, `too tame: ${kills} kills`);
  ok(reconnects >= stores / 10, `too tame: ${reconnects} reconnects`);
  ok(duplicates >= (stores * events) / 1000, `too tame: ${duplicates} duplicates`);
  ok(tillsLost >= daemons, `too tame: tills lost their bridges ${tillsLost} times`);
  ok(tillsRepeated >= daemons, `too tame: tills repeated ${tillsRepeated} events`);
  ok(peakMemory < maxCloudMemory, `the cloud grew to ${peakMemory} bytes`);
}

/** Nobody was renumbered, since no disk was lost: one epoch a store, and all of it seen. */
function noGaps(dataDir: string, storeIds: readonly string[]): void {
  const ledger = new Ledger({ folder: dataDir, now: Date.now });
  try {
    for (const storeId of storeIds) {
      const missing = ledger.gaps(storeId).map(({ missing }) => missing);
      deepEqual({ storeId, missing }, { storeId, missing: [0] });
    }
  } finally {
    ledger.close();
  }
}

async function untilTrue(is: () => boolean, signal?: AbortSignal): Promise<void> {
  while (!is()) {
    await sleep(10, undefined, { signal });
  }
}

/** Never resolves. */
function rejectionOf(promise: Promise<unknown>): Promise<never> {
  return new Promise((_, reject) => {
    promise.catch(reject);
  });
}
