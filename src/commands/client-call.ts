/**
 * What `subscribe`, `upload` and `chat` have in common: connect, make one call, tell how it ended.
 *
 * The verdict line says who closed the stream, how many messages came, the status, why, and how
 * long it took. It is the lesson's point: `stream closed by server, got 5 events · OK · limit
 * reached · 5.02 s` against `stream cancelled by client, got 7 events · Ctrl+C · 7.31 s`.
 */

import type { DescService } from "@bufbuild/protobuf";
import { formatAddress } from "../address.ts";
import type { Clock, Random } from "../clock.ts";
import { formatDuration, formatElapsed } from "../duration.ts";
import { StatusError, UsageError } from "../errors.ts";
import { type CallOptions, type Client, dial } from "../grpc/dial.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import type { ClientFlags } from "./flags.ts";
import { type StopFlags, type StopRules, startStopRules, unmetExit } from "./stop-rules.ts";
import type { Terminal } from "./terminal.ts";

/** The world of a command; a test brings its own. */
export interface CommandContext {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly random: Random;
  readonly stdin: NodeJS.ReadStream;
  /** Aborts with a `Stop` on Ctrl+C or SIGTERM. */
  readonly interrupted: AbortSignal;
  /** Aborts on the next one, for a command that does not die of it. */
  readonly interruptedTwice: AbortSignal;
}

/** A call in progress, as the command that makes it sees it. */
export interface ClientCall<S extends DescService> extends CallOptions, StopRules {
  readonly client: Client<S>;
  /** Ends the call, and with it the command. */
  stop(reason: Stop): void;
  /** Dials anew after a lost connection. */
  reconnect(): Promise<void>;
}

export interface ClientCallOptions<S extends DescService> {
  readonly service: S;
  readonly flags: ClientFlags & StopFlags;
  readonly context: CommandContext;
  /** `got 5 events`, for the verdict; asked at the end. */
  readonly tally: () => string;
  /** A spinner would fight with the lines that a person types. */
  readonly readsTerminal?: boolean;
  /** What to do when a stop rule is met, if not to end the call. An unmet --expect always does. */
  readonly onRuleMet?: (rule: Stop) => void;
  /**
   * Makes the call and handles its messages. Returns why the server ended it, for the verdict, and
   * the exit code; throws what the call threw.
   */
  readonly run: (call: ClientCall<S>) => Promise<{ readonly why: string; readonly exit?: Exit }>;
}

/** Runs the call and says the verdict. Throws the `StatusError` that the call ended with. */
export async function makeClientCall<S extends DescService>(
  options: ClientCallOptions<S>,
): Promise<Exit> {
  const { service, flags, context, tally, readsTerminal = false, onRuleMet } = options;
  const { terminal, clock, interrupted } = context;

  const startedAt = clock.monotonic();
  const deadline = flags.deadline === undefined ? undefined : clock.now() + flags.deadline;
  const over = new AbortController();
  const stop = (reason: Stop) => over.abort(reason);
  const onInterrupt = () => over.abort(interrupted.reason);
  const onOutputLost = () => over.abort(terminal.outputLost.reason);
  interrupted.addEventListener("abort", onInterrupt);
  terminal.outputLost.addEventListener("abort", onOutputLost);

  const connection = dial(flags.addr);
  const { signal } = over;
  const sayVerdict = (who: string, ...reasons: string[]) =>
    terminal.say(
      [
        `${who}, ${tally()}`,
        ...reasons.map(plain),
        formatElapsed(clock.monotonic() - startedAt),
      ].join(" · "),
    );
  const connect = async (waitMs: number | undefined) => {
    const spinner = readsTerminal
      ? undefined
      : terminal.progress(`connecting to ${formatAddress(flags.addr)}`);
    try {
      await connection.ready({ signal, waitMs, deadline });
    } finally {
      spinner?.stop();
    }
  };

  let isConnected = false;

  try {
    if (interrupted.aborted) {
      onInterrupt();
    }
    await connect(flags.waitReady);
    isConnected = true;
    const rules = startStopRules(flags, {
      clock,
      signal,
      stop: (reason) =>
        reason.exit === 0 && onRuleMet !== undefined ? onRuleMet(reason) : stop(reason),
    });
    let counted = 0;
    const { why, exit = 0 } = await options.run({
      client: connection.client(service),
      signal,
      deadline,
      stop,
      reconnect: () => connect(undefined),
      touch: rules.touch,
      count(n = 1) {
        counted += n;
        rules.count(n);
      },
    });
    const isUnmet = flags.expect !== undefined && counted < flags.expect;
    sayVerdict(
      terminal.err.green("stream closed by server"),
      "OK",
      isUnmet ? `${why}, expected ${flags.expect}` : why,
    );
    return isUnmet ? unmetExit : exit;
  } catch (error) {
    if (error instanceof Stop) {
      sayVerdict(terminal.err.yellow("stream cancelled by client"), error.message);
      return error.exit;
    }
    if (error instanceof UsageError) {
      const why = error === terminal.outputLost.reason ? "output lost" : "bad input";
      sayVerdict(terminal.err.yellow("stream cancelled by client"), why);
    } else if (error instanceof StatusError && isConnected) {
      const [who, why] = blame(error, flags);
      sayVerdict(terminal.err.red(who), error.code, why);
      if (error.code === "DEADLINE_EXCEEDED" && flags.deadline !== undefined) {
        const after = formatDuration(flags.deadline);
        throw new StatusError(error.code, `the call was not over after ${after} (--deadline)`);
      }
    }
    throw error;
  } finally {
    // Lets go of everything that still waits: timers, a source that has more to send, stdin.
    over.abort(new Stop("over"));
    interrupted.removeEventListener("abort", onInterrupt);
    terminal.outputLost.removeEventListener("abort", onOutputLost);
    connection.close();
  }
}

/** Who ended a call that did not end with OK, and why, as far as its status tells. */
function blame(error: StatusError, { deadline }: ClientFlags): [who: string, why: string] {
  switch (error.code) {
    case "DEADLINE_EXCEEDED":
      return [
        "stream ended by deadline",
        deadline === undefined ? error.message : `deadline ${formatDuration(deadline)}`,
      ];
    case "UNAVAILABLE":
      // A call that arrives while the server stops is refused by HTTP/2.
      return /server shutting down|refused by server/.test(error.message)
        ? ["stream closed by server", "server shutting down"]
        : ["stream lost", "network lost"];
    case "CANCELLED":
      // We did not cancel, so it was a server that did not wait for its streams.
      return ["stream cut off by server", "server gone"];
    default:
      return ["stream closed by server", error.message];
  }
}
