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

import { deepEqual, equal, ok } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Outbox } from "../../src/bridge/outbox.ts";
import { Ledger } from "../../src/engine/ledger.ts";
import { type CutWire, cutWire } from "../support/cut-wire.ts";
import { type Dice, dice } from "../support/dice.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { residentBytes } from "../support/process-figures.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";
import type { FleetTally } from "./fleet.ts";
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

/** Once nothing goes wrong any more, in milliseconds; thrice the longest wait between two attempts. */
const drainTimeoutMs = 90_000;

/** Throws an `AssertionError` if anything was lost, doubled or invented, or the cloud grew too large. */
export async function stampede(options: StampedeOptions): Promise<StampedeResult> {
  const { say = () => {} } = options;
  const chance = dice(options.seed);
  using folder = tempFolder("stampede-");
  await using stack = new AsyncDisposableStack();
  const places = { folder, stack, chance, path: folder.file("s"), dataDir: folder.file("cloud") };

  // Recorded while the cloud is away.
  const stores = Array.from({ length: options.stores }, (_, i) => ({
    storeId: `store-${i + 1}`,
    buffer: folder.file(`store-${i + 1}.db`),
  }));
  const offered = new Set(stores.flatMap((store) => recordAt(store, options.events)));
  say(`recorded ${offered.size} events in ${stores.length} stores`);
  const { fleets, wires, tally } = await startFleets(stores, options, places);
  const shops = await openShops(options.daemons, wires, places);
  const tills = shops.flatMap(({ tills }) => tills);
  const daemons = shops.map(({ daemon }) => daemon);
  say(`${fleets.length} fleets, ${shops.length} daemons, ${tills.length} tills wait for a cloud`);

  const began = performance.now();
  const cloud = stack.use(await revenant(() => startCloud(places.path, places.dataDir)));
  const memory = peakMemoryOf(cloud, stack);
  using ledger = ledgerWatch(places.dataDir);
  /** Whatever fails in the background fails the run. */
  const failed = Promise.race([
    ...[cloud, ...fleets, ...daemons].map((process) => process.failed),
    ...tills.map(({ closed }) => closed.then(() => new Promise<never>(() => {}))),
  ]);
  failed.catch(() => {});
  const within = async (count: number, what: string) => {
    const signal = AbortSignal.timeout(drainTimeoutMs);
    await Promise.race([ledger.until(count, { signal }), failed]).catch((error) => {
      throw signal.aborted
        ? new Error(`${what}: the ledger has ${ledger.size()} of ${count} events, and no more come`)
        : error;
    });
  };
  const tell = (what: string) => say(`${String(ledger.size()).padStart(7)} in the ledger: ${what}`);

  const happening: Promise<void>[] = [];
  const happen = faultsOf({ cloud, fleets, daemons, wires, chance });
  for (const { fault, at } of planOf(options, chance)) {
    await within(at, `before ${fault}`);
    tell(fault);
    happening.push(happen[fault]());
  }
  await Promise.race([Promise.all(happening), failed]);
  tell("nothing goes wrong any more");

  // Each store records once more, and all of it arrives.
  const outboxes = stores.map(({ storeId, buffer }) => {
    const outbox = new Outbox({ path: buffer, storeId, now: Date.now });
    stack.defer(() => outbox.close());
    outbox.append([eventOf(`${storeId}:fresh`)]);
    offered.add(`${storeId}:fresh`);
    return outbox;
  });
  for (const till of tills) {
    await till.close();
    deepEqual(new Set(till.answered.keys()), till.offered);
    for (const id of till.offered) {
      offered.add(id);
    }
  }
  await within(offered.size, "draining").catch(async (error) => {
    await cloud.end("SIGKILL");
    // It says which are lost.
    expectExactly(readLedger(places.dataDir), { offered });
    throw error;
  });
  const seconds = (performance.now() - began) / 1000;
  await expectDrained(outboxes, options.events + 1);
  for (const daemon of daemons) {
    const { code, stderr } = await daemon.end("SIGTERM");
    const [left] = /pending=\d+ parked=\d+$/m.exec(stderr.slice(-200)) ?? [];
    deepEqual({ code, left }, { code: 0, left: "pending=0 parked=0" });
  }
  await cloud.end("SIGKILL");

  expectExactly(readLedger(places.dataDir), { offered });
  expectInOrder(places.dataDir, [...stores, ...shops]);
  const result = {
    events: offered.size,
    seconds,
    peakMemory: memory(),
    kills: [cloud, ...fleets, ...daemons].reduce((sum, { kills }) => sum + kills, 0),
    ...tally,
    tillsLost: tills.reduce((sum, { lost }) => sum + lost, 0),
    tillsRepeated: tills.reduce((sum, { duplicates }) => sum + duplicates, 0),
  };
  expectRough(result, options);
  return result;
}

interface Store {
  readonly storeId: string;
  readonly buffer: string;
}

interface Places {
  readonly folder: TempFolder;
  readonly stack: AsyncDisposableStack;
  readonly chance: Dice;
  /** The cloud's socket. */
  readonly path: string;
}

/** Returns the ids. */
function recordAt({ storeId, buffer }: Store, events: number): string[] {
  const outbox = new Outbox({ path: buffer, storeId, now: Date.now });
  const ids = idsOf(`${storeId}:early`, events);
  outbox.append(ids.map(eventOf));
  outbox.close();
  return ids;
}

async function startFleets(
  stores: readonly Store[],
  options: Pick<StampedeOptions, "fleets" | "haste">,
  { stack, chance, path }: Places,
) {
  const wires: CutWire[] = [];
  for (let i = 0; i < stores.length / storesPerWire; i++) {
    wires.push(stack.use(await cutWire(path)));
  }
  const tally = { reconnects: 0, duplicates: 0 };
  const fleets: Revenant[] = [];
  for (let i = 0; i < options.fleets; i++) {
    const own = stores.flatMap((store, n) => {
      const port = wires[Math.floor(n / storesPerWire)]?.port ?? 0;
      return n % options.fleets === i ? [{ ...store, port }] : [];
    });
    const fleet = await revenant(async () => {
      const seed = chance.below(2 ** 31);
      const running = await startFleet({ stores: own, seed, haste: options.haste });
      running.child.stdout?.on("data", (text: string) => {
        for (const line of text.split("\n").filter((line) => line.startsWith("{"))) {
          const more: FleetTally = JSON.parse(line);
          tally.reconnects += more.reconnects;
          tally.duplicates += more.duplicates;
        }
      });
      return running;
    });
    fleets.push(stack.use(fleet));
  }
  return { fleets, wires, tally };
}

/** Daemons with two tills each, on wires of their own, which are added to those there are. */
async function openShops(
  daemons: number,
  wires: CutWire[],
  { folder, stack, chance, path }: Places,
): Promise<(Store & { readonly daemon: Daemon; readonly tills: readonly Till[] })[]> {
  const shops = [];
  for (let i = 1; i <= daemons; i++) {
    const wire = stack.use(await cutWire(path));
    wires.push(wire);
    const store = { storeId: `shop-${i}`, buffer: folder.file(`shop-${i}.db`) };
    const addr = `127.0.0.1:${wire.port}`;
    const daemon = stack.use(
      await startDaemon({ ...store, addr, socket: folder.file(`shop-${i}.s`) }),
    );
    const common = { dice: dice(chance.below(2 ** 31)), pauseMs: 20 };
    const name = store.storeId;
    const tills = [
      openTill({ ...common, name: `${name}:a`, way: "stream", address: () => daemon.tcp }),
      openTill({ ...common, name: `${name}:b`, way: "unary", address: () => daemon.unix }),
    ];
    shops.push({ ...store, daemon, tills });
  }
  // They have a backlog too.
  for (const { closed, answered } of shops.flatMap(({ tills }) => tills)) {
    await Promise.race([closed, untilTrue(() => answered.size >= 20)]);
  }
  return shops;
}

/** Looks for as long as the stack is there. Returns what it was at most, in bytes. */
function peakMemoryOf(cloud: Revenant, stack: AsyncDisposableStack): () => number {
  let peak = 0;
  let isOver = false;
  const looking = (async () => {
    while (!isOver) {
      peak = Math.max(peak, (await residentBytes(cloud.running.child.pid)) ?? 0);
      await sleep(100);
    }
  })();
  stack.defer(() => {
    isOver = true;
    return looking;
  });
  return () => peak;
}

/** Which fault happens at how many events in the ledger; the last tenth drains in peace. */
function planOf({ stores, events, faults: times }: StampedeOptions, { below }: Dice) {
  return faults
    .flatMap((fault) => Array.from({ length: times[fault] }, () => fault))
    .map((fault) => ({ fault, at: below(stores * events * 0.9) }))
    .sort((a, b) => a.at - b.at);
}

function faultsOf(parts: {
  readonly cloud: Revenant;
  readonly fleets: readonly Revenant[];
  readonly daemons: readonly Revenant[];
  readonly wires: readonly CutWire[];
  readonly chance: Dice;
}): Record<Fault, () => Promise<void>> {
  const { cloud, fleets, daemons, wires } = parts;
  const { below, pick } = parts.chance;
  return {
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
}

/** The stores know that everything is in the ledger. */
async function expectDrained(outboxes: readonly Outbox[], events: number): Promise<void> {
  const signal = AbortSignal.timeout(drainTimeoutMs);
  await untilTrue(() => outboxes.every((outbox) => outbox.isDrained()), signal);
  for (const outbox of outboxes) {
    const { pending, parked, acked } = outbox.counts();
    deepEqual({ pending, parked, acked }, { pending: 0, parked: 0, acked: events });
  }
}

/** Each store's events are its own, of one epoch, since no disk was lost, and all of that was seen. */
function expectInOrder(dataDir: string, stores: readonly Store[]): void {
  for (const { eventId, storeId } of readLedger(dataDir)) {
    ok(eventId.startsWith(`${storeId}:`), `${eventId} is in the ledger as one of ${storeId}`);
  }
  const ledger = new Ledger({ folder: dataDir, now: Date.now });
  try {
    for (const { storeId } of stores) {
      const missing = ledger.gaps(storeId).map(({ missing }) => missing);
      deepEqual({ storeId, missing }, { storeId, missing: [0] });
    }
  } finally {
    ledger.close();
  }
}

/** A run in which too little went wrong has shown nothing. */
function expectRough(result: StampedeResult, { stores, events, daemons, faults }: StampedeOptions) {
  const { kills, reconnects, duplicates, tillsLost, tillsRepeated, peakMemory } = result;
  const planned = faults["cloud killed"] + faults["fleet killed"] + faults["daemon killed"];
  equal(kills, planned);
  // Chance decides these in a small run, which may have none.
  ok(reconnects >= Math.floor(stores / 40), `too tame: ${reconnects} reconnects`);
  ok(duplicates >= Math.floor((stores * events) / 2000), `too tame: ${duplicates} duplicates`);
  ok(tillsLost >= daemons / 2, `too tame: tills lost their bridges ${tillsLost} times`);
  ok(tillsRepeated >= Math.floor(daemons / 4), `too tame: tills repeated ${tillsRepeated} events`);
  ok(peakMemory < maxCloudMemory, `the cloud grew to ${peakMemory} bytes`);
}

async function untilTrue(is: () => boolean, signal?: AbortSignal): Promise<void> {
  while (!is()) {
    await sleep(10, undefined, { signal });
  }
}
