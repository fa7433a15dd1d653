/** `make demo` is the first thing that a learner runs; this is its program. */

import { readdirSync } from "node:fs";
import { expect, test } from "vitest";
import { brewctl, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

test("the demo plays all three streams and a store's morning, and leaves with 0", async () => {
  const { stdout, stderr, code } = await brewctl(["demo"]);
  expect(stdout.match(/^\[\d\] order_id=/gm)).toHaveLength(5);
  expect(stdout).toContain("summary: received=20 accepted=17 rejected=3 total_cents=3570\n");
  expect(stdout.match(/^< echo from server: echo: ping \d$/gm)).toHaveLength(5);
  expect(stderr.match(/^stream closed by server/gm)).toHaveLength(3);
  expect(stderr).toContain("chat ended: client closed send");
  expect(stdout).toContain("Upload complete — 3 accepted, 0 rejected\n");
  expect(stdout.match(/^ACK: sale-[4-7]$/gm)).toHaveLength(4);
  expect(stdout).toContain("[PriceUpdate] received → applying locally\n");
  expect(stderr).toMatch(/^offline: .*; attempt 1 to reconnect in /m);
  expect(stdout).toMatch(/^pending {3}0\nparked {4}0\nacked {5}7,/m);
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

test("the store's morning alone leaves no file behind", async () => {
  using folder = tempFolder();
  const env = { TMPDIR: folder.path, XDG_STATE_HOME: folder.path };
  const { stdout, code } = await brewctl(["demo", "store"], { env });
  expect(stdout).not.toContain("order_id");
  expect(stdout).toContain("recorded [Sale] id=sale-7 seq=7\n");
  expect(code).toBe(0);
  expect(readdirSync(folder.path)).toEqual([]);
});

test("Ctrl+C in the store's morning ends it, and leaves no file behind", async () => {
  using folder = tempFolder();
  await using demo = start(["demo", "store"], { env: { TMPDIR: folder.path } });
  await demo.output(/^ACK: sale-4$/m);
  demo.child.kill("SIGINT");
  expect((await demo.ended).signal).toBe("SIGINT");
  expect(readdirSync(folder.path)).toEqual([]);
});
