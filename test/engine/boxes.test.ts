/** Two boxes that speak for one store are noticed, and one box that restarts is not taken for two. */

import { expect, test } from "vitest";
import { Boxes, maxBoxes, rivalsForMs } from "../../src/engine/boxes.ts";
import { noon } from "../support/open-ledger.ts";

const storeId = "store-01";

function boxes(isKnown = true) {
  const it = { now: noon };
  const all = new Boxes({ now: () => it.now, isKnown: () => isKnown });
  return Object.assign(it, {
    all,
    hear(turns: string) {
      for (const id of turns) {
        all.hear(storeId, { id, from: `host-${id}` });
      }
    },
    rivals: () =>
      ["a", "b", "c"].map((id) => all.rivalOf(storeId, { id, from: "" })?.id ?? "-").join(""),
  });
}

test("two boxes that take turns are an alarm that names both, and each is told of the other", () => {
  const it = boxes();
  it.hear("aabaab");
  expect(it.all.alarm(storeId)).toBeUndefined();
  it.hear("a");
  expect(it.all.alarm(storeId)).toBe(
    "two boxes speak for this store, a at host-a and b at host-b; one was cloned or moved, or has the wrong --store",
  );
  expect(it.rivals()).toBe("ba-");
});

test.each([
  ["a box that goes on", "aaaa"],
  ["a box that restarts, however often", "aabbccddee"],
  ["a last message of a box that was killed, after the first ones of its successor", "aabab"],
])("%s is no alarm", (_, turns) => {
  const it = boxes();
  it.hear(turns);
  expect(it.all.alarm(storeId)).toBeUndefined();
  expect(it.rivals()).toBe("---");
});

test("one of two that restarts stays one of two, and what it was is not taken for a third box", () => {
  const it = boxes();
  it.hear("abababc");
  expect(it.rivals()).toBe("ba-");
  it.hear("bcbc");
  expect(it.rivals()).toBe("-cb");
});

test("the alarm ends when only one box has been heard for a while", () => {
  const it = boxes();
  it.hear("ababa");
  it.now += rivalsForMs - 1;
  expect(it.all.alarm(storeId)).toBeDefined();
  it.hear("aa");
  it.now += 1;
  expect(it.all.alarm(storeId)).toBeUndefined();
});

test("nothing is kept of a store that the cloud does not know, nor of more than the newest boxes", () => {
  const unknown = boxes(false);
  unknown.hear("ababab");
  expect(unknown.all.alarm(storeId)).toBeUndefined();
  const it = boxes();
  // The first one was pushed out by newer ones, and counts as a new box when it is heard again.
  it.hear(`a${"bcdefgh".slice(0, maxBoxes)}a`);
  const last = "bcdefgh"[maxBoxes - 1];
  it.hear(`${last}a`);
  expect(it.all.alarm(storeId)).toBeUndefined();
  it.hear(`${last}`);
  expect(it.all.alarm(storeId)).toContain(`${last} at host-${last} and a at host-a`);
});
