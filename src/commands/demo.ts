/**
 * `brewctl demo`: the lesson in one terminal. It starts a server on a free port of this machine,
 * plays the three clients against it, each as its own command would run, and stops the server.
 *
 * story: test/story/demo.test.ts
 */

import { Command } from "commander";
import type { Address } from "../address.ts";
import { formatDuration } from "../duration.ts";
import { createLogger } from "../log.ts";
import { noFaults } from "../server/faults.ts";
import { startServer } from "../server/index.ts";
import type { Exit } from "../shutdown.ts";
import { inMemory } from "../sqlite.ts";
import { run as chat } from "./chat.ts";
import type { CommandContext } from "./client-call.ts";
import { type ClientFlags, withTerminalFlags } from "./flags.ts";
import { run as subscribe } from "./subscribe.ts";
import { run as upload } from "./upload.ts";

export const command = withTerminalFlags(
  new Command("demo").description("play the lesson: a server, then each of its clients"),
);

export const examples = `\
  brewctl demo
  make demo`;

/** Livelier than the lesson's one second; slow enough to watch. */
const tickMs = 400;
const echoDelayMs = 200;

interface Chapter {
  readonly title: string;
  /** What to look for. */
  readonly watch: string;
  readonly command: string;
  play(flags: ClientFlags, context: CommandContext): Promise<Exit>;
}

const chapters: readonly Chapter[] = [
  {
    title: "server stream: a barista's screen",
    watch: "One request, many answers, one a tick. The server ends it at the limit.",
    command: "brewctl subscribe",
    play: (flags, context) => subscribe({ ...flags, customer: "" }, context),
  },
  {
    title: "client stream: the nightly import",
    watch: "Many records, one answer. The bad ones are counted and cost nothing else.",
    command: "brewctl upload --bad 3",
    play: (flags, context) => upload({ ...flags, count: 20, bad: 3 }, context),
  },
  {
    title: "bidirectional stream: two that talk at once",
    watch: "All pings leave before the first echo comes: the directions are independent.",
    command: "brewctl chat --interval 20ms --timeline",
    play(flags, context) {
      const pings = { from: "client-1", count: 5, interval: 20, halfClose: true };
      return chat({ ...flags, ...pings, timeline: true }, context);
    },
  },
];

export async function run(_flags: object, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted } = context;
  const { bold, dim } = terminal.err;
  const log = createLogger({
    format: "text",
    write: (line) => terminal.say(dim(`  server │ ${line}`)),
    now: () => clock.now(),
  });
  const anyPort: Address = { kind: "tcp", host: "127.0.0.1", port: 0 };
  const server = await startServer({
    address: anyPort,
    tickMs,
    echoDelayMs,
    uploadDelayMs: 0,
    dataDir: inMemory,
    opensLedger: false,
    faults: noFaults,
    clock,
    random,
    log,
  });
  const port = server.port ?? 0;
  terminal.say(bold("brewctl demo: three kinds of gRPC stream, over a real socket"));
  log.info("streaming-server started", {
    addr: `127.0.0.1:${port}`,
    tick: formatDuration(tickMs),
    echo_delay: formatDuration(echoDelayMs),
  });

  let exit: Exit = 0;
  try {
    for (const [i, { title, watch, command, play }] of chapters.entries()) {
      terminal.say(`\n${bold(`${i + 1}. ${title}`)}\n   ${watch}\n${dim(`   $ ${command}`)}`);
      exit = await play({ addr: { ...anyPort, port }, output: "text" }, context);
      if (exit !== 0 || terminal.outputLost.aborted) {
        return exit;
      }
    }
  } finally {
    await server.stop({ graceMs: 1000, force: interrupted });
  }
  terminal.say(
    `\n${bold("That was the lesson.")} Now in two terminals: make run-server, and make run-subscribe`,
  );
  return exit;
}
