/**
 * The link: a store's attempt after attempt to be connected to the cloud.
 *
 * Its modes, and what leads from one to the next:
 *
 * - `connecting`: an attempt is under way. It has an end of its own, since a path may swallow it.
 * - `replaying`: connected, and what was buffered goes out, oldest first.
 * - `live`: the buffer is empty; events go out as they are recorded.
 * - `draining`: nothing more is sent; the answers that are due still come.
 * - `offline`: the connection could not be made or was lost. The next attempt comes after a random
 *   time, below 1 s at first and 30 s at most, for as long as it takes. The waits begin with 1 s again
 *   when something has been brought forward, not when the cloud has accepted a connection or a call.
 *   A call that the cloud ends as malformed counts as a lost connection too, up to eight times in a row.
 *
 * A session may ask to be made again at once. It gets that as long as each one brings something
 * forward, and once more; then it waits like a lost connection. So no cloud, whatever it answers, makes
 * a store call it in a loop without a pause.
 */

import { backoffMs } from "../backoff.ts";
import type { Bell } from "../bell.ts";
import type { Clock, Random } from "../clock.ts";
import { type StatusCode, StatusError } from "../errors.ts";
import { needsReopening } from "../sqlite.ts";

export type LinkState =
  | { readonly kind: "connecting" | "replaying" | "live" | "draining" }
  /** The cloud has answered, for the first time after it was lost. */
  | { readonly kind: "recovered" }
  | {
      readonly kind: "offline";
      readonly why: string;
      /** The number of the next attempt in a row. */
      readonly attempt: number;
      readonly waitMs: number;
    };

export interface LinkOptions {
  /** Rejects with `StatusError` if there is no connection. */
  readonly connect: (options: { readonly signal: AbortSignal }) => Promise<void>;
  /**
   * Makes use of a connection. `progressed` is to be called when the cloud's answer has brought
   * something forward: an event is settled, a new command is on the disk. An answer that leaves all as
   * it was does not count. `failures` is how many attempts in a row have failed so far. Resolves with
   * `again`, and why, to be made again; rejects when the connection is lost.
   */
  readonly session: (link: {
    readonly progressed: () => void;
    readonly failures: number;
  }) => Promise<"done" | { readonly again: string }>;
  readonly onState: (state: LinkState) => void;
  /** Tells of an error that is thrown at once, though its code is one of those that may pass. */
  readonly isFinal?: (error: StatusError) => boolean;
  /** Rings when there is a reason to try again before the time has come. */
  readonly hurry?: Bell | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** So many times in a row a session is made again at once though nothing was brought forward. */
const maxIdleRepeats = 1;

/** Of the waits between attempts, in milliseconds. */
export const linkBackoff = { baseMs: 1_000, capMs: 30_000 };

/**
 * How often in a row the cloud may refuse what it was sent as malformed before that is final. A store
 * sends nothing malformed, so on the way bits have flipped that TCP's checksum has not noticed.
 */
const maxMalformed = 8;

/** What another attempt would not change: a person has to. */
const finalCodes: readonly StatusCode[] = [
  "INVALID_ARGUMENT",
  "UNIMPLEMENTED",
  "PERMISSION_DENIED",
  "UNAUTHENTICATED",
];

/**
 * Keeps a session going until one is done. Throws the signal's reason, and what no other attempt
 * would change.
 */
export async function keepLinked(options: LinkOptions): Promise<void> {
  const { connect, session, onState, isFinal, hurry, clock, random, signal } = options;
  let failures = 0;
  /** Counts the sessions in a row that asked to be made again without bringing anything forward. */
  let idleRepeats = 0;
  let hasProgressed = false;
  /** Counts the calls in a row that ended because the cloud could not read what it was sent. */
  let malformed = 0;
  const progressed = () => {
    hasProgressed = true;
    malformed = 0;
    if (failures > 0) {
      failures = 0;
      onState({ kind: "recovered" });
    }
  };
  for (;;) {
    try {
      onState({ kind: "connecting" });
      await connect({ signal });
      for (;;) {
        let isIdle = true;
        const outcome = await session({
          progressed() {
            isIdle = false;
            progressed();
          },
          failures,
        });
        if (outcome === "done") {
          return;
        }
        signal.throwIfAborted();
        idleRepeats = isIdle ? idleRepeats + 1 : 0;
        if (idleRepeats > maxIdleRepeats) {
          throw new StatusError("ABORTED", outcome.again);
        }
      }
    } catch (error) {
      signal.throwIfAborted();
      const isMalformed = suggestsCorruption(error, hasProgressed);
      malformed = isMalformed ? malformed + 1 : 0;
      if (!isRetryable(error, isFinal, isMalformed && malformed <= maxMalformed)) {
        throw error;
      }
      failures += 1;
      const waitMs = backoffMs(failures, linkBackoff, random);
      onState({ kind: "offline", why: error.message, attempt: failures, waitMs });
      const over = new AbortController();
      const pause = AbortSignal.any([signal, over.signal]);
      const hurried = hurry?.next({ signal: pause });
      const slept = clock.sleep(waitMs, { signal: pause });
      await (hurried === undefined ? slept : Promise.race([slept, hurried]));
      over.abort(new StatusError("CANCELLED", "the wait is over"));
    }
  }
}

/**
 * Returns whether the error suggests that the message was corrupted on its way to the cloud. UNIMPLEMENTED
 * does only after the cloud has accepted something, which shows that it has the methods.
 */
function suggestsCorruption(error: unknown, hasProgressed: boolean): boolean {
  return (
    error instanceof StatusError &&
    (error.code === "INVALID_ARGUMENT" || (error.code === "UNIMPLEMENTED" && hasProgressed))
  );
}

function isRetryable(
  error: unknown,
  isFinal: LinkOptions["isFinal"],
  isMalformed: boolean,
): error is StatusError {
  return (
    error instanceof StatusError &&
    !needsReopening(error) &&
    (isMalformed || !finalCodes.includes(error.code)) &&
    !isFinal?.(error)
  );
}
