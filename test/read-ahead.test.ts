/** Reading ahead of a busy consumer, up to a bound. */

import { setImmediate as nextTurn } from "node:timers/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { readAhead } from "../src/read-ahead.ts";
import { collect, counted, each } from "./support/serve-handlers.ts";

const turns = async (count: number) => {
  for (let i = 0; i < count; i++) {
    await nextTurn();
  }
};

test("everything comes, in order, whatever the two sides wait for", async () => {
  const waits = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 40 });
  await fc.assert(
    fc.asyncProperty(waits, waits, fc.integer({ min: 1, max: 8 }), async (slow, busy, maxAhead) => {
      const source = (async function* () {
        for (const [i, wait] of slow.entries()) {
          await turns(wait);
          yield i;
        }
      })();
      const seen: number[] = [];
      for await (const item of readAhead(source, maxAhead)) {
        await turns(busy[seen.length] ?? 0);
        seen.push(item);
      }
      expect(seen).toEqual(slow.map((_, i) => i));
    }),
    { numRuns: 50 },
  );
});

test("a busy consumer is read ahead of, and no further than the bound", async () => {
  const source = counted((i) => i, 1000);
  const items = readAhead(source.messages, 64);
  expect((await items.next()).value).toBe(1);
  await turns(200);
  expect(source.taken).toBeGreaterThanOrEqual(64);
  expect(source.taken).toBeLessThanOrEqual(66);
  expect((await items.next()).value).toBe(2);
  await turns(10);
  expect(source.taken).toBeLessThanOrEqual(67);
  await items.return();
});

test("a small item that is taken makes no room for a large one", async () => {
  const source = counted((i) => i, 1000);
  const items = readAhead(source.messages, 64, (item) => (item <= 64 ? 1 : 32));
  for (let i = 0; i < 32; i += 1) {
    await items.next();
    await turns(10);
  }
  // 32 small ones and one large one wait, and at most one more that was just taken.
  expect(source.taken).toBeLessThanOrEqual(66);
  await items.return();
});

test("an empty source ends at once", async () => {
  expect(await collect(readAhead(each([]), 4))).toEqual({ messages: [], error: undefined });
});

test("what was read before the source failed comes first", async () => {
  const fault = new Error("the pipe broke");
  const source = (async function* () {
    yield* [1, 2, 3];
    throw fault;
  })();
  const items = readAhead(source, 64);
  const first = await items.next();
  await turns(10);
  const { messages, error } = await collect(items);
  expect([first.value, ...messages]).toEqual([1, 2, 3]);
  expect(error).toBe(fault);
});

test("leaving the loop closes the source", async () => {
  const source = counted((i) => i, 1000);
  for await (const _ of readAhead(source.messages, 4)) {
    break;
  }
  await source.closed;
  expect(source.taken).toBeLessThanOrEqual(6);
});

test("leaving the loop does not wait for a read that is under way", async () => {
  const source = (async function* () {
    yield 1;
    await new Promise(() => {});
  })();
  for await (const item of readAhead(source, 4)) {
    expect(item).toBe(1);
    await nextTurn();
    break;
  }
});
