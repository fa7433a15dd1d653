/** How many events a salvage could not read, from what is left of the damaged file. */

import { expect, test } from "vitest";
import { Outbox } from "../../src/bridge/outbox.ts";
import { type DamagedHead, lossOf } from "../../src/bridge/salvage-loss.ts";
import {
  acknowledged,
  openLosses,
  parseSalvaged,
  tellLoss,
} from "../../src/bridge/salvage-mark.ts";

const at = Date.UTC(2026, 0, 2);
const strays = 99;

/** The loss in words, where a file gave the numbers 1 to 10 and these of them could be read. */
function told(read: readonly number[], head: Partial<DamagedHead> = {}): string {
  const outbox = new Outbox({ path: ":memory:", storeId: "store-01", now: () => at });
  try {
    outbox.append(
      Array.from({ length: 10 }, (_, i) => ({ eventId: `e${i + 1}`, type: "Sale", payload: "" })),
    );
    const remove = outbox.database.prepare("DELETE FROM events WHERE seq = ?");
    for (let seq = 1; seq <= 10; seq++) {
      if (!read.includes(seq)) {
        remove.run(seq);
      }
    }
    const whole: DamagedHead = {
      outbox: { epoch: 1, next_seq: 11 },
      epochs: [{ number: 1, epoch: "abc", gone: 0 }],
      lastPosition: 10,
      highWater: undefined,
    };
    const loss = lossOf(outbox.database, { ...whole, ...head }, { at, strays });
    return loss === undefined
      ? "no loss"
      : tellLoss(loss).replace(" in the salvage of 2026-01-02T00:00:00.000Z", "");
  } finally {
    outbox.close();
  }
}

const all = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];

test.each<[string, string, readonly number[], Partial<DamagedHead>]>([
  ["nothing is missing", "no loss", all, {}],
  [
    "the first and one in the middle are missing",
    "4 of 10 events could not be read: numbers 1-3, 6 of epoch abc",
    [4, 5, 7, 8, 9, 10],
    {},
  ],
  [
    "the last ones are missing, and the counter is there",
    "2 of 10 events could not be read: numbers 9-10 of epoch abc",
    all.slice(0, 8),
    {},
  ],
  [
    "one is missing",
    "1 of 10 events could not be read: number 7 of epoch abc",
    all.filter((seq) => seq !== 7),
    {},
  ],
  [
    "some were pruned before",
    "2 of 7 events could not be read, among the numbers 1-5 of epoch abc",
    all.slice(5),
    { epochs: [{ number: 1, epoch: "abc", gone: 3 }] },
  ],
  [
    "only those that were pruned are missing",
    "no loss",
    all.slice(5),
    { epochs: [{ number: 1, epoch: "abc", gone: 5 }] },
  ],
  [
    "the count of those that were pruned cannot be read",
    "up to 5 of 10 events could not be read, among the numbers 1-5",
    all.slice(5),
    { epochs: [] },
  ],
  [
    "the next number cannot be read, and the last position can",
    "2 to 4 events could not be read: numbers 1-2 of epoch abc",
    [3, 4, 5, 6, 7, 8],
    { outbox: undefined },
  ],
  [
    "the next number cannot be read, and the file beside the buffer can",
    "4 of 10 events could not be read: numbers 1-2, 9-10 of epoch abc",
    [3, 4, 5, 6, 7, 8],
    { outbox: undefined, highWater: { epoch: "abc", seq: 10 } },
  ],
  [
    "SQLite's log is gone as well",
    "at least 4 of 14 events could not be read: numbers 11-14 of epoch abc",
    all,
    { highWater: { epoch: "abc", seq: 14 } },
  ],
  [
    "no counter can be read",
    "at least 2 of 8 events could not be read: numbers 1-2 of epoch abc",
    [3, 4, 5, 6, 7, 8],
    { outbox: undefined, lastPosition: undefined },
  ],
  [
    "nothing at all can be read",
    "an unknown number of events could not be read",
    [],
    { outbox: undefined, epochs: [], lastPosition: undefined },
  ],
  [
    "a broken page made up a next number",
    "2 of 10 events could not be read: numbers 1-2 of epoch abc",
    all.slice(2),
    { outbox: { epoch: 1, next_seq: 2 ** 40 } },
  ],
  [
    "an earlier epoch may have lost events too",
    "1 to 3 events could not be read: number 10 of epoch abc",
    all.slice(0, 9),
    {
      epochs: [
        { number: 1, epoch: "abc", gone: 0 },
        { number: 2, epoch: "def", gone: 4 },
      ],
      lastPosition: 16,
    },
  ],
])("when %s: %s", (_, expected, read, head) => {
  expect(told(read, head)).toBe(expected);
});

test("a loss of an earlier salvage stays open beside the new one until both are acknowledged", () => {
  const loss = { at, read: 3, atLeast: 1, atMost: 1, epoch: "abc", numbers: [[2, 2]] };
  const mark = { at, setAside: "/there/b.db.damaged-1", events: 3, losses: [loss, loss] };
  const salvaged = parseSalvaged(JSON.stringify(mark), "/here/b.db");
  if (salvaged === undefined) {
    throw new Error("expected a mark");
  }
  expect(salvaged.setAside).toBe("/here/b.db.damaged-1");
  expect(openLosses(salvaged)).toHaveLength(2);
  expect(openLosses(acknowledged(salvaged, at + 1))).toEqual([]);
});

test.each([
  ["nothing", ""],
  ["no JSON", "{"],
  [
    "a count that is a text",
    '{"setAside":"a","losses":[{"at":1,"read":"1","atLeast":0,"epoch":"","numbers":[]}]}',
  ],
  [
    "a time that is none",
    '{"setAside":"a","losses":[{"at":1e99,"read":1,"atLeast":0,"epoch":"","numbers":[]}]}',
  ],
])("a mark that is %s is as good as none", (_, text) => {
  expect(parseSalvaged(text, "/here/b.db")).toBeUndefined();
});

test("a mark of an earlier version tells no losses", () => {
  const text = JSON.stringify({ at, setAside: "/there/b.db.damaged-1", events: 3 });
  expect(parseSalvaged(text, "/here/b.db")).toMatchObject({ events: 3, losses: [] });
});
