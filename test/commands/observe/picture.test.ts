/** The text picture: what a learner sees, to the letter, and that no terminal breaks it. */

import { Chalk } from "chalk";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { drawPicture, roundStep } from "../../../src/commands/observe/picture.ts";
import { Timeline } from "../../../src/commands/observe/timeline.ts";
import type { CallEvent } from "../../../src/grpc/call-events.ts";

const sent: CallEvent = { kind: "sent", bytes: 30, waiting: 1 };
/** A gauge that stands at this. */
const still = (count: number) => ({ peak: count, rest: count });
const received: CallEvent = { kind: "received", bytes: 30, waiting: 1 };
const colours = new Chalk({ level: 0 });
const inFlight = { name: "in flight", full: 0 };

/** Five pings, 50 ms apart, and their echoes 100 ms behind them. */
function chat(): Timeline {
  const timeline = new Timeline();
  timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 0, still(0));
  const gauge = [1, 2, 3, 2, 3, 2, 3, 2, 1, 0];
  const events: [CallEvent, number][] = [
    ...[0, 50, 100, 150, 200].map((ms): [CallEvent, number] => [sent, ms]),
    ...[100, 150, 200, 250, 300].map((ms): [CallEvent, number] => [received, ms]),
  ];
  events.sort(([, a], [, b]) => a - b);
  for (const [i, [event, ms]] of events.entries()) {
    timeline.record(event, ms, still(gauge[i] ?? 0));
  }
  timeline.record({ kind: "half-closed" }, 201, still(2));
  timeline.record({ kind: "ended", code: "OK", message: "" }, 301, still(0));
  return timeline;
}

function draw(timeline: Timeline, { columns = 60, isUnicode = true, nowMs = 0 } = {}): string[] {
  const untilMs = Math.max(timeline.lastMs, nowMs);
  return drawPicture(timeline, { columns, isUnicode, untilMs, unit: inFlight, colours });
}

test("two lanes against time, in flight, and what they say in words", () => {
  expect(draw(chat())).toEqual([
    "           0 ms           100 ms          200 ms",
    "sent       ●──────●───────●───────●───────●┤",
    "received                  ●───────●───────●───────●──────●■",
    "in flight  ▃▃▃▃▃▃▃▆▆▆▆▆▆▆▆█▆▆▆▆▆▆▆█▆▆▆▆▆▆▆█▆▆▆▆▆▆▆▃▃▃▃▃▃▃",
    "5 sent by 200 ms · half-close at 201 ms ·",
    "5 received from 100 ms to 300 ms · at most 3 in flight ·",
    "OK at 301 ms",
  ]);
});

test("the same without Unicode", () => {
  const lines = draw(chat(), { isUnicode: false }).slice(1, 4);
  expect(lines).toEqual([
    "sent       o------o-------o-------o-------o|",
    "received                  o-------o-------o-------o------o#",
    "in flight  -------********@*******@*******@*******-------",
  ]);
  expect(lines.join("")).toMatch(/^[ -~]*$/);
});

test("on a narrow terminal, and with several messages in a column", () => {
  expect(draw(chat(), { columns: 25 })).toEqual([
    "           0 ms",
    "sent       ●●─●─●─●┤",
    "received      ●─●─●─●─●■",
    "in flight  ▃▆▆█▆█▆█▆▃▃",
    "5 sent by 200 ms ·",
    "half-close at 201 ms · 5",
    "received from 100 ms to",
    "300 ms ·",
    "at most 3 in flight ·",
    "OK at 301 ms",
  ]);
});

test("on no width is part of a number lost", () => {
  for (let columns = 1; columns < 20; columns += 1) {
    const words = draw(chat(), { columns }).join("").replaceAll(" ", "");
    expect(words).toContain("5sentby200ms·half-closeat201ms");
    expect(words).toContain("OKat301ms");
  }
});

test("where lanes would be too short, in words alone", () => {
  const lines = draw(chat(), { columns: 15 });
  expect(lines.join(" ")).toContain("5 sent by 200");
  expect(lines.join("")).not.toContain("●");
});

test("crowds are counted: digits up to nine, then a plus", () => {
  const timeline = new Timeline();
  for (const [ms, count] of [
    [0, 2],
    [50, 9],
    [99, 10],
  ] as const) {
    for (let i = 0; i < count; i += 1) {
      timeline.record(sent, ms, still(1));
    }
  }
  timeline.record({ kind: "ended", code: "OK", message: "" }, 100, still(0));
  expect(draw(timeline, { columns: 23 })[1]).toBe("sent       2────9───+");
});

describe("how it ended", () => {
  const ending = (...events: CallEvent[]) => {
    const timeline = new Timeline();
    timeline.record(sent, 0, still(1));
    for (const [i, event] of events.entries()) {
      timeline.record(event, 90 + i * 10, still(0));
    }
    return draw(timeline, { columns: 33 });
  };

  test("a status is the server's mark", () => {
    const lines = ending({ kind: "ended", code: "UNAVAILABLE", message: "gone" });
    expect(lines[2]).toMatch(/■$/);
    expect(lines.join(" ")).toContain("UNAVAILABLE at 90 ms");
  });

  test("a cancel is ours, and the status that follows is no news", () => {
    const lines = ending(
      { kind: "cancelled" },
      { kind: "ended", code: "CANCELLED", message: "Cancelled on client" },
    );
    expect(lines[1]).toMatch(/✗$/);
    expect(lines[2]).toBe("received");
    expect(lines.join(" ")).toContain("cancelled at 90 ms");
    expect(lines.join(" ")).not.toContain("CANCELLED");
  });

  test("a cancel does not hide the half-close before it", () => {
    const lines = ending({ kind: "half-closed" }, { kind: "cancelled" });
    expect(lines[1]).toMatch(/┤ *✗$/);
  });

  test("a connection that was lost is marked, and the next one goes on behind it", () => {
    const timeline = new Timeline();
    timeline.record(received, 0, still(0));
    timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, 20, still(0));
    timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 60, still(0));
    timeline.record(received, 100, still(0));
    const lines = draw(timeline, { columns: 33 });
    expect(lines[2]).toBe("received   ●───■──────────────●");
    expect(lines.join(" ")).toContain("connection lost at 20 ms");
  });

  test("connections that are lost again and again are one line of words", () => {
    const timeline = new Timeline();
    timeline.record(received, 0, still(0));
    for (let ms = 1; ms <= 1000; ms += 1) {
      timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, ms, still(0));
      timeline.record({ kind: "requested", path: "/x", deadline: undefined }, ms, still(0));
    }
    const lines = draw(timeline, { columns: 80 });
    expect(lines[2]).toMatch(/^received {3}●■+$/);
    expect(lines.join(" ")).toContain("connection lost 1000 times, the last at 1 s");
    expect(lines.length).toBeLessThan(8);
  });

  test("more marks than there is room for do not make the line longer", () => {
    const timeline = new Timeline();
    timeline.record(received, 0, still(0));
    timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, 95, still(0));
    timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 95, still(0));
    timeline.record(received, 96, still(0));
    timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, 100, still(0));
    timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 100, still(0));
    timeline.record(received, 100, still(0));
    timeline.record({ kind: "ended", code: "UNAVAILABLE", message: "" }, 100, still(0));
    expect(draw(timeline, { columns: 33 })[2]?.length).toBeLessThanOrEqual(33);
  });

  test("a reader of our output who does not read is backpressure", () => {
    const timeline = new Timeline();
    timeline.record(received, 0, still(0));
    timeline.recordOutputBlocked(50, 100);
    const lines = draw(timeline, { columns: 33 });
    expect(lines[4]).toBe("blocked              ██████████");
    expect(lines.join(" ")).toContain("nobody read our output for 50 ms");
  });

  test("a call that goes on has no end, and its time is now", () => {
    const timeline = new Timeline();
    timeline.record(sent, 0, still(1));
    const lines = draw(timeline, { nowMs: 1000 });
    expect(lines[0]).toMatch(/^ +0 ms +500 ms$/);
    expect(lines.join("")).not.toMatch(/■|✗|┤/);
  });
});

test("backpressure has a lane of its own, as full as the time was blocked", () => {
  const timeline = new Timeline();
  timeline.record(sent, 0, still(16));
  timeline.record({ kind: "blocked" }, 0, still(16));
  timeline.record({ kind: "unblocked" }, 50, still(0));
  timeline.record({ kind: "ended", code: "OK", message: "" }, 100, still(0));
  const lines = draw(timeline, { columns: 33 });
  expect(lines[4]).toBe("blocked    ██████████");
  expect(lines.join(" ")).toContain("write() answered false once, blocked for 50 ms");
});

test("nothing at all draws, too", () => {
  expect(draw(new Timeline()).join("\n")).toContain("0 sent · 0 received");
});

test("no line is ever wider than the terminal", () => {
  const event = fc.constantFrom<CallEvent>(
    sent,
    received,
    { kind: "blocked" },
    { kind: "unblocked" },
    { kind: "half-closed" },
    { kind: "cancelled" },
    { kind: "ended", code: "RESOURCE_EXHAUSTED", message: "x" },
    { kind: "requested", path: "/x", deadline: undefined },
  );
  fc.assert(
    fc.property(
      fc.array(fc.tuple(event, fc.double({ min: 0, max: 100_000, noNaN: true })), {
        maxLength: 60,
      }),
      fc.integer({ min: 1, max: 600 }),
      fc.boolean(),
      (steps, columns, isUnicode) => {
        const timeline = new Timeline();
        let ms = 0;
        for (const [next, after] of steps) {
          ms += after;
          timeline.record(next, ms, still(ms % 20));
        }
        for (const line of draw(timeline, { columns, isUnicode, nowMs: ms })) {
          expect(line.length).toBeLessThanOrEqual(columns);
          expect(line).not.toContain("\n");
        }
      },
    ),
  );
});

test.each([
  [0, 5, 0],
  [100, 4, 50],
  [301, 4, 100],
  [1000, 1, 1000],
  [7, 3, 5],
  [90_000, 6, 20_000],
  [300_000, 6, 60_000],
  [7_200_000, 6, 1_800_000],
  [172_800_000, 6, 43_200_000],
  [50 * 86_400_000, 6, 10 * 86_400_000],
])("%d ms in at most %d parts are steps of %d", (ms, parts, step) => {
  expect(roundStep(ms, parts)).toBeCloseTo(step, 9);
});

test("an upload's picture says that the server still works through what was buffered", () => {
  const waiting = { name: "waiting", full: 0 };
  const timeline = new Timeline();
  timeline.record({ kind: "requested", path: "/x", deadline: undefined }, 0, still(0));
  timeline.record(sent, 1, still(1));
  timeline.record({ kind: "half-closed" }, 2, still(0));
  const words = (untilMs: number) =>
    drawPicture(timeline, { columns: 200, isUnicode: true, untilMs, unit: waiting, colours }).at(
      -1,
    );
  expect(words(1_000)).toContain("the server still works through what is buffered on the way");
  timeline.record(received, 6_600, still(0));
  timeline.record({ kind: "ended", code: "OK", message: "" }, 6_601, still(0));
  expect(words(6_601)).toContain(
    "the server worked for another 6.6 s through what was buffered on the way",
  );
});
