/**
 * Stores that reconnect all at once, while wires are cut and processes killed: everything arrives, each
 * event once. `make soak` has the same with 200 stores.
 *
 * BREWCTL_STAMPEDE_SEED has a run again.
 */

import { expect, test } from "vitest";
import { stampede } from "../soak/stampede.ts";

const seed = Number(process.env["BREWCTL_STAMPEDE_SEED"] ?? Date.now() % 1_000_000);

test(`BREWCTL_STAMPEDE_SEED=${seed}: a stampede ends with every event in the ledger once`, {
  timeout: 300_000,
}, async () => {
  const { events } = await stampede({
    ...{ seed, stores: 20, events: 50, fleets: 2, daemons: 2, haste: 0.1 },
    faults: {
      "cloud killed": 1,
      "fleet killed": 2,
      "daemon killed": 2,
      "wire cut": 4,
      "wire swallowed": 1,
      "wire slowed": 2,
    },
  });
  // The tills', beside those of the fleets.
  expect(events).toBeGreaterThan(20 * 51);
});
