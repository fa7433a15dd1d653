/**
 * A store in a process of its own, as a benchmark forks it: drains each outbox that it is told of, and
 * says what that took.
 */

import { drain, opened, type Shape } from "./store-events.ts";

export interface Task {
  readonly path: string;
  readonly storeId: string;
  readonly count: number;
  readonly shape: Shape;
  /** Of the cloud. */
  readonly port: number;
}

export interface Drained {
  readonly wallMs: number;
  /** Of this process, in milliseconds of one processor. */
  readonly cpuMs: number;
  /** From before the outbox was opened until the first event was handed to the wire. */
  readonly firstMs: number;
  /** The most that this process has held in memory so far, in megabytes. */
  readonly peakMb: number;
}

/** How often it looks at its memory, in milliseconds. */
const lookMs = 20;

let peakMb = 0;
setInterval(() => {
  peakMb = Math.max(peakMb, process.memoryUsage.rss() / 1024 ** 2);
}, lookMs).unref();

process.on("message", async ({ path, storeId, ...task }: Task) => {
  const cpu = process.cpuUsage();
  const startedAt = performance.now();
  let firstMs = Number.NaN;
  const outbox = opened(path, storeId);
  await drain(outbox, {
    ...task,
    onSending() {
      if (Number.isNaN(firstMs)) {
        firstMs = performance.now() - startedAt;
      }
    },
  });
  const wallMs = performance.now() - startedAt;
  const { user, system } = process.cpuUsage(cpu);
  outbox.close();
  process.send?.({ wallMs, cpuMs: (user + system) / 1000, firstMs, peakMb } satisfies Drained);
});
process.on("disconnect", () => process.exit());
