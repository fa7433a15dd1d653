/** The lesson as a learner runs it: real processes, the lesson's own commands and log lines. */

import { expect, test } from "vitest";
import { brewctl, serve } from "../support/brewctl.ts";

test("subscribe gets five events, one a tick, and the server ends the stream", async () => {
  await using server = await serve(["--tick", "10ms"]);
  const { stdout, stderr, code } = await brewctl(["subscribe", "--addr", server.addr]);

  const lines = stdout.trimEnd().split("\n");
  expect(lines).toHaveLength(5);
  lines.forEach((line, i) => {
    const shape =
      /^\[(\d)\] order_id=ord-\d{13}-\d+ customer=cus-0\d\d amount=\d{3,4} at=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/;
    expect(shape.exec(line)?.[1]).toBe(String(i + 1));
  });
  expect(stderr).toMatch(
    /^stream closed by server, got 5 events · OK · limit reached · \d+\.\d\d s$/m,
  );
  expect(code).toBe(0);
  await server.output(/^subscribe started customer_id="" limit=5$/m);
  await server.output(/^subscribe ended: limit reached sent=5$/m);
});
