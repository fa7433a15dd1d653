/**
 * What `subscribe`, `upload` and `chat` have in common: connect, make one call, tell how it ended.
 */

import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { formatAddress } from "../address.ts";
import type { Clock, Random } from "../clock.ts";
import { formatDuration } from "../duration.ts";
import { StatusError } from "../errors.ts";
import type { AnswerBounds } from "../grpc/bounds.ts";
import { type CallOptions, type Client, dial } from "../grpc/dial.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import type { ClientFlags } from "./flags.ts";
import { checkObserveFlags, type ObserveFlags, wantsToSee } from "./observe/flags.ts";
import type { Observing } from "./observe/index.ts";
import { type StopFlags, type StopRules, startStopRules, unmetExit } from "./stop-rules.ts";
import { noProgress, type Progress, type Terminal } from "./terminal.ts";
import { verdictOf, verdictOfOk } from "./verdict.ts";

/** The world of a command; a test brings its own. */
export interface CommandContext {
  readonly terminal: Terminal;
  readonly clock: Clock;
  readonly random: Random;
  readonly stdin: typeof process.stdin;
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
  /** A sign of life, unless something better is to be seen. */
  progress(text: string): Progress;
}

export interface ClientCallOptions<S extends DescService> {
  readonly service: S;
  /** The bounds of the service's answers. */
  readonly bounds: AnswerBounds<S>;
  readonly method: keyof S["method"] & string;
  readonly flags: ClientFlags & StopFlags & ObserveFlags;
  readonly context: CommandContext;
  /** `got 5 events`, for the verdict; asked at the end. */
  readonly tally: () => string;
  /** Notices within seconds a connection that died without a word; see `dial`. */
  readonly isWatchful?: boolean;
  /** A spinner would fight with the lines that a person types. */
  readonly readsTerminal?: boolean;
  /**
   * What was sent and has no answer; undefined if there is nothing. Asked and said, also with --quiet, when
   * the call ends other than by the server's OK or a stop rule.
   */
  readonly tellUnanswered?: () => string | undefined;
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
  const { service, bounds, flags, context, tally, readsTerminal = false, onRuleMet } = options;
  const { isWatchful = false } = options;
  const { terminal, clock, interrupted } = context;
  await checkObserveFlags(flags);

  const startedAt = clock.monotonic();
  const deadline = flags.deadline === undefined ? undefined : clock.monotonic() + flags.deadline;
  const over = new AbortController();
  const stop = (reason: Stop) => over.abort(reason);
  const signal = AbortSignal.any([over.signal, interrupted, terminal.outputLost]);
  const connection = dial(flags.addr, { isWatchful });
  let isConnected = false;
  const observing = await observeIfAsked(options);
  const progress = (text: string) =>
    readsTerminal || observing?.ownsTerminal ? noProgress : terminal.progress(text);
  const told = () => ({
    terminal,
    flags,
    tally: tally(),
    elapsedMs: clock.monotonic() - startedAt,
  });

  let verdict: string | undefined;
  let exit: Exit = 0;
  let failure: unknown;
  let unanswered: string | undefined;
  try {
    const waiting = progress(`connecting to ${formatAddress(flags.addr)}`);
    try {
      await connection.ready({ signal, waitMs: flags.waitReady, deadline });
      isConnected = true;
    } finally {
      waiting.stop();
    }
    const rules = startStopRules(flags, {
      clock,
      signal,
      stop: (rule) => (rule.exit === 0 && onRuleMet !== undefined ? onRuleMet(rule) : stop(rule)),
    });
    const outcome = await options.run({
      ...rules,
      client: connection.client(service, { bounds }),
      signal,
      deadline,
      watch: observing?.watch,
      stop,
      progress,
      reconnect: () => connection.ready({ signal, deadline }),
    });
    const isUnmet = rules.isUnmet();
    verdict = verdictOfOk(
      isUnmet ? `${outcome.why}, expected ${flags.expect}` : outcome.why,
      told(),
    );
    exit = isUnmet ? unmetExit : (outcome.exit ?? 0);
  } catch (error) {
    const isUnreachable = error instanceof StatusError && !isConnected;
    verdict = isUnreachable ? undefined : verdictOf(error, told());
    const isByRule = error instanceof Stop && error.exit === 0 && !terminal.outputLost.aborted;
    unanswered = isByRule ? undefined : options.tellUnanswered?.();
    if (error instanceof Stop) {
      exit = error.exit;
    } else {
      failure = withDeadline(error, flags);
    }
  } finally {
    // Lets go of everything that still waits: timers, a source that has more to send, stdin.
    over.abort(new Stop("over"));
    connection.close();
  }

  const unkept = observing?.show();
  if (failure !== undefined && unkept !== undefined) {
    // What went wrong with the call decides how we end; this is said all the same.
    terminal.complain(`brewctl: ${plain(unkept.message)}`);
  }
  failure ??= unkept;
  if (verdict !== undefined) {
    terminal.say(verdict);
  }
  if (unanswered !== undefined) {
    terminal.complain(unanswered);
  }
  if (failure !== undefined) {
    throw failure;
  }
  return exit;
}

async function observeIfAsked<S extends DescService>(
  options: ClientCallOptions<S>,
): Promise<Observing | undefined> {
  const { service, method, flags, context, readsTerminal = false } = options;
  if (!wantsToSee(flags)) {
    return undefined;
  }
  const { observe } = await import("./observe/index.ts");
  const { methodKind, name } = (service.method as S["method"])[method] as DescMethod;
  const address = formatAddress(flags.addr);
  const title = `${service.typeName}/${name}`;
  return observe({ shape: methodKind, title, address, flags, context, readsTerminal });
}

/** Our own words for the deadline, which name the flag. */
function withDeadline(error: unknown, { deadline }: ClientFlags): unknown {
  if (deadline && error instanceof StatusError && error.code === "DEADLINE_EXCEEDED") {
    const after = formatDuration(deadline);
    return new StatusError(error.code, `the call was not over after ${after} (--deadline)`);
  }
  return error;
}
