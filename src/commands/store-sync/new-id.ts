/** Ids for events that were given none. */

import { randomUUID } from "node:crypto";

/**
 * Makes ids such as evt-019b7f5e-8c20-7000-9d4c-2b7f01c93a5e: UUIDs of version 7 (RFC 9562), with the
 * time of `now` in milliseconds, a count within it and 62 random bits. Each sorts behind the one before,
 * also when the clock stands or is set back: so the indexes of a long backlog grow at their end, where
 * ids without an order touch a page each.
 */
export function newIds(now: () => number): () => string {
  let ms = 0;
  let count = 0;
  return () => {
    const at = now();
    if (at > ms) {
      ms = at;
      count = 0;
    } else if (count < 0xfff) {
      count += 1;
    } else {
      ms += 1;
      count = 0;
    }
    const time = hex(ms, 12);
    // The half of a random UUID behind its version: the variant, and 62 random bits.
    const rest = randomUUID().slice("00000000-0000-0000-".length);
    return `evt-${time.slice(0, 8)}-${time.slice(8)}-7${hex(count, 3)}-${rest}`;
  };
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}
