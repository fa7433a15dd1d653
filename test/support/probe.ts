/**
 * Is loaded into a server under test by `NODE_OPTIONS=--import`, and tells about its memory and its
 * event loop anyone who connects to the socket that BREWCTL_PROBE names. See probe-client.ts.
 */

import { unlinkSync } from "node:fs";
import { createServer } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Figures } from "./probe-client.ts";

/** How often the event loop is looked at, in milliseconds. */
const lookEveryMs = 10;

setFlagsFromString("--expose-gc");
const collectGarbage: () => void = runInNewContext("gc");

let longestDelayMs = 0;
let longestTurnMs = 0;
let lookedAt = performance.now();
let processorMs = processorTime();

/** What this thread has used of a processor, in milliseconds. */
function processorTime(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}

// Between two looks there is at most one long turn: a timer that is due runs before the next one.
setInterval(() => {
  const now = performance.now();
  const used = processorTime();
  longestDelayMs = Math.max(longestDelayMs, now - lookedAt - lookEveryMs);
  longestTurnMs = Math.max(longestTurnMs, used - processorMs);
  lookedAt = now;
  processorMs = used;
}, lookEveryMs).unref();

const path = process.env["BREWCTL_PROBE"];
if (path !== undefined) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    // Twice: what the first run finalizes, the second one frees.
    collectGarbage();
    collectGarbage();
    const { rss, heapUsed, external } = process.memoryUsage();
    const figures: Figures = { rss, heapUsed, external, longestDelayMs, longestTurnMs };
    socket.end(JSON.stringify(figures));
    longestDelayMs = 0;
    longestTurnMs = 0;
    // The collection is not the server's own work.
    lookedAt = performance.now();
    processorMs = processorTime();
  });
  server.listen(path).unref();
  process.once("exit", () => unlinkSync(path));
}
