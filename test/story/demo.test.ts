/** `make demo` is the first thing that a learner runs; this is its program. */

import { expect, test } from "vitest";
import { brewctl, start } from "../support/brewctl.ts";

test("the demo plays all three streams and leaves with 0", async () => {
  const { stdout, stderr, code } = await brewctl(["demo"]);
  expect(stdout.match(/^\[\d\] order_id=/gm)).toHaveLength(5);
  expect(stdout).toContain("summary: received=20 accepted=17 rejected=3 total_cents=3570\n");
  expect(stdout.match(/^< echo from server: echo: ping \d$/gm)).toHaveLength(5);
  expect(stderr.match(/^stream closed by server/gm)).toHaveLength(3);
  expect(stderr).toContain("chat ended: client closed send");
  expect(code).toBe(0);
});

test("Ctrl+C ends the demo, and nothing goes on listening", async () => {
  await using demo = start(["demo"]);
  const [, port] = await demo.output(/started addr=127\.0\.0\.1:(\d+) /);
  await demo.output(/^\[1\]/m);
  demo.child.kill("SIGINT");
  expect((await demo.ended).signal).toBe("SIGINT");
  const after = await brewctl(["subscribe", "--addr", `127.0.0.1:${port}`]);
  expect(after.code).toBe(78);
});
