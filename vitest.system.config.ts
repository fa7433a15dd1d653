/** `make test-system`: what needs more than Node, such as npm, git, make and old Nodes. */

import { defineConfig } from "vitest/config";
import config from "./vitest.config.ts";

export default defineConfig({
  test: {
    ...config.test,
    include: ["test/system/**/*.test.ts"],
    exclude: [],
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
});
