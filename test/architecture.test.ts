/** Who may import whom, and who may touch the process, the clock and the wire. Read from src/. */

import { readdirSync, readFileSync } from "node:fs";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";

/**
 * What the files of a room may import: other rooms, packages (with their subpaths), `node:`. A file
 * in `except` may import these too.
 */
interface Room {
  readonly imports: readonly string[];
  /** May be imported from these rooms as types alone. */
  readonly typesOnly?: readonly string[];
  readonly except?: Readonly<Record<string, readonly string[]>>;
}

const ownLibrary = { typesOnly: ["gen"], imports: ["vocabulary", "node:"] };

/** The vocabulary is src/*.ts but main.ts; every other room is a folder. */
const rooms: Readonly<Record<string, Room>> = {
  // What a disk does wrong is said in the words of errors.ts.
  vocabulary: {
    imports: ["node:"],
    except: {
      "sqlite.ts": ["./errors.ts", "./private-file.ts"],
      "event-checksum.ts": ["./store-event.ts"],
      "event-digest.ts": ["./store-event.ts"],
      "version.ts": ["../package.json"],
    },
  },
  gen: { imports: ["gen", "@bufbuild/protobuf"] },
  grpc: { imports: ["grpc", "vocabulary", "node:", "@grpc/grpc-js", "@bufbuild/protobuf"] },
  bridge: ownLibrary,
  engine: ownLibrary,
  review: ownLibrary,
  data: ownLibrary,
  server: {
    imports: [
      ...["server", "grpc", "gen", "bridge", "engine", "review", "data", "vocabulary"],
      ...["node:", "@bufbuild/protobuf"],
    ],
  },
  commands: {
    imports: [
      ...["commands", "grpc", "gen", "bridge", "engine", "review", "data", "vocabulary"],
      ...["node:", "@bufbuild/protobuf", "commander", "chalk", "ora"],
    ],
    except: {
      "commands/serve.ts": ["server"],
      "commands/demo.ts": ["server"],
      "commands/store-sync/run.ts": ["server"],
    },
  },
  main: { imports: ["commands", "vocabulary", "node:", "commander"] },
};

/** Words that only some files may use: the ways out of what tests can decide. */
const words: readonly { word: RegExp; only: RegExp }[] = [
  { word: /\bprocess\.(exit|on|once)\b(?!Code)/, only: /^(main|shutdown|commands\/.*)\.ts$/ },
  { word: /\bconsole\./, only: /^(main|shutdown|commands\/.*)\.ts$/ },
  { word: /\b(Date\.now|Math\.random)\b|\bnew Date\(\)/, only: /^clock\.ts$/ },
  { word: /\bperformance\.now\b/, only: /^clock\.ts$/ },
  { word: /\b(setTimeout|setInterval)\b/, only: /^clock\.ts$/ },
  { word: /\.on\(["'`]data["'`]/, only: /^grpc\// },
  { word: /["'`]node:sqlite["'`]/, only: /^sqlite\.ts$/ },
  // A client whose answers have no bounds.
  { word: /\.client\(\s*[\w.]+\s*,?\s*\)/, only: /^$/ },
];

interface Import {
  readonly from: string;
  readonly isType: boolean;
}

/** Comments go, strings stay: an import is told by its string. */
function withoutComments(source: string): string {
  return source.replace(
    /("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|\/\*[\s\S]*?\*\/|\/\/[^\n]*/g,
    (_, text: string | undefined) => text ?? "",
  );
}

function importsOf(source: string): Import[] {
  const statements = /^\s*(?:import|export)\b(\s+type\b)?([^;"'`]*?)\bfrom\s*["']([^"']+)["']/gm;
  const bare = /^\s*import\s*["']([^"']+)["']|\b(?:import|require)\(\s*["'`]([^"'`]+)["'`]/gm;
  return [
    ...Array.from(source.matchAll(statements), ([, type, names, from = ""]) => ({
      from,
      // `import { type A, type B }` is a type import too.
      isType: type !== undefined || /^\s*\{(\s*type\s[^,}]+,?)+\s*\}\s*$/.test(names ?? ""),
    })),
    ...Array.from(source.matchAll(bare), ([, from, dynamic]) => ({
      from: from ?? dynamic ?? "",
      isType: false,
    })),
  ];
}

/** The room of a file, by its path within src/. */
function roomOf(path: string): string {
  const [first = "", ...rest] = path.split("/");
  return rest.length > 0 ? first : path === "main.ts" ? "main" : "vocabulary";
}

function mayImport(path: string, { from, isType }: Import): boolean {
  const room = rooms[roomOf(path)];
  if (room === undefined) {
    return false;
  }
  const { imports, typesOnly = [], except = {} } = room;
  const allowed = [...imports, ...(isType ? typesOnly : []), ...(except[path] ?? [])];
  if (from.startsWith("node:")) {
    return allowed.includes("node:");
  }
  if (from.startsWith(".")) {
    const target = posix.join(posix.dirname(path), from);
    const inOwnFolder = target.split("/")[0] === path.split("/")[0] && path.includes("/");
    return allowed.includes(roomOf(target)) || inOwnFolder || allowed.includes(from);
  }
  return allowed.some((name) => from === name || from.startsWith(`${name}/`));
}

/** What a source breaks, one line each. */
function breaches(path: string, text: string): string[] {
  const source = withoutComments(text);
  return [
    ...importsOf(source)
      .filter((one) => !mayImport(path, one))
      .map(({ from }) => `${path} imports ${from}`),
    ...words
      .filter(({ word, only }) => word.test(source) && !only.test(path))
      .map(({ word }) => `${path} says ${word.exec(source)?.[0]}`),
  ];
}

const src = fileURLToPath(new URL("../src/", import.meta.url));
const paths = readdirSync(src, { recursive: true, encoding: "utf8" })
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => path.endsWith(".ts"));

test("every file of src/ keeps to the rules", () => {
  expect(paths.length).toBeGreaterThan(20);
  expect(paths.flatMap((path) => breaches(path, readFileSync(src + path, "utf8")))).toEqual([]);
});

test("the checker finds the imports of a real file", () => {
  const dial = importsOf(withoutComments(readFileSync(`${src}grpc/dial.ts`, "utf8")));
  const froms = dial.map(({ from }) => from);
  expect(froms).toContain("@grpc/grpc-js");
  expect(froms).toContain("../errors.ts");
  expect(dial.find(({ from }) => from === "@bufbuild/protobuf")?.isType).toBe(true);
  expect(importsOf(readFileSync(`${src}main.ts`, "utf8")).map(({ from }) => from)).toContain(
    "./commands/serve.ts",
  );
});

test.each([
  ["clock.ts", 'import { listen } from "./grpc/serve.ts";'],
  ["clock.ts", 'import type { Logger } from "./log.ts";'],
  ["clock.ts", 'import x from "commander";'],
  ["gen/a_pb.ts", 'import { x } from "../clock.ts";'],
  ["grpc/serve.ts", 'import { Health } from "../gen/grpc/health/v1/health_pb.ts";'],
  ["grpc/serve.ts", 'import type { Health } from "../gen/grpc/health/v1/health_pb.ts";'],
  ["server/health.ts", 'import { Server } from "@grpc/grpc-js";'],
  ["server/health.ts", 'import type { Server } from "@grpc/grpc-js";'],
  ["server/health.ts", 'export { run } from "../commands/serve.ts";'],
  ["server/health.ts", 'export * from "../commands/serve.ts";'],
  ["server/health.ts", 'const { Chalk } = await import("chalk");'],
  ["server/health.ts", 'import "ora";'],
  ["commands/chat.ts", 'import { startServer } from "../server/index.ts";'],
  ["commands/chat.ts", 'import {\n  type A,\n  b,\n} from "../server/index.ts";'],
  ["commands/store-sync/pending.ts", 'import { x } from "../../server/index.ts";'],
  ["bridge/outbox.ts", 'import { x } from "../gen/sync/v1/sync_engine_pb.ts";'],
  ["bridge/outbox.ts", 'import { x } from "../engine/ledger.ts";'],
  ["bridge/outbox.ts", 'import type { x } from "../grpc/dial.ts";'],
  ["nowhere/a.ts", 'import { x } from "./b.ts";'],
  ["server/a.ts", "process.exit(1);"],
  ["log.ts", 'process.on("exit", f);'],
  ["server/a.ts", "console.log(1);"],
  ["server/a.ts", "const now = Date.now();"],
  ["commands/chat.ts", "const now = new Date();"],
  ["commands/chat.ts", "const x = Math.random();"],
  ["commands/chat.ts", "setTimeout(f, 1);"],
  ["server/a.ts", 'call.on("data", f);'],
  ["bridge/outbox.ts", 'import { DatabaseSync } from "node:sqlite";'],
  ["commands/chat.ts", "const client = connection.client(StreamingService);"],
])("%s may not say: %s", (path, source) => {
  expect(breaches(path, source)).toHaveLength(1);
});

test.each([
  ["bridge/outbox.ts", 'import type { Event } from "../gen/sync/v1/sync_engine_pb.ts";'],
  ["bridge/outbox.ts", 'import { type A, type B } from "../gen/sync/v1/sync_engine_pb.ts";'],
  ["bridge/outbox.ts", 'import { open } from "../sqlite.ts";'],
  ["bridge/link.ts", 'import { append } from "./outbox.ts";'],
  ["sqlite.ts", 'import { DatabaseSync } from "node:sqlite";'],
  ["commands/serve.ts", 'import { startServer } from "../server/index.ts";'],
  ["commands/store-sync/run.ts", 'import { startServer } from "../../server/index.ts";'],
  ["commands/store-sync/pending.ts", 'import { x } from "../terminal.ts";'],
  ["server/a.ts", "// Date.now() and console.log() are not for us.\n/* process.exit(1) */"],
  ["main.ts", "process.exitCode = 1;"],
  ["grpc/stream.ts", 'call.on("data", f);'],
  ["commands/chat.ts", "connection.client(StreamingService, { bounds: streamingAnswers });"],
])("%s may say: %s", (path, source) => {
  expect(breaches(path, source)).toEqual([]);
});
