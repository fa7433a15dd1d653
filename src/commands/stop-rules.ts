/**
 * The rules by which a client ends a call itself: `--for`, `--idle`, `--expect`. Unlike a failure,
 * that is what the user asked for.
 */

import type { Command } from "commander";
import type { Clock } from "../clock.ts";
import { formatDuration } from "../duration.ts";
import { UsageError } from "../errors.ts";
import { Stop } from "../shutdown.ts";
import { integer, positiveDuration } from "./flags.ts";

/** `--expect` was not met in time. */
export const unmetExit = 4;

export interface StopFlags {
  readonly for?: number;
  readonly idle?: number;
  readonly expect?: number;
  readonly within?: number;
}

/** `what` is what the rules count, in the plural. */
export function withStopFlags(command: Command, what: string): Command {
  return command
    .option("--for <duration>", "stop after so long", positiveDuration)
    .option("--idle <duration>", `stop when no ${what} came for so long`, positiveDuration)
    .option("--expect <n>", `stop when n ${what} came; needs --within`, integer(1))
    .option("--within <duration>", "how long --expect waits before exit 4", positiveDuration);
}

/** Throws `UsageError` for rules that cannot be met together. */
export function checkStopFlags({ expect, within }: StopFlags, limit?: number): void {
  if ((expect === undefined) !== (within === undefined)) {
    throw new UsageError("--expect and --within go together, such as --expect 3 --within 5s");
  }
  if (expect !== undefined && limit !== undefined && limit > 0 && limit < expect) {
    throw new UsageError(`--expect ${expect} can never be met with --limit ${limit}`);
  }
}

/** The rules of one call, at work until its signal aborts. */
export interface StopRules {
  /** To be called for `n` messages that came. */
  count(n?: number): void;
  /** To be called when something went on that is not counted: the call is not idle. */
  touch(): void;
  /** Whether fewer came than --expect asked for. */
  isUnmet(): boolean;
}

/** Starts the rules' timers. `stop` is called at most once a rule. */
export function startStopRules(
  flags: StopFlags,
  { clock, signal, stop }: { clock: Clock; signal: AbortSignal; stop: (reason: Stop) => void },
): StopRules {
  let counted = 0;
  let lastAt = clock.monotonic();
  // A rule that is still waiting when the call ends has nothing to say.
  const after = (ms: number, then: () => void) => {
    clock.sleep(ms, { signal }).then(then, () => {});
  };

  if (flags.for !== undefined) {
    const reason = `--for ${formatDuration(flags.for)}`;
    after(flags.for, () => stop(new Stop(reason)));
  }
  if (flags.within !== undefined) {
    const reason = `expected ${flags.expect} within ${formatDuration(flags.within)}`;
    after(flags.within, () => stop(new Stop(reason, unmetExit)));
  }
  const { idle } = flags;
  if (idle !== undefined) {
    const check = () => {
      const left = lastAt + idle - clock.monotonic();
      if (left > 0) {
        after(left, check);
      } else {
        stop(new Stop(`idle for ${formatDuration(idle)}`));
      }
    };
    after(idle, check);
  }

  return {
    count(n = 1) {
      const { expect } = flags;
      const before = counted;
      counted += n;
      lastAt = clock.monotonic();
      if (expect !== undefined && before < expect && counted >= expect) {
        stop(new Stop(`got the expected ${expect}`));
      }
    },
    touch() {
      lastAt = clock.monotonic();
    },
    isUnmet: () => counted < (flags.expect ?? 0),
  };
}
