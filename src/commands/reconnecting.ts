/** A server stream that outlives its connection: asked for anew, where the last one ended. */

import { backoffMs } from "../backoff.ts";
import type { Clock, Random } from "../clock.ts";
import { formatElapsed } from "../duration.ts";
import { isTransient, type StatusError } from "../errors.ts";
import { plain } from "../plain.ts";

export type ConnectionNews =
  | {
      readonly kind: "lost";
      readonly why: string;
      /** Of those in a row. */
      readonly attempt: number;
      readonly waitMs: number;
    }
  | { readonly kind: "back"; readonly afterMs: number }
  | { readonly kind: "gave up"; readonly attempts: number };

export interface ReconnectingOptions<T> {
  /** Makes the call, for what has not come yet. */
  readonly open: () => AsyncIterable<T>;
  /** Dials anew after a lost connection. */
  readonly reconnect: () => Promise<void>;
  /** In a row; 0 for none. They count anew when a message has come. */
  readonly maxAttempts: number;
  readonly tell: (news: ConnectionNews) => void;
  readonly clock: Clock;
  readonly random: Random;
  /** When all of it has to be over, as `clock.monotonic()` counts. */
  readonly deadline: number | undefined;
  readonly signal: AbortSignal;
}

/** Of the waits between two attempts. */
const reconnectBackoff = { baseMs: 500, capMs: 10_000 };

/**
 * The messages of one call after another, until one of them is properly over. Throws what no other
 * attempt would change, what the last one threw, and the signal's reason.
 */
export async function* reconnecting<T>(options: ReconnectingOptions<T>): AsyncGenerator<T, void> {
  const { open, reconnect, maxAttempts, tell, clock, random, deadline, signal } = options;
  let failures = 0;
  let lostAt: number | undefined;
  for (;;) {
    try {
      if (lostAt !== undefined) {
        await reconnect();
        tell({ kind: "back", afterMs: clock.monotonic() - lostAt });
        lostAt = undefined;
      }
      for await (const message of open()) {
        // Not on connecting: a server that accepts and then fails would be asked without pause.
        failures = 0;
        yield message;
      }
      return;
    } catch (error) {
      // A stop of ours is no StatusError, so it is never retried.
      if (!isTransient(error) || maxAttempts === 0) {
        throw error;
      }
      if (failures >= maxAttempts) {
        tell({ kind: "gave up", attempts: failures });
        throw error;
      }
      failures += 1;
      lostAt ??= clock.monotonic();
      const leftMs = (deadline ?? Number.POSITIVE_INFINITY) - clock.monotonic();
      const waitMs = Math.min(leftMs, backoffMs(failures, reconnectBackoff, random));
      tell({ kind: "lost", why: (error as StatusError).message, attempt: failures, waitMs });
      await clock.sleep(waitMs, { signal });
    }
  }
}

/** For people; `meanwhile` says what became of what happened in between. */
export function describeNews(news: ConnectionNews, meanwhile: string): string {
  switch (news.kind) {
    case "lost":
      return `${plain(news.why)}; attempt ${news.attempt} to reconnect in ${formatElapsed(news.waitMs)}`;
    case "back":
      return `reconnected after ${formatElapsed(news.afterMs)}; ${meanwhile}`;
    case "gave up":
      return `gave up after ${news.attempts} attempts to reconnect`;
  }
}

/** What `--reconnect [max]` gives. */
export function attemptsOf(flag: number | true | undefined): number {
  return flag === true ? Number.POSITIVE_INFINITY : (flag ?? 0);
}
