/**
 * `brewctl demo`: the lessons in one terminal. It starts a server on a free port of this machine,
 * plays the clients against it, each as its own command would run, and stops the server.
 *
 * story: test/story/demo.test.ts
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Argument, Command } from "commander";
import type { Address } from "../address.ts";
import { formatDuration } from "../duration.ts";
import type { RunningServer } from "../grpc/serve.ts";
import { createLogger } from "../log.ts";
import { noFaults } from "../server/faults.ts";
import { startServer } from "../server/index.ts";
import { type Exit, Stop } from "../shutdown.ts";
import { run as chat } from "./chat.ts";
import type { CommandContext } from "./client-call.ts";
import { storeMorning } from "./demo/store-morning.ts";
import { type ClientFlags, withTerminalFlags } from "./flags.ts";
import { run as subscribe } from "./subscribe.ts";
import { run as upload } from "./upload.ts";

const parts = ["lesson", "store"] as const;

export const command = withTerminalFlags(
  new Command("demo")
    .description("play the lessons: a server, then each of its clients")
    .addArgument(new Argument("[part]", "only the streams, or only the store").choices(parts)),
);

export const examples = `\
  brewctl demo                                     about 20 s
  brewctl demo store                               a store's morning, with an outage
  make demo`;

/** Livelier than the lesson's one second; slow enough to watch. */
const tickMs = 400;
const echoDelayMs = 200;

interface Stage {
  readonly flags: ClientFlags;
  readonly context: CommandContext;
  readonly folder: string;
  /** Starts the server, where it was before if it was, and returns where that is. */
  start(): Promise<Address>;
  stop(): Promise<void>;
}

interface Chapter {
  readonly part: (typeof parts)[number];
  readonly title: string;
  /** What to look for. */
  readonly watch: string;
  readonly command?: string;
  play(stage: Stage): Promise<Exit>;
}

const chapters: readonly Chapter[] = [
  {
    part: "lesson",
    title: "server stream: a barista's screen",
    watch: "One request, many answers, one a tick. The server ends it at the limit.",
    command: "brewctl subscribe",
    play: ({ flags, context }) => subscribe({ ...flags, customer: "" }, context),
  },
  {
    part: "lesson",
    title: "client stream: the nightly import",
    watch: "Many records, one answer. The bad ones are counted and cost nothing else.",
    command: "brewctl upload --bad 3",
    play: ({ flags, context }) => upload({ ...flags, count: 20, bad: 3 }, context),
  },
  {
    part: "lesson",
    title: "bidirectional stream: two that talk at once",
    watch: "All pings leave before the first echo comes: the directions are independent.",
    command: "brewctl chat --interval 20ms --timeline",
    play({ flags, context }) {
      const pings = { from: "client-1", count: 5, interval: 20, halfClose: true };
      return chat({ ...flags, ...pings, timeline: true }, context);
    },
  },
  {
    part: "store",
    title: "the store bridge: a store's morning",
    watch: "A stream may break anywhere: what is durable is the store's disk and the cloud's.",
    async play({ context, folder, start, stop }) {
      await stop();
      return storeMorning({ folder, cloud: { start, stop }, context });
    },
  },
];

export async function run(
  _flags: object,
  context: CommandContext,
  [part]: readonly string[],
): Promise<Exit> {
  const { terminal, clock, random, interrupted } = context;
  const { bold, dim } = terminal.err;
  const log = createLogger({
    format: "text",
    write: (line) => terminal.say(dim(`  server │ ${line}`)),
    now: () => clock.now(),
  });
  const folder = mkdtempSync(join(tmpdir(), "brewctl-demo-"));
  let addr: Extract<Address, { kind: "tcp" }> = { kind: "tcp", host: "127.0.0.1", port: 0 };
  let server: RunningServer | undefined;
  const start = async (): Promise<Address> => {
    server = await startServer({
      address: addr,
      ...{ tickMs, echoDelayMs, uploadDelayMs: 0 },
      ...{ dataDir: join(folder, "cloud"), opensLedger: false, faults: noFaults },
      ...{ clock, random, log },
    });
    // There again, when it comes back.
    addr = { ...addr, port: server.port ?? 0 };
    log.info("streaming-server started", {
      addr: `127.0.0.1:${server.port}`,
      tick: formatDuration(tickMs),
      echo_delay: formatDuration(echoDelayMs),
    });
    return addr;
  };
  const stop = async () => {
    await server?.stop({ graceMs: 1000, force: interrupted });
    server = undefined;
  };

  terminal.say(bold("brewctl demo: gRPC streams, over a real socket"));
  terminal.say(dim('To type its lines in a checkout: export PATH="$PWD/bin:$PATH"'));
  let exit: Exit = 0;
  try {
    if (part !== "store") {
      await start();
    }
    const played = chapters.filter((chapter) => part === undefined || chapter.part === part);
    for (const [i, { title, watch, command, play }] of played.entries()) {
      const typed = command === undefined ? "" : `\n${dim(`   $ ${command}`)}`;
      terminal.say(`\n${bold(`${i + 1}. ${title}`)}\n   ${watch}${typed}`);
      const flags = { addr, output: "text" } as const;
      exit = await play({ flags, context, folder, start, stop });
      if (exit !== 0 || terminal.outputLost.aborted) {
        return exit;
      }
    }
  } catch (error) {
    if (!(error instanceof Stop)) {
      throw error;
    }
    return error.exit;
  } finally {
    await stop();
    rmSync(folder, { recursive: true, force: true });
  }
  terminal.say(
    part === "store"
      ? `\n${bold("That was the bridge.")} Now by hand: brewctl serve, and brewctl help store-sync`
      : `\n${bold("That was the lesson.")} Now in two terminals: make run-server, and make run-subscribe
Backpressure, when a client is faster than its server: make run-backpressure`,
  );
  return exit;
}
