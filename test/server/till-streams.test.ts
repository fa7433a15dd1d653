/** The streams of tills into one GroupCommit: an fsync for many events. */

import { expect, test } from "vitest";
import { type Appended, type NewEvent, Outbox } from "../../src/bridge/outbox.ts";
import { systemClock } from "../../src/clock.ts";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { GroupCommit } from "../../src/group-commit.ts";
import { dial } from "../../src/grpc/dial.ts";
import { serveBridgeApi } from "../../src/server/bridge-api.ts";
import { inMemory } from "../../src/sqlite.ts";
import { idsOf } from "../support/oracle.ts";
import { loopback, never } from "../support/start-server.ts";
import { testLog } from "../support/test-log.ts";

test("the events that one till sends without waiting are committed together", async () => {
  const outbox = new Outbox({ path: inMemory, storeId: "store-01", now: () => 0 });
  const batches: number[] = [];
  const commits = new GroupCommit<NewEvent, Appended>({
    // No time passes: how many turns of the event loop fit into the 2 ms of a batch is the machine's affair.
    clock: { ...systemClock, monotonic: () => 0 },
    commit(batch) {
      batches.push(batch.length);
      return outbox.append(batch);
    },
  });
  const server = await serveBridgeApi({
    clock: systemClock,
    ...{ addresses: [loopback(0)], storeId: "store-01", commits, log: testLog() },
    status: () => {
      throw new Error("nobody asks");
    },
  });
  const connection = dial(server.addresses[0] ?? loopback(0));
  try {
    const ids = idsOf("sale", 1000);
    async function* sales() {
      yield* ids.map((eventId) => ({ eventId, type: "Sale" }));
    }
    const answers: string[] = [];
    const acks = connection.client(BridgeApi).recordEvents(sales(), { signal: never });
    for await (const { eventId, code } of acks) {
      expect(code).toBe(0);
      answers.push(eventId);
    }
    expect(answers).toEqual(ids);
    // At most 256 are without an answer.
    expect(Math.max(...batches)).toBeGreaterThan(50);
    expect(batches.length).toBeLessThan(100);
  } finally {
    connection.close();
    await server.stop({ graceMs: 0, force: AbortSignal.abort() });
    outbox.close();
  }
});
