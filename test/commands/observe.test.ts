/** `--timeline`, `--stats` and `--explain` on the real program: where they go, and what they refuse. */

import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { maxGatheredMessages } from "../../src/grpc/batch.ts";
import { brewctl, type Served, serve, start } from "../support/brewctl.ts";
import { serveHandlers } from "../support/serve-handlers.ts";
import { closedPort, tempFolder } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve(["--tick", "2ms", "--echo-delay", "20ms"]);
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

describe("--timeline", () => {
  test("into a pipe: a finished picture on stderr, and the data as ever on stdout", async () => {
    const { stdout, stderr, code } = await brewctl([
      ...["chat", "--addr", addr, "--interval", "5ms", "--timeline"],
    ]);
    expect(stdout.match(/^< echo from server: echo: ping \d$/gm)).toHaveLength(5);
    expect(stdout).not.toContain("received");
    const lines = stderr.split("\n");
    const at = lines.findIndex((line) => line.startsWith("sent "));
    expect(lines[at - 1]).toMatch(/^ {11}0 ms/);
    expect(lines[at]).toMatch(/^sent {7}.*┤$/);
    expect(lines[at + 1]).toMatch(/^received {3}.*■$/);
    expect(lines[at + 2]).toMatch(/^in flight {2} *[▁▂▃▄▅▆▇█]/);
    // Wrapped, wherever the widths of the numbers let it.
    const words = stderr.replaceAll("\n", " ");
    expect(words).toMatch(/5 sent by [\d.]+ m?s · half-close at/);
    expect(words).toMatch(/at most [1-5] in flight/);
    expect(stderr).toMatch(/stream closed by server, got 5 echoes · OK · .*\n$/);
    expect(stderr).not.toContain("\x1b");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(90);
    expect(code).toBe(0);
  });

  test.each<[string, Record<string, string>, boolean]>([
    ["LC_ALL=C", { LC_ALL: "C" }, false],
    ["LANG=en_US.ISO-8859-1", { LANG: "en_US.ISO-8859-1" }, false],
    ["TERM=linux", { TERM: "linux" }, false],
    ["LANG=C.UTF-8", { LANG: "C.UTF-8" }, true],
    ["LC_ALL before LANG", { LC_ALL: "C", LANG: "C.UTF-8" }, false],
  ])("with %s", async (_, env, isUnicode) => {
    const args = ["chat", "--addr", addr, "--interval", "0", "-q", "--timeline"];
    const { stderr } = await brewctl(args, { env });
    expect(/^sent {7}.*┤$/m.test(stderr)).toBe(isUnicode);
    expect(/^sent {7} *[o\d+-]+ *\|$/m.test(stderr)).toBe(!isUnicode);
  });

  test("COLUMNS is the width where there is no terminal", async () => {
    const args = ["chat", "--addr", addr, "--interval", "0", "-q", "--timeline"];
    const { stderr } = await brewctl(args, { env: { COLUMNS: "30" } });
    expect(stderr).toMatch(/^sent /m);
    for (const line of stderr.split("\n")) {
      expect(line.length).toBeLessThanOrEqual(30);
    }
  });

  test("beside ndjson the data stays what the next program reads", async () => {
    const { stdout } = await brewctl(["chat", "--addr", addr, "-o", "ndjson", "--timeline"]);
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line).text),
    ).toEqual([1, 2, 3, 4, 5].map((i) => `echo: ping ${i}`));
  });

  test("of a call that failed", async () => {
    const { stderr, code } = await brewctl([
      // The deadline includes the dial, which takes long on a busy machine.
      ...["chat", "--addr", addr, "--no-half-close", "--deadline", "3s", "--timeline"],
    ]);
    expect(stderr).toMatch(/^received {3}.*■$/m);
    expect(stderr.replaceAll("\n", " ")).toContain("DEADLINE_EXCEEDED at");
    expect(stderr).not.toContain("half-close at");
    expect(code).toBe(68);
  });

  test("of a call that never came about there is none", async () => {
    const { stderr, code } = await brewctl([
      ...["chat", "--addr", `127.0.0.1:${await closedPort()}`, "--timeline", "--stats"],
    ]);
    expect(stderr).toMatch(/^brewctl: UNAVAILABLE: no server at .*\n {2}start one with: .*\n$/);
    expect(code).toBe(78);
  });

  test("of a call that was cut short by Ctrl+C", async () => {
    await using client = start([
      ...["chat", "--addr", addr, "--no-half-close", "--timeline", "--interval", "1ms"],
    ]);
    await client.output(/echo: ping 5/);
    client.child.kill("SIGINT");
    const { signal, stderr } = await client.ended;
    expect(signal).toBe("SIGINT");
    expect(stderr).toMatch(/^sent {7}.*✗$/m);
    expect(stderr.replaceAll("\n", " ")).toContain("cancelled at");
  });

  test("an upload shows write() answering false, the pause and the drain", async () => {
    const read = Promise.withResolvers<void>();
    await using slow = await serveHandlers({
      async uploadOrders(orders) {
        await read.promise;
        let received = 0;
        for await (const _ of orders) {
          received += 1;
        }
        return { received, accepted: received };
      },
    });
    await using client = start([
      ...["upload", "--addr", `127.0.0.1:${slow.port}`, "--count", "10000", "--pause", "0"],
      ...["-o", "ndjson", "--timeline", "--stats", "--explain"],
    ]);
    // The pauses at first are the socket's. The windows are full when nothing moves any more.
    let told = -1;
    while (told < client.stderr.length) {
      told = client.stderr.length;
      await brewctl(["chat", "--addr", addr, "-n", "3"]);
    }
    read.resolve();
    const { stdout, stderr, code } = await client.ended;
    expect(JSON.parse(stdout).received).toBe(10_000);
    expect(stderr).toMatch(/^blocked {4}.*█/m);
    expect(stderr.replaceAll("\n", " ")).toMatch(/answered false \d+ times, blocked for/);
    expect(stderr).toMatch(/write\(\) answered false: .*backpressure/);
    expect(stderr).toMatch(/ {2}drain, after [\d.]+ m?s: we go on\./);
    const { stats } = JSON.parse(/^\{"stats".*$/m.exec(stderr)?.[0] ?? "");
    expect(stats.blockedMs).toBeGreaterThan(60);
    // As many gather as are on their way.
    expect(stats.maxInFlight).toBe(2 * maxGatheredMessages);
    expect(code).toBe(0);
  });
});

describe("--timeline FILE.svg", () => {
  const chat = (...args: string[]) =>
    brewctl(["chat", "--addr", addr, "--interval", "0", "-n", "3", ...args]);

  test("is written, and said so", async () => {
    using folder = tempFolder();
    const file = folder.file("chat.svg");
    const { stderr, code } = await chat("--timeline", file);
    expect(code).toBe(0);
    expect(stderr).toContain(`timeline written to ${file}\n`);
    expect(stderr).not.toMatch(/^sent /m);
    const svg = readFileSync(file, "utf8");
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg"/);
    expect(svg).toContain("<title>orders.v1.StreamingService/Chat</title>");
    expect(svg).toContain("3 sent by");
  });

  test("of a call that failed, too", async () => {
    using folder = tempFolder();
    const file = folder.file("chat.svg");
    const { code } = await chat("--no-half-close", "--deadline", "2s", `--timeline=${file}`);
    expect(code).toBe(68);
    expect(readFileSync(file, "utf8")).toContain("end: DEADLINE_EXCEEDED");
  });

  test("stays when there was no call", async () => {
    using folder = tempFolder();
    const file = folder.file("chat.svg");
    writeFileSync(file, "precious");
    const nobody = `127.0.0.1:${await closedPort()}`;
    const { code } = await brewctl(["chat", "--addr", nobody, "--timeline", file, "--force"]);
    expect(code).toBe(78);
    expect(readFileSync(file, "utf8")).toBe("precious");
  });

  test("with --force an old one is replaced", async () => {
    using folder = tempFolder();
    const file = folder.file("chat.svg");
    writeFileSync(file, "old".repeat(100_000));
    expect((await chat("--timeline", file, "--force")).code).toBe(0);
    expect(readFileSync(file, "utf8")).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
  });

  test("one that appears during the call is not written over", async () => {
    using folder = tempFolder();
    const file = folder.file("chat.svg");
    await using client = start([...["chat", "--addr", addr, "--timeline", file, "--input", "-"]], {
      openStdin: true,
    });
    client.child.stdin?.write("hello\n");
    await client.output(/echo: hello/);
    writeFileSync(file, "precious");
    client.child.stdin?.end();
    const { stderr, code } = await client.ended;
    expect(code).toBe(2);
    expect(stderr).toMatch(/stream closed by server, got 1 echo · OK/);
    expect(stderr).toMatch(/brewctl: --timeline .*: there is a file now, and it was left alone/);
    expect(readFileSync(file, "utf8")).toBe("precious");
  });

  describe("is refused before anything is sent", () => {
    const refused = async (args: string[], message: string, cwd?: string) => {
      const { stdout, stderr, code } = await brewctl(
        ["upload", "--addr", addr, ...args],
        cwd === undefined ? {} : { cwd },
      );
      expect(stdout).toBe("");
      expect(stderr).toContain(message);
      expect(stderr).not.toContain("stream");
      expect(code).toBe(2);
    };

    test("a folder that is missing", () =>
      refused(
        ["--timeline", "/nowhere/a.svg"],
        "--timeline /nowhere/a.svg: there is no folder /nowhere",
      ));

    test("a file that exists", async () => {
      using folder = tempFolder();
      writeFileSync(folder.file("a.svg"), "precious");
      await refused(
        ["--timeline", "a.svg"],
        "--timeline a.svg: there is a file already\n  write over it with --force",
        folder.path,
      );
      expect(readFileSync(folder.file("a.svg"), "utf8")).toBe("precious");
    });

    test("a folder in its place, even with --force", async () => {
      using folder = tempFolder();
      mkdirSync(folder.file("a.svg"));
      await refused(
        ["--timeline", "a.svg", "--force"],
        "expected a file, not a folder",
        folder.path,
      );
    });

    test("a file where the folder should be", async () => {
      using folder = tempFolder();
      writeFileSync(folder.file("a"), "");
      await refused(["--timeline", "a/b.svg"], "--timeline a/b.svg: a is no folder", folder.path);
    });

    test("a pipe or a device, even with --force", async () => {
      using folder = tempFolder();
      symlinkSync("/dev/null", folder.file("a.svg"));
      const args = ["--timeline", "a.svg", "--force"];
      await refused(args, "expected a file, not a device or a pipe", folder.path);
    });

    test("a link that leads nowhere", async () => {
      using folder = tempFolder();
      symlinkSync("nowhere.svg", folder.file("a.svg"));
      await refused(["--timeline", "a.svg"], "there is a file already", folder.path);
    });

    test("another kind of picture", () =>
      refused(["--timeline", "a.png"], "expected a file that ends in .svg"));

    test("--force with nothing to force", () => refused(["--force"], "--force goes with a file"));
  });
});

describe("--stats", () => {
  const stats = async (...args: string[]) => {
    const { stderr, stdout, code } = await brewctl([...args, "--addr", addr, "--stats", "-q"]);
    expect(code).toBe(0);
    return { stderr, stdout };
  };

  test("of a subscription, for people", async () => {
    const { stderr, stdout } = await stats("subscribe", "-n", "20");
    expect(stdout).not.toContain("p95");
    expect(stderr).toMatch(
      /^messages {13}1 sent, 20 received in [\d.]+ m?s, [\d.]+\/s; first received after [\d.]+ m?s$/m,
    );
    expect(stderr).toMatch(
      /^from one to the next p50 [\d.]+ m?s · p95 [\d.]+ m?s · p99 [\d.]+ m?s · max [\d.]+ m?s$/m,
    );
    expect(stderr).toMatch(/^waiting {14}at most \d+$/m);
    expect(stderr).toMatch(
      /^backpressure {9}0 ms in 0 pauses of sending, 0 ms waiting for standard output$/m,
    );
  });

  test("of a chat, as a line of JSON: the round trip is no shorter than the echo's delay", async () => {
    const { stderr } = await stats("chat", "-n", "5", "--interval", "0", "-o", "ndjson");
    const { stats: report } = JSON.parse(stderr);
    expect(report).toMatchObject({ sent: 5, received: 5, blockedTimes: 0 });
    expect(report.roundTripMs.p50).toBeGreaterThanOrEqual(19);
    expect(report.maxInFlight).toBeGreaterThan(1);
  });

  test("of an upload", async () => {
    const { stderr } = await stats("upload", "-n", "10", "--pause", "5ms", "-o", "ndjson");
    const { stats: report } = JSON.parse(stderr);
    expect(report).toMatchObject({ sent: 10, received: 1 });
    expect(report.firstMessageMs).toBeGreaterThanOrEqual(45);
    expect(report.betweenMs.max).toBeGreaterThan(1);
  });

  test("over a connection that was lost and dialled anew, all of it counts", async () => {
    await using first = await serve(["--tick", "5ms"]);
    await using client = start([
      ...["subscribe", "--addr", first.addr, "-n", "10", "--reconnect", "--stats", "-o", "ndjson"],
    ]);
    await client.output(/orderId/);
    first.child.kill("SIGKILL");
    await client.output(/attempt 1 to reconnect/);
    await using again = start(["serve", "--addr", first.addr, "--tick", "5ms"]);
    await again.output(/started/);
    const { stderr } = await client.ended;
    const { stats: report } = JSON.parse(/^\{"stats".*$/m.exec(stderr)?.[0] ?? "");
    expect(report.received).toBe(10);
    expect(report.sent).toBe(2);
  });

  test("a slow reader of our output is backpressure, too", async () => {
    await using fast = await serve(["--tick", "0"]);
    await using client = start([
      ...[
        "subscribe",
        "--addr",
        fast.addr,
        "-n",
        "0",
        "--stats",
        "--timeline",
        "-q",
        "-o",
        "ndjson",
      ],
    ]);
    client.child.stdout?.pause();
    // Meanwhile the pipe fills, and the program has to wait.
    await brewctl(["chat", "--addr", addr, "-n", "20", "--interval", "100ms"]);
    client.child.stdout?.resume();
    await client.output(/orderId/);
    client.child.kill("SIGTERM");
    const { stderr } = await client.ended;
    expect(stderr).toMatch(/^blocked {4}.*[▁-█]/m);
    expect(stderr.replaceAll("\n", " ")).toContain("nobody read our output for");
    const { stats: report } = JSON.parse(/^\{"stats".*$/m.exec(stderr)?.[0] ?? "");
    expect(report.outputBlockedMs).toBeGreaterThan(20);
    expect(report.outputBlockedMs).toBeLessThan(report.elapsedMs);
  });
});

describe("--explain", () => {
  test("tells a subscription, between its events", async () => {
    const { stderr, stdout, code } = await brewctl([
      ...["subscribe", "--addr", addr, "-n", "2", "--explain", "--deadline", "1m"],
    ]);
    const told = stderr.split("\n").filter((line) => /^ *[\d.]+ m?s /.test(line));
    expect(told.map((line) => /(→|←) [^ :.]+/.exec(line)?.[0])).toEqual([
      "→ HEADERS",
      "→ DATA",
      "→ END_STREAM",
      "← HEADERS",
      "← DATA",
      "← DATA",
      "← HEADERS,",
    ]);
    expect(told[0]).toContain("grpc-timeout");
    expect(stdout.match(/order_id/g)).toHaveLength(2);
    expect(code).toBe(0);
  });

  test("has the last word before the verdict, and tells a cancel once", async () => {
    const { stderr } = await brewctl([
      ...["chat", "--addr", addr, "-n", "5", "--limit", "5", "--interval", "0", "--explain"],
    ]);
    expect(stderr.match(/RST_STREAM/g)).toHaveLength(1);
    expect(stderr).toMatch(/\nstream cancelled by client, got 5 echoes · limit reached · .*\n$/);
  });

  test("tells no more than is read", async () => {
    await using fast = await serve(["--tick", "0"]);
    await using client = start([
      ...["subscribe", "--addr", fast.addr, "-n", "20000", "--explain", "-o", "ndjson"],
    ]);
    client.child.stderr?.pause();
    let received = 0;
    client.child.stdout?.on("data", (text: string) => {
      received += text.split("\n").length - 1;
    });
    // All of it came, although nobody reads what is told of it.
    await new Promise<void>((resolve) => {
      client.child.stdout?.on("data", () => received >= 20_000 && resolve());
    });
    client.child.stderr?.resume();
    const { stderr, code } = await client.ended;
    // All of it told would be more than 800,000.
    expect(stderr.length).toBeLessThan(500_000);
    expect(code).toBe(0);
  });

  test("tells why a call was refused", async () => {
    await using other = await serveHandlers({
      // biome-ignore lint/correctness/useYield: it refuses
      async *subscribe() {
        throw new Error("a fault");
      },
    });
    const { stderr } = await brewctl([
      ...["subscribe", "--addr", `127.0.0.1:${other.port}`, "--explain"],
    ]);
    expect(stderr).toMatch(/ends with 13 INTERNAL: internal error/);
  });

  test("what a server says cannot move the cursor", async () => {
    const { StatusError } = await import("../../src/errors.ts");
    await using other = await serveHandlers({
      // biome-ignore lint/correctness/useYield: it refuses
      async *subscribe() {
        throw new StatusError("ABORTED", "\x1b[2J gone");
      },
    });
    const { stderr } = await brewctl([
      ...["subscribe", "--addr", `127.0.0.1:${other.port}`, "--explain"],
    ]);
    expect(stderr).toContain("\\u001b[2J gone");
    expect(stderr).not.toContain("\x1b");
  });
});
