/** A network that breaks, in the middle of a stream: who is told, and what goes on. */

import { expect, test } from "vitest";
import { serve, start } from "../support/brewctl.ts";
import { cutWire } from "../support/cut-wire.ts";

const portOf = (addr: string) => Number(addr.split(":")[1]);

test("a cut network is not taken for the end of the stream, on either side", async () => {
  await using server = await serve(["--tick", "10ms"]);
  await using wire = await cutWire(portOf(server.addr));
  await using client = start(["subscribe", "--addr", `127.0.0.1:${wire.port}`, "-n", "0"]);
  await client.output(/^\[3\]/m);
  wire.cut();
  const { stderr, code } = await client.ended;
  expect(stderr).toMatch(/^stream lost, got \d+ events · UNAVAILABLE · network lost · /m);
  expect(code).toBe(78);
  await server.output(/^subscribe ended: client gone sent=\d+$/m);
});

test("an upload that is cut off gets no summary", async () => {
  await using server = await serve();
  await using wire = await cutWire(portOf(server.addr));
  await using client = start([
    ...["upload", "--addr", `127.0.0.1:${wire.port}`, "--count", "100000", "--pause", "5ms"],
  ]);
  await client.output(/^sent #20 /m);
  wire.cut();
  const { stdout, stderr, code } = await client.ended;
  expect(stdout).not.toContain("summary");
  expect(stderr).toMatch(/^stream lost, sent \d+ records · UNAVAILABLE · network lost · /m);
  expect(code).toBe(78);
  await server.output(/^upload ended: client gone received=\d+ accepted=\d+ rejected=\d+$/m);
});

test("a subscription that reconnects goes on when the network heals", async () => {
  await using server = await serve(["--tick", "10ms"]);
  await using wire = await cutWire(portOf(server.addr));
  const args = ["subscribe", "--addr", `127.0.0.1:${wire.port}`, "-n", "0", "--reconnect"];
  await using client = start(args);
  await client.output(/^\[3\]/m);
  wire.cut();
  await client.output(/attempt 2 to reconnect/);
  wire.heal();
  await client.output(/^reconnected after /m);
  const [, got] = client.stdout.match(/^\[(\d+)\] [^\n]*\n$/m) ?? [];
  await client.output(new RegExp(`^\\[${Number(got ?? 3) + 1}\\] `, "m"));
});

test("a network that goes silent is what --idle and --deadline are for", async () => {
  await using server = await serve(["--tick", "10ms"]);
  await using wire = await cutWire(portOf(server.addr));
  const args = ["subscribe", "--addr", `127.0.0.1:${wire.port}`, "-n", "0"];
  await using idle = start([...args, "--idle", "1s"]);
  await using late = start([...args, "--deadline", "3s"]);
  await Promise.all([idle.output(/^\[3\]/m), late.output(/^\[3\]/m)]);
  wire.blackhole();
  expect(await idle.ended).toMatchObject({
    code: 0,
    stderr: expect.stringMatching(/^stream cancelled by client, got \d+ events · idle for 1s · /),
  });
  expect(await late.ended).toMatchObject({
    code: 68,
    stderr: expect.stringMatching(/^stream ended by deadline, got \d+ events · /),
  });
});
