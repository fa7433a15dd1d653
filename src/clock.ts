/**
 * Time and chance. Everything that waits, reads the time or rolls dice takes a `Clock` or a
 * `Random` as an argument, so that a test decides both and never sleeps.
 */

import { existsSync, readFileSync } from "node:fs";
import { uptime } from "node:os";

export interface Clock {
  /** Unix time in milliseconds; may jump when the machine's clock is set. */
  now(): number;
  /** Milliseconds since some fixed point; never goes back. For differences only. */
  monotonic(): number;
  /**
   * Resolves after `ms` milliseconds (0 or less: on the next turn of the event loop). Rejects at
   * once with the signal's reason when it aborts.
   */
  sleep(ms: number, options: { signal: AbortSignal }): Promise<void>;
}

/** How long a machine has been running. Setting its clock does not change that. */
export interface Uptime {
  /** Tells one boot from every other, of any machine. Empty where the system has no such id. */
  readonly boot: string;
  /** Milliseconds since the boot, with the time in which the machine slept. */
  readonly ms: number;
}

/** Where Linux keeps a random id of each boot; see random(4). */
const bootIdPath = "/proc/sys/kernel/random/boot_id";

let bootId: string | undefined;

/** Returns the uptime of this machine, with a resolution of some milliseconds. */
export function systemUptime(): Uptime {
  bootId ??= existsSync(bootIdPath) ? readFileSync(bootIdPath, "utf8").trim() : "";
  return { boot: bootId, ms: Math.round(uptime() * 1000) };
}

/** From 0 up to, not including, 1. */
export type Random = () => number;

export const systemRandom: Random = Math.random;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep(ms, { signal }) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(signal.reason);
        return;
      }
      const wake = () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      };
      const onAbort = () => {
        clearTimeout(timer);
        clearImmediate(turn);
        reject(signal.reason);
      };
      // A timer of 0 waits for a millisecond, which is long for a till.
      const turn = ms > 0 ? undefined : setImmediate(wake);
      const timer = ms > 0 ? setTimeout(wake, ms) : undefined;
      signal.addEventListener("abort", onAbort, { once: true });
    });
  },
};

const began = new WeakMap<Clock, number>();

/**
 * Returns the Unix time in milliseconds as it would be if nobody had set the clock since the first call
 * for this clock. A wait that is stored as the instant of its end is counted by this, so that a clock
 * that jumps neither delays nor hurries it. Another process counts from its own clock.
 */
export function steadyNow(clock: Clock): number {
  let offset = began.get(clock);
  if (offset === undefined) {
    offset = clock.now() - clock.monotonic();
    began.set(clock, offset);
  }
  return clock.monotonic() + offset;
}

/**
 * Resolves when `clock.monotonic()` has reached `instant`; at once if that is past. Rejects like
 * `sleep`. A timer may fire a fraction of a millisecond early, hence the loop.
 */
export async function sleepUntil(
  clock: Clock,
  instant: number,
  { signal }: { signal: AbortSignal },
): Promise<void> {
  for (let left = instant - clock.monotonic(); left > 0; left = instant - clock.monotonic()) {
    await clock.sleep(Math.ceil(left), { signal });
  }
}

/**
 * Yields the Unix time of each tick, the first after one period, for ever. The ticks lie on a grid,
 * so a late one does not delay those behind it; ticks that the consumer had no time for are
 * skipped, as with Go's `time.Ticker`. A period of 0 ticks as fast as it is consumed.
 *
 * Throws the signal's reason when it aborts.
 */
export async function* ticks(
  clock: Clock,
  periodMs: number,
  { signal }: { signal: AbortSignal },
): AsyncGenerator<number, never> {
  let due = clock.monotonic();
  for (;;) {
    if (periodMs > 0) {
      due += periodMs * Math.max(1, Math.ceil((clock.monotonic() - due) / periodMs));
      await sleepUntil(clock, due, { signal });
    }
    signal.throwIfAborted();
    yield clock.now();
  }
}
