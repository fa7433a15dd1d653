/** A command for many stores: for all or for none, stored once, and in turns that are short. */

import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, expect, test, vi } from "vitest";
import { maxDeliveredBytes } from "../../src/engine/dispatch.ts";
import { Database } from "../../src/sqlite.ts";
import { type OpenLedger, openLedger } from "../support/open-ledger.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

const stores = (count: number) => Array.from({ length: count }, (_, i) => `store-${i}`);

const news = { commandId: "news", type: "PriceUpdate", payloadJson: "{}" };

/** Each store's commands, as their ids. */
const queueOf = ({ dispatch }: OpenLedger, storeId: string) =>
  dispatch
    .commands({ storeId, after: { storeId: "", sequence: 0 } })
    .map(({ commandId, sequence }) => `${sequence} ${commandId}`);

const rowsOf = ({ ledger }: OpenLedger, table: string) =>
  Number(ledger.database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);

test("a payload is on the disk once, however many stores get it", async () => {
  using folder = tempFolder();
  using box = openLedger(folder.path);
  const payloadJson = JSON.stringify("x".repeat(64 * 1024));
  await box.dispatch.issue(stores(1_000), { ...news, payloadJson }, { signal: never });
  expect(box.ledger.database.usedBytes()).toBeLessThan(1024 * 1024);
  expect(
    box.dispatch.commands({ storeId: "store-999", after: { storeId: "", sequence: 0 } }),
  ).toEqual([expect.objectContaining({ payloadJson, sequence: 1 })]);
});

test("nobody sees any of it before all of it is there, and each transaction is of few stores", async () => {
  using box = openLedger();
  let isDone = false;
  const issued = box.dispatch.issue(stores(1_000), news, { signal: never }).then((queued) => {
    isDone = true;
    return queued;
  });
  const writes = vi.spyOn(Database.prototype, "write");
  while (!isDone) {
    if (rowsOf(box, "commands") < 1_000) {
      expect(queueOf(box, "store-0")).toEqual([]);
      expect(box.dispatch.highest("store-0")).toBe(0);
    }
    await nextTurn();
  }
  expect(await issued).toHaveLength(1_000);
  expect(writes).toHaveBeenCalledTimes(10);
  expect(queueOf(box, "store-999")).toEqual(["1 news"]);
});

test("a crash in the middle has queued nothing, and the same call may be made again", async () => {
  using folder = tempFolder();
  {
    using box = openLedger(folder.path);
    await box.dispatch.issue(["store-0"], { ...news, commandId: "first" }, { signal: never });
    // What a process leaves that was killed after its first transaction.
    box.ledger.database.write(() => {
      const { database } = box.ledger;
      database
        .prepare(
          `INSERT INTO command_batches (number, type, payload, issued_at, is_complete)
           VALUES (77, 'PriceUpdate', 'half', 0, 0)`,
        )
        .run();
      database
        .prepare(
          `INSERT INTO commands (store_id, sequence, command_id, batch)
           VALUES ('store-0', 2, 'news', 77), ('store-1', 1, 'news', 77)`,
        )
        .run();
    });
  }
  using box = openLedger(folder.path);
  expect(queueOf(box, "store-0")).toEqual(["1 first"]);
  expect(box.ledger.store("store-0")).toBeUndefined();
  await box.dispatch.issue(["store-0", "store-2"], news, { signal: never });
  expect(queueOf(box, "store-0")).toEqual(["1 first", "2 news"]);
  expect(queueOf(box, "store-1")).toEqual([]);
  expect(rowsOf(box, "commands")).toBe(3);
});

test("an error or an end of the call in the middle leaves nothing behind", async () => {
  using box = openLedger();
  const { database } = box.ledger;
  database.write(() =>
    database
      .prepare(
        `CREATE TRIGGER full BEFORE INSERT ON commands WHEN new.store_id = 'store-700'
         BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`,
      )
      .run(),
  );
  await expect(box.dispatch.issue(stores(1_000), news, { signal: never })).rejects.toThrow("full");
  expect([rowsOf(box, "commands"), rowsOf(box, "command_batches")]).toEqual([0, 0]);
  database.write(() => database.prepare("DROP TRIGGER full").run());

  const stop = new AbortController();
  const issued = box.dispatch.issue(stores(1_000), news, stop);
  while (rowsOf(box, "commands") === 0) {
    await nextTurn();
  }
  stop.abort(new Error("client gone"));
  await expect(issued).rejects.toThrow("client gone");
  expect([rowsOf(box, "commands"), rowsOf(box, "command_batches")]).toEqual([0, 0]);
  expect(await box.dispatch.issue(stores(1_000), news, { signal: never })).toHaveLength(1_000);
});

test("calls at once come one after the other, and no store misses a sequence", async () => {
  using box = openLedger();
  const ids = ["a", "b", "c"];
  const calls = ids.map((commandId) =>
    box.dispatch.issue(stores(500), { ...news, commandId }, { signal: never }),
  );
  const watched = box.dispatch.watch("store-499", undefined, { signal: never });
  for (const [i, commandId] of ids.entries()) {
    expect((await watched.next()).value).toMatchObject({ commandId, sequence: i + 1 });
  }
  await watched.return(undefined as never);
  await Promise.all(calls);
});

test("more bytes to deliver than allowed are RESOURCE_EXHAUSTED, and nothing is queued", async () => {
  using box = openLedger();
  const payloadJson = JSON.stringify("x".repeat(1024 * 1024 - 2));
  const most = maxDeliveredBytes / (1024 * 1024);
  const command = { ...news, payloadJson };
  await expect(box.dispatch.issue(stores(most + 1), command, { signal: never })).rejects.toThrow(
    expect.objectContaining({
      code: "RESOURCE_EXHAUSTED",
      message:
        "a payload of 1048576 bytes for 65 stores is 68157440 bytes to deliver; " +
        "at most 67108864 are allowed; issue it to fewer stores at a time",
    }),
  );
  expect(rowsOf(box, "command_batches")).toBe(0);
  expect(await box.dispatch.issue(stores(most), command, { signal: never })).toHaveLength(most);
});
