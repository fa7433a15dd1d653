/** Durations as Go writes them. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { formatDuration, formatElapsed, maxDurationMs, parseDuration } from "../src/duration.ts";

test.each([
  ["0", 0],
  ["0s", 0],
  ["200ms", 200],
  ["1s", 1000],
  ["1.5s", 1500],
  ["1.s", 1000],
  [".5s", 500],
  ["1m30s", 90_000],
  ["1h0m0.25s", 3_600_250],
  ["1500us", 1.5],
  ["1500µs", 1.5],
  ["1500μs", 1.5],
  ["500ns", 0.0005],
  ["596h", 596 * 3_600_000],
])("%s is %d ms", (text, ms) => {
  expect(parseDuration(text)).toBeCloseTo(ms, 9);
});

test.each([
  "",
  "1",
  "200",
  "-1s",
  "+1s",
  "1 s",
  " 1s",
  "1s ",
  "1S",
  "s",
  ".s",
  "1d",
  "1s1",
  "1e3s",
])("%j is no duration", (text) => {
  expect(() => parseDuration(text)).toThrow(RangeError);
  expect(() => parseDuration(text)).toThrow(/expected a duration such as/);
});

test.each(["597h", "9999999999s", `${"9".repeat(400)}h`])("%s is longer than a timer", (text) => {
  expect(() => parseDuration(text)).toThrow(/at most 596h/);
});

test.each([
  [0, "0s"],
  [0.5, "0.5ms"],
  [200, "200ms"],
  [1000, "1s"],
  [1500, "1.5s"],
  [90_000, "1m30s"],
  [3_600_000, "1h0m0s"],
])("%d ms is written %s", (ms, text) => {
  expect(formatDuration(ms)).toBe(text);
});

test("what is written is read back", () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: maxDurationMs }), (ms) => {
      expect(parseDuration(formatDuration(ms))).toBeCloseTo(ms, 6);
    }),
  );
});

test.each([
  [0, "0.00 s"],
  [5021, "5.02 s"],
  [99_999, "100.00 s"],
  [125_500, "2 m 5 s"],
])("%d ms took %s", (ms, text) => {
  expect(formatElapsed(ms)).toBe(text);
});
