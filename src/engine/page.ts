/**
 * Reads rows page by page, with a bound on what a page holds: a reader that has stopped reading
 * keeps at most one page in memory, however large the rows are.
 */

/**
 * The size at which a page ends, in characters of payload; its last row may exceed it. Eight readers that
 * come together read their first pages in one turn of the event loop, at some 5 ms a megabyte.
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
        return { items, isFull: true };
      }
    }
  }
  return { items, isFull: false };
}
