/** The picture that is drawn again and again: what the terminal shows after each frame. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LivePicture, type Screen } from "../../src/commands/live-picture.ts";
import { type Served, serve } from "../support/brewctl.ts";
import { ctrlC, ctrlD, onTerminal, shellOnTerminal } from "../support/pty.ts";
import { screenOf } from "../support/screen.ts";
import { testClock } from "../support/test-clock.ts";

/** How a frame begins. */
const beginFrame = "\x1b[?2026h";

describe("on a screen of its own", () => {
  function picture(draw: () => string[], screen: Screen = { columns: 40, rows: 20 }) {
    const size = { ...screen };
    const clock = testClock();
    let written = "";
    const terminal = { isBehind: false };
    const live = new LivePicture({
      draw,
      write: (text) => {
        written += text;
      },
      isBehind: () => terminal.isBehind,
      screen: () => size,
      clock,
    });
    return {
      live,
      terminal,
      clock,
      size,
      get lines() {
        return screenOf(written);
      },
      get written() {
        return written;
      },
    };
  }

  test("it is drawn over itself", async () => {
    let count = 0;
    const shown = picture(() => [`frame ${count}`, "below"]);
    for (count = 1; count <= 3; count += 1) {
      await shown.clock.advance(80);
    }
    expect(shown.lines).toEqual(["frame 3", "below"]);
    shown.live.end();
    expect(shown.lines).toEqual(["frame 4", "below"]);
  });

  test("no frame is drawn for a terminal that has not taken the last one", async () => {
    let count = 0;
    const shown = picture(() => [`frame ${count}`]);
    await shown.clock.advance(80);
    shown.terminal.isBehind = true;
    for (count = 1; count <= 100; count += 1) {
      await shown.clock.advance(80);
    }
    expect(shown.lines).toEqual(["frame 0"]);
    shown.terminal.isBehind = false;
    await shown.clock.advance(80);
    expect(shown.lines).toEqual(["frame 101"]);
  });

  test("lines that are printed come above it, in order, and stay", async () => {
    const shown = picture(() => ["picture"]);
    await shown.clock.advance(80);
    shown.live.print("one");
    shown.live.print("two");
    await shown.clock.advance(80);
    shown.live.print("three");
    await shown.clock.advance(80);
    expect(shown.lines).toEqual(["one", "two", "three", "picture"]);
    // Wiped first: a terminal that had wrapped a line there would join the next to it.
    expect(shown.written.match(/\[1A\r.\[Jone/g)).toHaveLength(1);
  });

  test("lines that are still waiting at the end are printed", () => {
    const shown = picture(() => ["picture"]);
    shown.live.print("last words");
    shown.live.end();
    expect(shown.lines).toEqual(["last words", "picture"]);
  });

  test("a picture that shrinks leaves nothing behind", async () => {
    let lines = ["a long first line", "second", "third"];
    const shown = picture(() => lines);
    await shown.clock.advance(80);
    lines = ["short"];
    await shown.clock.advance(80);
    expect(shown.lines).toEqual(["short"]);
  });

  test("many lines do not wait for the next frame", () => {
    const shown = picture(() => ["picture"], { columns: 40, rows: 5_000 });
    for (let i = 0; i < 1_001; i += 1) {
      shown.live.print(`line ${i}`);
    }
    expect(shown.lines).toHaveLength(1_002);
  });

  test("where it does not fit it is drawn at the end alone", async () => {
    const shown = picture(() => ["a", "b", "c", "d"], { columns: 40, rows: 4 });
    await shown.clock.advance(400);
    expect(shown.written).not.toContain("a");
    shown.live.end();
    expect(shown.written).toContain("a\x1b[K\nb");
  });

  test("a window that is made narrower wraps the old picture, which goes all the same", async () => {
    const shown = picture(() => ["x".repeat(shown.size.columns), "end"]);
    shown.live.print("above");
    await shown.clock.advance(80);
    shown.size.columns = 15;
    const before = shown.written.length;
    await shown.clock.advance(80);
    // 40 columns are three rows of 15 now, and "end" is a fourth.
    expect(shown.written.slice(before)).toContain("\x1b[4A\r");
  });

  test("nothing is drawn after the end", async () => {
    const shown = picture(() => ["picture"]);
    shown.live.end();
    const { length } = shown.written;
    await shown.clock.advance(1000);
    expect(shown.written).toHaveLength(length);
  });
});

describe("on a real terminal", () => {
  let server: Served;
  let addr: string;
  beforeAll(async () => {
    server = await serve(["--tick", "5ms", "--echo-delay", "100ms"]);
    addr = server.addr;
  });
  afterAll(() => server[Symbol.asyncDispose]());

  test("it is live, below the data, and finished at the end", async () => {
    await using client = onTerminal(
      ["chat", "--addr", addr, "-n", "5", "--interval", "100ms", "--timeline"],
      { NO_COLOR: "1" },
    );
    // Before the end: a frame with a message sent and none of the marks of an end.
    const [early] = await client.output(/^[\s\S]*sent {7} *●[● ─]*/);
    expect(early).not.toContain("■");
    expect((await client.ended).exitCode).toBe(0);
    const lines = screenOf(client.screen);
    expect(lines.filter((line) => line.startsWith("> sent: ping"))).toHaveLength(5);
    expect(lines.filter((line) => line.startsWith("< echo from server"))).toHaveLength(5);
    expect(lines.filter((line) => /^sent {2}/.test(line))).toHaveLength(1);
    expect(lines.filter((line) => /^received {3}.*■$/.test(line))).toHaveLength(1);
    expect(lines.at(-1)).toMatch(/^stream closed by server, got 5 echoes/);
    expect(client.screen).not.toContain("\x1b[?25l");
  });

  test("twenty columns are enough, and a resize in the middle breaks nothing", async () => {
    await using client = onTerminal(
      ["chat", "--addr", addr, "-n", "12", "--interval", "100ms", "--timeline", "-q"],
      { NO_COLOR: "1" },
    );
    await client.output(/echo: ping 2/);
    client.pty.resize(20, 30);
    await client.output(/echo: ping 10/);
    expect((await client.ended).exitCode).toBe(0);
    // The last frame, drawn where the ones before it, wrapped or not, had been.
    const picture = screenOf(client.screen.slice(client.screen.lastIndexOf(beginFrame)));
    expect(picture.some((line) => /^sent {7} *[●\d+─┤]+$/.test(line))).toBe(true);
    // Data wraps, as it always does.
    for (const line of picture.filter((text) => !/^[<>]/.test(text))) {
      expect(line.length).toBeLessThanOrEqual(20);
    }
  });

  test("Ctrl+C leaves it as it was then, with the verdict below", async () => {
    await using client = onTerminal(["chat", "--addr", addr, "--no-half-close", "--timeline"], {
      NO_COLOR: "1",
    });
    await client.output(/echo: ping 3/);
    client.type(ctrlC);
    await client.ended;
    const lines = screenOf(client.screen);
    expect(lines.filter((line) => /^sent {2}/.test(line))).toHaveLength(1);
    expect(lines.filter((line) => /^ +0 ms/.test(line))).toHaveLength(1);
    expect(lines.slice(-2).join("\n")).toMatch(
      /^stream cancelled by client, .* · Ctrl\+C.*\nsent 5, \d answered, /,
    );
  });

  test("data for another terminal goes there", async () => {
    await using other = shellOnTerminal("tty; sleep 30");
    const [, tty = ""] = await other.output(/(\/dev\/\S+)\r\n/);
    await using session = shellOnTerminal(
      `brewctl subscribe --addr ${addr} -n 3 --timeline > ${tty}`,
      { NO_COLOR: "1" },
    );
    expect((await session.ended).exitCode).toBe(0);
    expect(session.screen).not.toContain("order_id");
    expect(session.screen).toContain("received");
    await other.output(/\[3\] order_id/);
  });

  test("while a person types, nothing moves; the picture comes at the end", async () => {
    await using client = onTerminal(["chat", "--addr", addr, "--input", "-", "--timeline"]);
    await client.output(/Ctrl\+C to abort/);
    client.type("hello\r");
    await client.output(/echo: hello/);
    expect(client.screen).not.toContain(beginFrame);
    client.type(ctrlD);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).toMatch(/^.*sent .*●/m);
  });

  test("beside another program's lines it is drawn at the end", async () => {
    await using session = shellOnTerminal(
      `brewctl chat --addr ${addr} --timeline -o ndjson | cat`,
      { NO_COLOR: "1" },
    );
    expect((await session.ended).exitCode).toBe(0);
    expect(session.screen).toMatch(/^sent .*●.*┤\r$/m);
    expect(session.screen).not.toContain(beginFrame);
  });

  test("TERM=dumb gets no escape sequence", async () => {
    await using client = onTerminal(["chat", "--addr", addr, "--timeline"], { TERM: "dumb" });
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).not.toContain("\x1b");
    expect(client.screen).toMatch(/^sent {7} *[o\d+-]+ *\|/m);
  });
});
