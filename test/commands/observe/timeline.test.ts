/** The buckets behind a picture: bounded in number, and nothing is lost when they grow coarser. */

import fc from "fast-check";
import { expect, test } from "vitest";
import { Timeline } from "../../../src/commands/observe/timeline.ts";
import type { CallEvent } from "../../../src/grpc/call-events.ts";

const sent: CallEvent = { kind: "sent", bytes: 1, waiting: 1 };
/** A gauge that stands at this. */
const still = (count: number) => ({ peak: count, rest: count });
const received: CallEvent = { kind: "received", bytes: 1, waiting: 1 };
const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0);

test("however many buckets and stretches there are, every message is in one", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(fc.constantFrom(sent, received), fc.double({ min: 0, max: 5_000, noNaN: true })),
        { maxLength: 200 },
      ),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 4, max: 64 }).map((half) => half * 2),
      (steps, count, maxBuckets) => {
        const timeline = new Timeline({ maxBuckets });
        let ms = 0;
        for (const [event, after] of steps) {
          ms += after;
          timeline.record(event, ms, still(0));
        }
        const stretches = timeline.stretches(count, timeline.lastMs);
        expect(stretches).toHaveLength(count);
        for (const kind of ["sent", "received"] as const) {
          const messages = steps.filter(([event]) => event.kind === kind).length;
          expect(sum(stretches.map((stretch) => stretch[kind]))).toBe(messages);
          expect(timeline[kind]).toBe(messages);
        }
      },
    ),
  );
});

test("time spent blocked is booked where it was spent, and in full", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.tuple(
          fc.double({ min: 0, max: 900, noNaN: true }),
          fc.double({ min: 0, max: 900, noNaN: true }),
        ),
        { maxLength: 30 },
      ),
      (waits) => {
        const timeline = new Timeline({ maxBuckets: 32 });
        let ms = 0;
        for (const [pause, wait] of waits) {
          ms += pause;
          timeline.record({ kind: "blocked" }, ms, still(16));
          ms += wait;
          timeline.record({ kind: "unblocked" }, ms, still(0));
        }
        const total = sum(waits.map(([, wait]) => wait));
        expect(timeline.blockedMs).toBeCloseTo(total, 3);
        const stretches = timeline.stretches(10, timeline.lastMs);
        expect(sum(stretches.map(({ blockedMs }) => blockedMs))).toBeCloseTo(total, 3);
        expect(timeline.blockedTimes).toBe(waits.length);
      },
    ),
  );
});

test("a wait that still goes on shows up to now, and is not counted twice", () => {
  const timeline = new Timeline();
  timeline.record({ kind: "blocked" }, 100, still(16));
  const seen = timeline.stretches(4, 400).map(({ blockedMs }) => Math.round(blockedMs));
  expect(seen).toEqual([0, 100, 100, 100]);
  timeline.record({ kind: "unblocked" }, 500, still(0));
  expect(timeline.blockedMs).toBeCloseTo(400, 6);
  expect(timeline.blockedTimes).toBe(1);
});

test("the gauge stands where it was left until it moves", () => {
  const timeline = new Timeline();
  timeline.record(sent, 0, still(1));
  timeline.record(sent, 10, still(2));
  timeline.record(received, 30, still(1));
  expect(timeline.stretches(4, 40).map(({ peak }) => peak)).toEqual([1, 2, 2, 1]);
  expect(timeline.peak).toBe(2);
});

test("between two writes a buffer is as empty as it is told to be", () => {
  const timeline = new Timeline();
  timeline.record(sent, 0, { peak: 3, rest: 0 });
  timeline.record(sent, 30, { peak: 1, rest: 0 });
  expect(timeline.stretches(4, 40).map(({ peak }) => peak)).toEqual([3, 0, 0, 1]);
});

test("a call that follows a lost one goes on in the same picture", () => {
  const timeline = new Timeline();
  timeline.record(received, 10, still(0));
  timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, 20, still(0));
  timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 100, still(0));
  expect(timeline.at.ended).toBeUndefined();
  expect(timeline.status).toBeUndefined();
  expect(timeline.lost).toBe(1);
  expect(timeline.at.lastLost).toBe(20);
  timeline.record(received, 600, still(0));
  expect(timeline.received).toBe(2);
});

test("a day of messages takes no more buckets than a second", () => {
  const timeline = new Timeline({ maxBuckets: 64 });
  for (let second = 0; second < 86_400; second += 1) {
    timeline.record(sent, second * 1000, still(1));
  }
  const [first, second] = timeline.stretches(2, 86_400_000);
  expect((first?.sent ?? 0) + (second?.sent ?? 0)).toBe(86_400);
  expect(Math.abs((first?.sent ?? 0) - 43_200)).toBeLessThan(86_400 / 32);
});
