/** Waiting, and the grid of ticks. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { sleepUntil, systemClock, ticks } from "../src/clock.ts";
import { failure } from "./support/serve-handlers.ts";
import { never } from "./support/start-server.ts";
import { testClock } from "./support/test-clock.ts";

test("a sleep ends, and not before its time", async () => {
  const start = systemClock.monotonic();
  await sleepUntil(systemClock, start + 20, { signal: never });
  expect(systemClock.monotonic() - start).toBeGreaterThanOrEqual(20);
});

test("a sleep ends at once when its signal aborts, with the reason", async () => {
  const reason = new Error("enough");
  const stop = new AbortController();
  const sleep = failure(systemClock.sleep(3_600_000, { signal: stop.signal }));
  stop.abort(reason);
  expect(await sleep).toBe(reason);
  expect(await failure(systemClock.sleep(0, { signal: stop.signal }))).toBe(reason);
});

test("an instant that is past is not waited for", async () => {
  const clock = testClock();
  await clock.advance(100);
  await sleepUntil(clock, 99, { signal: never });
  await sleepUntil(clock, 100, { signal: never });
});

test("the first tick comes after one period", async () => {
  const clock = testClock();
  const start = clock.now();
  const grid = ticks(clock, 1000, { signal: never });
  const first = grid.next();
  await clock.sleeping();
  await clock.advance(999);
  await clock.sleeping();
  await clock.advance(1);
  expect((await first).value).toBe(start + 1000);
});

test("ticks lie on a grid whatever the consumer does, and missed ones are skipped", async () => {
  const delays = fc.array(fc.integer({ min: 0, max: 5000 }), { minLength: 1, maxLength: 20 });
  await fc.assert(
    fc.asyncProperty(delays, async (busy) => {
      const clock = testClock();
      const start = clock.now();
      const grid = ticks(clock, 1000, { signal: never });
      let last = start;
      for (const ms of busy) {
        const asked = clock.now();
        const next = grid.next();
        await clock.advance(1000);
        const { value: at } = await next;
        expect((at - start) % 1000).toBe(0);
        expect(at).toBeGreaterThan(last);
        // The next one on the grid after it was asked for; one that is due now counts.
        expect(at - asked).toBeLessThanOrEqual(1000);
        expect(at).toBeGreaterThanOrEqual(asked);
        last = at;
        await clock.advance(ms);
      }
    }),
    { numRuns: 30 },
  );
});

test("a period of 0 ticks as fast as it is asked, and still ends by its signal", async () => {
  const clock = testClock();
  const stop = new AbortController();
  const grid = ticks(clock, 0, { signal: stop.signal });
  for (let i = 0; i < 100; i++) {
    expect((await grid.next()).value).toBe(clock.now());
  }
  stop.abort(new Error("enough"));
  await expect(grid.next()).rejects.toThrow("enough");
});
