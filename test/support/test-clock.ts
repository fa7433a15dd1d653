/** A clock that stands still until the test moves it. */

import type { Clock } from "../../src/clock.ts";

export interface TestClock extends Clock {
  /** Moves time on, waking who is due in order; lets them run in between. */
  advance(ms: number): Promise<void>;
  /** Sets the wall clock forward, or back, by so many milliseconds. No wait notices. */
  jump(ms: number): void;
  /** What becomes of a promise that waits for nothing but its turn, on a clock that stands still. */
  settled<T>(promise: Promise<T>): Promise<T>;
  /** Resolves when somebody waits for a time still to come. */
  sleeping(): Promise<void>;
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

export function testClock(startMs = Date.UTC(2026, 0, 2, 3, 4, 5)): TestClock {
  let now = 0;
  let jumped = 0;
  const sleepers = new Set<{ due: number; wake: () => void }>();
  const advance: TestClock["advance"] = async (ms) => {
    const until = now + ms;
    for (;;) {
      await turn();
      const next = Array.from(sleepers).sort((a, b) => a.due - b.due)[0];
      if (next === undefined || next.due > until) {
        break;
      }
      now = Math.max(now, next.due);
      next.wake();
    }
    now = until;
    await turn();
  };
  return {
    now: () => startMs + now + jumped,
    monotonic: () => now,
    sleep: (ms, { signal }) =>
      new Promise((resolve, reject) => {
        signal.throwIfAborted();
        const sleeper = {
          due: now + Math.max(0, ms),
          wake() {
            sleepers.delete(sleeper);
            signal.removeEventListener("abort", onAbort);
            resolve();
          },
        };
        const onAbort = () => {
          sleepers.delete(sleeper);
          reject(signal.reason);
        };
        signal.addEventListener("abort", onAbort, { once: true });
        sleepers.add(sleeper);
      }),
    advance,
    jump(ms) {
      jumped += ms;
    },
    async settled(promise) {
      let isSettled = false;
      const settle = () => {
        isSettled = true;
      };
      promise.then(settle, settle);
      while (!isSettled) {
        await advance(0);
      }
      return promise;
    },
    async sleeping() {
      while (sleepers.size === 0) {
        await turn();
      }
    },
  };
}
