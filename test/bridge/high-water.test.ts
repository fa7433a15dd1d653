/** A buffer whose last events are gone although its file is whole: the small file beside it tells. */

import { copyFileSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { expect, test } from "vitest";
import { Outbox } from "../../src/bridge/outbox.ts";
import { tellLoss } from "../../src/bridge/salvage-mark.ts";
import { verify } from "../../src/bridge/verify.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const now = () => Date.UTC(2026, 0, 2);
const sales = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, i) => ({
    ...{ eventId: `e${from + i}`, type: "Sale", payload: "" },
  }));
const open = (path: string) => new Outbox({ path, storeId: "store-01", now });
const findings = async (path: string) => (await verify(path, { pause: async () => {} })).findings;

/** A buffer of 5 events in its file and 3 in its log, as a crash leaves it. */
function crashed(folder: TempFolder): string {
  mkdirSync(folder.file("live"));
  const live = folder.file("live/buffer.db");
  open(live).close();
  const outbox = open(live);
  outbox.append(sales(1, 5));
  outbox.database.emptyLog();
  outbox.append(sales(6, 8));
  const path = folder.file("buffer.db");
  for (const suffix of ["", "-wal", "-drainer", "-high-water"]) {
    copyFileSync(live + suffix, path + suffix);
  }
  outbox.close();
  return path;
}

test("events that were in a log that somebody removed are missed, and their numbers are not given again", async () => {
  using folder = tempFolder();
  const path = crashed(folder);
  rmSync(`${path}-wal`);
  expect(await findings(path)).toEqual([
    expect.stringMatching(/^at least 3 of 8 events are gone: numbers 6-8 of epoch [0-9a-f]{16}$/),
  ]);
  const outbox = open(path);
  expect(outbox.hasJustSalvaged).toBe(true);
  const [loss] = outbox.salvaged()?.losses ?? [];
  expect(loss && tellLoss(loss)).toContain("at least 3 of 8 events are gone: numbers 6-8 of epoch");
  expect(outbox.append(sales(9, 9))[0]).toMatchObject({ event: { seq: 9 } });
  outbox.close();
  const again = open(path);
  expect(again.salvaged()?.losses).toHaveLength(1);
  expect(again.hasJustSalvaged).toBe(false);
  expect(again.acknowledgeSalvage()).toBeDefined();
  again.close();
  expect(await findings(path)).toEqual([]);
});

test("a log that is there after a crash is no loss", async () => {
  using folder = tempFolder();
  const path = crashed(folder);
  expect(await findings(path)).toEqual([]);
  const outbox = open(path);
  expect(outbox.salvaged()).toBeUndefined();
  expect(outbox.counts().pending).toBe(8);
  outbox.close();
});

test.each([
  ["is missing", undefined],
  ["makes no sense", "{"],
  ["is of another epoch", '{"epoch":"abc","seq":99}\n'],
])("a high-water mark that %s tells nothing", async (_, text) => {
  using folder = tempFolder();
  const path = crashed(folder);
  rmSync(`${path}-high-water`);
  if (text !== undefined) {
    writeFileSync(`${path}-high-water`, text);
  }
  expect(await findings(path)).toEqual([]);
  const outbox = open(path);
  expect(outbox.salvaged()).toBeUndefined();
  outbox.close();
});
