/**
 * Reads rows page by page, with a bound on what a page holds: a reader that has stopped reading
 * keeps at most one page in memory, however large the rows are. Readers of large pages take turns, since
 * reading and encoding a megabyte takes some ten milliseconds, in which nobody else is served.
 */

import { setImmediate as nextTurn } from "node:timers/promises";

/**
 * The size at which a page ends, in characters of payload; its last row may exceed it. It is also what
 * all readers together may read in one turn of the event loop.
 */
export const maxPageSize = 1024 * 1024;

export interface Page<T> {
  readonly items: readonly T[];
  /** True if the page ended at a bound, so that more rows may follow. */
  readonly isFull: boolean;
}

export interface PageOptions<T> {
  /** The count at which a page ends. */
  readonly limit: number;
  readonly read: (row: unknown[]) => T;
  /** The size of an item's payload, in characters. */
  readonly sizeOf: (item: T) => number;
}

/** The size of the pages that were read in this turn of the event loop, by whomever. */
let sizeInTurn = 0;

/** Resolves at once, or when others have read their pages and there is time for another one. */
export async function turnToRead({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  while (sizeInTurn >= maxPageSize) {
    await nextTurn();
    signal.throwIfAborted();
  }
}

function countInTurn(size: number): void {
  if (sizeInTurn === 0) {
    nextTurn().then(() => {
      sizeInTurn = 0;
    });
  }
  sizeInTurn += size;
}

/** Takes rows until the page is full or the rows end. A page has at least one item if a row is there. */
export function readPage<T>(
  rows: Iterable<unknown[]>,
  { limit, read, sizeOf }: PageOptions<T>,
): Page<T> {
  const items: T[] = [];
  let size = 0;
  if (limit > 0) {
    for (const row of rows) {
      const item = read(row);
      items.push(item);
      size += sizeOf(item);
      if (items.length >= limit || size >= maxPageSize) {
        countInTurn(size);
        return { items, isFull: true };
      }
    }
  }
  countInTurn(size);
  return { items, isFull: false };
}
