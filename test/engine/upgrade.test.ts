/** A ledger of an older version is brought up to date when it is opened. */

import { expect, test } from "vitest";
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
  expect(versionOf(path)).toBe(3);
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
  const issue = { commandId: "cmd-2", type: "PriceUpdate", payloadJson: "{}" };
  expect(await dispatch.issue(["store-01"], issue, { signal: never })).toMatchObject([
    { sequence: 2 },
  ]);
});
