import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/system/**"],
    // Four files at a time, also on two cores: many tests wait for processes that they have started.
    maxWorkers: 4,
    // Generous, because machines are shared; a test that waits for this long has hung.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    reporters: ["default", "./test/support/closing-line.ts"],
  },
});
