/** Commands that are withdrawn: never sent, and never shown as if a store had applied them. */

import { afterEach, beforeEach, expect, test } from "vitest";
import type { StatusReport } from "../../src/engine/ledger.ts";
import { noon, type OpenLedger, openLedger } from "../support/open-ledger.ts";
import { failure } from "../support/serve-handlers.ts";
import { tempFolder } from "../support/temp.ts";

let stop: AbortController;
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort(new Error("the test is over")));

const issue = ({ dispatch }: OpenLedger, commandId: string, storeIds = ["store-01"]) =>
  dispatch.issue(storeIds, { commandId, type: "PriceUpdate", payloadJson: "{}" }, stop);

const cancel = async ({ dispatch }: OpenLedger, commandId: string, storeIds: string[] = []) => {
  const cancellations = await dispatch.cancel({ commandId, storeIds }, stop);
  return cancellations.map(({ storeId, state }) => `${storeId} ${state}`);
};

const watch = ({ dispatch, ledger }: OpenLedger, sequence: number, commandId = "") =>
  dispatch.watch("store-01", { sequence, ledgerId: ledger.id, commandId }, stop);

const fates = ({ dispatch }: OpenLedger) =>
  dispatch
    .commands({ after: { storeId: "", sequence: 0 } })
    .map(({ storeId, commandId, state }) => `${storeId} ${commandId} ${state}`);

const report = ({ ledger }: OpenLedger, changes: Partial<StatusReport>) =>
  ledger.report([
    {
      ...{ storeId: "store-01", depth: 0, bytes: 0, oldestUnacked: 0, parked: 0, epoch: "aa" },
      ...{ sentAt: noon, cameAt: noon, version: "1.0.0", ledgerId: ledger.id, commandsParked: 0 },
      ...{ receivedSequence: 0, appliedSequence: 0, parkedCommands: [], alarms: [] },
      ...changes,
    },
  ]);

test("a queued command is never sent, those around it keep their places, and the next server knows", async () => {
  using folder = tempFolder();
  {
    using box = openLedger(folder.path);
    await issue(box, "a");
    await issue(box, "b");
    expect(await cancel(box, "b")).toEqual(["store-01 cancelled"]);
    expect(await cancel(box, "b")).toEqual(["store-01 cancelled"]);
    await issue(box, "c");
  }
  using box = openLedger(folder.path);
  expect(fates(box)).toEqual(["store-01 a queued", "store-01 b cancelled", "store-01 c queued"]);
  const commands = watch(box, 0);
  expect((await commands.next()).value).toMatchObject({ commandId: "a", sequence: 1 });
  expect((await commands.next()).value).toMatchObject({ commandId: "c", sequence: 3 });
  report(box, { receivedSequence: 3, appliedSequence: 3 });
  expect(fates(box)).toEqual(["store-01 a applied", "store-01 b cancelled", "store-01 c applied"]);
});

test("a store has nothing to catch up with when its last command was withdrawn", async () => {
  using box = openLedger();
  await issue(box, "a");
  await issue(box, "b");
  report(box, { receivedSequence: 1, appliedSequence: 1 });
  await cancel(box, "b");
  expect(box.ledger.store("store-01")).toMatchObject({ queuedSequence: 1, appliedSequence: 1 });
});

test("a command that was read for a stream and not sent yet is not sent after it was withdrawn", async () => {
  using box = openLedger();
  for (const id of ["a", "b", "c"]) {
    await issue(box, id);
  }
  const commands = watch(box, 0);
  expect((await commands.next()).value).toMatchObject({ commandId: "a" });
  expect(await cancel(box, "b")).toEqual(["store-01 cancelled"]);
  expect((await commands.next()).value).toMatchObject({ commandId: "c" });
});

test("a command that was sent or reported as received is not withdrawn, and is said to be so", async () => {
  using box = openLedger();
  await issue(box, "a");
  await issue(box, "b");
  await watch(box, 0).next();
  expect(await cancel(box, "a")).toEqual(["store-01 received"]);
  report(box, { receivedSequence: 2 });
  expect(await cancel(box, "b")).toEqual(["store-01 received"]);
  expect(fates(box)).toEqual(["store-01 a received", "store-01 b received"]);
});

test("a command that the store says it does not have can be withdrawn although it was sent before", async () => {
  using box = openLedger();
  await issue(box, "a");
  await issue(box, "b");
  const lost = watch(box, 0);
  await lost.next();
  await lost.next();
  stop.abort(new Error("the connection is lost"));
  await lost.next().catch(() => {});
  stop = new AbortController();
  expect((await watch(box, 0).next()).value).toMatchObject({ commandId: "a" });
  expect(await cancel(box, "b")).toEqual(["store-01 cancelled"]);
});

test("a command that is done with is FAILED_PRECONDITION, and one that nobody has NOT_FOUND", async () => {
  using box = openLedger();
  await issue(box, "a", ["store-01", "store-02"]);
  const parkedCommands = [{ commandId: "a", reason: "no such item" }];
  report(box, { receivedSequence: 1, appliedSequence: 1, commandsParked: 1, parkedCommands });
  expect(await failure(cancel(box, "a", ["store-01"]))).toMatchObject({
    code: "FAILED_PRECONDITION",
    message: expect.stringContaining("store store-01 is done with command a (parked)"),
  });
  report(box, { receivedSequence: 1, appliedSequence: 1 });
  expect(await failure(cancel(box, "a", ["store-01"]))).toMatchObject({
    message: expect.stringContaining("(applied)"),
  });
  expect(await failure(cancel(box, "b"))).toMatchObject({
    ...{ code: "NOT_FOUND", message: "no store has a command b" },
  });
  expect(await failure(cancel(box, "a", ["store-02", "store-03"]))).toMatchObject({
    ...{ code: "NOT_FOUND", message: "store store-03 has no command a" },
  });
  // An error has changed nothing, and without --store each store is told.
  expect(await cancel(box, "a")).toEqual(["store-01 applied", "store-02 cancelled"]);
});

test("a command of many stores is withdrawn from all of them, and its id is not used again", async () => {
  using box = openLedger();
  const storeIds = Array.from({ length: 250 }, (_, i) => `store-${String(i).padStart(3, "0")}`);
  await issue(box, "a", storeIds);
  await issue(box, "other", ["zzz"]);
  expect(await cancel(box, "a")).toEqual(storeIds.map((storeId) => `${storeId} cancelled`));
  expect(await failure(issue(box, "a", ["store-007"]))).toMatchObject({
    code: "FAILED_PRECONDITION",
    message: "command a was cancelled for store store-007; issue it under another id",
  });
});
