/** Runs timed-out.fixture.ts, for reaper.test.ts, as vitest runs all tests. */

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: { include: ["test/support/timed-out.fixture.ts"], testTimeout: 100, hookTimeout: 30_000 },
});
