/** On a terminal of its own: Ctrl+C and Ctrl+D, colours, the spinner, and what state the terminal is left in. */

import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { brewctl, type Served, serve } from "../support/brewctl.ts";
import { ctrlC, ctrlD, ctrlQ, ctrlS, onTerminal, shellOnTerminal } from "../support/pty.ts";
import { muteServer, tempFolder } from "../support/temp.ts";

const { SIGINT, SIGTERM } = constants.signals;

let server: Served;
let quick: string;
let silent: string;
let slow: Served;
beforeAll(async () => {
  server = await serve(["--tick", "5ms", "--echo-delay", "1ms"]);
  slow = await serve(["--tick", "10m", "--echo-delay", "1s"]);
  quick = server.addr;
  silent = slow.addr;
});
afterAll(async () => {
  await server[Symbol.asyncDispose]();
  await slow[Symbol.asyncDispose]();
});

// biome-ignore lint/suspicious/noControlCharactersInRegex: an escape sequence begins with one
const colour = /\x1b\[\d+(;\d+)*m/;
/** How the spinner wipes its line. */
const wipe = "\x1b[0K";
const byCtrlC = { signal: SIGINT, exitCode: 0 };

describe("Ctrl+C", () => {
  test("while it connects, and the spinner turns", async () => {
    await using mute = await muteServer();
    await using client = onTerminal(["subscribe", "--addr", mute.addr, "--wait-ready", "10m"]);
    await mute.dialled;
    await client.output(/connecting to 127/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
    expect(client.screen).toMatch(/stream cancelled by client.*, got 0 events · Ctrl\+C · /);
  });

  test("while it waits for the first event, and the spinner turns", async () => {
    await using client = onTerminal(["subscribe", "--addr", silent]);
    await client.output(/waiting for the first event/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
    expect(client.screen).toMatch(/stream cancelled by client.*, got 0 events · Ctrl\+C · /);
  });

  test("in the middle of a stream", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick, "--limit", "0"]);
    await client.output(/\[3\]/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
    expect(client.screen).toMatch(/stream cancelled by client.*, got \d+ events · Ctrl\+C · /);
  });

  test("while it reads what is typed", async () => {
    await using client = onTerminal(["chat", "--addr", quick, "--input", "-"]);
    await client.output(/Ctrl\+C to abort/);
    client.type("hello\r");
    await client.output(/echo: hello/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
    expect(client.screen).toMatch(/stream cancelled by client.*, got 1 echo · Ctrl\+C · /);
  });

  test("while a line is half typed", async () => {
    await using client = onTerminal(["chat", "--addr", quick, "--input", "-"]);
    await client.output(/Ctrl\+C to abort/);
    client.type("half");
    await client.output(/half/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
    expect(client.screen).toMatch(/stream cancelled by client.*, got 0 echoes · Ctrl\+C · /);
    expect(client.screen).not.toContain("sent:");
  });

  test("between two attempts to reconnect", async () => {
    await using own = await serve(["--tick", "5ms"]);
    await using client = onTerminal(["subscribe", "--addr", own.addr, "-n", "0", "--reconnect"]);
    await client.output(/\[3\]/);
    own.child.kill("SIGKILL");
    await client.output(/attempt 1 to reconnect/);
    client.type(ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
  });

  test("twice at once ends it all the same", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick, "--limit", "0"]);
    await client.output(/\[3\]/);
    client.type(ctrlC + ctrlC);
    expect(await client.ended).toEqual(byCtrlC);
  });

  test("ends the shell's loop too", async () => {
    await using loop = shellOnTerminal(
      `while :; do brewctl subscribe --addr ${quick} --limit 0; done; echo af""ter`,
    );
    await loop.output(/\[3\]/);
    loop.type(ctrlC);
    expect((await loop.ended).signal).toBe(SIGINT);
    expect(loop.screen.match(/stream cancelled by client/g)).toHaveLength(1);
    expect(loop.screen).not.toContain("after");
  });

  test("stops the server gracefully with 0", async () => {
    await using own = onTerminal(["serve", "--addr", "127.0.0.1:0"]);
    await own.output(/streaming-server started/);
    own.type(ctrlC);
    expect(await own.ended).toEqual({ signal: 0, exitCode: 0 });
    expect(own.screen).toContain("graceful stop");
  });
});

describe("a terminal that is paused by Ctrl+S", () => {
  test("stops neither the server's calls nor its end, and shows the log after Ctrl+Q", async () => {
    using folder = tempFolder();
    const addr = `unix:${folder.file("serve.sock")}`;
    await using own = onTerminal(["serve", "--addr", addr, "--memory", "--tick", "0"]);
    await own.output(/streaming-server started/);
    own.type(ctrlS);
    const args = ["subscribe", "--addr", addr, "--limit", "1", "--deadline", "20s"];
    for (let call = 1; call <= 3; call += 1) {
      expect((await brewctl(args)).code, `call ${call}`).toBe(0);
    }
    expect(own.screen).not.toContain("subscribe ended");
    own.type(ctrlQ);
    await own.output(/(?:subscribe ended.*\s+subscribe started.*\s+){2}subscribe ended/);
    own.type(ctrlS);
    expect((await brewctl(args)).code).toBe(0);
    process.kill(own.pty.pid, "SIGTERM");
    expect(await own.ended).toEqual({ signal: 0, exitCode: 0 });
  });

  test("does not keep a client from dying by SIGTERM", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick, "--limit", "0"]);
    await client.output(/\[3\]/);
    client.type(ctrlS);
    process.kill(client.pty.pid, "SIGTERM");
    expect(await client.ended).toEqual({ signal: SIGTERM, exitCode: 0 });
  });

  test("loses no data of a client that waits for it", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick, "--limit", "317", "-q"]);
    await client.output(/\[3\]/);
    client.type(ctrlS);
    await server.output(/subscribe ended: limit reached sent=317/);
    client.type(ctrlQ);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen.match(/order_id=/g)).toHaveLength(317);
  });
});

test("SIGTERM while the spinner turns", async () => {
  await using client = onTerminal(["subscribe", "--addr", silent]);
  await client.output(/waiting for the first event/);
  process.kill(client.pty.pid, "SIGTERM");
  expect(await client.ended).toEqual({ signal: SIGTERM, exitCode: 0 });
  expect(client.screen).toMatch(/stream cancelled by client.*, got 0 events · SIGTERM · /);
});

describe("the terminal afterwards", () => {
  test.each([
    ["a stream, by Ctrl+C", "subscribe --limit 0", "\\[3\\]", ctrlC],
    ["a spinner, by Ctrl+C", `subscribe --addr SILENT`, "waiting for the first", ctrlC],
    ["typed input, by Ctrl+C", "chat --input -", "Ctrl\\+C to abort", ctrlC],
    ["typed input, by Ctrl+D", "chat --input -", "Ctrl\\+C to abort", ctrlD],
    ["two Ctrl+C at once", "subscribe --limit 0", "\\[3\\]", ctrlC + ctrlC],
  ])("is as it was: %s", async (_, command, seen, keys) => {
    const words = command.replace("SILENT", silent);
    await using session = shellOnTerminal(
      `trap : INT; stty -a > "$FOLDER/before"; brewctl ${words}; stty -a > "$FOLDER/after"; echo do""ne`,
      { BREWCTL_ADDR: quick, FOLDER: folder.path },
    );
    await session.output(new RegExp(seen));
    session.type(keys);
    await session.output(/done/);
    const after = readFileSync(folder.file("after"), "utf8");
    expect(after).toBe(readFileSync(folder.file("before"), "utf8"));
    expect(after).toMatch(/(^|\s)isig icanon\s/);
    expect(after).toMatch(/\secho\s/);
    expect(session.screen).not.toContain("\x1b[?25l");
  });

  let folder: ReturnType<typeof tempFolder>;
  beforeAll(() => {
    folder = tempFolder();
  });
  afterAll(() => folder[Symbol.dispose]());
});

describe("typed input", () => {
  test("has a hint, and Ctrl+D half-closes and drains", async () => {
    await using client = onTerminal(["chat", "--addr", silent, "--input", "-"]);
    await client.output(/type a line; Ctrl\+D to finish, Ctrl\+C to abort\r\n/);
    client.type("one\rtwo\r");
    await client.output(/sent: two/);
    expect(client.screen).not.toContain("echo: two");
    client.type(ctrlD);
    expect(await client.ended).toEqual({ signal: 0, exitCode: 0 });
    expect(client.screen).toContain("echo: one\r\n");
    expect(client.screen).toContain("echo: two\r\n");
    expect(client.screen).toMatch(
      /stream closed by server.*, got 2 echoes · OK · after our half-close/,
    );
    await slow.output(/^chat ended: client closed send$/m);
  });

  test("is shown as it is typed", async () => {
    await using client = onTerminal(["chat", "--addr", quick, "--input", "-"]);
    await client.output(/Ctrl\+C to abort/);
    client.type("hal");
    await client.output(/hal/);
    client.type("\x7f\x7f\x7fwhole\r");
    await client.output(/echo: whole\r\n/);
  });

  test("has no hint with -q", async () => {
    await using client = onTerminal(["chat", "--addr", quick, "--input", "-", "-q"]);
    client.type("one\r");
    await client.output(/echo: one/);
    client.type(ctrlD);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).not.toContain("Ctrl+");
  });

  test("is not disturbed by a spinner", async () => {
    await using client = onTerminal(["chat", "--addr", quick, "--input", "-"]);
    await client.output(/Ctrl\+C to abort/);
    client.type(`one\r`);
    await client.output(/echo: one/);
    client.type(ctrlD);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).not.toContain("connecting");
    expect(client.screen).not.toContain(wipe);
  });
});

describe("colour", () => {
  test("is for a terminal, in data and in talk", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick]);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).toContain("\x1b[2m[1]\x1b[22m order_id=");
    expect(client.screen).toContain("\x1b[32mstream closed by server\x1b[39m, got 5 events");
  });

  test.each<[string, string[], Record<string, string>]>([
    ["NO_COLOR", [], { NO_COLOR: "1" }],
    ["TERM=dumb", [], { TERM: "dumb" }],
    ["--no-color", ["--no-color"], {}],
    ["-no-color", ["-no-color"], {}],
  ])("is off with %s", async (_, args, env) => {
    await using client = onTerminal(["subscribe", "--addr", quick, "--no-progress", ...args], env);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).not.toMatch(colour);
    expect(client.screen).toContain("\n[2] order_id=");
    expect(client.screen).toMatch(/\nstream closed by server, got 5 events/);
  });

  test("is on with an empty NO_COLOR", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick], { NO_COLOR: "" });
    await client.ended;
    expect(client.screen).toMatch(colour);
  });

  test("is decided for data apart: a file has none", async () => {
    using folder = tempFolder();
    await using session = shellOnTerminal(`brewctl subscribe --addr ${quick} > "$FILE"`, {
      FILE: folder.file("out"),
    });
    expect((await session.ended).exitCode).toBe(0);
    expect(session.screen).toContain("\x1b[32mstream closed by server\x1b[39m, got 5 events");
    const data = readFileSync(folder.file("out"), "utf8");
    expect(data).toMatch(/^\[1\] order_id=/);
    expect(data).not.toContain("\x1b");
  });

  test("is decided for talk apart: a file has none, and no spinner", async () => {
    using folder = tempFolder();
    await using session = shellOnTerminal(`brewctl subscribe --addr ${quick} 2> "$FILE"`, {
      FILE: folder.file("err"),
    });
    expect((await session.ended).exitCode).toBe(0);
    expect(session.screen).toContain("\x1b[2m[1]\x1b[22m order_id=");
    expect(readFileSync(folder.file("err"), "utf8")).toMatch(
      /^stream closed by server, got 5 events · OK · limit reached · \d+\.\d\d s\n$/,
    );
  });

  test("is not in ndjson", async () => {
    await using client = onTerminal([
      ...["subscribe", "--addr", quick, "-o", "ndjson", "-q", "-n", "2"],
    ]);
    await client.ended;
    expect(client.screen).toMatch(/^(\{"orderId":.*\}\r\n){2}$/);
  });
});

describe("the spinner", () => {
  test("counts, with rate and time left, while data goes elsewhere", async () => {
    await using session = shellOnTerminal(
      `brewctl subscribe --addr ${quick} --limit 1000000 > /dev/null`,
    );
    await session.output(/got \d+ of 1000000 · [\d.]+\/s · ETA \d/);
    session.type(ctrlC);
    expect((await session.ended).signal).toBe(SIGINT);
  });

  test("is gone from the line before data is written to it", async () => {
    await using client = onTerminal(["subscribe", "--addr", quick]);
    await client.ended;
    const lines = client.screen.split("\n");
    for (const line of lines.filter((text) => text.includes("order_id="))) {
      expect(line.slice(line.lastIndexOf(wipe) + 1)).not.toContain("waiting");
    }
  });

  test.each<[string, string[], Record<string, string>]>([
    ["CI=1", [], { CI: "1" }],
    ["--no-progress", ["--no-progress"], {}],
    ["-q", ["-q"], {}],
    ["TERM=dumb", [], { TERM: "dumb" }],
  ])("is absent with %s", async (_, args, env) => {
    await using client = onTerminal(["subscribe", "--addr", silent, "--for", "1s", ...args], env);
    expect((await client.ended).exitCode).toBe(0);
    expect(client.screen).not.toContain("waiting");
    expect(client.screen).not.toContain("connecting");
    expect(client.screen).not.toContain(wipe);
  });

  test("is gone when an error is said", async () => {
    await using client = onTerminal(["subscribe", "--addr", "127.0.0.1:1"]);
    expect((await client.ended).exitCode).toBe(78);
    const last = client.screen.slice(client.screen.lastIndexOf(wipe) + 1);
    expect(last).toMatch(/brewctl: UNAVAILABLE: no server at 127\.0\.0\.1:1\r\n/);
    expect(last).not.toContain("connecting");
  });
});

test("no spinner when another program writes to the terminal", async () => {
  await using shell = shellOnTerminal(`brewctl subscribe --addr ${quick} -n 3 -o ndjson | cat`);
  await shell.ended;
  expect(shell.screen).toContain('"orderId"');
  expect(shell.screen).not.toContain("waiting for");
});

test("a mistake in a line that is typed is said, and the chat goes on", async () => {
  await using client = onTerminal(["chat", "--addr", quick, "--input", "-"]);
  await client.output(/type a line/);
  client.type("{oops\r");
  await client.output(/stdin:1: not JSON/);
  client.type("hello\r");
  await client.output(/echo: hello/);
  client.type(ctrlD);
  expect((await client.ended).exitCode).toBe(0);
});
