/**
 * `brewctl serve`: the server of the lessons, in the foreground until Ctrl+C or SIGTERM, which it
 * answers with a graceful stop. The log goes to standard error; there is no data.
 *
 * services: server/index.ts
 * story: test/story/lesson.test.ts, test/commands/serve.test.ts
 */

import { join, resolve } from "node:path";
import { Command, Option } from "commander";
import { type Address, formatAddress, parseAddress } from "../address.ts";
import { formatDuration } from "../duration.ts";
import { createLogger } from "../log.ts";
import { describeFaults, type FaultOptions } from "../server/faults.ts";
import { startServer } from "../server/index.ts";
import type { Exit } from "../shutdown.ts";
import { inMemory } from "../sqlite.ts";
import type { CommandContext } from "./client-call.ts";
import {
  duration,
  folderPath,
  integer,
  type LogFlags,
  listenAddress,
  share,
  socketModeOption,
  withLogFlags,
} from "./flags.ts";
import { stateFolder } from "./state-folder.ts";

export interface ServeFlags extends LogFlags {
  readonly addr: Address;
  readonly socketMode: number;
  readonly tick: number;
  readonly echoDelay: number;
  readonly uploadDelay: number;
  readonly grace: number;
  readonly dataDir?: string;
  readonly memory?: boolean;
  readonly faultNack: number;
  readonly faultDropAfter: number;
  readonly faultLoseAck: number;
  readonly faultLatency: number;
}

export const command = withLogFlags(
  new Command("serve")
    .description("run the server of the lessons")
    .addOption(
      new Option(
        "--addr <address>",
        "where to listen: :port (all interfaces), host:port or unix:/path; port 0: any free one",
      )
        .default(parseAddress(":50052"), ":50052")
        .env("BREWCTL_LISTEN")
        .argParser(listenAddress),
    )
    .addOption(socketModeOption())
    .addOption(
      new Option("--tick <duration>", "time between a subscription's events; 0: no wait")
        .default(1000, "1s")
        .argParser(duration),
    )
    .addOption(
      new Option("--echo-delay <duration>", "time before each echo of a chat; 0: no wait")
        .default(200, "200ms")
        .argParser(duration),
    )
    .addOption(
      new Option(
        "--upload-delay <duration>",
        "time that each uploaded record takes, so that a client feels backpressure",
      )
        .default(0, "0")
        .argParser(duration),
    )
    .addOption(
      new Option("--grace <duration>", "how long a stop waits for running uploads")
        .default(5000, "5s")
        .argParser(duration),
    )
    .addOption(
      new Option(
        "--data-dir <folder>",
        "where the ledger of the store bridge is kept (default: brewctl/cloud in your state folder)",
      )
        .env("BREWCTL_DATA_DIR")
        .argParser(folderPath),
    )
    .addOption(
      new Option("--memory", "keep the ledger in memory and forget it at the end").conflicts(
        "dataDir",
      ),
    )
    .addOption(
      new Option("--fault-nack <share>", "refuse such a share of a store's events with 'try later'")
        .default(0)
        .argParser(share),
    )
    .addOption(
      new Option("--fault-drop-after <n>", "end each call of a store after n events; 0: never")
        .default(0)
        .argParser(integer(0)),
    )
    .addOption(
      new Option("--fault-lose-ack <share>", "lose such a share of the answers, after the commit")
        .default(0)
        .argParser(share),
    )
    .addOption(
      new Option("--fault-latency <duration>", "hold each answer to a store back for so long")
        .default(0, "0")
        .argParser(duration),
    ),
  "each event of the store bridge",
);

export const examples = `\
  brewctl serve
  brewctl serve --addr localhost:50052             not reachable from other machines
  brewctl serve --tick 100ms --echo-delay 1s
  brewctl serve --upload-delay 1ms                 a slow server: see upload --timeline
  brewctl serve --addr localhost:0 --log-format json 2>server.log
  brewctl serve --addr unix:/tmp/brew.sock
  brewctl serve --data-dir /srv/brew               the store bridge's ledger is there
  brewctl serve --memory --fault-lose-ack 0.1      a lesson: see make scenario NAME=lost-ack`;

export const notes = `\
Ctrl+C, SIGTERM or SIGHUP stops gracefully: subscriptions and chats end at once with UNAVAILABLE,
uploads may finish within --grace. A second Ctrl+C does not wait. Under nohup SIGHUP is ignored.
Health and reflection are always on.

The ledger of the store bridge is opened by the first store that calls, or at the start with
--data-dir; one server at a time can have it.`;

/** A second Ctrl+C cuts the grace short and still exits 0. */
export const takesSecondInterrupt = true;

export async function run(flags: ServeFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted, interruptedTwice } = context;
  const { addr, tick, echoDelay, uploadDelay, grace, dataDir, memory } = flags;
  const faults: FaultOptions = {
    nack: flags.faultNack,
    dropAfter: flags.faultDropAfter,
    loseAck: flags.faultLoseAck,
    latencyMs: flags.faultLatency,
  };
  const log = createLogger({
    format: flags.logFormat,
    level: flags.logLevel,
    write: (line) => terminal.complain(line),
    backlog: terminal.talkBacklog,
    now: () => clock.now(),
  });
  const server = await startServer({
    address: addr,
    socketMode: flags.socketMode,
    tickMs: tick,
    echoDelayMs: echoDelay,
    uploadDelayMs: uploadDelay,
    dataDir: memory ? inMemory : resolve(dataDir ?? join(stateFolder(process.env), "cloud")),
    opensLedger: dataDir !== undefined,
    faults,
    clock,
    random,
    log,
  });
  log.info("streaming-server started", {
    addr: formatAddress(addr),
    tick: formatDuration(tick),
    echo_delay: formatDuration(echoDelay),
    upload_delay: uploadDelay > 0 ? formatDuration(uploadDelay) : undefined,
    port: addr.kind === "tcp" && addr.port === 0 ? server.port : undefined,
  });
  if (addr.kind === "tcp" && /^(|0\.0\.0\.0|::|0:0:0:0:0:0:0:0)$/.test(addr.host)) {
    log.info("listening on all interfaces: anyone who reaches this machine can call", {
      only_this_machine: `--addr localhost:${addr.port}`,
    });
  }
  const asked = describeFaults(faults);
  if (asked !== "") {
    log.warn("stores get faults, as asked for", { faults: asked });
  }

  try {
    if (!interrupted.aborted) {
      const stopped = new Promise((resolve) => {
        interrupted.addEventListener("abort", resolve, { once: true });
      });
      await Promise.race([stopped, server.failed]);
    }
    return 0;
  } finally {
    log.info("graceful stop");
    await server.stop({ graceMs: grace, force: interruptedTwice });
  }
}
