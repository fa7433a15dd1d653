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
  const ids = idsOf("sale", 30);
  box.record(ids);
  await using drain = box.channel(loopback(wire.port), { ackTimeoutMs: 1_000 });
  await drain.told.until(({ answers }) => answers.length === 30);
  expect(drain.told.answers.map(({ kind }) => kind)).toEqual(ids.map(() => "accepted"));
  expect(isOffline(drain.told)).toBe(false);
});

test.each(["channel", "flush"] as const)(
  "a large sale on a slow line is sent once, and small ones get across after it: %s",
  async (way) => {
    using folder = tempFolder();
    await using cloud = await serveCloud();
    await using wire = await cutWire(cloud.port);
    wire.rate(20_000);
    using box = openBox({ path: folder.file("a.db") });
    const large = { eventId: "large", type: "Sale", payload: "x".repeat(40_000), timestamp: 1 };
    box.outbox.append([large]);
    box.record(idsOf("sale", 20));
    const options = way === "channel" ? { untilDrained: true, ackTimeoutMs: 500 } : {};
    await using drain = box[way](loopback(wire.port), options);
    await drain.done;
    expect(drain.told.answers.filter(({ kind }) => kind !== "accepted")).toEqual([]);
    expect(drain.told.summaries.filter(({ duplicates }) => duplicates > 0)).toEqual([]);
    expect(isOffline(drain.told)).toBe(false);
    expect(box.outbox.counts()).toMatchObject({ acked: 21, pending: 0 });
  },
);
