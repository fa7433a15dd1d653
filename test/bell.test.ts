/** Waking whoever waits. */

import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import { Bell } from "../src/bell.ts";
import { failure } from "./support/serve-handlers.ts";
import { never } from "./support/start-server.ts";

test("a ring wakes all who wait, once", async () => {
  const bell = new Bell();
  const woken: number[] = [];
  const waits = [1, 2].map((who) => bell.next({ signal: never }).then(() => woken.push(who)));
  expect(bell.isAwaited).toBe(true);
  bell.ring();
  expect(bell.isAwaited).toBe(false);
  await Promise.all(waits);
  bell.ring();
  expect(woken).toEqual([1, 2]);
});

test("a ring that nobody waited for is over", async () => {
  const bell = new Bell();
  bell.ring();
  let isWoken = false;
  const wait = bell.next({ signal: never }).then(() => {
    isWoken = true;
  });
  await Promise.resolve();
  expect(isWoken).toBe(false);
  bell.ring();
  await wait;
});

test("a wait ends with the reason of its signal, and leaves nothing on it", async () => {
  const bell = new Bell();
  const stop = new AbortController();
  const reason = new Error("enough");
  const woken = bell.next({ signal: stop.signal });
  bell.ring();
  await woken;
  expect(getEventListeners(stop.signal, "abort")).toEqual([]);

  const wait = failure(bell.next({ signal: stop.signal }));
  stop.abort(reason);
  expect(await wait).toBe(reason);
  expect(bell.isAwaited).toBe(false);
  expect(await failure(bell.next({ signal: stop.signal }))).toBe(reason);
});

test("a wait that was given up by all is no unhandled rejection", async () => {
  const bell = new Bell();
  const unhandled: unknown[] = [];
  const onUnhandled = (reason: unknown) => unhandled.push(reason);
  process.on("unhandledRejection", onUnhandled);
  try {
    bell.next({ signal: AbortSignal.abort(new Error("enough")) });
    // Node tells of them when the microtasks of a turn are done.
    await new Promise((resolve) => setImmediate(resolve));
    expect(unhandled).toEqual([]);
  } finally {
    process.off("unhandledRejection", onUnhandled);
  }
});
