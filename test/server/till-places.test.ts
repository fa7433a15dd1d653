import { describe, expect, test } from "vitest";
import { TillStreams, tillIdleMs } from "../../src/server/till-streams.ts";
import { testClock } from "../support/test-clock.ts";

const till = "10.0.0.7:5000";
const other = "10.0.0.8:5000";

function places(maxStreams: number, maxStreamsPerPeer: number) {
  const clock = testClock();
  return { clock, streams: new TillStreams({ clock, limits: { maxStreams, maxStreamsPerPeer } }) };
}

describe("a place among the streams of tills", () => {
  test("is free again when a stream ends", () => {
    const { streams } = places(1, 1);
    for (let i = 0; i < 3; i++) {
      using _ = streams.open(till);
      expect(streams.size).toBe(1);
    }
    expect(streams.size).toBe(0);
  });

  test("is refused beyond the share of a peer, and another peer has its own", () => {
    const { streams } = places(9, 2);
    streams.open(till);
    streams.open("10.0.0.7:5001");
    expect(() => streams.open("10.0.0.7:5002")).toThrow(
      "2 streams of 10.0.0.7 are open already; at most 2 are allowed at a time",
    );
    streams.open(other);
    expect(streams.size).toBe(3);
  });

  test("is refused when all are taken, over a unix socket as well, which has no share", () => {
    const { streams } = places(3, 1);
    streams.open("unknown");
    streams.open("unknown");
    streams.open("unknown");
    for (const peer of ["unknown", till]) {
      expect(() => streams.open(peer)).toThrow("3 streams are open already; at most 3");
    }
  });

  test("goes from the stream that was silent for longest, and long enough, to a new one", async () => {
    const { clock, streams } = places(2, 2);
    const first = streams.open(till);
    const second = streams.open(till);
    await clock.advance(tillIdleMs - 1);
    expect(() => streams.open(till)).toThrow("at most 2");
    first.heard();
    await clock.advance(1);
    const third = streams.open(till);
    expect(second.signal.reason).toMatchObject({ code: "UNAVAILABLE" });
    expect([first, third].map(({ signal }) => signal.aborted)).toEqual([false, false]);
    expect(streams.size).toBe(2);
    // What the one that has lost its place does now changes nothing.
    second.heard();
    second[Symbol.dispose]();
    expect(streams.size).toBe(2);
  });
});
