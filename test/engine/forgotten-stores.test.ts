/** Stores that an operator has hidden: out of sight, but none of their events is forgotten. */

import { expect, test } from "vitest";
import type { StatusReport } from "../../src/engine/ledger.ts";
import { noon, type OpenLedger, openLedger, sale, sales } from "../support/open-ledger.ts";
import { tempFolder } from "../support/temp.ts";

const report = ({ ledger }: OpenLedger, changes: Partial<StatusReport> = {}) =>
  ledger.report([
    {
      ...{ storeId: "store-01", depth: 0, bytes: 0, oldestUnacked: 0, parked: 0, epoch: "aa" },
      ...{ sentAt: noon, cameAt: noon, version: "1.0.0", ledgerId: ledger.id, commandsParked: 0 },
      ...{ receivedSequence: 0, appliedSequence: 0, parkedCommands: [], alarms: [] },
      ...changes,
    },
  ]);

test("a store that was hidden stays so for the next server, and none of its events counts twice", () => {
  using folder = tempFolder();
  {
    using box = openLedger(folder.path);
    box.ledger.take(sales(1, 3));
    box.ledger.take([sale(1, { storeId: "store-02", epoch: "bb" })]);
    box.ledger.forget("store-01");
    box.ledger.forget("store-01");
    expect(box.ledger.storeIds()).toEqual(["store-02"]);
  }
  using box = openLedger(folder.path);
  const { ledger } = box;
  expect(ledger.storeIds()).toEqual(["store-02"]);
  expect(ledger.store("store-01")).toMatchObject({ isForgotten: true, seen: 3 });
  expect(ledger.take(sales(3, 4)).map(({ kind }) => kind)).toEqual(["duplicate", "accepted"]);
  expect(ledger.storeIds()).toEqual(["store-01", "store-02"]);
});

test.each<[string, (box: OpenLedger) => void]>([
  ["an event", ({ ledger }) => ledger.take([sale(2)])],
  ["a report", (box) => report(box)],
  ["a stream", ({ ledger }) => ledger.presence.enter("store-01")],
])("%s shows the store again, also to the next server", (_, contact) => {
  using folder = tempFolder();
  {
    using box = openLedger(folder.path);
    box.ledger.take([sale(1)]);
    box.ledger.forget("store-01");
    contact(box);
    expect(box.ledger.storeIds()).toEqual(["store-01"]);
    expect(box.ledger.store("store-01")).toMatchObject({ isForgotten: false });
  }
  using box = openLedger(folder.path);
  expect(box.ledger.storeIds()).toEqual(["store-01"]);
});

test("a store that is connected is not hidden, nor one that was never heard of", () => {
  using box = openLedger();
  const { ledger } = box;
  ledger.take([sale(1)]);
  const leave = ledger.presence.enter("store-01");
  expect(() => ledger.forget("store-01")).toThrow(/store store-01 is connected now/);
  leave();
  ledger.forget("store-01");
  expect(() => ledger.forget("store-09")).toThrow(/never heard of a store "store-09"/);
});

test("a conflict is open until the store reports, after it, that nothing is parked", () => {
  let now = noon;
  using box = openLedger(undefined, () => now);
  const open = () => box.ledger.store("store-01")?.openConflicts;
  report(box);
  now += 1_000;
  box.ledger.take([sale(1), sale(1, { payload: "another", seq: 2 })]);
  expect(open()).toBe(1);
  report(box, { cameAt: now + 1_000, parked: 1 });
  expect(open()).toBe(1);
  report(box, { cameAt: now + 2_000 });
  expect(open()).toBe(0);
  expect(box.ledger.store("store-01")?.conflicts).toBe(1);
});
