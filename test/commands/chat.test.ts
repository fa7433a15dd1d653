/** `brewctl chat`: its flags, what it prints, and every way in which it ends. Input: see input.test.ts. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { serveHandlers } from "../support/serve-handlers.ts";
import { closedPort } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve(["--echo-delay", "1ms"]);
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

const chat = (...args: string[]) => brewctl(["chat", "--addr", addr, ...args]);
const sentLines = (text: string) => text.match(/^> sent: .*$/gm) ?? [];
const echoLines = (text: string) => text.match(/^< echo from .*$/gm) ?? [];
const pings = (n: number) => Array.from({ length: n }, (_, i) => `ping ${i + 1}`);

describe("output", () => {
  test("text has a line for each direction", async () => {
    const { stdout, stderr, code } = await chat("--interval", "1ms");
    expect(sentLines(stdout)).toEqual(pings(5).map((ping) => `> sent: ${ping}`));
    expect(echoLines(stdout)).toEqual(pings(5).map((ping) => `< echo from server: echo: ${ping}`));
    expect(stdout.trimEnd().split("\n")).toHaveLength(10);
    expect(stderr).toMatch(
      /^last of 5 sends after \d+ ms, first echo after \d+ ms\nstream closed by server, got 5 echoes · OK · after our half-close · \d+\.\d\d s\n$/,
    );
    expect(code).toBe(0);
  });

  test("ndjson is one echo a line", async () => {
    const { stdout, code } = await chat("-count=2", "-interval=1ms", "-o", "ndjson");
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    lines.forEach((line, i) => {
      expect(line).toMatch(
        new RegExp(
          `^\\{"from":"server","text":"echo: ping ${i + 1}","sentAt":"\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?Z"\\}$`,
        ),
      );
    });
    expect(code).toBe(0);
  });

  test("ndjson has the fields that are at their defaults", async () => {
    await using own = await serveHandlers({
      async *chat() {
        yield {};
      },
    });
    const { stdout } = await brewctl(["chat", "--addr", `127.0.0.1:${own.port}`, "-o", "ndjson"]);
    expect(stdout).toBe('{"from":"","text":""}\n');
  });

  test("control characters of the server are spelled out in text", async () => {
    await using own = await serveHandlers({
      async *chat() {
        yield { from: "a\x1b[2J", text: "b\r\nc\x9b" };
      },
    });
    const { stdout } = await brewctl(["chat", "--addr", `127.0.0.1:${own.port}`]);
    expect(echoLines(stdout)).toEqual(["< echo from a\\u001b[2J: b\\u000d\\u000ac\\u009b"]);
  });

  test("quiet leaves the data", async () => {
    const { stdout, stderr } = await chat("-q", "-n", "1");
    expect(stdout).toBe("> sent: ping 1\n< echo from server: echo: ping 1\n");
    expect(stderr).toBe("");
  });

  test("all sends leave before the echoes tick in", async () => {
    await using own = await serve(["--echo-delay", "3s"]);
    await using client = start(["chat", "--addr", own.addr, "-count=20", "-interval=10ms"]);
    await client.output(/^> sent: ping 20$/m);
    expect(echoLines(client.stdout)).toEqual([]);
  });

  test("the next echo does not wait for the next send", async () => {
    await using client = start(["chat", "--addr", addr, "--interval", "10m"]);
    await client.output(/^< echo from server: echo: ping 1$/m);
    expect(sentLines(client.stdout)).toHaveLength(1);
  });
});

describe("flags", () => {
  test.each([
    [["-count=2", "-interval=1ms"]],
    [["-count", "2", "-interval", "1ms"]],
    [["--count=2", "--interval=1ms"]],
    [["-n", "2", "--interval", "0"]],
  ])("%j", async (args) => {
    const { stdout, code } = await chat(...args);
    expect(sentLines(stdout)).toHaveLength(2);
    expect(echoLines(stdout)).toHaveLength(2);
    expect(code).toBe(0);
  });

  test.each([
    [[], "client-1"],
    [["-from=-q"], "-q"],
    [["--from", "--count"], "--count"],
  ])("%j speaks as %s", async (args, from) => {
    await using own = await serveHandlers({
      async *chat(messages) {
        for await (const message of messages) {
          yield message;
        }
      },
    });
    const { stdout } = await brewctl([
      ...["chat", "--addr", `127.0.0.1:${own.port}`, "-n", "1", ...args],
    ]);
    expect(echoLines(stdout)).toEqual([`< echo from ${from}: ping 1`]);
  });

  test.each<[string, number, string]>([
    ["too few", 1, "with 2 echoes missing"],
    ["too many", 4, "with 1 more echo than messages"],
  ])("%s echoes are said", async (_, echoes, words) => {
    await using own = await serveHandlers({
      async *chat(messages) {
        for await (const _ of messages) {
          // Read to its end.
        }
        yield* Array.from({ length: echoes }, () => ({ text: "hello" }));
      },
    });
    const { stderr } = await brewctl([
      ...["chat", "--addr", `127.0.0.1:${own.port}`, "-n", "3", "--interval", "0"],
    ]);
    expect(stderr).toContain(` · OK · after our half-close, ${words} · `);
  });

  test("no pings at all is a short chat", async () => {
    const { stdout, stderr, code } = await chat("--count", "0");
    expect(stdout).toBe("");
    expect(stderr).toMatch(/^stream closed by server, got 0 echoes · OK · after our half-close · /);
    expect(code).toBe(0);
  });

  test.each([
    [["--input", "-", "--count", "3"], "--count"],
    [["--expect", "3", "--within", "1s", "--limit", "2"], "--expect 3 can never be met"],
    [["--limit", "0"], "--limit"],
    [["--interval", "50"], "expected a duration"],
  ])("%j is refused", async (args, named) => {
    const { stdout, stderr, code } = await brewctl(["chat", "--addr", "127.0.0.1:1", ...args]);
    expect(stdout).toBe("");
    expect(stderr).toContain(named);
    expect(code).toBe(2);
  });
});

describe("verdicts", () => {
  test("a limit is success", async () => {
    const { stdout, stderr, code } = await chat("--limit", "2", "--interval", "1ms");
    expect(echoLines(stdout)).toHaveLength(2);
    expect(stderr).toMatch(
      /^stream cancelled by client, (sent \d, )?got 2 echoes · limit reached · /,
    );
    expect(code).toBe(0);
  });

  test("one echo is not echoes", async () => {
    const { stderr } = await chat("--limit", "1", "--interval", "1ms");
    expect(stderr).toMatch(
      /^stream cancelled by client, (sent \d, )?got 1 echo · limit reached · /,
    );
  });

  test("--for is success", async () => {
    const { stderr, code } = await chat("--no-half-close", "--for", "400ms");
    expect(stderr).toMatch(
      /^stream cancelled by client, (sent \d, )?got \d echo(es)? · --for 400ms · /m,
    );
    expect(code).toBe(0);
  });

  test("--idle is success", async () => {
    const { stderr, code } = await chat("--no-half-close", "-n", "1", "--idle", "1s");
    expect(stderr).toMatch(/^stream cancelled by client, (sent \d, )?got 1 echo · idle for 1s · /m);
    expect(code).toBe(0);
  });

  test("an expectation met is success", async () => {
    const { stderr, code } = await chat("--expect", "2", "--within", "20s");
    expect(stderr).toMatch(
      /^stream cancelled by client, (sent \d, )?got 2 echoes · got the expected 2 · /,
    );
    expect(code).toBe(0);
  });

  test("an expectation not met exits 4", async () => {
    const early = await chat("-n", "1", "--expect", "2", "--within", "20s");
    expect(early.stderr).toMatch(
      /^stream closed by server, got 1 echo · OK · after our half-close, expected 2 · /m,
    );
    expect(early.code).toBe(4);

    const late = await chat("--no-half-close", "-n", "1", "--expect", "2", "--within", "1s");
    expect(late.stderr).toMatch(
      /^stream cancelled by client, (sent \d, )?got 1 echo · expected 2 within 1s · /m,
    );
    expect(late.code).toBe(4);
  });

  test("what was sent and has no echo is said, also when no talk is wanted", async () => {
    await using own = await serve(["--echo-delay", "10m"]);
    await using client = start(["chat", "--addr", own.addr, "-n", "2", "-q"]);
    await client.output(/^> sent: ping 2$/m);
    client.child.kill("SIGINT");
    const { stderr, signal } = await client.ended;
    expect(stderr).toBe(
      "sent 2, 0 answered, 2 without an echo: the server may or may not have had them\n",
    );
    expect(signal).toBe("SIGINT");
  });

  test("without the half-close the deadline ends it", async () => {
    const { stdout, stderr, code } = await chat(
      ...["--no-half-close", "--deadline", "2s", "-interval=1ms"],
    );
    expect(echoLines(stdout)).toHaveLength(5);
    expect(stderr).toContain("not half-closing");
    expect(stderr).toMatch(
      /^stream ended by deadline, got 5 echoes · DEADLINE_EXCEEDED · deadline 2s · /m,
    );
    expect(code).toBe(68);
  });

  test.each([
    ["SIGINT", "Ctrl\\+C"],
    ["SIGTERM", "SIGTERM"],
  ] as const)("%s cancels, and is what it dies of", async (signal, why) => {
    await using own = await serve(["--echo-delay", "1ms"]);
    await using client = start(["chat", "--addr", own.addr, "--interval", "10m"]);
    await client.output(/^< echo/m);
    client.child.kill(signal);
    const ended = await client.ended;
    expect(ended.stderr).toMatch(
      new RegExp(`^stream cancelled by client, (sent \\d, )?got 1 echo · ${why} · `),
    );
    expect(ended.signal).toBe(signal);
    await own.output(/^chat ended: client gone$/m);
  });

  test("a server that shuts down says so", async () => {
    await using own = await serve(["--echo-delay", "1ms"]);
    await using client = start(["chat", "--addr", own.addr, "--interval", "10m"]);
    await client.output(/^< echo/m);
    own.child.kill("SIGINT");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(
      /^stream closed by server, got 1 echo · UNAVAILABLE · server shutting down · /,
    );
    expect(code).toBe(78);
  });

  test("a server that is killed is a lost network", async () => {
    await using own = await serve(["--echo-delay", "1ms"]);
    await using client = start(["chat", "--addr", own.addr, "--interval", "10m"]);
    await client.output(/^< echo/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(/^stream lost, got 1 echo · UNAVAILABLE · network lost · /);
    expect(code).toBe(78);
  });

  test("no server is exit 78", async () => {
    const port = await closedPort();
    const { stderr, code } = await brewctl(["chat", "--addr", `127.0.0.1:${port}`]);
    expect(stderr).toContain(`no server at 127.0.0.1:${port}\n`);
    expect(code).toBe(78);
  });
});

test.each([
  ["C1, which some terminals obey", "\u009b31m", "\\u009b31m"],
  ["what turns the direction of writing", "\u202eexe.gpj", "\\u202eexe.gpj"],
  ["what hides", "a\u200bb", "a\\u200bb"],
])("characters that are no text are spelled out, in ndjson too: %s", async (_, text, spelled) => {
  for (const output of ["text", "ndjson"]) {
    const args = ["chat", "--addr", addr, "--input", "-", "-q", "-o", output];
    const { stdout } = await brewctl(args, { input: `${text}\n` });
    expect(stdout).toContain(spelled);
    expect(stdout).not.toContain(text);
    if (output === "ndjson") {
      expect(JSON.parse(stdout).text).toBe(`echo: ${text}`);
    }
  }
});
