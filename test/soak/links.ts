/**
 * Links that are slow or far: everything gets across, nothing twice, and the line is used.
 *
 * A bridge in this process drains its buffer to a real cloud over test/support/cut-wire.ts. Each run has
 * a time in which it must be done; that of a slow line is twice what the payloads alone would take.
 */

import { inspect, isDeepStrictEqual } from "node:util";
import { systemClock } from "../../src/clock.ts";
import { cutWire } from "../support/cut-wire.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { shopBridge } from "../support/shop-bridge.ts";
import { loopback } from "../support/start-server.ts";

interface LinkRun {
  readonly name: string;
  /** Of the line, in kbit/s; without it, the line is fast. */
  readonly kilobits?: number;
  /** One way, in milliseconds. */
  readonly delayMs?: number;
  /** The sizes of the events in bytes, in their order. */
  readonly sizes: readonly number[];
  /** How long a line with delay may take, in seconds. */
  readonly limitSeconds?: number;
}

const many = (count: number, size: number) => Array.from({ length: count }, () => size);
const small = many(20, 200);

export const linkRuns: readonly LinkRun[] = [
  { name: "far", delayMs: 2_000, sizes: many(1_000, 1_000), limitSeconds: 60 },
  { name: "farther", delayMs: 4_000, sizes: many(100, 1_000), limitSeconds: 90 },
  { name: "one-large", kilobits: 64, sizes: [900_000, ...small] },
  { name: "some-large", kilobits: 64, sizes: [...many(8, 60_000), ...small] },
  { name: "large", kilobits: 64, sizes: [200_000, ...small] },
  { name: "medium", kilobits: 64, sizes: [...many(20, 20_000), ...small] },
  { name: "slower", kilobits: 32, sizes: many(40, 5_000) },
  { name: "three-large", kilobits: 128, sizes: [...many(3, 200_000), ...small] },
];

export interface LinkResult {
  readonly name: string;
  readonly seconds: number;
  /** What the payloads alone take on the line. */
  readonly idealSeconds: number;
  readonly limitSeconds: number;
  /** The bytes that were sent, in those of the payloads: above 1 for the envelopes, 2 if all went twice. */
  readonly sentTimes: number;
  /** How often the link was lost. */
  readonly losses: number;
}

/** Drains one buffer. Throws when that takes too long, or when the ledger has not what it should have. */
export async function drainOver({
  name,
  kilobits,
  delayMs = 0,
  sizes,
  ...given
}: LinkRun): Promise<LinkResult> {
  const bytes = sizes.reduce((sum, size) => sum + size, 0);
  const idealSeconds = kilobits === undefined ? 0 : (bytes * 8) / (kilobits * 1_000);
  const { limitSeconds = 2 * idealSeconds } = given;
  await using cloud = await serveCloud();
  await using wire = await cutWire(cloud.port);
  wire.delay(delayMs);
  if (kilobits !== undefined) {
    wire.rate((kilobits * 1_000) / 8);
  }
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1_000;
  await using shop = shopBridge(loopback(wire.port));
  const events = sizes.map((size, i) => ({
    ...{ eventId: `event-${i}`, type: "Sale", timestamp: 1 },
    payload: "x".repeat(size),
  }));
  shop.outbox.append(events);
  const drained = shop.told(() => shop.outbox.isDrained());
  const over = new AbortController();
  const late = systemClock.sleep(limitSeconds * 1_000, over).then(() => {
    const left = shop.outbox.counts().pending;
    const states = shop.news.flatMap((one) => (one.kind === "link" ? [one.state] : []));
    const what = `${left} of ${sizes.length} events are left after ${limitSeconds} s`;
    throw new Error(`${name}: ${what}: ${inspect(states)}`);
  });
  late.catch(() => {});
  try {
    await Promise.race([drained, late]);
  } finally {
    over.abort();
  }
  const seconds = elapsed();
  const losses = shop.news.filter(
    (one) => one.kind === "link" && one.state.kind === "offline",
  ).length;
  const inLedger = new Set<string>();
  for await (const { eventId } of cloud.office.listEvents(
    { storeId: "store-01" },
    { signal: new AbortController().signal },
  )) {
    inLedger.add(eventId);
  }
  if (!isDeepStrictEqual(inLedger, new Set(events.map(({ eventId }) => eventId)))) {
    throw new Error(`${name}: ${inLedger.size} of ${sizes.length} events are in the ledger`);
  }
  const sentTimes = wire.bytesUp / bytes;
  return { name, seconds, idealSeconds, limitSeconds, sentTimes, losses };
}
