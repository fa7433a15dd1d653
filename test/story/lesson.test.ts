/** The lesson as a learner runs it: real processes, the lesson's own commands, lines and totals. */

import { expect, test } from "vitest";
import { brewctl, serve, start } from "../support/brewctl.ts";

test("the server says first where it listens and how fast it ticks", async () => {
  await using server = await serve();
  expect(server.stderr).toMatch(
    /^streaming-server started addr=127\.0\.0\.1:0 tick=1s echo_delay=200ms port=\d+\n$/,
  );
});

test("subscribe gets five events, one a tick, and the server ends the stream", async () => {
  await using server = await serve(["--tick", "10ms"]);
  const { stdout, stderr, code } = await brewctl(["subscribe", "--addr", server.addr]);

  const lines = stdout.trimEnd().split("\n");
  expect(lines).toHaveLength(5);
  for (const [i, line] of lines.entries()) {
    expect(line).toMatch(
      /^\[\d\] order_id=ord-\d{13}-\d+ customer=cus-0\d\d amount=\d{3,4} at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/,
    );
    expect(line).toMatch(new RegExp(`^\\[${i + 1}\\]`));
  }
  expect(stderr).toMatch(
    /^stream closed by server, got 5 events · OK · limit reached · \d+\.\d\d s$/m,
  );
  expect(code).toBe(0);
  await server.output(/^subscribe started customer_id="" limit=5$/m);
  await server.output(/^subscribe ended: limit reached sent=5$/m);
});

test("a customer asked for is copied into each event, and no two orders share an id", async () => {
  await using server = await serve(["--tick", "0"]);
  const args = ["subscribe", "-addr", server.addr, "-limit=200", "-o", "ndjson"];
  const runs = await Promise.all([
    brewctl([...args, "-customer", "cus-007"]),
    brewctl([...args, "-customer", "cus-007"]),
  ]);
  const events = runs.flatMap(({ stdout }) =>
    stdout
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line)),
  );
  expect(events).toHaveLength(400);
  expect(new Set(events.map(({ orderId }) => orderId)).size).toBe(400);
  expect(new Set(events.map(({ customerId }) => customerId))).toEqual(new Set(["cus-007"]));
});

test("an endless subscription is ended by Ctrl+C, and both sides say who closed whom", async () => {
  await using server = await serve(["--tick", "10ms"]);

  await using client = start(["subscribe", "-limit=0", "-addr", server.addr]);
  await client.output(/^\[2\]/m);
  client.child.kill("SIGINT");
  const { stderr, signal } = await client.ended;
  expect(stderr).toMatch(/^stream cancelled by client, got \d+ events · Ctrl\+C · \d+\.\d\d s$/m);
  expect(signal).toBe("SIGINT");
  await server.output(/^subscribe ended: client gone sent=\d+$/m);
});

test.each([
  { bad: "0", totals: "received=20 accepted=20 rejected=0", cents: 3900 },
  { bad: "3", totals: "received=20 accepted=17 rejected=3", cents: 3570 },
  { bad: "5", totals: "received=20 accepted=15 rejected=5", cents: 3300 },
])("upload with $bad bad records: $totals", async ({ bad, totals, cents }) => {
  await using server = await serve();
  const args = ["upload", "-addr", server.addr, `-bad=${bad}`, "-interval=1ms"];
  const { stdout, stderr, code } = await brewctl(args);
  const lines = stdout.trimEnd().split("\n");
  expect(lines.slice(0, 20)).toEqual(
    Array.from({ length: 20 }, (_, i) => {
      const amount = i < Number(bad) ? 0 : 100 + 10 * i;
      return `sent #${i} customer=cus-00${i % 5} amount=${amount}`;
    }),
  );
  expect(lines.slice(20)).toEqual(["---", `summary: ${totals} total_cents=${cents}`]);
  expect(stderr).toMatch(/^stream closed by server, sent 20 records · OK · summary received · /m);
  expect(code).toBe(0);
  await server.output(new RegExp(`^upload ended ${totals}$`, "m"));
});

test("chat echoes in order, and ends after the half-close", async () => {
  await using server = await serve(["--echo-delay", "1ms"]);
  const args = ["chat", "-addr", server.addr, "-count=20", "-interval=1ms"];
  const { stdout, stderr, code } = await brewctl(args);
  const lines = stdout.trimEnd().split("\n");
  const numbers = Array.from({ length: 20 }, (_, i) => i + 1);
  expect(lines.filter((line) => line.startsWith(">"))).toEqual(
    numbers.map((i) => `> sent: ping ${i}`),
  );
  expect(lines.filter((line) => line.startsWith("<"))).toEqual(
    numbers.map((i) => `< echo from server: echo: ping ${i}`),
  );
  expect(stderr).toMatch(/^stream closed by server, got 20 echoes · OK · after our half-close · /m);
  expect(stderr).toMatch(/^last of 20 sends after \d+ ms, first echo after \d+ ms$/m);
  expect(code).toBe(0);
  await server.output(/^chat ended: client closed send$/m);
});

test("chat sends all it has before the first echo when the server takes its time", async () => {
  // An hour: the echoes can only be missing, whatever the machine is busy with.
  await using server = await serve(["--echo-delay", "1h"]);
  const { stdout, code } = await brewctl([
    ...["chat", "-addr", server.addr, "-count=20", "-interval=0", "-deadline=2s"],
  ]);
  expect(stdout.match(/^> sent/gm)).toHaveLength(20);
  expect(stdout).not.toContain("<");
  expect(code).toBe(68);
});

test("the common mistake: without the half-close the call hangs until its deadline", async () => {
  await using server = await serve(["--echo-delay", "1ms"]);
  const args = ["chat", "--addr", server.addr, "--no-half-close", "--deadline", "1s"];
  const { stdout, stderr, code } = await brewctl(args);
  expect(stdout.match(/^< echo/gm)).toHaveLength(5);
  expect(stderr).toMatch(
    /^stream ended by deadline, got 5 echoes · DEADLINE_EXCEEDED · deadline 1s · /m,
  );
  expect(code).toBe(68);
  await server.output(/^chat ended: deadline exceeded$/m);
});

test("the log as JSON has the same fields", async () => {
  await using server = await serve(["--tick", "1ms", "--log-format", "json"]);
  await brewctl(["subscribe", "--addr", server.addr, "--limit", "1"]);
  await server.output(/subscribe ended/);
  const records = server.stderr
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(records).toEqual([
    {
      time: expect.stringMatching(/^\d{4}-.*Z$/),
      level: "info",
      msg: "streaming-server started",
      addr: "127.0.0.1:0",
      tick: "1ms",
      echo_delay: "200ms",
      port: expect.any(Number),
    },
    expect.objectContaining({ msg: "subscribe started", customer_id: "", limit: 1 }),
    expect.objectContaining({ msg: "subscribe ended: limit reached", sent: 1 }),
  ]);
});
