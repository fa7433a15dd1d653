/**
 * How long to wait before the next attempt: exponential with full jitter. The whole wait is random
 * (not just a share of it), so that a thousand clients that lost one server do not come back in step.
 */

export interface BackoffOptions {
  /** Upper bound of the first wait, in milliseconds. */
  readonly baseMs: number;
  /** No wait is longer than this, in milliseconds. */
  readonly capMs: number;
}

/**
 * The wait in milliseconds before attempt `attempt + 1`, where `attempt` counts the failures in a
 * row so far, from 1, and `random` rolls from 0 up to 1. With a base of 1000 and a cap of 30000: below 1 s, 2 s, 4 s, ... 30 s.
 */
export function backoffMs(
  attempt: number,
  { baseMs, capMs }: BackoffOptions,
  random: () => number,
): number {
  return random() * Math.min(capMs, baseMs * 2 ** (attempt - 1));
}
