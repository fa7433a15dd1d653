/** `make build`: everything that brewctl needs, in dist/, so that it runs without node_modules. */

import { defineConfig } from "rolldown";

export default defineConfig({
  input: { brewctl: "src/main.ts" },
  platform: "node",
  output: {
    // Moved to dist/ when it is whole, so that nobody ever starts half a bundle.
    dir: "dist.next",
    cleanDir: true,
    // CommonJS, because Node's compile cache starts it fastest.
    format: "cjs",
    entryFileNames: "[name].cjs",
    chunkFileNames: "[name].cjs",
    sourcemap: false,
  },
});
