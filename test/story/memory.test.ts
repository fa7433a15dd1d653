/**
 * Memory does not grow with what passes through, nor with what cannot: a stream is a pipe, not a
 * bucket. Bounds are several times what is seen, and far below what a leak would take.
 */

import { expect, test } from "vitest";
import { parseAddress } from "../../src/address.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { serve, start } from "../support/brewctl.ts";
import { residentBytes } from "../support/process-figures.ts";
import { never } from "../support/start-server.ts";

const megabyte = 1024 * 1024;

test("200,000 records are uploaded in flat memory on both sides", {
  timeout: 120_000,
}, async () => {
  const count = 200_000;
  await using server = await serve();
  await using client = start([
    ...["upload", "--addr", server.addr, "--count", String(count)],
    ...["--bad", "0", "--pause", "0", "-o", "ndjson", "--no-progress"],
  ]);
  const samples: { server: number; client: number }[] = [];
  let isOver = false;
  client.ended.then(() => {
    isOver = true;
  });
  while (!isOver) {
    const [ofServer, ofClient] = await Promise.all([
      residentBytes(server.child.pid),
      residentBytes(client.child.pid),
    ]);
    if (ofServer !== undefined && ofClient !== undefined) {
      samples.push({ server: ofServer, client: ofClient });
    }
  }
  const { stdout, code } = await client.ended;
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ received: count, accepted: count });

  // The first third warms up: code is compiled, the heap finds its size.
  const settled = samples.slice(Math.floor(samples.length / 3));
  expect(settled.length).toBeGreaterThan(3);
  for (const side of ["server", "client"] as const) {
    const sizes = settled.map((sample) => sample[side]);
    expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThan(64 * megabyte);
  }
});

test("a subscriber that stops reading stops the server, not fills it", async () => {
  await using server = await serve(["--tick", "0"]);
  const before = (await residentBytes(server.child.pid)) ?? 0;
  const connection = dial(parseAddress(server.addr));
  const stalled = new AbortController();
  const events = connection
    .client(StreamingService)
    .subscribe({ limit: 0 }, { signal: stalled.signal })
    [Symbol.asyncIterator]();
  await events.next();

  // Meanwhile another subscriber gets 100,000 events: time enough to fill a lot.
  let others = 0;
  for await (const _ of connection
    .client(StreamingService)
    .subscribe({ limit: 100_000 }, { signal: never })) {
    others += 1;
  }
  expect(others).toBe(100_000);
  const after = (await residentBytes(server.child.pid)) ?? Number.POSITIVE_INFINITY;
  expect(after - before).toBeLessThan(100 * megabyte);

  stalled.abort();
  connection.close();
  const [, sent] = await server.output(/^subscribe ended: client gone sent=(\d+)$/m);
  // What fits into the flow-control window and the buffers on the way.
  expect(Number(sent)).toBeLessThan(10_000);
});
