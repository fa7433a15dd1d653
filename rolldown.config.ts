/** `make build`: everything that brewctl needs, in dist/, so that it runs without node_modules. */

import { readdirSync, readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "rolldown";

/** The licences of what is bundled, which ask to go where the code goes. */
function licenses(): Plugin {
  return {
    name: "licenses",
    generateBundle(_, bundle) {
      const modules = Object.values(bundle).flatMap((part) =>
        part.type === "chunk" ? Object.keys(part.modules) : [],
      );
      const packages = new Set(
        modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? []),
      );
      const notices = Array.from(packages)
        .sort()
        .map((folder) => {
          const { name, version, license } = JSON.parse(
            readFileSync(`${folder}/package.json`, "utf8"),
          );
          const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
          const text = file === undefined ? "" : `\n${readFileSync(`${folder}/${file}`, "utf8")}`;
          return `${name} ${version}: ${license}\n${text}`;
        });
      const source = notices.join(`\n${"─".repeat(80)}\n\n`);
      this.emitFile({ type: "asset", fileName: "THIRD-PARTY-LICENSES", source });
    },
  };
}

export default defineConfig({
  input: { brewctl: "src/main.ts" },
  platform: "node",
  plugins: [licenses()],
  output: {
    // Moved to dist/ when it is whole, so that nobody ever starts half a bundle.
    dir: "dist.next",
    cleanDir: true,
    // CommonJS, because Node's compile cache starts it fastest.
    format: "cjs",
    entryFileNames: "[name].cjs",
    chunkFileNames: "[name].cjs",
  },
});
