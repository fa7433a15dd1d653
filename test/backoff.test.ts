/** Waits between attempts. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { backoffMs } from "../src/backoff.ts";

const options = { baseMs: 1000, capMs: 30_000 };

test("the bound doubles with each failure, up to the cap", () => {
  const bounds = [1, 2, 3, 4, 5, 6, 7].map((attempt) => backoffMs(attempt, options, () => 1));
  expect(bounds).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
});

test("the whole wait is random", () => {
  expect(backoffMs(4, options, () => 0)).toBe(0);
  expect(backoffMs(4, options, () => 0.25)).toBe(2000);
});

test("no number of failures leads out of bounds", () => {
  const attempt = fc.integer({ min: 1, max: 1_000_000 });
  const roll = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  fc.assert(
    fc.property(attempt, roll, (attempt, roll) => {
      const ms = backoffMs(attempt, options, () => roll);
      expect(ms).toBeGreaterThanOrEqual(0);
      expect(ms).toBeLessThan(30_000);
    }),
  );
});
