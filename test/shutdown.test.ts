/** Signals that end the program, and those that its parent had ignored, which do not. */

import { afterAll, beforeAll, expect, test } from "vitest";
import {
  launcher,
  type Running,
  type Served,
  serve,
  start,
  startProgram,
} from "./support/brewctl.ts";

let server: Served;
beforeAll(async () => {
  server = await serve(["--tick", "1ms"]);
});
afterAll(() => server[Symbol.asyncDispose]());

/** Starts an endless subscription by a shell script, whose `$0` and `$@` are its command line. */
const subscribedBy = (script: string) =>
  startProgram("sh", ["-c", script, launcher, "subscribe", "--addr", server.addr, "-n", "0"]);

/** Resolves when a subscription has gone on for a while, or rejects when it has ended. */
async function moreEvents(client: Running): Promise<void> {
  const seen = client.stdout.match(/^\[\d+\]/gm)?.length ?? 0;
  await client.output(new RegExp(`^\\[${seen + 100}\\]`, "m"));
}

test("SIGHUP stops a server gracefully with 0, as SIGTERM does", async () => {
  await using own = await serve();
  own.child.kill("SIGHUP");
  const { stderr, code } = await own.ended;
  expect(stderr).toMatch(/\ngraceful stop\n$/);
  expect(code).toBe(0);
});

test("a client dies of SIGHUP itself, with its verdict", async () => {
  await using client = start(["subscribe", "--addr", server.addr, "-n", "0"]);
  await client.output(/^\[1\]/m);
  client.child.kill("SIGHUP");
  const { stderr, signal } = await client.ended;
  expect(signal).toBe("SIGHUP");
  expect(stderr).toMatch(/stream cancelled by client, got \d+ events? · SIGHUP · /);
});

test.each(["SIGHUP", "SIGINT"] as const)(
  "%s that was ignored at the start stays ignored",
  async (signal) => {
    const name = signal.slice("SIG".length);
    await using client = subscribedBy(`trap '' ${name}; exec "$0" "$@"`);
    await client.output(/^\[1\]/m);
    client.child.kill(signal);
    await moreEvents(client);
    client.child.kill("SIGTERM");
    const ended = await client.ended;
    expect(ended.signal).toBe("SIGTERM");
    expect(ended.stderr).toMatch(/stream cancelled by client, .* · SIGTERM · /);
  },
);

test("a background job of a script ignores SIGINT, as every shell arranges it", async () => {
  await using script = subscribedBy(`"$0" "$@" & echo "pid=$!" >&2; wait`);
  const [, pid] = await script.output(/pid=(\d+)/);
  await script.output(/^\[1\]/m);
  process.kill(Number(pid), "SIGINT");
  await moreEvents(script);
  process.kill(Number(pid), "SIGTERM");
  expect((await script.ended).stderr).toMatch(/stream cancelled by client, .* · SIGTERM · /);
});
