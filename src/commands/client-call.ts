/**
 * What `subscribe`, `upload` and `chat` have in common: connect, make one call, tell how it ended.
 */

import type { DescService } from "@bufbuild/protobuf";
import { formatAddress } from "../address.ts";
import type { Clock, Random } from "../clock.ts";
import { formatDuration } from "../duration.ts";
import { StatusError } from "../errors.ts";
import { type CallOptions, type Client, dial } from "../grpc/dial.ts";
import { type Exit, Stop } from "../shutdown.ts";
import type { ClientFlags } from "./flags.ts";
import { type StopFlags, type StopRules, startStopRules, unmetExit } from "./stop-rules.ts";
import type { Terminal } from "./terminal.ts";
import { verdictOf, verdictOfOk } from "./verdict.ts";

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
  const signal = AbortSignal.any([over.signal, interrupted, terminal.outputLost]);
  const connection = dial(flags.addr);
  let isConnected = false;
  const told = () => ({
    terminal,
    flags,
    tally: tally(),
    elapsedMs: clock.monotonic() - startedAt,
  });

  try {
    const waiting = readsTerminal
      ? undefined
      : terminal.progress(`connecting to ${formatAddress(flags.addr)}`);
    try {
      await connection.ready({ signal, waitMs: flags.waitReady, deadline });
      isConnected = true;
    } finally {
      waiting?.stop();
    }
    const rules = startStopRules(flags, {
      clock,
      signal,
      stop: (rule) => (rule.exit === 0 && onRuleMet !== undefined ? onRuleMet(rule) : stop(rule)),
    });
    const { why, exit = 0 } = await options.run({
      ...rules,
      client: connection.client(service),
      signal,
      deadline,
      stop,
      reconnect: () => connection.ready({ signal, deadline }),
    });
    const isUnmet = rules.isUnmet();
    terminal.say(verdictOfOk(isUnmet ? `${why}, expected ${flags.expect}` : why, told()));
    return isUnmet ? unmetExit : exit;
  } catch (error) {
    const isUnreachable = error instanceof StatusError && !isConnected;
    const verdict = isUnreachable ? undefined : verdictOf(error, told());
    if (verdict !== undefined) {
      terminal.say(verdict);
    }
    if (error instanceof Stop) {
      return error.exit;
    }
    if (error instanceof StatusError && error.code === "DEADLINE_EXCEEDED" && flags.deadline) {
      const after = formatDuration(flags.deadline);
      throw new StatusError(error.code, `the call was not over after ${after} (--deadline)`);
    }
    throw error;
  } finally {
    // Lets go of everything that still waits: timers, a source that has more to send, stdin.
    over.abort(new Stop("over"));
    connection.close();
  }
}
