/** What the cloud's answer makes of an event, for all who drain. */

import { backoffMs } from "../backoff.ts";
import { type Clock, type Random, steadyNow } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { maxRetryWaitMs, type Recorded, type Settlement } from "./outbox.ts";
import type { Answer } from "./uplink.ts";

export interface SettlingOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** An event that was refused so often is parked, whatever the cloud says. */
  readonly maxAttempts?: number;
}

/** With the waits between them, some half an hour of refusals of that one event. */
export const defaultMaxAttempts = 20;

/** Between attempts, in milliseconds, if the cloud does not ask for longer ones. */
const retryBackoff = { baseMs: 200, capMs: 300_000 };

/**
 * Between attempts after an event was changed on the way, in milliseconds: nothing is wrong with the
 * event itself, so it goes again soon, and on a bad link for ever.
 */
const corruptBackoff = { baseMs: 200, capMs: 10_000 };

/** Why a drainer whose events have new numbers waits before it sends them again. */
export const numbersTaken =
  "the cloud says that the numbers of the events are taken, also after they were numbered again";

/** Returns whether a call was refused because what it carried is more than the wire or the cloud takes. */
export function isTooMuch(error: unknown): error is StatusError {
  return error instanceof StatusError && error.code === "RESOURCE_EXHAUSTED";
}

export function settlementOf(
  { position, attempts }: Recorded,
  answer: Answer,
  { clock, random, maxAttempts = defaultMaxAttempts }: SettlingOptions,
): Settlement {
  if (answer.kind !== "refused") {
    return { kind: "acked", position };
  }
  const { reason, isRetryable, retryAfterMs, isCorrupt = false } = answer;
  if (!isRetryable) {
    return { kind: "parked", position, reason };
  }
  if (attempts + 1 >= maxAttempts && !isCorrupt) {
    return { kind: "parked", position, reason: `refused ${attempts + 1} times: ${reason}` };
  }
  const backoff = isCorrupt ? corruptBackoff : retryBackoff;
  const wantedMs = Math.max(retryAfterMs, backoffMs(attempts + 1, backoff, random));
  const waitMs = Math.min(wantedMs, maxRetryWaitMs);
  // 0 would mean: never refused.
  const notBefore = Math.max(1, Math.ceil(steadyNow(clock) + waitMs));
  return { kind: "retry", position, notBefore, reason };
}
