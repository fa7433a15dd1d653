/** `brewctl serve`: where it listens, what it logs, and how it stops. */

import { once } from "node:events";
import { existsSync, statSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { describe, expect, test } from "vitest";
import { brewctl, serve, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

describe("log", () => {
  test("the first line tells the address as asked for, and the real port", async () => {
    await using own = await serve();
    const port = own.addr.split(":")[1];
    expect(own.stderr).toBe(
      `streaming-server started addr=127.0.0.1:0 tick=1s echo_delay=200ms port=${port}\n`,
    );
    expect(own.stdout).toBe("");
  });

  test.each([":0", "0.0.0.0:0", "[::]:0"])("%s is told to be open to all", async (addr) => {
    await using own = start(["serve", "--addr", addr, "--memory"]);
    await own.output(
      /^listening on all interfaces: anyone .* only_this_machine="--addr localhost:0"$/m,
    );
  });

  test.each([
    ["-tick=20ms", "-echo-delay=1m30s"],
    ["-tick", "20ms", "-echo-delay", "1m30s"],
    ["--tick", "20ms", "--echo-delay", "90s"],
  ])("durations are Go's: %s %s", async (...args) => {
    await using own = await serve(args);
    expect(own.stderr).toContain(" tick=20ms echo_delay=1m30s ");
  });

  test("no tick and no delay at all", async () => {
    await using own = await serve(["--tick", "0", "--echo-delay", "0"]);
    expect(own.stderr).toContain(" tick=0s echo_delay=0s ");
    const { code } = await brewctl(["subscribe", "--addr", own.addr, "-n", "100", "-q"]);
    expect(code).toBe(0);
  });

  test.each([
    [["--log-format", "json"], {}] as const,
    [[], { BREWCTL_LOG_FORMAT: "json" }] as const,
  ])("json has the same fields: %j %j", async (args, env) => {
    await using own = await serve(["--tick", "1ms", ...args], { env: { ...env } });
    await brewctl(["subscribe", "--addr", own.addr, "-n", "2"]);
    await own.output(/subscribe ended/);
    own.child.kill("SIGTERM");
    const { stderr } = await own.ended;
    const lines = stderr
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    const common = { time: expect.stringMatching(/^\d{4}-.*Z$/), level: "info" };
    expect(lines).toEqual([
      {
        ...common,
        msg: "streaming-server started",
        addr: "127.0.0.1:0",
        tick: "1ms",
        echo_delay: "200ms",
        port: Number(own.addr.split(":")[1]),
      },
      { ...common, msg: "subscribe started", customer_id: "", limit: 2 },
      { ...common, msg: "subscribe ended: limit reached", sent: 2 },
      { ...common, msg: "graceful stop" },
    ]);
  });

  test("a customer's name cannot forge a line of the log", async () => {
    await using own = await serve(["--tick", "1ms"]);
    await brewctl(["subscribe", "--addr", own.addr, "-n", "1", "--customer", "a\ngraceful stop"]);
    await own.output(/^subscribe ended/m);
    expect(own.stderr).toContain('customer_id="a\\ngraceful stop" limit=1\n');
  });
});

describe("where", () => {
  test("BREWCTL_LISTEN is read, and the flag wins", async () => {
    await using read = start(["serve"], { env: { BREWCTL_LISTEN: "127.0.0.1:0" } });
    await read.output(/addr=127\.0\.0\.1:0 /);
    await using own = await serve([], { env: { BREWCTL_LISTEN: "nonsense" } });
    expect(own.stderr).toContain("addr=127.0.0.1:0 ");
  });

  test("all interfaces is the address without a host", async () => {
    await using own = start(["serve", "--addr", ":0"]);
    const [, port] = await own.output(/addr=:0 .*port=(\d+)/);
    for (const host of ["127.0.0.1", "localhost", ""]) {
      const { code } = await brewctl(["chat", "--addr", `${host}:${port}`, "-n", "0"]);
      expect(code).toBe(0);
    }
  });

  test("an address in use is refused with a hint", async () => {
    await using own = await serve();
    const { stdout, stderr, code } = await brewctl(["serve", "--addr", own.addr]);
    expect(stdout).toBe("");
    expect(stderr).toMatch(
      new RegExp(`^brewctl: cannot listen on ${own.addr}: it is already in use\n  .*--addr`),
    );
    expect(code).toBe(2);
  });

  test("a host that is unknown is refused", async () => {
    const { stderr, code } = await brewctl(["serve", "--addr", "no-such-host.invalid:0"]);
    expect(stderr).toContain("cannot listen on no-such-host.invalid:0: no such host");
    expect(code).toBe(2);
  });

  test.each(["50052", "localhost", ":70000", "unix:", "[::1", "http://localhost:50052", ""])(
    "the address %j is refused",
    async (address) => {
      const { stderr, code } = await brewctl(["serve", "--addr", address]);
      expect(stderr).toContain(`--addr <address>' argument '${address}' is invalid. expected `);
      expect(code).toBe(2);
    },
  );

  test("a unix socket is for whom --socket-mode says", async () => {
    using folder = tempFolder();
    const path = folder.file("brew.sock");
    await using own = start(["serve", "--addr", `unix:${path}`, "--socket-mode", "0600"]);
    await own.output(/streaming-server started/);
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test.each(["66", "0888", "0060", "rw", "01777"])("--socket-mode %s is refused", async (mode) => {
    const { stderr, code } = await brewctl(["serve", "--socket-mode", mode]);
    expect(stderr).toContain("expected three octal digits from 600 to 777, such as 0660");
    expect(code).toBe(2);
  });

  test("a unix socket is listened on, and gone afterwards", async () => {
    using folder = tempFolder();
    const path = folder.file("brew.sock");
    await using own = start(["serve", "--addr", `unix:${path}`]);
    await own.output(/streaming-server started/);
    expect(own.stderr).not.toContain("port=");
    const { code } = await brewctl(["chat", "--addr", `unix:${path}`, "-n", "1"]);
    expect(code).toBe(0);
    own.child.kill("SIGTERM");
    expect((await own.ended).code).toBe(0);
    expect(existsSync(path)).toBe(false);
  });

  test("a socket that a killed server left behind is no hindrance", async () => {
    using folder = tempFolder();
    const path = folder.file("brew.sock");
    await using first = start(["serve", "--addr", `unix:${path}`]);
    await first.output(/streaming-server started/);
    const busy = await brewctl(["serve", "--addr", `unix:${path}`]);
    expect(busy.stderr).toContain("already in use");
    expect(busy.code).toBe(2);
    first.child.kill("SIGKILL");
    await first.ended;
    expect(existsSync(path)).toBe(true);
    await using second = start(["serve", "--addr", `unix:${path}`]);
    await second.output(/streaming-server started/);
  });

  test("a file in the way is left alone", async () => {
    using folder = tempFolder();
    const path = folder.file("precious");
    writeFileSync(path, "precious");
    const { stderr, code } = await brewctl(["serve", "--addr", `unix:${path}`]);
    expect(stderr).toContain("a file that is no socket is in the way");
    expect(code).toBe(2);
    expect(existsSync(path)).toBe(true);
  });

  test("a folder that is missing is named", async () => {
    using folder = tempFolder();
    const { stderr, code } = await brewctl([
      "serve",
      "--addr",
      `unix:${folder.file("no/brew.sock")}`,
    ]);
    expect(stderr).toContain("no such folder");
    expect(code).toBe(2);
  });
});

describe("stop", () => {
  test.each(["SIGINT", "SIGTERM"] as const)("%s is a graceful stop with 0", async (signal) => {
    await using own = await serve();
    own.child.kill(signal);
    const { stderr, code } = await own.ended;
    expect(stderr).toMatch(/\ngraceful stop\n$/);
    expect(code).toBe(0);
  });

  test("an endless subscriber does not hold it up", async () => {
    await using own = await serve(["--tick", "1ms", "--grace", "10m"]);
    await using client = start(["subscribe", "--addr", own.addr, "--limit", "0"]);
    await client.output(/^\[1\]/m);
    own.child.kill("SIGTERM");
    const { stderr, code } = await own.ended;
    expect(stderr).toMatch(/^subscribe ended: server shutting down sent=\d+$/m);
    expect(code).toBe(0);
    expect((await client.ended).code).toBe(78);
  });

  test("a second Ctrl+C cuts the grace short, and it is still 0", async () => {
    await using own = await serve(["--grace", "10m"]);
    await using client = start(["upload", "--addr", own.addr, "--pause", "10m"]);
    await client.output(/^sent #0/m);
    // Another call's answer: by then the server has read what was sent to it before.
    expect((await brewctl(["chat", "--addr", own.addr, "-n", "0"])).code).toBe(0);
    own.child.kill("SIGINT");
    await own.output(/^graceful stop$/m);
    own.child.kill("SIGINT");
    expect((await own.ended).code).toBe(0);
    expect((await client.ended).code).toBe(78);
  });

  test.each(["tcp", "unix"])("a %s peer that never hangs up does not hold it up", async (kind) => {
    using folder = tempFolder();
    const path = folder.file("brew.sock");
    await using own = start(["serve", "--addr", kind === "unix" ? `unix:${path}` : "127.0.0.1:0"]);
    await own.output(/streaming-server started/);
    const port = Number(/port=(\d+)/.exec(own.stderr)?.[1]);
    const peer = connect(kind === "unix" ? { path } : { port, host: "127.0.0.1" });
    // Reads nothing, so it does not even see that the other end has closed.
    peer.pause().on("error", () => {});
    await once(peer, "connect");
    // An HTTP/2 client as far as the server can tell.
    peer.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004\0\0\0\0\0");
    expect(
      (
        await brewctl([
          "chat",
          "--addr",
          kind === "unix" ? `unix:${path}` : `127.0.0.1:${port}`,
          "-n",
          "0",
        ])
      ).code,
    ).toBe(0);
    own.child.kill("SIGTERM");
    expect((await own.ended).code).toBe(0);
    peer.destroy();
  });
});

test("--upload-delay takes its time over each record, and a stop does not wait for it", async () => {
  await using own = await serve(["--upload-delay", "60ms"]);
  expect(own.stderr).toContain("upload_delay=60ms");
  const args = ["upload", "--addr", own.addr, "-n", "5", "--pause", "0", "-o", "ndjson", "--stats"];
  const { stdout, stderr } = await brewctl(args);
  expect(JSON.parse(stdout).received).toBe(5);
  const { stats } = JSON.parse(/^\{"stats".*$/m.exec(stderr)?.[0] ?? "");
  expect(stats.firstMessageMs).toBeGreaterThanOrEqual(299);
  await using slow = start(["upload", "--addr", own.addr, "-n", "100000", "--pause", "0", "-q"]);
  await slow.output(/sent #100 /);
  own.child.kill("SIGTERM");
  own.child.kill("SIGTERM");
  expect((await own.ended).code).toBe(0);
  expect((await slow.ended).code).toBe(78);
});
