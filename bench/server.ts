/** A server in a process of its own, as a benchmark forks it: one of `servers`. */

import { systemClock, systemRandom } from "../src/clock.ts";
import { noFaults } from "../src/server/faults.ts";
import { startServer } from "../src/server/index.ts";
import { inMemory } from "../src/sqlite.ts";
import { serveBridgeByHand } from "./bridge-by-hand.ts";
import { serveByHand } from "./by-hand.ts";
import { serveByHandBatched } from "./by-hand-batched.ts";
import { serveWithGlue } from "./with-glue.ts";

export interface Usage {
  /** Of the process so far, in milliseconds of one processor. */
  readonly cpuMs: number;
  /** The most that it has held in memory, in megabytes; it looks every `lookMs`. */
  readonly peakMb: number;
}

/** In milliseconds. */
const lookMs = 20;

const servers: Readonly<Record<string, () => Promise<number | undefined>>> = {
  "by-hand": () => serveByHand(),
  "by-hand-batched": serveByHandBatched,
  "with-glue": serveWithGlue,
  lesson: () => serve(inMemory),
  "bridge-by-hand": serveBridgeByHand,
  cloud: () => serve(process.env["BENCH_DATA_DIR"] ?? inMemory),
};

async function serve(dataDir: string): Promise<number | undefined> {
  const { port } = await startServer({
    address: { kind: "tcp", host: "127.0.0.1", port: 0 },
    ...{ tickMs: 0, echoDelayMs: 0, uploadDelayMs: 0 },
    ...{ dataDir, opensLedger: false, faults: noFaults },
    ...{ clock: systemClock, random: systemRandom },
    log: { debug() {}, info() {}, warn() {}, error() {} },
  });
  return port;
}

let peakMb = 0;
const look = () => {
  peakMb = Math.max(peakMb, process.memoryUsage.rss() / 1024 ** 2);
};
setInterval(look, lookMs).unref();

const port = await servers[process.argv[2] ?? ""]?.();
process.send?.({ port });
process.on("message", () => {
  const { user, system } = process.cpuUsage();
  look();
  process.send?.({ cpuMs: (user + system) / 1000, peakMb } satisfies Usage);
});
// The benchmark has gone, however it did.
process.on("disconnect", () => process.exit());
