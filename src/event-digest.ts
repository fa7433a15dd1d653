/**
 * Digests of events, to find out whether two places have the same ones without sending them. Store and
 * cloud compute them apart; docs/decisions/reconcile.md has the rule for whoever wants to do it too.
 */

import { createHash } from "node:crypto";
import type { StoreEvent } from "./store-event.ts";

/** In bytes: that of SHA-256. */
export const digestBytes = 32;

const modulus = 1n << BigInt(digestBytes * 8);

/**
 * SHA-256 over event_id, type and payload, in UTF-8 and each behind its length in bytes (four bytes,
 * big-endian), and then the timestamp (eight bytes, big-endian).
 */
export function digestOf({ eventId, type, payload, timestamp }: StoreEvent): Buffer {
  const hash = createHash("sha256");
  for (const text of [eventId, type, payload]) {
    const bytes = Buffer.from(text);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    hash.update(length).update(bytes);
  }
  const time = Buffer.alloc(8);
  time.writeBigUInt64BE(BigInt(timestamp));
  return hash.update(time).digest();
}

/** The day of a timestamp in UTC, such as `2026-01-02`. */
export function dayOf(timestamp: number): string {
  return new Date(timestamp).toISOString().slice(0, 10);
}

/** Says what is wrong with a day in words that name the field; undefined if nothing is. */
export function faultOfDay(field: string, text: string): string | undefined {
  const ms = /^\d{4}-\d\d-\d\d$/.test(text) ? Date.parse(`${text}T00:00:00Z`) : Number.NaN;
  // Date.parse reads the 30th of February as a day of March, which is written otherwise.
  return !Number.isNaN(ms) && dayOf(ms) === text
    ? undefined
    : `${field} is ${JSON.stringify(text.slice(0, 32))}; expected a day such as 2026-01-02`;
}

/** All events of a type and a day. */
export interface DigestCell {
  readonly type: string;
  /** As `dayOf`. */
  readonly day: string;
  readonly count: number;
  /** The sum of the events' digests, as big-endian numbers modulo 2^256: in any order it is the same. */
  readonly digest: Uint8Array;
}

/** Sums up events by type and day. */
export class DigestCells {
  readonly #cells = new Map<
    string,
    { readonly type: string; readonly day: string; count: number; sum: bigint }
  >();

  add(event: StoreEvent): void {
    const { type, timestamp } = event;
    this.addCell({ type, day: dayOf(timestamp), count: 1, digest: digestOf(event) });
  }

  addCell({ type, day, count, digest }: DigestCell): void {
    const key = `${day} ${type}`;
    const cell = this.#cells.get(key) ?? { type, day, count: 0, sum: 0n };
    cell.count += count;
    cell.sum = (cell.sum + numberOf(digest)) % modulus;
    this.#cells.set(key, cell);
  }

  /** How many cells there are. */
  get size(): number {
    return this.#cells.size;
  }

  /** All cells by day, then by type. */
  all(): DigestCell[] {
    return Array.from(this.inOrder());
  }

  /** The same one by one: thousands of them are work for a tenth of a second. */
  *inOrder(): Generator<DigestCell, void> {
    for (const key of Array.from(this.#cells.keys()).sort()) {
      const cell = this.#cells.get(key);
      if (cell !== undefined) {
        const { type, day, count, sum } = cell;
        yield { type, day, count, digest: bytesOf(sum) };
      }
    }
  }
}

function numberOf(digest: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(digest).toString("hex") || "0"}`);
}

function bytesOf(sum: bigint): Buffer {
  return Buffer.from(sum.toString(16).padStart(digestBytes * 2, "0"), "hex");
}

/** A question about events. */
export interface DigestRange {
  /** The first and the last day, as `dayOf`. */
  readonly fromDay: string;
  readonly toDay: string;
  /** Only events of this type; empty: of all. */
  readonly type: string;
}

/** Read at a time; in between others have their turn. */
const pageSize = 200;

/**
 * The events of a range, in the order of the bytes of their ids. `read` returns those behind an id, in
 * that order, at most `limit`, and none at the end; `pause` is called between two pages.
 */
export async function* eventsIn<E extends StoreEvent>(
  { fromDay, toDay, type }: DigestRange,
  {
    read,
    pause,
  }: {
    readonly read: (after: string, limit: number) => readonly E[];
    readonly pause: () => Promise<void>;
  },
): AsyncGenerator<E, void> {
  for (let page = read("", pageSize); page.length > 0; ) {
    for (const event of page) {
      const day = dayOf(event.timestamp);
      if (day >= fromDay && day <= toDay && (type === "" || event.type === type)) {
        yield event;
      }
    }
    await pause();
    page = read(page.at(-1)?.eventId ?? "", pageSize);
  }
}
