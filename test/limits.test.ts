/** docs/limits.md has every limit as the code has it. */

import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { maxCommandSequence } from "../src/bridge/inbox.ts";
import { maxRepeatedIdBytes, maxShortTextBytes } from "../src/commands/answer-bounds.ts";
import * as dispatch from "../src/engine/dispatch.ts";
import * as ledger from "../src/engine/ledger.ts";
import * as newcomers from "../src/engine/newcomers.ts";
import * as page from "../src/engine/page.ts";
import * as batch from "../src/grpc/batch.ts";
import { defaultLimits } from "../src/grpc/limits.ts";
import { maxConnectionsToAccept } from "../src/grpc/listener.ts";
import { maxMessageBytes } from "../src/grpc/options.ts";
import * as requests from "../src/grpc/requests.ts";
import * as log from "../src/log.ts";
import * as bounds from "../src/server/bounds.ts";
import * as digest from "../src/server/digest.ts";
import * as refusalLog from "../src/server/refusal-log.ts";
import * as syncEngine from "../src/server/sync-engine.ts";
import * as tillStreams from "../src/server/till-streams.ts";
import * as storeEvent from "../src/store-event.ts";

const modules = [
  ...[dispatch, ledger, newcomers, page, log, bounds, digest, refusalLog, syncEngine, storeEvent],
  ...[batch, requests, tillStreams, defaultLimits, { maxMessageBytes, maxConnectionsToAccept }],
  // Of the same module's other limits the cloud's own are tighter, and stand on the page.
  ...[{ maxCommandSequence, maxRepeatedIdBytes, maxShortTextBytes }],
];

/** The constants of the code that name a limit. */
const limits = modules.flatMap((module) =>
  Object.entries(module).flatMap(([name, value]): [string, number][] =>
    /^max[A-Z]|Ms$/.test(name) && typeof value === "number" ? [[name, value]] : [],
  ),
);

/** The constants of the page, with the number that stands first in the next column. */
const rows = Array.from(
  readFileSync(new URL("../docs/limits.md", import.meta.url), "utf8").matchAll(
    /^\|[^|]*\| `(max\w+|\w+Ms)` \| (\d+)\b[^|]*\|[^|]*\|$/gm,
  ),
  ([, name, value]): [string, number] => [String(name), Number(value)],
);

test("every limit of the code stands on the page, with its value", () => {
  expect(limits.length).toBeGreaterThan(20);
  expect(Object.fromEntries(rows)).toMatchObject(Object.fromEntries(limits));
});

test("the page has no limit that the code does not have", () => {
  const inCode = new Set(limits.map(([name]) => name));
  expect(rows.map(([name]) => name).filter((name) => !inCode.has(name))).toEqual([]);
});
