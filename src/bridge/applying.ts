/**
 * Applies the cloud's commands one after the other, in their order, by whatever program a shop has for
 * that. At least once: one that was being applied when the power went is applied again, under the same
 * command_id.
 *
 * One that fails is tried again after a while, and those behind it wait; when it has failed too often
 * it is parked for a person, and the next one goes on.
 */

import { backoffMs } from "../backoff.ts";
import type { Bell } from "../bell.ts";
import { type Clock, type Random, steadyNow } from "../clock.ts";
import { messageOf } from "../errors.ts";
import { beginning } from "../plain.ts";
import { maxTextLength } from "../store-event.ts";
import type { CommandOutcome, Inbox, ReceivedCommand } from "./inbox.ts";

export interface ApplyingOptions {
  readonly inbox: Inbox;
  /** Rejects if the command could not be applied; with the signal's reason when that aborts. */
  readonly apply: (
    command: ReceivedCommand,
    options: { readonly signal: AbortSignal },
  ) => Promise<void>;
  /** After so many attempts a command is parked. */
  readonly maxAttempts: number;
  readonly clock: Clock;
  readonly random: Random;
  /** Ends it; a command that is being applied stays to be applied. */
  readonly signal: AbortSignal;
  /** Rings when a command has come. */
  readonly news: Bell;
  /** Is called with a command just before it is given to `apply`, at each attempt. */
  readonly onStart?: ((command: ReceivedCommand) => void) | undefined;
  /** Is told what became of a command when it is on the disk. */
  readonly onOutcome: (command: ReceivedCommand, outcome: CommandOutcome) => void;
}

/** Between two attempts, in milliseconds. */
const retryBackoff = { baseMs: 1_000, capMs: 60_000 };

/** How often the disk is looked at for commands that a person has put back, in milliseconds. */
const lookMs = 1_000;

/** Has no end of its own: throws the signal's reason, and what the disk throws. */
export async function keepApplying(options: ApplyingOptions): Promise<never> {
  const { inbox, clock, signal, news, onOutcome } = options;
  for (;;) {
    signal.throwIfAborted();
    const over = new AbortController();
    const heard = news.next({ signal: AbortSignal.any([signal, over.signal]) });
    const command = inbox.next();
    const waitMs = command === undefined ? lookMs : waitOf(command, steadyNow(clock));
    if (command === undefined || waitMs > 0) {
      const pause = AbortSignal.any([signal, over.signal]);
      await Promise.race([heard, clock.sleep(Math.min(waitMs, lookMs), { signal: pause })]);
      over.abort();
      continue;
    }
    over.abort();
    const outcome = await attempt(command, options);
    inbox.settle(command.number, outcome);
    onOutcome(command, outcome);
  }
}

async function attempt(
  command: ReceivedCommand,
  { apply, maxAttempts, clock, random, signal, onStart }: ApplyingOptions,
): Promise<CommandOutcome> {
  if (command.fault !== undefined) {
    // Another attempt would change nothing, and the program would get numbers that nobody sent.
    return { kind: "parked", reason: command.fault };
  }
  try {
    onStart?.(command);
    await apply(command, { signal });
    return { kind: "applied" };
  } catch (error) {
    signal.throwIfAborted();
    const reason = beginning(messageOf(error), maxTextLength);
    const attempts = command.attempts + 1;
    return attempts >= maxAttempts
      ? { kind: "parked", reason: `failed ${attempts} times: ${reason}` }
      : {
          kind: "retry",
          reason,
          notBefore: Math.ceil(steadyNow(clock) + backoffMs(attempts, retryBackoff, random)),
        };
  }
}

/** A time that is too far away to have been meant has come: the clock was set back before we started. */
function waitOf({ notBefore }: ReceivedCommand, now: number): number {
  const waitMs = notBefore - now;
  return waitMs > retryBackoff.capMs ? 0 : waitMs;
}
