/**
 * The program: which commands there are, how the command line is read, and the one place where an
 * error becomes an exit code.
 *
 * Start-up time is most of what a short call takes, so this file imports next to nothing: a
 * command's module, and with it grpc-js, is loaded when that command runs.
 */

import { fstatSync } from "node:fs";
import { Argument, Command, CommanderError } from "commander";
import { systemClock, systemRandom } from "./clock.ts";
import type { CommandGroup, CommandModule } from "./commands/command-module.ts";
import { readWords } from "./commands/go-flags.ts";
import { flushed, stopBlocking } from "./commands/output-streams.ts";
import type { TerminalFlags } from "./commands/terminal.ts";
import { messageOf, StatusError, statusCodes, UsageError } from "./errors.ts";

import { plain } from "./plain.ts";
import { dieBy, type Exit, keepIgnoredSignals, onStopSignals, Stop } from "./shutdown.ts";
import { version } from "./version.ts";

const commands: Readonly<Record<string, () => Promise<CommandModule | CommandGroup>>> = {
  serve: () => import("./commands/serve.ts"),
  subscribe: () => import("./commands/subscribe.ts"),
  upload: () => import("./commands/upload.ts"),
  chat: () => import("./commands/chat.ts"),
  "store-sync": () => import("./commands/store-sync.ts"),
  "head-office": () => import("./commands/head-office.ts"),
  demo: () => import("./commands/demo.ts"),
};

const exitCodes = `\
Exit codes
  0        the server ended the call with OK, or a stop rule was met, or the reader closed the pipe
  1        a fault inside brewctl
  2        usage or bad input, with the flag, or the file and line
  3        done, but records were rejected, and --fail-on-rejected asked to know
  4        --expect was not met in time
  5        store-sync: events are still pending or parked;
           head-office stores --check: a store needs somebody;
           head-office reconcile: the two sides differ
  64 + n   the call ended with gRPC status n:
           ${Object.entries(statusCodes)
             .filter(([, number]) => number > 0)
             .map(([name, number]) => `${64 + number} ${name}`)
             .join(", ")
             .replace(/(.{1,70})(?:, |$)/g, "$1\n           ")
             .trimEnd()}
  129, 130, 143
           SIGHUP, Ctrl+C, SIGTERM: brewctl dies by the signal itself, so a shell loop ends too
           (serve stops gracefully instead, with 0)`;

const rootExamples = `\
  brewctl demo                     the lesson in one terminal
  brewctl serve                    the server; then, in a second terminal:
  brewctl subscribe                  server stream: orders as they come
  brewctl upload --bad 5             client stream: a batch, one summary
  brewctl chat --count 20            bidirectional stream: both talk at once
  brewctl store-sync record --store store-01 --type Sale --payload '{"total":299}'
                                     offline: on this disk, until a flush or a channel`;

const faultExit = 1;
const usageExit = 2;
/** As grpcurl does it: clear of the codes above, and the status can be read off. */
const statusExitBase = 64;

/**
 * How long a process that was told to end waits for a slow reader of its output, in milliseconds: much
 * longer than a reader takes that reads at all, and much shorter than supervisors wait before SIGKILL.
 */
const lastWordsMs = 1_000;

/**
 * Aborts when standard output takes no more: with a `Stop` when its reader has gone, as `head`
 * does, with a `UsageError` when it cannot be written, as on a full disk.
 */
const outputLost = new AbortController();
process.stdout.on("error", (error: NodeJS.ErrnoException) =>
  outputLost.abort(
    error.code === "EPIPE"
      ? new Stop("reader gone")
      : new UsageError(`cannot write to standard output: ${error.message}`),
  ),
);
// Nobody is left to tell. Where both are one pipe, as with `2>&1 |`, its reader has gone.
process.stderr.on("error", ({ code }: NodeJS.ErrnoException) => {
  if (code === "EPIPE" && isSamePipe(process.stdout.fd, process.stderr.fd)) {
    outputLost.abort(new Stop("reader gone"));
  }
});

/** What other programs take for `--version`. */
const versionWords = ["version", "-v", "-V", "-version", "--version"];

/** `--version` and `help` first, also where they are spelled as other programs have them. */
function usualWords(argv: readonly string[]): readonly string[] {
  const [first = "", second, ...rest] = argv;
  if (versionWords.includes(first)) {
    return ["--version"];
  }
  return second === "help" && Object.hasOwn(commands, first) ? ["help", first, ...rest] : argv;
}

keepIgnoredSignals(process.env);
stopBlocking(process.stdout);
stopBlocking(process.stderr);

/** Aborts with the first SIGHUP, SIGINT or SIGTERM that a command is sent. */
const toldToStop = new AbortController();

/** Runs one command line. `words` is without node and script. */
async function main(words: readonly string[]): Promise<Exit> {
  const argv = usualWords(words);
  for (const name of Object.keys(process.env)) {
    // commander would take an empty variable for a value.
    if (name.startsWith("BREWCTL_") && process.env[name] === "") {
      delete process.env[name];
    }
  }
  if (process.env["NO_COLOR"]) {
    // Both together have Node print a warning. NO_COLOR wins, as it does in Node.
    delete process.env["FORCE_COLOR"];
  }
  let exit: Exit = 0;
  const program = new Command("brewctl")
    .description("gRPC streams you can watch: the Brew lessons' server and clients")
    .version(version, "-V, --version")
    .addHelpText("before", `Examples:\n${rootExamples}\n`)
    .addHelpText("after", "\nMore: brewctl help <command>, brewctl help exit-codes")
    .helpCommand(false)
    .showSuggestionAfterError()
    .configureOutput({
      // A value that is refused may have line ends and other control characters of its own.
      outputError: (text, write) =>
        write(
          `${text
            .trimEnd()
            .replace(/^error: /, "brewctl: ")
            .split(/\n(?=\(Did you mean )/)
            .map(plain)
            .join("\n")}\n`,
        ),
    })
    .exitOverride((error) => {
      throw error;
    });

  const [first = "", second = ""] = argv;
  const isVersion = first === "--version";
  // With flags before it, the command is known only when all flags are.
  const names = Object.hasOwn(commands, first) ? [first] : Object.keys(commands);
  const modules = isVersion ? [] : await Promise.all(names.map((name) => commands[name]?.()));
  const onEnd = (ended: Exit) => {
    exit = ended;
  };
  for (const module of modules) {
    if (module !== undefined && "verbs" in module) {
      await addGroup(program, module, second, onEnd);
    } else if (module !== undefined) {
      addCommand(program, module, onEnd);
    }
  }
  addHelpCommand(program);
  if (!Object.hasOwn(commands, first) && !isVersion) {
    await addCompletionCommand(program);
  }

  try {
    await program.parseAsync(readWords(argv, program), { from: "user" });
  } catch (error) {
    if (error instanceof CommanderError) {
      return error.exitCode === 0 ? 0 : usageExit;
    }
    return complain(error);
  }
  return exit;
}

function addCommand(parent: Command, module: CommandModule, onEnd: (exit: Exit) => void): void {
  const { command } = module;
  describe(parent, module);
  command.action(async () => {
    onEnd(await runCommand(command.opts(), command.args, module));
  });
}

/** Of a group, only the verb that is called needs to be loaded. */
async function addGroup(
  program: Command,
  module: CommandGroup,
  verb: string,
  onEnd: (exit: Exit) => void,
): Promise<void> {
  const { command, verbs } = module;
  describe(program, module);
  command.helpCommand(false);
  const names = Object.hasOwn(verbs, verb) ? [verb] : Object.keys(verbs);
  for (const verbModule of await Promise.all(names.map((name) => verbs[name]?.()))) {
    if (verbModule !== undefined) {
      addCommand(command, verbModule, onEnd);
    }
  }
}

function describe(
  parent: Command,
  { command, examples, notes }: CommandModule | CommandGroup,
): void {
  const path = [...(parent.parent === null ? [] : [parent.name()]), command.name()].join(" ");
  command
    .copyInheritedSettings(parent)
    .addHelpText("before", `Examples:\n${examples}\n`)
    .addHelpText("after", notes === undefined ? "" : `\n${notes}`)
    .showHelpAfterError(`see: brewctl help ${path}`);
  parent.addCommand(command);
}

async function runCommand(
  flags: TerminalFlags,
  words: readonly string[],
  { run, takesSecondInterrupt = false }: CommandModule,
): Promise<Exit> {
  const { openTerminal } = await import("./commands/terminal.ts");
  const second = new AbortController();
  const stopListening = onStopSignals(
    (signal) => {
      if (signal === "SIGINT" && process.stderr.isTTY) {
        terminal.endLine();
      }
      toldToStop.abort(new Stop(signal === "SIGINT" ? "Ctrl+C" : signal, signal));
    },
    takesSecondInterrupt ? () => second.abort() : dieBy,
  );
  const interrupted = toldToStop.signal;
  const terminal = openTerminal(flags, {
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    outputLost: outputLost.signal,
    interrupted,
    clock: systemClock,
  });
  try {
    const context = {
      terminal,
      clock: systemClock,
      random: systemRandom,
      stdin: process.stdin,
      interrupted,
      interruptedTwice: second.signal,
    };
    return await run(flags, context, words);
  } finally {
    stopListening();
  }
}

function addHelpCommand(program: Command): void {
  program
    .command("help [topic] [verb]")
    .description("help for a command, or for exit-codes")
    .action((topic?: string, verb?: string) => {
      const command = program.commands.find((known) => known.name() === topic);
      const inner = command?.commands.find((known) => known.name() === verb);
      if (command !== undefined && verb !== undefined && inner === undefined) {
        throw new UsageError(`no help for ${topic} ${verb}`, {
          hint: `there is help for: brewctl help ${topic}`,
        });
      }
      if (topic === "exit-codes") {
        process.stdout.write(`${exitCodes}\n`);
      } else if (topic === undefined || command !== undefined) {
        (inner ?? command ?? program).outputHelp();
      } else {
        throw new UsageError(`no help for ${topic}`, {
          hint: `there is help for: ${[...Object.keys(commands), "completion", "exit-codes"].join(", ")}`,
        });
      }
    });
}

/** Last, because its script names all commands. */
async function addCompletionCommand(program: Command): Promise<void> {
  const { completionScript, examples, shells } = await import("./commands/completion.ts");
  program
    .command("completion")
    .description("a script that completes commands and flags on TAB")
    .addArgument(new Argument("<shell>", "which shell it is for").choices(shells))
    .addHelpText("before", `Examples:\n${examples}\n`)
    .showHelpAfterError("see: brewctl help completion")
    .action((shell: (typeof shells)[number]) => {
      process.stdout.write(completionScript(shell, program, { topics: ["exit-codes"] }));
    });
}

function isSamePipe(fd: number, other: number): boolean {
  try {
    const [one, two] = [fstatSync(fd), fstatSync(other)];
    return one.isFIFO() && one.ino === two.ino && one.dev === two.dev;
  } catch {
    return false;
  }
}

/** Says what went wrong, and what can be done about it, and returns the exit code. */
function complain(error: unknown): number {
  if (!(error instanceof StatusError)) {
    const stack = error instanceof Error ? error.stack : undefined;
    const told = (stack ?? messageOf(error)).split("\n").map(plain).join("\n");
    process.stderr.write(`brewctl: a fault inside brewctl: ${told}\n`);
    return faultExit;
  }
  const isUsage = error instanceof UsageError;
  process.stderr.write(`brewctl: ${isUsage ? "" : `${error.code}: `}${plain(error.message)}\n`);
  if (error.hint !== undefined) {
    process.stderr.write(`  ${plain(error.hint)}\n`);
  }
  return isUsage ? usageExit : statusExitBase + statusCodes[error.code];
}

main(process.argv.slice(2)).then(async (exit) => {
  const withinMs = toldToStop.signal.aborted ? lastWordsMs : undefined;
  // What the reader has not taken yet would be cut off.
  await Promise.all([flushed(process.stdout, { withinMs }), flushed(process.stderr, { withinMs })]);
  if (typeof exit !== "number") {
    dieBy(exit);
    return;
  }
  // A write that failed says so in an event of its own, which comes after these callbacks.
  setImmediate(() => {
    const lost: unknown = outputLost.signal.reason;
    const isLost = lost instanceof UsageError && exit !== usageExit;
    // Not left to the event loop: to take a heap apart piece by piece is a tenth of a short
    // call, and a peer that does not hang up would keep us here.
    process.exit(isLost ? complain(lost) : exit);
  });
});
