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

/**
 * What libraries load and we never use, with the reason; reading it would take several hundredths of
 * a short call each.
 */
const unused: Readonly<Record<string, string>> = {
  // With protobufjs, which it brings, it would be half of the bundle.
  "@grpc/proto-loader": "grpc-js loads it for channelz and ORCA, which we do not serve",
  "node:child_process": "commander loads it for commands that are programs of their own",
};

function withoutUnused(): Plugin {
  return {
    name: "without-unused",
    resolveId: (source, importer = "") =>
      source in unused && importer.includes("/node_modules/") ? `\0${source}` : null,
    load: (id) => (id.startsWith("\0") && id.slice(1) in unused ? "module.exports = {};" : null),
  };
}

export default defineConfig({
  input: { brewctl: "src/main.ts" },
  platform: "node",
  plugins: [withoutUnused(), licenses()],
  output: {
    // Moved to dist/ when it is whole, so that nobody ever starts half a bundle.
    dir: "dist.next",
    cleanDir: true,
    // CommonJS, because Node's compile cache starts it fastest.
    format: "cjs",
    entryFileNames: "[name].cjs",
    chunkFileNames: "[name].cjs",
    // The licences are in a file of their own.
    comments: false,
    // Apart from our own code, which is not all ASCII: one such character doubles the size of a
    // chunk in memory, and these are the large ones.
    codeSplitting: {
      groups: [
        { name: "grpc-js", test: /node_modules\/@grpc\// },
        { name: "protobuf", test: /node_modules\/@bufbuild\// },
      ],
    },
  },
});
