import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/system/**"],
    // Two files at a time: many tests start processes of their own.
    maxWorkers: 2,
    // Generous, because machines are shared; a test that waits for this long has hung.
    testTimeout: 30_000,
    hookTimeout: 30_000,
    reporters: ["default", "./test/support/closing-line.ts"],
  },
});
