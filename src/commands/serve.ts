/**
 * `brewctl serve`: the server of the lessons, in the foreground until Ctrl+C or SIGTERM, which it
 * answers with a graceful stop. The log goes to standard error; there is no data.
 *
 * services: server/index.ts
 * story: test/story/lesson.test.ts, test/commands/serve.test.ts
 */

import { Command, Option } from "commander";
import { type Address, formatAddress, parseAddress } from "../address.ts";
import { formatDuration } from "../duration.ts";
import { createLogger, type LogFormat, logFormats } from "../log.ts";
import { startServer } from "../server/index.ts";
import type { Exit } from "../shutdown.ts";
import type { CommandContext } from "./client-call.ts";
import { duration, listenAddress } from "./flags.ts";

export interface ServeFlags {
  readonly addr: Address;
  readonly tick: number;
  readonly echoDelay: number;
  readonly uploadDelay: number;
  readonly grace: number;
  readonly logFormat: LogFormat;
}

export const command = new Command("serve")
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
    new Option("--log-format <format>", "how the log is written, to standard error")
      .choices(logFormats)
      .default("text")
      .env("BREWCTL_LOG_FORMAT"),
  );

export const examples = `\
  brewctl serve
  brewctl serve --addr localhost:50052             not reachable from other machines
  brewctl serve --tick 100ms --echo-delay 1s
  brewctl serve --upload-delay 1ms                 a slow server: see upload --timeline
  brewctl serve --addr localhost:0 --log-format json 2>server.log
  brewctl serve --addr unix:/tmp/brew.sock`;

export const notes = `\
Ctrl+C or SIGTERM stops gracefully: subscriptions and chats end at once with UNAVAILABLE, uploads
may finish within --grace. A second Ctrl+C does not wait. Health and reflection are always on.`;

/** A second Ctrl+C cuts the grace short and still exits 0. */
export const takesSecondInterrupt = true;

export async function run(flags: ServeFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted, interruptedTwice } = context;
  const { addr, tick, echoDelay, uploadDelay, grace, logFormat } = flags;
  const log = createLogger({
    format: logFormat,
    write: (line) => terminal.complain(line),
    now: () => clock.now(),
  });
  const server = await startServer({
    address: addr,
    tickMs: tick,
    echoDelayMs: echoDelay,
    uploadDelayMs: uploadDelay,
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

  if (!interrupted.aborted) {
    await new Promise((resolve) => {
      interrupted.addEventListener("abort", resolve, { once: true });
    });
  }
  log.info("graceful stop");
  await server.stop({ graceMs: grace, force: interruptedTwice });
  return 0;
}
