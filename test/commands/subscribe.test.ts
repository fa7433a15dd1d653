/** `brewctl subscribe`: its flags, what it prints, and every way in which it ends. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { StatusError } from "../../src/errors.ts";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { serveHandlers } from "../support/serve-handlers.ts";
import { shell } from "../support/shell.ts";
import type { TestServer } from "../support/start-server.ts";
import { closedPort, tempFolder } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve(["--tick", "2ms"]);
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

const subscribe = (...args: string[]) => brewctl(["subscribe", "--addr", addr, ...args]);
const lineCount = (text: string) => text.split("\n").length - 1;
const eventLine =
  /^\[\d+\] order_id=ord-\d{13}-\d+ customer=cus-0\d\d amount=\d{3,4} at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;

describe("output", () => {
  test("text is one numbered line an event", async () => {
    const { stdout, code } = await subscribe("--limit", "3");
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(3);
    lines.forEach((line, i) => {
      expect(line).toMatch(eventLine);
      expect(line.startsWith(`[${i + 1}] `)).toBe(true);
    });
    expect(code).toBe(0);
  });

  test("ndjson is one object a line, int64 as a string", async () => {
    const { stdout, code } = await subscribe("--limit", "2", "-o", "ndjson");
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      expect(line).toMatch(
        /^\{"orderId":"ord-\d{13}-\d+","customerId":"cus-0\d\d","amountCents":\d{3,4},"emittedAt":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"\}$/,
      );
      expect(() => JSON.parse(line)).not.toThrow();
    }
    expect(code).toBe(0);
  });

  test("ndjson has the fields that are at their defaults", async () => {
    await using own = await serveHandlers({
      async *subscribe() {
        yield {};
        yield { orderId: "ord-1", amountCents: 9223372036854775807n };
      },
    });
    const { stdout } = await brewctl([
      "subscribe",
      "--addr",
      `127.0.0.1:${own.port}`,
      "-o",
      "ndjson",
    ]);
    expect(stdout).toBe(
      '{"orderId":"","customerId":"","amountCents":0}\n' +
        '{"orderId":"ord-1","customerId":"","amountCents":"9223372036854775807"}\n',
    );
  });

  test("an event without a time is printed all the same", async () => {
    await using own = await serveHandlers({
      async *subscribe() {
        yield { orderId: "ord-1" };
      },
    });
    const { stdout } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
    expect(stdout).toBe("[1] order_id=ord-1 customer= amount=0 at=?\n");
  });

  test.each(["text", "ndjson"])(
    "an event whose time is impossible is the server's fault, as %s",
    async (output) => {
      await using own = await serveHandlers({
        async *subscribe() {
          yield { orderId: "ord-1", emittedAt: { seconds: 2n ** 60n } };
        },
      });
      const { stdout, stderr, code } = await brewctl([
        ...["subscribe", "--addr", `127.0.0.1:${own.port}`, "-o", output],
      ]);
      expect(stdout).toBe("");
      expect(stderr).toContain(
        "brewctl: DATA_LOSS: the server sent Subscribe an answer that is out of bounds: emitted_at.seconds is 1152921504606846976; expected -62135596800 to 253402300799\n",
      );
      expect(code).toBe(79);
    },
  );

  test("control characters of the server are spelled out in text", async () => {
    await using own = await serveHandlers({
      async *subscribe() {
        yield { orderId: "a\x1b[2Jb\nc", customerId: "d\r\u0085e\u2028f" };
      },
    });
    const { stdout } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
    expect(stdout).toBe(
      "[1] order_id=a\\u001b[2Jb\\u000ac customer=d\\u000d\\u0085e\\u2028f amount=0 at=?\n",
    );
  });

  test("each event is written when it comes", async () => {
    const more = Promise.withResolvers<void>();
    await using own = await serveHandlers({
      async *subscribe() {
        yield { orderId: "ord-1" };
        await more.promise;
        yield { orderId: "ord-2" };
      },
    });
    await using client = start(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
    await client.output(/ord-1/);
    expect(client.stdout).not.toContain("ord-2");
    more.resolve();
    await client.output(/ord-2/);
    expect((await client.ended).code).toBe(0);
  });

  test("upload reads what subscribe prints", async () => {
    const { stdout, code } = await shell(
      `set -o pipefail
      brewctl subscribe --limit 10 -o ndjson 2>/dev/null | brewctl upload --input - -o ndjson 2>/dev/null`,
      { BREWCTL_ADDR: addr },
    );
    expect(stdout).toMatch(/^\{"received":10,"accepted":10,"rejected":0,"totalCents":\d+\}\n$/);
    expect(code).toBe(0);
  });
});

describe("flags", () => {
  test("the default limit is five", async () => {
    const { stdout, stderr, code } = await subscribe();
    expect(lineCount(stdout)).toBe(5);
    expect(stderr).toMatch(
      /^stream closed by server, got 5 events · OK · limit reached · \d+\.\d\d s\n$/,
    );
    expect(code).toBe(0);
  });

  test.each([
    ["-limit=3"],
    ["--limit=3"],
    ["-limit", "3"],
    ["--limit", "3"],
    ["-n", "3"],
    ["-n3"],
    ["-limit", "+3"],
  ])("limit as %s %s", async (...args) => {
    const { stdout, code } = await subscribe(...args);
    expect(lineCount(stdout)).toBe(3);
    expect(code).toBe(0);
  });

  test("the last of two equal flags counts", async () => {
    expect(lineCount((await subscribe("--limit", "4", "-limit=2")).stdout)).toBe(2);
  });

  test.each(["0", "-1", "-2147483647"])("a limit of %s is endless", async (limit) => {
    const args = ["subscribe", "--addr", addr, "-limit", limit];
    await using client = start(args);
    await client.output(/^\[20\]/m);
    client.child.kill("SIGINT");
    expect((await client.ended).signal).toBe("SIGINT");
  });

  test.each(["-limit=0", "--limit", "-q", "-5", "--", "-o"])(
    "a customer called %s is kept",
    async (customer) => {
      const { stdout, code } = await subscribe("-customer", customer, "-limit=1");
      expect(stdout).toContain(` customer=${customer} `);
      expect(code).toBe(0);
    },
  );

  test("a value behind = may hold anything", async () => {
    const { stdout } = await subscribe("-customer=--limit=2 = x", "-limit=1");
    expect(stdout).toContain(" customer=--limit=2 = x ");
  });

  test("the customer is asked for", async () => {
    const { stdout } = await subscribe("--customer", "cus-042", "--limit", "2");
    expect(stdout.match(/customer=cus-042 /g)).toHaveLength(2);
    await server.output(/^subscribe started customer_id=cus-042 limit=2$/m);
  });

  test("flags may stand before the command", async () => {
    const { stdout, stderr, code } = await brewctl([
      "-q",
      `--addr=${addr}`,
      "-limit=2",
      "subscribe",
      "-o",
      "ndjson",
    ]);
    expect(lineCount(stdout)).toBe(2);
    expect(stderr).toBe("");
    expect(code).toBe(0);
  });

  test("flags before the command may have their values apart", async () => {
    const { stdout, stderr, code } = await brewctl([
      "--addr",
      addr,
      "-o",
      "ndjson",
      "subscribe",
      "-n",
      "2",
    ]);
    expect(stderr).toMatch(/^stream closed by server, got 2 events/);
    expect(lineCount(stdout)).toBe(2);
    expect(code).toBe(0);
  });

  test("quiet silences the talk, not the data", async () => {
    const { stdout, stderr, code } = await subscribe("-q");
    expect(lineCount(stdout)).toBe(5);
    expect(stderr).toBe("");
    expect(code).toBe(0);
  });

  test("quiet does not silence errors", async () => {
    const port = await closedPort();
    const { stderr, code } = await brewctl(["subscribe", "-q", "--addr", `127.0.0.1:${port}`]);
    expect(stderr).toContain(`brewctl: UNAVAILABLE: no server at 127.0.0.1:${port}\n`);
    expect(code).toBe(78);
  });
});

describe("environment", () => {
  test("BREWCTL_ADDR and BREWCTL_OUTPUT are read", async () => {
    const env = { BREWCTL_ADDR: addr, BREWCTL_OUTPUT: "ndjson" };
    const { stdout, code } = await brewctl(["subscribe", "-n", "1"], { env });
    expect(stdout).toMatch(/^\{"orderId":/);
    expect(code).toBe(0);
  });

  test("a flag wins over the environment", async () => {
    const env = { BREWCTL_ADDR: "127.0.0.1:1", BREWCTL_OUTPUT: "ndjson" };
    const { stdout, code } = await brewctl(["subscribe", "--addr", addr, "-o", "text", "-n", "1"], {
      env,
    });
    expect(stdout.trimEnd()).toMatch(eventLine);
    expect(code).toBe(0);
  });

  test("a flag wins over a bad environment", async () => {
    const env = { BREWCTL_ADDR: "nonsense", BREWCTL_OUTPUT: "xml" };
    const { code } = await brewctl(["subscribe", "--addr", addr, "-o", "text", "-n", "1"], { env });
    expect(code).toBe(0);
  });

  test.each([
    ["BREWCTL_ADDR", "nonsense", "expected host:port"],
    ["BREWCTL_ADDR", "localhost:0", "not 0"],
    ["BREWCTL_OUTPUT", "xml", "text, ndjson"],
  ])("a bad %s names the variable", async (name, value, expected) => {
    const { stderr, code } = await brewctl(["subscribe"], { env: { [name]: value } });
    expect(stderr).toContain(name);
    expect(stderr).toContain(`'${value}'`);
    expect(stderr).toContain(expected);
    expect(code).toBe(2);
  });

  test("an empty variable is no variable", async () => {
    const env = { BREWCTL_ADDR: addr, BREWCTL_OUTPUT: "" };
    const { stdout, code } = await brewctl(["subscribe", "-n", "1"], { env });
    expect(stdout.trimEnd()).toMatch(eventLine);
    expect(code).toBe(0);
  });

  test.each(["127.0.0.1", "localhost", ""])(
    "a proxy of the environment is not asked for %s",
    async (host) => {
      const proxy = "http://127.0.0.1:1";
      const { code } = await brewctl(
        ["subscribe", "-n", "1", "--addr", `${host}:${addr.split(":")[1]}`],
        { env: { http_proxy: proxy, https_proxy: proxy, grpc_proxy: proxy } },
      );
      expect(code).toBe(0);
    },
  );
});

describe("verdicts", () => {
  test("one event is not events", async () => {
    const { stderr } = await subscribe("--limit", "1");
    expect(stderr).toMatch(/^stream closed by server, got 1 event · OK · limit reached · /);
  });

  test("a server that ends early had no more", async () => {
    await using own = await serveHandlers({
      async *subscribe() {
        yield {};
      },
    });
    const { stderr, code } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
    expect(stderr).toMatch(/^stream closed by server, got 1 event · OK · server had no more · /);
    expect(code).toBe(0);
  });

  test.each([
    ["SIGINT", "Ctrl+C"],
    ["SIGTERM", "SIGTERM"],
  ] as const)("%s cancels, and is what it dies of", async (signal, why) => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "--limit", "0"]);
    await client.output(/^\[3\]/m);
    client.child.kill(signal);
    const ended = await client.ended;
    expect(ended.signal).toBe(signal);
    const count = lineCount(ended.stdout);
    expect(ended.stderr).toMatch(
      new RegExp(
        `^stream cancelled by client, got ${count} events · ${why.replace("+", "\\+")} · `,
      ),
    );
    await own.output(/^subscribe ended: client gone sent=\d+$/m);
  });

  describe("a server that does not keep to the limit", () => {
    const limited = async (own: TestServer, ...args: string[]) => {
      const addr = `127.0.0.1:${own.port}`;
      return await brewctl(["subscribe", "--addr", addr, "--limit", "3", ...args]);
    };

    test("and sends more is stopped, and no more is printed", async () => {
      await using own = await serveHandlers({
        async *subscribe() {
          for (;;) {
            yield { orderId: "ord-1" };
          }
        },
      });
      const { stdout, stderr, code } = await limited(own);
      expect(lineCount(stdout)).toBe(3);
      expect(stderr).toMatch(
        /^stream cancelled by client, got 3 events · limit reached, and the server sent more than was asked for · /,
      );
      expect(code).toBe(0);
    });

    test("and then says nothing is not waited for", async () => {
      await using own = await serveHandlers({
        async *subscribe(_, { signal }) {
          yield* [{}, {}, {}];
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      });
      const { stdout, stderr, code } = await limited(own);
      expect(lineCount(stdout)).toBe(3);
      expect(stderr).toMatch(/^stream cancelled by client, got 3 events · limit reached · /);
      expect(code).toBe(0);
    });

    test.each(["--reconnect", "-q"])(
      "and is lost behind the last event is as good, with %s",
      async (flag) => {
        await using own = await serveHandlers({
          async *subscribe() {
            yield* [{}, {}, {}];
            throw new StatusError("UNAVAILABLE", "lost");
          },
        });
        const { stdout, code } = await limited(own, flag);
        expect(lineCount(stdout)).toBe(3);
        expect(code).toBe(0);
      },
    );
  });

  test("a deadline ends the call with 68", async () => {
    const { stderr, code } = await subscribe("--limit", "0", "--deadline", "1s");
    expect(stderr).toMatch(
      /^stream ended by deadline, got \d+ events? · DEADLINE_EXCEEDED · deadline 1s · /,
    );
    expect(stderr).toContain("(--deadline)");
    expect(code).toBe(68);
  });

  test("--for is success, whatever the limit", async () => {
    const { stdout, stderr, code } = await subscribe("--for", "150ms", "-o", "ndjson");
    const count = lineCount(stdout);
    expect(stderr).toMatch(
      new RegExp(`^stream cancelled by client, got ${count} events? · --for 150ms · `),
    );
    expect(code).toBe(0);
  });

  test("--idle is success", async () => {
    await using own = await serveHandlers({
      async *subscribe(_, { signal }) {
        yield {};
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
      },
    });
    const { stderr, code } = await brewctl([
      "subscribe",
      "--addr",
      `127.0.0.1:${own.port}`,
      "--idle",
      "2s",
    ]);
    expect(stderr).toMatch(/^stream cancelled by client, got 1 event · idle for 2s · /);
    expect(code).toBe(0);
  });

  test.each(["text", "ndjson"])("an expectation met is success in %s", async (output) => {
    const { stdout, stderr, code } = await subscribe(
      ...["--expect", "3", "--within", "20s", "-o", output],
    );
    expect(lineCount(stdout)).toBe(3);
    expect(stderr).toMatch(
      /^stream cancelled by client, got 3 events · got the expected 3 · \d+\.\d\d s\n$/,
    );
    expect(code).toBe(0);
  });

  test("an expectation not met in time exits 4", async () => {
    const { stderr, code } = await subscribe("--expect", "1000000", "--within", "100ms");
    expect(stderr).toMatch(
      /^stream cancelled by client, got \d+ events? · expected 1000000 within 100ms · /,
    );
    expect(code).toBe(4);
  });

  test("an expectation that the server's end makes unmet exits 4", async () => {
    await using own = await serveHandlers({
      async *subscribe() {
        yield {};
      },
    });
    const { stderr, code } = await brewctl([
      ...["subscribe", "--addr", `127.0.0.1:${own.port}`],
      ...["--expect", "2", "--within", "20s"],
    ]);
    expect(stderr).toMatch(
      /^stream closed by server, got 1 event · OK · server had no more, expected 2 · /,
    );
    expect(code).toBe(4);
  });

  test("a server that shuts down says so", async () => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "--limit", "0"]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGTERM");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(
      /^stream closed by server, got \d+ events · UNAVAILABLE · server shutting down · /,
    );
    expect(code).toBe(78);
    expect((await own.ended).code).toBe(0);
  });

  test("a server that is killed is a lost network", async () => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "--limit", "0"]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr).toMatch(/^stream lost, got \d+ events · UNAVAILABLE · network lost · /);
    expect(code).toBe(78);
  });

  test("the server's own words are the reason otherwise", async () => {
    const { stdout, stderr, code } = await subscribe("--customer", "x".repeat(129));
    expect(stdout).toBe("");
    expect(stderr).toMatch(
      /^stream closed by server, got 0 events · INVALID_ARGUMENT · customer_id has 129 bytes; at most 128 are allowed · /,
    );
    expect(code).toBe(67);
  });

  test("control characters in the server's words are spelled out", async () => {
    await using own = await serveHandlers({
      // biome-ignore lint/correctness/useYield: it fails before the first event
      async *subscribe() {
        throw new StatusError("NOT_FOUND", "no\x1b[31m such\nthing");
      },
    });
    const { stderr, code } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
    expect(stderr).not.toContain("\x1b");
    expect(stderr).toContain("no\\u001b[31m such\\u000athing");
    expect(code).toBe(69);
  });
});

describe("no server", () => {
  test("it says where, and how to start one", async () => {
    const port = await closedPort();
    const { stdout, stderr, code } = await brewctl(["subscribe", "--addr", `localhost:${port}`]);
    expect(stdout).toBe("");
    expect(stderr).toBe(
      `brewctl: UNAVAILABLE: no server at localhost:${port}\n` +
        `  start one with: brewctl serve --addr localhost:${port}\n`,
    );
    expect(code).toBe(78);
  });

  test("no such host is told apart", async () => {
    const { stderr, code } = await brewctl(["subscribe", "--addr", "no-such-host.invalid:50052"]);
    expect(stderr).toMatch(/^brewctl: UNAVAILABLE: no such host: no-such-host\.invalid:50052\n/);
    expect(stderr).not.toContain("    at ");
    expect(code).toBe(78);
  });

  test("no socket is no server", async () => {
    using folder = tempFolder();
    const { stderr, code } = await brewctl([
      "subscribe",
      "--addr",
      `unix:${folder.file("no.sock")}`,
    ]);
    expect(stderr).toContain(`no server at unix:${folder.file("no.sock")}\n`);
    expect(code).toBe(78);
  });

  test("--wait-ready waits until the server comes up", async () => {
    const own = `127.0.0.1:${await closedPort()}`;
    await using client = start(["subscribe", "--addr", own, "--wait-ready", "25s", "-n", "2"]);
    await using _late = start(["serve", "--addr", own, "--tick", "2ms"]);
    const { stdout, code } = await client.ended;
    expect(lineCount(stdout)).toBe(2);
    expect(code).toBe(0);
  });

  test("--wait-ready gives up with 78", async () => {
    const port = await closedPort();
    const { stderr, code } = await brewctl([
      ...["subscribe", "--addr", `127.0.0.1:${port}`, "--wait-ready", "300ms"],
    ]);
    expect(stderr).toContain(`no server at 127.0.0.1:${port} after waiting 0.3 s\n`);
    expect(code).toBe(78);
  });

  test("a deadline bounds the waiting too", async () => {
    const port = await closedPort();
    const { stderr, code } = await brewctl([
      ...["subscribe", "--addr", `127.0.0.1:${port}`, "--wait-ready", "10m", "--deadline", "200ms"],
    ]);
    expect(stderr).toContain("DEADLINE_EXCEEDED");
    expect(code).toBe(68);
  });
});

describe("--reconnect", () => {
  test("the gap ends when the stream is up again, not with the next event", async () => {
    await using first = await serve(["--tick", "20ms"]);
    await using client = start(["subscribe", "--addr", first.addr, "-n", "0", "--reconnect"]);
    await client.output(/^\[3\]/m);
    first.child.kill("SIGKILL");
    await first.ended;
    await using _second = start(["serve", "--addr", first.addr, "--tick", "1h"]);
    await client.output(/^reconnected after /m);
  });

  test("a deadline bounds the waits between attempts", async () => {
    await using own = await serve(["--tick", "20ms"]);
    await using client = start([
      ...["subscribe", "--addr", own.addr, "-n", "0", "--reconnect", "--deadline", "2s"],
    ]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr).toContain("the call was not over after 2s (--deadline)");
    expect(code).toBe(68);
  });

  test("what a server says is spelled out in the notes too", async () => {
    await using rude = await serveHandlers({
      // biome-ignore lint/correctness/useYield: it only refuses
      async *subscribe() {
        throw new StatusError("UNAVAILABLE", "evil \x1b[2J");
      },
    });
    const addr = `127.0.0.1:${rude.port}`;
    const { stderr } = await brewctl(["subscribe", "--addr", addr, "--reconnect=1"]);
    expect(stderr).toContain("evil \\u001b[2J; attempt 1 to reconnect");
    expect(stderr).not.toContain("\x1b");
  });

  test("goes on after a restart, asks for what is left, and tells of the gap", async () => {
    await using first = await serve(["--tick", "20ms"]);
    await using client = start(["subscribe", "--addr", first.addr, "-n", "40", "--reconnect"]);
    await client.output(/^\[3\]/m);
    first.child.kill("SIGKILL");
    await first.ended;
    await client.output(/; attempt 1 to reconnect in \d+\.\d\d s$/m);

    await using second = start(["serve", "--addr", first.addr, "--tick", "1ms"]);
    const { stdout, stderr, code } = await client.ended;
    const [, left] = await second.output(/^subscribe started customer_id="" limit=(\d+)$/m);
    const before = 40 - Number(left);
    expect(before).toBeGreaterThanOrEqual(3);
    expect(before).toBeLessThan(40);
    expect(lineCount(stdout)).toBe(40);
    expect(stdout).toContain("\n[40] ");
    expect(stderr).toMatch(
      /^reconnected after \d+\.\d\d s; events of that time are lost, a stream has no replay$/m,
    );
    expect(stderr).toMatch(/^stream closed by server, got 40 events · OK · limit reached · /m);
    expect(code).toBe(0);
  });

  test("gives up with 78 after as many attempts as were allowed", async () => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "-n", "0", "--reconnect=2"]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGKILL");
    const { stderr, code } = await client.ended;
    expect(stderr.match(/attempt \d to reconnect/g)).toEqual([
      "attempt 1 to reconnect",
      "attempt 2 to reconnect",
    ]);
    expect(stderr).toMatch(/^stream lost, got \d+ events · UNAVAILABLE · network lost · /m);
    expect(code).toBe(78);
  });

  test("a server that shut down is dialled anew too", async () => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "-n", "0", "--reconnect=1"]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGTERM");
    await client.output(/server shutting down; attempt 1 to reconnect/);
    expect((await client.ended).code).toBe(78);
  });

  test("Ctrl+C ends it between two attempts", async () => {
    await using own = await serve(["--tick", "2ms"]);
    await using client = start(["subscribe", "--addr", own.addr, "-n", "0", "--reconnect"]);
    await client.output(/^\[3\]/m);
    own.child.kill("SIGKILL");
    await client.output(/attempt 2 to reconnect/);
    client.child.kill("SIGINT");
    const { stderr, signal } = await client.ended;
    expect(stderr).toMatch(/^stream cancelled by client, got \d+ events · Ctrl\+C · /m);
    expect(signal).toBe("SIGINT");
  });

  test("an error that is no loss is not retried", async () => {
    const { stderr, code } = await subscribe("--customer", "x".repeat(129), "--reconnect");
    expect(stderr).not.toContain("attempt");
    expect(code).toBe(67);
  });
});

test("a unix socket is an address", async () => {
  using folder = tempFolder();
  const own = `unix:${folder.file("brew.sock")}`;
  await using served = start(["serve", "--addr", own, "--tick", "2ms"]);
  await served.output(/streaming-server started/);
  for (const spelling of [own, own.replace("unix:/", "unix:///")]) {
    const { stdout, code } = await brewctl(["subscribe", "--addr", spelling, "-n", "2"]);
    expect(lineCount(stdout)).toBe(2);
    expect(code).toBe(0);
  }
});
