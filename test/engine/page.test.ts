/** Pages of rows, and the turns that readers of large ones take. */

import { expect, test } from "vitest";
import { maxPageSize, readPage, turnToRead } from "../../src/engine/page.ts";

const { signal } = new AbortController();

const page = (sizes: readonly number[], limit = 10) =>
  readPage(
    sizes.map((size) => [size]),
    { limit, read: ([size]) => Number(size), sizeOf: (size) => size },
  );

test("a page ends at its count, at its size, or with the rows", () => {
  expect(page([1, 2, 3])).toEqual({ items: [1, 2, 3], isFull: false });
  expect(page([1, 2, 3], 2)).toEqual({ items: [1, 2], isFull: true });
  expect(page([1, maxPageSize, 3])).toEqual({ items: [1, maxPageSize], isFull: true });
  expect(page([1], 0)).toEqual({ items: [], isFull: false });
});

test("readers of large pages read one in each turn of the event loop, in order", async () => {
  let turn = 0;
  const count = () => {
    turn += 1;
    next = setImmediate(count);
  };
  let next = setImmediate(count);
  const turns: number[] = [];
  const readers = Array.from({ length: 4 }, async (_, i) => {
    await turnToRead({ signal });
    page([maxPageSize]);
    turns[i] = turn;
  });
  await Promise.all(readers);
  clearImmediate(next);
  expect(turns).toHaveLength(4);
  expect(new Set(turns).size).toBe(4);
  expect(turns).toEqual(turns.toSorted((a, b) => a - b));
});

test("small pages wait for nobody", async () => {
  await turnToRead({ signal });
  page([1]);
  let isWaiting = true;
  const reader = turnToRead({ signal }).then(() => {
    isWaiting = false;
  });
  await Promise.resolve();
  await Promise.resolve();
  expect(isWaiting).toBe(false);
  await reader;
});

test("a reader that waits for its turn stops with the reason of the signal", async () => {
  await turnToRead({ signal });
  page([maxPageSize]);
  const reason = new Error("enough");
  await expect(turnToRead({ signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
});
