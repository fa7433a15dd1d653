/** What the cloud's answer makes of an event. */

import { expect, test } from "vitest";
import type { Recorded } from "../../src/bridge/outbox.ts";
import { settlementOf } from "../../src/bridge/settling.ts";
import { refusal } from "../support/played-cloud.ts";
import { testClock } from "../support/test-clock.ts";

const refusedBefore = (attempts: number): Recorded => ({
  ...{ eventId: "e1", type: "Sale", payload: "", timestamp: 1, position: 7 },
  ...{ epoch: "a", seq: 1, state: "pending", attempts, notBefore: 0, reason: "", settledAt: 0 },
  checksum: undefined,
});

function waitOf(attempts: number, retryAfterMs: number, rolled: number) {
  const clock = testClock();
  const answer = refusal("e1", { isRetryable: true, retryAfterMs });
  const options = { clock, random: () => rolled };
  const settlement = settlementOf(refusedBefore(attempts), answer, options);
  return settlement.kind === "retry" ? settlement.notBefore - clock.now() : settlement.kind;
}

test("an event that was changed on the way goes again soon, and is never parked for it", () => {
  const clock = testClock();
  const answer = refusal("e1", { isRetryable: true, isCorrupt: true });
  const waits = [0, 3, 19, 1_000_000].map((attempts) => {
    const settlement = settlementOf(refusedBefore(attempts), answer, { clock, random: () => 1 });
    return settlement.kind === "retry" ? settlement.notBefore - clock.now() : settlement.kind;
  });
  expect(waits).toEqual([200, 1600, 10_000, 10_000]);
});

test.each<[string, number, number, number, number | string]>([
  ["whole milliseconds, as the disk keeps them", 0, 0, 1 / 3, 67],
  ["what the cloud asks for, if that is longer", 0, 700, 0.5, 700],
  ["our own wait, if the event was refused before and that is longer", 5, 700, 0.5, 3200],
  ["ten minutes at most, whatever the cloud asks for", 0, 2_000_000_000, 0.5, 600_000],
  ["no more: it is parked", 19, 0, 0.5, "parked"],
])("a refused event waits %s", (_, attempts, retryAfterMs, rolled, expected) => {
  expect(waitOf(attempts, retryAfterMs, rolled)).toBe(expected);
});
