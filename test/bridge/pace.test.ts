/** What may be in flight on a link, against a line that the test plays. */

import { expect, test } from "vitest";
import { type Departure, minRoom, Pace } from "../../src/bridge/pace.ts";

/** Drains payloads of these sizes over a line with one queue; answers come in order. */
function drain(
  pace: Pace,
  {
    sizes,
    charsPerMs,
    roundTripMs,
    startMs = 0,
  }: { sizes: readonly number[]; charsPerMs: number; roundTripMs: number; startMs?: number },
) {
  const waiting = sizes.map((size) => "x".repeat(size));
  const flying: { readonly departure: Departure; readonly answeredAt: number }[] = [];
  let now = startMs;
  let freeAt = startMs;
  let mostInFlight = 0;
  const latencies: number[] = [];
  while (waiting.length > 0 || flying.length > 0) {
    const [next] = flying;
    const payload =
      pace.inFlight < pace.room(now) || next === undefined ? waiting.shift() : undefined;
    if (payload !== undefined) {
      const departure = pace.sent(payload, now);
      freeAt = Math.max(freeAt, now) + departure.size / charsPerMs;
      flying.push({ departure, answeredAt: freeAt + roundTripMs });
      mostInFlight = Math.max(mostInFlight, pace.inFlight);
    } else if (next !== undefined) {
      flying.shift();
      now = next.answeredAt;
      pace.answered(next.departure, now);
      latencies.push(now - next.departure.sentAt);
    }
  }
  return { tookMs: now - startMs, mostInFlight, latencies };
}

const many = (count: number, size: number) => Array.from({ length: count }, () => size);

test("on a slow line no event waits for more than a few seconds, and the line is used", () => {
  const sizes = many(200, 1_000);
  const { tookMs, mostInFlight, latencies } = drain(new Pace(), {
    ...{ sizes, charsPerMs: 8, roundTripMs: 50 },
  });
  expect(Math.max(...latencies)).toBeLessThan(4_000);
  expect(mostInFlight).toBeLessThan(32_000);
  expect(tookMs).toBeLessThan((1.1 * 200 * 1_100) / 8);
});

test("on a far line more goes out with each round trip, until it is used", () => {
  const { tookMs } = drain(new Pace(), {
    ...{ sizes: many(1_000, 1_000), charsPerMs: 10_000, roundTripMs: 4_000 },
  });
  expect(tookMs).toBeLessThan(9 * 4_000);
});

test("on a fast line the pace holds nobody up", () => {
  const { tookMs } = drain(new Pace(), {
    ...{ sizes: many(10_000, 500), charsPerMs: 100_000, roundTripMs: 1 },
  });
  expect(tookMs).toBeLessThan(200);
});

test("a large event leaves no room for a second one on a slow line, and some for small ones", () => {
  const pace = new Pace();
  const { mostInFlight } = drain(pace, {
    ...{ sizes: [...many(5, 1_000), ...many(4, 300_000)], charsPerMs: 8, roundTripMs: 50 },
  });
  expect(mostInFlight).toBeLessThan(2 * 300_000);
});

test("a link that becomes slow is noticed within a few answers", () => {
  const pace = new Pace();
  drain(pace, { sizes: many(1_000, 1_000), charsPerMs: 1_000, roundTripMs: 5 });
  expect(pace.room(2_000)).toBeGreaterThan(500_000);
  const { mostInFlight } = drain(pace, {
    ...{ sizes: many(500, 1_000), charsPerMs: 8, roundTripMs: 50, startMs: 2_000 },
  });
  expect(mostInFlight).toBeGreaterThan(100_000);
  expect(pace.room(80_000)).toBeLessThan(64_000);
});

test("the time that an answer may take follows what is in flight", () => {
  const pace = new Pace();
  const large = pace.sent("x".repeat(900_000), 0);
  expect(pace.expectedMs).toBeGreaterThan(400_000);
  pace.answered(large, 112_500);
  expect(pace.room(112_500)).toBeLessThan(200_000);
  pace.sent("x".repeat(8_000), 112_500);
  expect(pace.expectedMs).toBeLessThan(13_000);
  pace.lost();
  expect(pace.inFlight).toBe(0);
  expect(minRoom).toBe(8_192);
});
