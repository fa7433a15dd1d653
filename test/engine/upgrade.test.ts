/** A ledger of an older version is brought up to date when it is opened. */

import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { checksumOf, messageChecksum } from "../../src/event-checksum.ts";
import { openLedger, sale } from "../support/open-ledger.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { makeLedgerOfVersion1, versionOf } from "../support/version-1.ts";

test("a ledger of version 1 keeps its events, numbers and queues, and goes on", async () => {
  using folder = tempFolder();
  const path = folder.file("ledger.db");
  makeLedgerOfVersion1(path);
  expect(versionOf(path)).toBe(1);
  using cloud = openLedger(folder.path);
  const { ledger, dispatch } = cloud;
  expect(versionOf(path)).toBe(4);
  expect(ledger.id).toBe("ledger-1");
  expect(ledger.events({ after: 0, limit: 9 })).toMatchObject([
    { eventId: "sale-1", seq: 1, timestamp: 1001, receivedAt: 2001 },
    { eventId: "sale-2", seq: 2, timestamp: 1002, receivedAt: 2002 },
  ]);
  const outcomes = ledger.take([
    sale(1, { timestamp: 1001 }),
    sale(2, { timestamp: 1002, payload: "another" }),
    sale(4),
    sale(3),
  ]);
  expect(outcomes).toMatchObject([
    { kind: "duplicate" },
    { kind: "refused", code: "conflict" },
    { kind: "accepted" },
    { kind: "refused", code: "seq taken" },
  ]);
  expect(dispatch.highest("store-01")).toBe(1);
  expect(dispatch.commands({ after: { storeId: "", sequence: 0 } })).toEqual([
    {
      ...{ storeId: "store-01", sequence: 1, commandId: "cmd-1", type: "PriceUpdate" },
      ...{ payloadJson: "{}", issuedAt: 100, state: "queued", reason: "" },
    },
  ]);
  const issue = { commandId: "cmd-2", type: "PriceUpdate", payloadJson: "{}" };
  expect(await dispatch.issue(["store-01"], issue, { signal: never })).toMatchObject([
    { sequence: 2 },
  ]);
});

test("events of version 3 have no checksum and are known all the same, and new ones have one", () => {
  using folder = tempFolder();
  const path = folder.file("ledger.db");
  {
    using cloud = openLedger(folder.path);
    cloud.ledger.take([sale(1)]);
  }
  const sqlite = new DatabaseSync(path);
  sqlite.exec(`ALTER TABLE events DROP COLUMN checksum;
    DROP TABLE cancelled_commands; DROP TABLE forgotten_stores; PRAGMA user_version = 3`);
  sqlite.close();
  using cloud = openLedger(folder.path);
  expect(versionOf(path)).toBe(4);
  const outcomes = cloud.ledger.take([sale(1), sale(1, { payload: "another" }), sale(2)]);
  expect(outcomes).toMatchObject([
    { kind: "duplicate" },
    { kind: "refused", code: "conflict" },
    { kind: "accepted" },
  ]);
  const [old, young] = cloud.ledger.events({ after: 0, limit: 9 });
  expect(old).not.toHaveProperty("messageChecksum");
  expect(young?.messageChecksum).toBe(messageChecksum(checksumOf(sale(2)), sale(2)));
});

test("a command that version 2 kept once for each store is kept once, and others by themselves", async () => {
  using folder = tempFolder();
  const path = folder.file("ledger.db");
  makeLedgerOfVersion1(path);
  const payload = JSON.stringify("x".repeat(100_000));
  {
    const sqlite = new DatabaseSync(path);
    const insert = sqlite.prepare(
      `INSERT INTO commands (store_id, sequence, command_id, type, payload, issued_at)
       VALUES (?, ?, ?, 'PriceUpdate', ?, ?)`,
    );
    for (let i = 1; i <= 50; i++) {
      insert.run(`s${i}`, 1, "all", payload, 200);
    }
    insert.run("s1", 2, "other", payload, 300);
    insert.run("s2", 2, "other", "2", 300);
    sqlite.close();
  }
  using cloud = openLedger(folder.path);
  const { ledger, dispatch } = cloud;
  const count = ledger.database.prepare("SELECT count(*) AS n FROM command_batches").get();
  expect(count).toEqual({ n: 4 });
  expect(ledger.database.usedBytes()).toBeLessThan(1_000_000);
  const of = (storeId: string) =>
    dispatch
      .commands({ storeId, after: { storeId: "", sequence: 0 } })
      .map(({ sequence, commandId, payloadJson }) => [sequence, commandId, payloadJson]);
  expect(of("s1")).toEqual([
    [1, "all", payload],
    [2, "other", payload],
  ]);
  expect(of("s2")).toEqual([
    [1, "all", payload],
    [2, "other", "2"],
  ]);
});
