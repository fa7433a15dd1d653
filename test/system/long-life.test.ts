/** A daemon under constant load stays as large as it is. `make soak` has a million events. */

import { expect, test } from "vitest";
import { longLife } from "../soak/long-life.ts";

test("80,000 events pass through a daemon in flat memory, files and log", async () => {
  const settled = await longLife({ seed: 1, events: 80_000 });
  expect(settled.length).toBeGreaterThan(20);
});
