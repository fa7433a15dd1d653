/**
 * `store-sync run --exec CMD`: a shop's own program applies a command. It gets the command as JSON on
 * standard input and its id in the environment; exit code 0 means that it is applied.
 *
 * The program gets a small environment of its own. The daemon's may hold secrets, such as a token for
 * the cloud, which a shop's script has no need to know and may print or hand on.
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { accessSync, constants, statSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import type { ReceivedCommand } from "../../bridge/inbox.ts";
import type { Clock } from "../../clock.ts";
import { formatDuration } from "../../duration.ts";
import { messageOf, StatusError, UsageError } from "../../errors.ts";
import { CloudCommandSchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import { ndjson } from "../output.ts";

export interface ExecOptions {
  /** A command line for the shell. */
  readonly program: string;
  /** A program that takes longer is ended, and has failed. */
  readonly timeoutMs: number;
  readonly clock: Clock;
  /** The daemon's own environment; the program gets a part of it. */
  readonly env: NodeJS.ProcessEnv;
  /** Names of more variables that the program gets, if they are set. */
  readonly passes?: readonly string[];
  /** Is given what the program wrote, shortened and fit for a log. */
  readonly onOutput: (command: ReceivedCommand, output: string) => void;
}

/** Kept of what a program writes: the end of it, in characters. */
const maxOutputLength = 2_000;

/** Between asking a program to end and ending it, in milliseconds. */
const patienceMs = 2_000;

/** What a program has left in its pipes may take so long after its end, in milliseconds. */
const lastOutputMs = 200;

/** The variables by which a program finds its tools, its home, its user, its language and its time zone. */
const passed = /^(PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_[A-Z]+|TZ|TMPDIR)$/;

/** The part of an environment that a program gets: what every program needs, and what it is given by name. */
export function programEnv(
  env: NodeJS.ProcessEnv,
  names: readonly string[] = [],
): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(env).filter(([name]) => passed.test(name) || names.includes(name)),
  );
}

/**
 * Throws `UsageError` for a command line that cannot work: the shell cannot read it, or its first word
 * names a program that is not there or must not be run. A first word that only the shell understands,
 * such as `{` or an assignment, is left to the shell.
 */
export function insistOnProgram(program: string, env: NodeJS.ProcessEnv): void {
  const hint = "--exec takes a command line for /bin/sh, such as: --exec ./apply.sh";
  const shell = (...args: string[]) =>
    spawnSync("/bin/sh", args, { env, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const { status, stderr } = shell("-n", "-c", program);
  if (status !== 0 && status !== null) {
    throw new UsageError(`the shell cannot read --exec: ${plain(stderr.trim())}`, { hint });
  }
  const [, name] = /^\s*([\w.+/-]+)(?=$|[\s;|&<>])/.exec(program) ?? [];
  if (name === undefined) {
    return;
  }
  if (!name.includes("/")) {
    if (shell("-c", 'command -v -- "$1"', "sh", name).status !== 0) {
      throw new UsageError(`--exec: there is no program ${name} in PATH (${env["PATH"] ?? ""})`, {
        hint,
      });
    }
    return;
  }
  try {
    if (!statSync(name).isFile()) {
      throw new UsageError(`--exec: ${name} is not a file`, { hint });
    }
    accessSync(name, constants.X_OK);
  } catch (error) {
    if (error instanceof UsageError) {
      throw error;
    }
    const isThere = (error as NodeJS.ErrnoException).code === "EACCES";
    throw isThere
      ? new UsageError(`--exec: ${name} cannot be run`, { hint: `make it so: chmod +x ${name}` })
      : new UsageError(`--exec: there is no program ${name}`, { hint });
  }
}

/** Applies a command; rejects with why it was not applied, or with the signal's reason. */
export function exec({ program, timeoutMs, clock, env, passes, onOutput }: ExecOptions) {
  return async (
    command: ReceivedCommand,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> => {
    signal.throwIfAborted();
    const { commandId, type, sequence, attempts } = command;
    // A group of its own: what it has started is ended with it.
    const child: ChildProcess = spawn("/bin/sh", ["-c", program], {
      detached: true,
      stdio: "pipe",
      env: {
        ...programEnv(env, passes),
        BREWCTL_COMMAND_ID: commandId,
        BREWCTL_COMMAND_TYPE: type,
        BREWCTL_COMMAND_SEQUENCE: String(sequence),
        BREWCTL_COMMAND_ATTEMPT: String(attempts + 1),
      },
    });
    // At once: where no process could be made, the error comes alone, and without pipes.
    const ended = endOf(child);
    const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
    let output = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("readable", () => {
        for (let text = stream.read(); text !== null; text = stream.read()) {
          output = (output + text).slice(-maxOutputLength);
        }
      });
    }
    // A program need not read its input.
    child.stdin?.on("error", () => {}).end(`${json(command)}\n`);

    const over = new AbortController();
    const late = new Error(`it was ended after ${formatDuration(timeoutMs)}`);
    const isLate = clock
      .sleep(timeoutMs, { signal: AbortSignal.any([signal, over.signal]) })
      .then(() => late);
    try {
      const failure = await Promise.race([ended, isLate]);
      if (failure === late) {
        await endGroup(child, ended, clock);
      }
      await Promise.race([closed, clock.sleep(lastOutputMs, over)]);
      const said = plain(output.trim());
      if (said !== "") {
        onOutput(command, said);
      }
      if (failure !== undefined) {
        const words = said === "" ? "" : `: ${said.slice(-300)}`;
        throw new Error(`${failure.message}${words}`);
      }
    } catch (error) {
      if (signal.aborted) {
        await endGroup(child, ended, clock);
      }
      throw error;
    } finally {
      over.abort(new StatusError("CANCELLED", "the program has ended"));
      isLate.catch(() => {});
      child.stdout?.destroy();
      child.stderr?.destroy();
    }
  };
}

/** Resolves when it has ended, with what is wrong about that. */
function endOf(child: ChildProcess): Promise<Error | undefined> {
  return new Promise((resolve) => {
    child.once("error", (error) => resolve(new Error(`cannot start it: ${messageOf(error)}`)));
    child.once("exit", (code, signal) => {
      const how = signal === null ? `exit code ${code}` : `ended by ${signal}`;
      resolve(code === 0 ? undefined : new Error(how));
    });
  });
}

/** Asks the program and all that it has started to end, and ends what is left. */
async function endGroup(child: ChildProcess, ended: Promise<unknown>, clock: Clock) {
  const over = new AbortController();
  signalGroup(child, "SIGTERM");
  await Promise.race([ended, clock.sleep(patienceMs, over).catch(() => {})]);
  over.abort();
  signalGroup(child, "SIGKILL");
  await ended;
}

function signalGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid !== undefined) {
    try {
      process.kill(-pid, signal);
    } catch {
      // Nobody of it is left.
    }
  }
}

/** ProtoJSON of sync.v1.CloudCommand. */
function json({ commandId, type, payloadJson, sequence, issuedAt }: ReceivedCommand): string {
  const numbers = { sequence: BigInt(sequence), issuedAt: BigInt(issuedAt) };
  const message = create(CloudCommandSchema, { commandId, type, payloadJson, ...numbers });
  return ndjson(CloudCommandSchema, message);
}
