/** `--stats`: the figures, from events at known times. */

import { describe, expect, test } from "vitest";
import { describeReport, Stats } from "../../../src/commands/observe/stats.ts";
import type { CallEvent } from "../../../src/grpc/call-events.ts";

const requested: CallEvent = { kind: "requested", path: "/x", deadline: undefined };
const sent: CallEvent = { kind: "sent", bytes: 30, waiting: 1 };
/** A gauge that stands at this. */
const still = (count: number) => ({ peak: count, rest: count });
const received: CallEvent = { kind: "received", bytes: 30, waiting: 1 };
const ended: CallEvent = { kind: "ended", code: "OK", message: "" };

function statsOf(shape: ConstructorParameters<typeof Stats>[0], events: [CallEvent, number][]) {
  const stats = new Stats(shape);
  for (const [event, ms] of events) {
    stats.record(event, ms, still(3));
  }
  return stats.report({ outputBlockedMs: 7 });
}

test("a subscription counts what is received, and the time between", () => {
  const events = Array.from({ length: 101 }, (_, i): [CallEvent, number] => [
    received,
    100 + i * 10,
  ]);
  const report = statsOf("server_streaming", [[requested, 0], [sent, 1], ...events, [ended, 2000]]);
  expect(report).toMatchObject({
    sent: 1,
    received: 101,
    elapsedMs: 2000,
    perSecond: 50.5,
    firstMessageMs: 100,
    maxInFlight: 3,
    outputBlockedMs: 7,
  });
  expect(report.betweenMs?.p50).toBeCloseTo(10, 1);
  expect(report.betweenMs?.p99).toBeCloseTo(10, 1);
  expect(report).not.toHaveProperty("roundTripMs");
});

test("the gap of a lost connection is no time between two messages", () => {
  const report = statsOf("server_streaming", [
    [requested, 0],
    [received, 10],
    [received, 20],
    [ended, 30],
    [requested, 5000],
    [received, 5010],
    [received, 5020],
  ]);
  expect(report.received).toBe(4);
  expect(report.betweenMs?.max).toBeCloseTo(10, 1);
});

test("an upload counts what is sent", () => {
  const report = statsOf("client_streaming", [
    [requested, 0],
    [sent, 10],
    [sent, 20],
    [sent, 50],
    [received, 100],
  ]);
  expect(report).toMatchObject({ sent: 3, received: 1, perSecond: 30, firstMessageMs: 100 });
  expect(report.betweenMs?.p50).toBeCloseTo(10, 1);
  expect(report.betweenMs?.max).toBeCloseTo(30, 1);
});

test("a chat's round trips: the n-th message received answers the n-th sent", () => {
  const report = statsOf("bidi_streaming", [
    [requested, 0],
    [sent, 0],
    [sent, 10],
    [received, 100],
    [sent, 110],
    [received, 210],
    [received, 211],
    // Of a server that says more than it was asked.
    [received, 300],
  ]);
  expect(report.received).toBe(4);
  expect(report.roundTripMs?.max).toBeCloseTo(200, 0);
  expect(report.roundTripMs?.p50).toBeCloseTo(101, 0);
  expect(report).not.toHaveProperty("betweenMs");
});

test("a hundred thousand round trips keep their order", () => {
  const stats = new Stats("bidi_streaming");
  for (let i = 0; i < 100_000; i += 1) {
    stats.record(sent, i, still(1));
    if (i >= 10) {
      stats.record(received, i, still(1));
    }
  }
  const { roundTripMs } = stats.report({ outputBlockedMs: 0 });
  expect(roundTripMs?.p50).toBeCloseTo(10, 1);
  expect(roundTripMs?.max).toBeCloseTo(10, 1);
});

test("time blocked is that between write()'s false and the drain", () => {
  const report = statsOf("client_streaming", [
    [sent, 0],
    [{ kind: "blocked" }, 5],
    [{ kind: "unblocked" }, 25],
    [{ kind: "blocked" }, 30],
    [{ kind: "unblocked" }, 31],
  ]);
  expect(report).toMatchObject({ blockedMs: 21, blockedTimes: 2 });
});

describe("with little or nothing to tell", () => {
  test("no message came", () => {
    const report = statsOf("server_streaming", [[requested, 0]]);
    expect(report).toMatchObject({ received: 0, perSecond: 0, firstMessageMs: null });
    expect(report.betweenMs).toBeNull();
    expect(describeReport(report).join("\n")).toContain("none received");
    expect(describeReport(report).join("\n")).toContain("too few messages");
  });

  test("the report is JSON", () => {
    const report = statsOf("bidi_streaming", []);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
  });
});

test("for people", () => {
  const lines = describeReport({
    sent: 20,
    received: 20,
    elapsedMs: 1234.5,
    perSecond: 16.2,
    firstMessageMs: 201.4,
    roundTripMs: { p50: 200.1, p95: 250, p99: 1300, max: 1400 },
    maxInFlight: 4,
    blockedMs: 12,
    blockedTimes: 1,
    outputBlockedMs: 0,
  });
  expect(lines).toEqual([
    "messages             20 sent, 20 received in 1.23 s, 16.2/s; first received after 201 ms",
    "round trip           p50 200 ms · p95 250 ms · p99 1.3 s · max 1.4 s",
    "in flight            at most 4",
    "backpressure         12 ms in 1 pause of sending, 0 ms waiting for standard output",
  ]);
});
