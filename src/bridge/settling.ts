/** What the cloud's answer makes of an event, for all who drain. */

import { backoffMs } from "../backoff.ts";
import type { Clock, Random } from "../clock.ts";
import type { Recorded, Settlement } from "./outbox.ts";
import type { Answer } from "./uplink.ts";

export interface SettlingOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** An event that was refused so often is parked, whatever the cloud says. */
  readonly maxAttempts?: number;
}

/** At the longest waits, some ten minutes of refusals. */
export const defaultMaxAttempts = 20;

/** Between attempts where the cloud does not say how long to wait, in milliseconds. */
const retryBackoff = { baseMs: 200, capMs: 30_000 };

export function settlementOf(
  { position, attempts }: Recorded,
  answer: Answer,
  { clock, random, maxAttempts = defaultMaxAttempts }: SettlingOptions,
): Settlement {
  if (answer.kind !== "refused") {
    return { kind: "acked", position };
  }
  const { reason, isRetryable, retryAfterMs } = answer;
  if (!isRetryable) {
    return { kind: "parked", position, reason };
  }
  if (attempts + 1 >= maxAttempts) {
    return { kind: "parked", position, reason: `refused ${attempts + 1} times: ${reason}` };
  }
  const waitMs = retryAfterMs || backoffMs(attempts + 1, retryBackoff, random);
  // 0 would mean: never refused.
  return { kind: "retry", position, notBefore: Math.max(1, clock.now() + waitMs), reason };
}
