/** Every exit code that `brewctl help exit-codes` promises. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type StatusCode, StatusError, statusCodes } from "../../src/errors.ts";
import { brewctl, launcher, type Served, serve, start } from "../support/brewctl.ts";
import { serveHandlers } from "../support/serve-handlers.ts";
import { shell } from "../support/shell.ts";
import { closedPort } from "../support/temp.ts";

let server: Served;
let addr: string;
beforeAll(async () => {
  server = await serve(["--tick", "2ms", "--echo-delay", "1ms"]);
  addr = server.addr;
});
afterAll(() => server[Symbol.asyncDispose]());

const failures = Object.keys(statusCodes).filter((name) => name !== "OK") as Exclude<
  StatusCode,
  "OK"
>[];

test("the help lists every one", async () => {
  const { stdout, stderr, code } = await brewctl(["help", "exit-codes"]);
  for (const line of [
    /^ {2}0 /m,
    /^ {2}1 /m,
    /^ {2}2 /m,
    /^ {2}3 /m,
    /^ {2}4 /m,
    /^ {2}64 \+ n /m,
  ]) {
    expect(stdout).toMatch(line);
  }
  for (const name of failures) {
    expect(stdout).toMatch(new RegExp(`\\b${64 + statusCodes[name]} ${name}\\b`));
  }
  expect(stdout).toMatch(/129, 130, 143/);
  expect(stderr).toBe("");
  expect(code).toBe(0);
});

describe("0", () => {
  test.each([
    ["the server ended the call", ["subscribe"]],
    ["--limit", ["chat", "--limit", "1"]],
    ["--for", ["subscribe", "--for", "50ms", "-o", "ndjson"]],
    ["--expect", ["subscribe", "--expect", "1", "--within", "20s"]],
    ["records were rejected, and nobody asked", ["upload", "--pause", "0"]],
  ])("%s", async (_, args) => {
    expect((await brewctl([...args, "--addr", addr])).code).toBe(0);
  });

  test("the reader closed the pipe", async () => {
    const { stdout } = await shell(
      `brewctl subscribe --limit 0 2>/dev/null | head -1 >/dev/null; echo "\${PIPESTATUS[0]}"`,
      { BREWCTL_ADDR: addr },
      AbortSignal.timeout(25_000),
    );
    expect(stdout).toBe("0\n");
  });
});

test.each([
  ["a flag", ["subscribe", "--limit", "x"]],
  ["a command", ["subscrib"]],
  ["a file", ["upload", "--input", "/no/such/file"]],
  ["an address that is taken", ["serve", "--addr", "ADDR"]],
])("2: %s is wrong", async (_, args) => {
  const { stdout, code } = await brewctl(args.map((arg) => arg.replace("ADDR", addr)));
  expect(stdout).toBe("");
  expect(code).toBe(2);
});

test("2: a line of the input is wrong", async () => {
  const args = ["upload", "--addr", addr, "--input", "-"];
  expect((await brewctl(args, { input: "x\n" })).code).toBe(2);
});

test("3: records were rejected, and --fail-on-rejected asked", async () => {
  const args = ["upload", "--addr", addr, "--fail-on-rejected", "--pause", "0"];
  expect((await brewctl(args)).code).toBe(3);
});

test("4: the expectation was not met, also when records were rejected", async () => {
  const expectation = ["--expect", "20", "--within", "20s"];
  const args = ["upload", "--addr", addr, "--fail-on-rejected", "--pause", "0", ...expectation];
  expect((await brewctl(args)).code).toBe(4);
});

test.each(failures)("64 + n: %s", async (name) => {
  await using own = await serveHandlers({
    // biome-ignore lint/correctness/useYield: it fails before the first event
    async *subscribe() {
      throw new StatusError(name, `because of ${name}`);
    },
  });
  const { stderr, code } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
  expect(stderr).toContain(`brewctl: ${name}: because of ${name}\n`);
  expect(code).toBe(64 + statusCodes[name]);
});

test("68: the deadline is over", async () => {
  const args = ["subscribe", "--addr", addr, "--limit", "0", "--deadline", "500ms"];
  expect((await brewctl(args)).code).toBe(68);
});

test("76: the server has no such method", async () => {
  const { Server, ServerCredentials } = await import("@grpc/grpc-js");
  const other = new Server();
  const port = await new Promise<number>((resolve, reject) => {
    other.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    );
  });
  try {
    const { stderr, code } = await brewctl(["upload", "--addr", `127.0.0.1:${port}`]);
    expect(stderr).toContain("UNIMPLEMENTED");
    expect(code).toBe(76);
  } finally {
    other.forceShutdown();
  }
});

test("78: there is no server", async () => {
  const port = await closedPort();
  expect((await brewctl(["upload", "--addr", `127.0.0.1:${port}`])).code).toBe(78);
});

test.each([
  ["INT", 130],
  ["TERM", 143],
])("by SIG%s a shell sees %i", async (name, code) => {
  const { stdout } = await shell(
    `exec 3< <(exec "${launcher}" subscribe --limit 0 2>/dev/null)
    read -u 3 line; kill -${name} $!; cat <&3 >/dev/null; wait $!; echo $?`,
    { BREWCTL_ADDR: addr },
  );
  expect(stdout).toBe(`${code}\n`);
});

test("a CANCELLED by the server is not a Ctrl+C", async () => {
  await using own = await serveHandlers({
    async *subscribe() {
      yield {};
      throw new StatusError("CANCELLED", "not by you");
    },
  });
  const { stderr, code, signal } = await brewctl(["subscribe", "--addr", `127.0.0.1:${own.port}`]);
  expect(stderr).not.toContain("cancelled by client");
  expect(code).toBe(65);
  expect(signal).toBe(null);
});

test("serve: 0 by either signal", async () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    await using own = start(["serve", "--addr", "127.0.0.1:0"]);
    await own.output(/started/);
    own.child.kill(signal);
    expect(await own.ended).toMatchObject({ code: 0, signal: null });
  }
});
