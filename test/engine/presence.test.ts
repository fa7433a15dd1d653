/** Who is there, when each was heard of, and what has changed since one looked. */

import { expect, test } from "vitest";
import { Presence } from "../../src/engine/presence.ts";
import { never } from "../support/start-server.ts";

function presence() {
  const time = { now: 1_000 };
  return { time, stores: new Presence({ now: () => time.now, isKnown: () => true }) };
}

test("a store is connected while a stream of it is open, and is seen now", () => {
  const { time, stores } = presence();
  expect(stores.isConnected("a")).toBe(false);
  expect(stores.seenAt("a")).toBe(0);
  const [one, two] = [stores.enter("a"), stores.enter("a")];
  one();
  one();
  time.now = 5_000;
  expect(stores.isConnected("a")).toBe(true);
  expect(stores.seenAt("a")).toBe(5_000);
  two();
  time.now = 9_000;
  expect(stores.isConnected("a")).toBe(false);
  expect(stores.seenAt("a")).toBe(5_000);
});

test("what has changed behind a place is told, however often it has, and nothing else", () => {
  const { stores } = presence();
  stores.hear("a", 1);
  stores.hear("b", 1);
  const place = stores.revision;
  expect(stores.changedSince(place)).toEqual([]);
  stores.hear("b", 2);
  stores.hear("b", 3);
  stores.touch(["c"]);
  expect(stores.changedSince(place)).toEqual(["b", "c"]);
  expect(stores.changedSince(stores.revision)).toEqual([]);
});

test("who only had something done to it was not heard of", () => {
  const { stores } = presence();
  stores.hear("a", 7);
  stores.touch(["a", "b"]);
  expect([stores.seenAt("a"), stores.seenAt("b")]).toEqual([7, 0]);
  expect(Array.from(stores.unsaved(10))).toEqual([{ storeId: "a", seenAt: 7 }]);
});

test("to come, to go and to be touched ring the bell", async () => {
  const { stores } = presence();
  let leave = () => {};
  for (const change of [
    () => {
      leave = stores.enter("a");
    },
    () => leave(),
    () => stores.touch(["a"]),
  ]) {
    const rung = stores.changed.next({ signal: never });
    change();
    await rung;
  }
});

test("what is to be written down comes a few at a time, each once", () => {
  const { stores } = presence();
  for (const storeId of ["a", "b", "c"]) {
    stores.hear(storeId, 7);
  }
  stores.hear("a", 8);
  expect(Array.from(stores.unsaved(2))).toEqual([
    { storeId: "a", seenAt: 8 },
    { storeId: "b", seenAt: 7 },
  ]);
  expect(Array.from(stores.unsaved(2))).toEqual([{ storeId: "c", seenAt: 7 }]);
  expect(Array.from(stores.unsaved(2))).toEqual([]);
});

test("a store that the ledger does not know is forgotten with its last stream", () => {
  const stores = new Presence({ now: () => 1_000, isKnown: (storeId) => storeId === "known" });
  for (let i = 0; i < 100; i++) {
    const [one, two] = [stores.enter(`invented-${i}`), stores.enter(`invented-${i}`)];
    one();
    expect(stores.isConnected(`invented-${i}`)).toBe(true);
    two();
  }
  stores.enter("known")();
  stores.touch(["invented-1", "known"]);
  expect(stores.changedSince(0)).toEqual(["known"]);
  expect(Array.from(stores.unsaved(10), ({ storeId }) => storeId)).toEqual(["known"]);
});
