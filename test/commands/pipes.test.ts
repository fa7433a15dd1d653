/** Standard output and standard error as a shell gives them: pipes that are cut, full, slow or closed. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cleanEnv, launcher, root, type Served, serve } from "../support/brewctl.ts";
import { reap } from "../support/reaper.ts";
import { shell } from "../support/shell.ts";

let server: Served;
let env: Record<string, string>;
beforeAll(async () => {
  server = await serve(["--tick", "0", "--echo-delay", "0"]);
  env = { BREWCTL_ADDR: server.addr };
});
afterAll(() => server[Symbol.asyncDispose]());

const noStack = (text: string) => {
  expect(text).not.toMatch(/^ {4}at /m);
  expect(text).not.toContain("node:");
  expect(text).not.toContain("Error:");
};

describe("a reader that goes", () => {
  test("head -1 ends an endless subscription quietly with 0", async () => {
    await using own = await serve(["--tick", "1ms"]);
    const { stdout, stderr } = await shell(
      `brewctl subscribe --limit 0 | head -1; echo "\${PIPESTATUS[0]}"`,
      { BREWCTL_ADDR: own.addr },
      AbortSignal.timeout(25_000),
    );
    expect(stdout).toMatch(/^\[1\] order_id=.*\n0\n$/);
    expect(stderr).toMatch(
      /^stream cancelled by client, got \d+ events? · reader gone · \d+\.\d\d s\n$/,
    );
    await own.output(/^subscribe ended: client gone sent=\d+$/m);
  });

  test.each([
    "subscribe --limit 0 -o ndjson",
    "subscribe --limit 100000 -q",
    "upload --count 100000 --pause 0",
    "chat --count 100000 --interval 0",
    "chat --count 100000 --interval 0 -o ndjson",
  ])("%s", async (command) => {
    const { stdout, stderr } = await shell(
      `brewctl ${command} | head -1 >/dev/null; echo "\${PIPESTATUS[0]}"`,
      env,
    );
    expect(stdout).toBe("0\n");
    noStack(stderr);
  });

  test("a reader that was never there", async () => {
    const { stdout, stderr } = await shell(
      `brewctl subscribe --limit 0 | true; echo "\${PIPESTATUS[0]}"`,
      env,
    );
    expect(stdout).toBe("0\n");
    noStack(stderr);
  });

  test.each(["help", "help subscribe", "help exit-codes", "--help", "--version", "chat --help"])(
    "%s does not mind",
    async (command) => {
      // By the time Node has started, `true` has ended.
      const { stdout, stderr } = await shell(
        `brewctl ${command} | true; echo "\${PIPESTATUS[0]}"`,
        env,
      );
      expect(stderr).toBe("");
      expect(stdout).toBe("0\n");
    },
  );

  test("a reader of the talk that goes does not matter", async () => {
    const { stdout } = await shell(
      `brewctl subscribe --limit 5 2>&1 >/dev/null | true; echo "\${PIPESTATUS[0]}"`,
      env,
    );
    expect(stdout).toBe("0\n");
  });

  test.each([
    ["subscrib", 2],
    ["subscribe --limit x", 2],
    ["subscribe --addr 127.0.0.1:1", 78],
    ["upload --input /no/such/file", 2],
  ])("%s still exits as it should when nobody reads the error", async (command, code) => {
    const { stdout } = await shell(`brewctl ${command} 2>&1 | true; echo "\${PIPESTATUS[0]}"`, env);
    expect(stdout).toBe(`${code}\n`);
  });

  test("nothing is lost on the way to a reader that stays", async () => {
    const { stdout } = await shell("brewctl subscribe --limit 5000 -q | tail -1", env);
    expect(stdout).toMatch(/^\[5000\] order_id=/);
  });

  test("a reader that begins late gets everything", async () => {
    const { stdout } = await shell("brewctl subscribe --limit 5000 -q | (sleep 1; wc -l)", env);
    expect(stdout.trim()).toBe("5000");
  });
});

describe("output that goes nowhere", () => {
  test("closed standard output", async () => {
    const { stderr, code } = await shell("brewctl subscribe >&-", env);
    expect(stderr).toMatch(/^stream closed by server, got 5 events · OK · limit reached · .*\n$/);
    expect(code).toBe(0);
  });

  test("closed standard error", async () => {
    const { stdout, stderr, code } = await shell("brewctl subscribe 2>&-", env);
    expect(stdout.trimEnd().split("\n")).toHaveLength(5);
    expect(stderr).toBe("");
    expect(code).toBe(0);
  });

  test("closed standard input", async () => {
    const { stdout, code } = await shell("brewctl chat --input - -o ndjson <&-", env);
    expect(stdout).toBe("");
    expect(code).toBe(0);
  });

  test("everything closed", async () => {
    const { code } = await shell("brewctl subscribe <&- >&- 2>&-", env);
    expect(code).toBe(0);
  });

  test("an error with closed standard error still has its code", async () => {
    expect((await shell("brewctl subscribe --limit x 2>&-", env)).code).toBe(2);
  });

  describe.skipIf(!existsSync("/dev/full"))("a full disk", () => {
    test.each(["subscribe", "subscribe --limit 0", "upload --pause 0", "chat", "help"])(
      "%s says so in a sentence",
      async (command) => {
        const { stderr, code } = await shell(`brewctl ${command} >/dev/full`, env);
        expect(stderr).toMatch(/^brewctl: .*(ENOSPC|no space left)/m);
        noStack(stderr);
        expect(code).toBeGreaterThan(0);
      },
    );

    test("for the talk does not matter", async () => {
      const { stdout, code } = await shell("brewctl subscribe 2>/dev/full", env);
      expect(stdout.trimEnd().split("\n")).toHaveLength(5);
      expect(code).toBe(0);
    });
  });
});

/** A subscriber that nobody reads from; killed at the end of the scope. */
function unread(args: readonly string[]): { client: ChildProcess } & AsyncDisposable {
  const client = spawn(launcher, ["subscribe", "--limit", "0", ...args], {
    cwd: root,
    env: cleanEnv(env),
    stdio: ["ignore", "pipe", "pipe"],
  });
  reap(client);
  client.stderr?.resume();
  const closed = once(client, "exit");
  return {
    client,
    async [Symbol.asyncDispose]() {
      client.kill("SIGKILL");
      client.stdout?.destroy();
      await closed;
    },
  };
}

/** Bytes that a process has read and written so far. */
function bytesMoved(pid: number | undefined): number {
  const io = readFileSync(`/proc/${pid}/io`, "utf8");
  return Number(/rchar: (\d+)/.exec(io)?.[1]) + Number(/wchar: (\d+)/.exec(io)?.[1]);
}

/** Waits until a process that was busy neither reads nor writes any more. */
async function stalled(pid: number | undefined): Promise<void> {
  // Once the first events are out, what is left is the time until all buffers are full.
  for (let [before, quiet] = [-1, 0]; quiet < 5; ) {
    await sleep(100);
    const now = bytesMoved(pid);
    quiet = now === before && now > 1_000_000 ? quiet + 1 : 0;
    before = now;
  }
}

describe.skipIf(!existsSync("/proc/self/io"))("a reader that does not read", () => {
  test("stops the stream instead of growing the memory", async () => {
    await using own = unread([]);
    await stalled(own.client.pid);
    const status = readFileSync(`/proc/${own.client.pid}/status`, "utf8");
    const peakKb = Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1]);
    expect(peakKb).toBeLessThan(250_000);
  });

  test.each(["SIGINT", "SIGTERM"] as const)("does not keep it from dying by %s", async (signal) => {
    await using own = unread([]);
    await stalled(own.client.pid);
    const exit = once(own.client, "exit");
    own.client.kill(signal);
    const outcome = await Promise.race([exit, sleep(10_000, "still running", { ref: false })]);
    expect(outcome).toEqual([null, signal]);
  });
});
