/** A store far away or on a slow line: its sales get across, each once. `make soak` has the large ones. */

import { expect, test } from "vitest";
import { cutWire } from "../support/cut-wire.ts";
import { idsOf } from "../support/oracle.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { loopback } from "../support/start-server.ts";
import { isOffline, openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";

test("a round trip that is longer than an answer may take sends nothing twice", async () => {
  using folder = tempFolder();
  await using cloud = await serveCloud();
  await using wire = await cutWire(cloud.port);
  wire.delay(900);
  using box = openBox({ path: folder.file("a.db") });
  box.outbox.append(
    idsOf("sale", 30).map((eventId) => ({
      ...{ eventId, type: "Sale", timestamp: 1 },
      payload: "x".repeat(100),
    })),
  );
  const options = { untilDrained: true, ackTimeoutMs: 1_000 };
  await using drain = box.channel(loopback(wire.port), options);
  await drain.done;
  expect(isOffline(drain.told)).toBe(false);
  expect(wire.bytesUp).toBeLessThan(1.25 * 30 * 200);
});

test("a large sale on a slow line is sent once, and small ones get across after it", async () => {
  using folder = tempFolder();
  await using cloud = await serveCloud();
  await using wire = await cutWire(cloud.port);
  wire.rate(20_000);
  using box = openBox({ path: folder.file("a.db") });
  const sale = { type: "Sale", payload: "x".repeat(100), timestamp: 1 };
  box.outbox.append([
    { ...sale, eventId: "large", payload: "x".repeat(40_000) },
    ...idsOf("sale", 20).map((eventId) => ({ ...sale, eventId })),
  ]);
  const options = { untilDrained: true, ackTimeoutMs: 500 };
  await using drain = box.channel(loopback(wire.port), options);
  await drain.done;
  expect(isOffline(drain.told)).toBe(false);
  expect(wire.bytesUp).toBeLessThan(40_000 + 1.5 * 20 * 200);
  expect(box.outbox.counts()).toMatchObject({ acked: 21, pending: 0 });
});
