/**
 * The verdict: who closed the stream, how many messages came, the status, why, and how long it took.
 * To tell who closed whom is the point of the lesson.
 *
 *     stream closed by server, got 5 events · OK · limit reached · 5.02 s
 *     stream cancelled by client, got 7 events · Ctrl+C · 7.31 s
 */

import { formatDuration, formatElapsed } from "../duration.ts";
import { StatusError, UsageError } from "../errors.ts";
import { plain } from "../plain.ts";
import { Stop } from "../shutdown.ts";
import type { ClientFlags } from "./flags.ts";
import type { Terminal } from "./terminal.ts";

export interface VerdictOptions {
  readonly terminal: Terminal;
  readonly flags: ClientFlags;
  /** Such as `got 5 events`. */
  readonly tally: string;
  readonly elapsedMs: number;
}

/** Of a call that ended with OK, because of `why`. */
export function verdictOfOk(why: string, options: VerdictOptions): string {
  return line(options.terminal.err.green("stream closed by server"), ["OK", why], options);
}

/** Of a call that ended with what was thrown; undefined for a fault of ours. */
export function verdictOf(thrown: unknown, options: VerdictOptions): string | undefined {
  const { terminal, flags } = options;
  const { yellow, red } = terminal.err;
  if (thrown instanceof Stop) {
    return line(yellow("stream cancelled by client"), [thrown.message], options);
  }
  if (thrown instanceof UsageError) {
    const why = thrown === terminal.outputLost.reason ? "output lost" : "bad input";
    return line(yellow("stream cancelled by client"), [why], options);
  }
  if (thrown instanceof StatusError) {
    const [who, why] = blame(thrown, flags);
    return line(red(who), [thrown.code, why], options);
  }
  return undefined;
}

function line(who: string, reasons: readonly string[], { tally, elapsedMs }: VerdictOptions) {
  return [`${who}, ${tally}`, ...reasons.map(plain), formatElapsed(elapsedMs)].join(" · ");
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
