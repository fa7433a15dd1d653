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
 *   time, below 1 s at first and 30 s at most, for as long as it takes. It begins anew with 1 s when
 *   the cloud has answered something, not when it has accepted a connection.
 */

import { backoffMs } from "../backoff.ts";
import type { Bell } from "../bell.ts";
import type { Clock, Random } from "../clock.ts";
import { type StatusCode, StatusError } from "../errors.ts";
import { DamagedError } from "../sqlite.ts";

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
   * Makes use of a connection. `answered` is to be called when the cloud has answered something;
   * `failures` is how many attempts in a row have failed so far. Resolves with `again` to be called
   * once more at once, and rejects when the connection is lost.
   */
  readonly session: (link: {
    readonly answered: () => void;
    readonly failures: number;
  }) => Promise<"done" | "again">;
  readonly onState: (state: LinkState) => void;
  /** Rings when there is a reason to try again before the time has come. */
  readonly hurry?: Bell | undefined;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
}

/** Of the waits between attempts, in milliseconds. */
export const linkBackoff = { baseMs: 1_000, capMs: 30_000 };

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
  const { connect, session, onState, hurry, clock, random, signal } = options;
  let failures = 0;
  const answered = () => {
    if (failures > 0) {
      failures = 0;
      onState({ kind: "recovered" });
    }
  };
  for (;;) {
    try {
      onState({ kind: "connecting" });
      await connect({ signal });
      while ((await session({ answered, failures })) === "again") {
        signal.throwIfAborted();
      }
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!mayPass(error)) {
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

function mayPass(error: unknown): error is StatusError {
  return (
    error instanceof StatusError &&
    !(error instanceof DamagedError) &&
    !finalCodes.includes(error.code)
  );
}
