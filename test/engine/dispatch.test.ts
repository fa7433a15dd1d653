/** The queues of commands: in order, kept for whoever is away, and one answer to one question. */

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import {
  type Dispatch,
  maxAwaitedStores,
  type QueuedCommand,
  type StoreCursor,
} from "../../src/engine/dispatch.ts";
import type { StatusReport } from "../../src/engine/ledger.ts";
import { Database } from "../../src/sqlite.ts";
import { noon, type OpenLedger, openLedger } from "../support/open-ledger.ts";
import { tempFolder } from "../support/temp.ts";

let stop: AbortController;
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => {
  stop.abort(new Error("the test is over"));
  vi.restoreAllMocks();
});

const storeId = "store-01";

const price = (n: number, changes: Partial<QueuedCommand> = {}) => ({
  ...{ storeId, commandId: `cmd-${n}`, type: "PriceUpdate", payloadJson: `{"newPrice":${n}}` },
  ...changes,
});

/** Queues a command for its store alone. */
const issueOne = async (
  dispatch: Dispatch,
  command: ReturnType<typeof price>,
): Promise<QueuedCommand> => {
  const { storeId, ...rest } = command;
  const [queued] = await dispatch.issue([storeId], rest, stop);
  return queued as QueuedCommand;
};

const issue = async (dispatch: Dispatch, first: number, last: number) => {
  for (let n = first; n <= last; n++) {
    await issueOne(dispatch, price(n));
  }
};

/** Where a store is that has applied so many commands of this ledger. */
const cursorAt = ({ ledger }: OpenLedger, sequence: number): StoreCursor => ({
  sequence,
  ledgerId: ledger.id,
  commandId: sequence === 0 ? "" : `cmd-${sequence}`,
});

function insertStore({ ledger }: OpenLedger, storeId: string): void {
  ledger.database.prepare("INSERT INTO stores (store_id) VALUES (?)").run(storeId);
}

function watch({ dispatch }: OpenLedger, cursor?: StoreCursor, store = storeId) {
  return dispatch.watch(store, cursor, { signal: stop.signal });
}

/** The next so many commands. Waits for the last one, and does not ask for another. */
async function take(commands: AsyncIterator<QueuedCommand>, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    ids.push((await commands.next()).value.commandId);
  }
  return ids;
}

const ids = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, i) => `cmd-${first + i}`);

describe("issuing", () => {
  test("numbers a store's commands from 1, each store on its own", async () => {
    using box = openLedger();
    const commands = [price(1), price(2), price(1, { storeId: "store-02" }), price(3)];
    const queued = await Promise.all(commands.map((command) => issueOne(box.dispatch, command)));
    expect(queued.map(({ sequence }) => sequence)).toEqual([1, 2, 1, 3]);
  });

  test("the same command again is the same answer", async () => {
    let now = noon;
    using box = openLedger(undefined, () => now);
    const first = await issueOne(box.dispatch, price(1));
    await issueOne(box.dispatch, price(2));
    now += 5000;
    expect(await issueOne(box.dispatch, price(1))).toEqual(first);
    expect(first).toEqual({ ...price(1), sequence: 1, issuedAt: noon });
    expect((await issueOne(box.dispatch, price(3))).sequence).toBe(3);
  });

  test("the same id with another content is ALREADY_EXISTS, and the first one stays", async () => {
    using box = openLedger();
    await issueOne(box.dispatch, price(1));
    for (const changes of [{ type: "StockAlert" }, { payloadJson: "{}" }]) {
      await expect(issueOne(box.dispatch, price(1, changes))).rejects.toThrow(
        expect.objectContaining({
          code: "ALREADY_EXISTS",
          message: "store store-01 has a command cmd-1 already, with another content",
        }),
      );
    }
    expect((await watch(box, cursorAt(box, 0)).next()).value).toMatchObject(price(1));
  });

  test("a command without an id gets one, and is a new one each time", async () => {
    using box = openLedger();
    const [one, two] = await Promise.all(
      [1, 1].map((n) => issueOne(box.dispatch, price(n, { commandId: "" }))),
    );
    expect(one?.commandId).toMatch(/^cmd-[0-9a-f]{12}$/);
    expect(two).toMatchObject({ sequence: 2 });
    expect(two?.commandId).not.toBe(one?.commandId);
  });

  test.each([
    ["an empty store_id", { storeId: "" }, "store_id is empty"],
    ["a long store_id", { storeId: "s".repeat(129) }, "store_id has 129 bytes; at most 128 are"],
    ["a command_id of two lines", { commandId: "a\nb" }, "command_id has control characters"],
    ["an empty type", { type: "" }, "type is empty"],
    ["a payload that is no JSON", { payloadJson: "{newPrice:1}" }, "payload_json is not JSON"],
    ["no payload", { payloadJson: "" }, "payload_json is not JSON"],
    [
      "a huge payload",
      { payloadJson: `"${"x".repeat(1024 * 1024)}"` },
      "payload_json has 1048578 bytes; at most 1048576 are allowed",
    ],
  ])("%s is INVALID_ARGUMENT, and nothing is queued", async (_, changes, message) => {
    using box = openLedger();
    await expect(issueOne(box.dispatch, price(1, changes))).rejects.toThrow(
      expect.objectContaining({
        code: "INVALID_ARGUMENT",
        message: expect.stringContaining(message),
      }),
    );
    expect((await issueOne(box.dispatch, price(1))).sequence).toBe(1);
  });

  test("a payload of just 1 MiB passes whole", async () => {
    using box = openLedger();
    const payloadJson = `"${"x".repeat(1024 * 1024 - 2)}"`;
    await issueOne(box.dispatch, price(1, { payloadJson }));
    expect((await watch(box, cursorAt(box, 0)).next()).value.payloadJson).toBe(payloadJson);
  });
});

describe("issuing to many", () => {
  const news = { commandId: "cmd-1", type: "PriceUpdate", payloadJson: "{}" };

  test("each store gets it once, at its own place, in the order of the ids", async () => {
    using box = openLedger();
    await issueOne(box.dispatch, price(7, { storeId: "b" }));
    const queued = await box.dispatch.issue(["c", "b", "c", "a"], news, stop);
    expect(queued.map(({ storeId, sequence }) => [storeId, sequence])).toEqual([
      ...[["c", 1] as const, ["b", 2] as const, ["a", 1] as const],
    ]);
  });

  test("again with more stores: those that have it keep it", async () => {
    using box = openLedger();
    await box.dispatch.issue(["a", "b"], news, stop);
    const again = await box.dispatch.issue(["b", "c"], news, stop);
    expect(again.map(({ storeId, sequence }) => [storeId, sequence])).toEqual([
      ...[["b", 1] as const, ["c", 1] as const],
    ]);
    expect(box.dispatch.highest("b")).toBe(1);
  });

  test("one store that has another command under that id: none gets it", async () => {
    using box = openLedger();
    await box.dispatch.issue(["b"], { ...news, payloadJson: "1" }, stop);
    await expect(box.dispatch.issue(["a", "b", "c"], news, stop)).rejects.toThrow(
      "store b has a command cmd-1 already, with another content",
    );
    expect(["a", "b", "c"].map((id) => box.dispatch.highest(id))).toEqual([0, 1, 0]);
  });

  test.each([
    ["store_ids is empty; expected at least one store, or all_stores", []],
    ["store_id is empty", ["a", ""]],
  ])("INVALID_ARGUMENT: %s", async (message, storeIds) => {
    using box = openLedger();
    await expect(box.dispatch.issue(storeIds, news, stop)).rejects.toThrow(
      expect.objectContaining({
        code: "INVALID_ARGUMENT",
        message: expect.stringContaining(message),
      }),
    );
    expect(box.dispatch.highest("a")).toBe(0);
  });

  test("10,000 stores are not too many", async () => {
    using box = openLedger();
    const ids = Array.from({ length: 10_000 }, (_, i) => `${i}`);
    for (const storeId of ids) {
      insertStore(box, storeId);
    }
    expect(await box.dispatch.issue(ids, news, stop)).toHaveLength(10_000);
  });

  test("commands may wait for stores that never came, but not for any number of them", async () => {
    using box = openLedger();
    const ids = (from: number, count: number) =>
      Array.from({ length: count }, (_, i) => `invented-${from + i}`);
    insertStore(box, "known");
    await box.dispatch.issue(ids(0, maxAwaitedStores), news, stop);
    await expect(box.dispatch.issue([...ids(5_000, 1), "known"], news, stop)).rejects.toMatchObject(
      {
        code: "RESOURCE_EXHAUSTED",
        message: `commands would wait for ${maxAwaitedStores + 1} stores that the cloud has never heard of; at most ${maxAwaitedStores} are allowed`,
      },
    );
    expect(box.dispatch.highest("known")).toBe(0);
    // Those that it waits for already, and those that are known, are no more.
    const more = { ...news, commandId: "more" };
    await box.dispatch.issue(["invented-7", "known"], more, stop);
    expect(box.dispatch.highest("known")).toBe(1);
  });
});

describe("what has become of commands", () => {
  const tell = ({ ledger }: OpenLedger, one: StatusReport) => ledger.report([one]);
  const report = (ledgerId: string, changes: Partial<StatusReport>): StatusReport => ({
    ...{
      storeId,
      depth: 0,
      bytes: 0,
      oldestUnacked: 0,
      parked: 0,
      epoch: "aa",
      sentAt: noon,
      cameAt: noon,
    },
    ...{ version: "1.0.0", ledgerId, receivedSequence: 0, appliedSequence: 0, commandsParked: 0 },
    ...{ parkedCommands: [], alarms: [] },
    ...changes,
  });
  const fates = ({ dispatch }: OpenLedger) =>
    dispatch
      .commands({ storeId, after: { storeId: "", sequence: 0 } })
      .map(({ commandId, state, reason }) => `${commandId} ${state}${reason && ` ${reason}`}`);

  test("queued, received, applied, parked, as the store's last report says", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 4);
    expect(fates(box)).toEqual(["cmd-1 queued", "cmd-2 queued", "cmd-3 queued", "cmd-4 queued"]);
    const { ledger } = box;
    tell(
      box,
      report(ledger.id, {
        ...{ receivedSequence: 3, appliedSequence: 2, commandsParked: 1 },
        parkedCommands: [{ commandId: "cmd-1", reason: "no such item" }],
      }),
    );
    expect(fates(box)).toEqual([
      "cmd-1 parked no such item",
      ...["cmd-2 applied", "cmd-3 received", "cmd-4 queued"],
    ]);
    // Somebody has put it right.
    tell(box, report(ledger.id, { receivedSequence: 4, appliedSequence: 4 }));
    expect(fates(box)).toEqual(ids(1, 4).map((id) => `${id} applied`));
  });

  test("at most 20 parked ones are kept of a report, and their reasons are cut", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 25);
    const parkedCommands = ids(1, 25).map((commandId) => ({ commandId, reason: "x".repeat(2000) }));
    tell(box, report(box.ledger.id, { parkedCommands }));
    const parked = fates(box).filter((fate) => fate.includes("parked"));
    expect(parked).toHaveLength(20);
    expect(parked[0]).toBe(`cmd-1 parked ${"x".repeat(1024)}`);
  });

  test("page after page, of one store or of all, by store and sequence", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 3);
    const alert = { commandId: "cmd-9", type: "StockAlert", payloadJson: "{}" };
    await box.dispatch.issue(["a", "z"], alert, stop);
    const page = (place: [string, number], limit: number, store = "") =>
      box.dispatch
        .commands({ storeId: store, after: { storeId: place[0], sequence: place[1] }, limit })
        .map((command) => `${command.storeId} ${command.sequence}`);
    expect(page(["", 0], 3)).toEqual(["a 1", "store-01 1", "store-01 2"]);
    expect(page(["store-01", 2], 3)).toEqual(["store-01 3", "z 1"]);
    expect(page(["", 0], 9, "store-01")).toEqual(["store-01 1", "store-01 2", "store-01 3"]);
    expect(page(["", 0], 9, "nobody")).toEqual([]);
  });
});

describe("watching with a cursor", () => {
  test("what was queued comes in order, page after page, then each as it is issued", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 250);
    const commands = watch(box, cursorAt(box, 0));
    expect(await take(commands, 250)).toEqual(ids(1, 250));
    const next = take(commands, 2);
    await issue(box.dispatch, 251, 252);
    expect(await next).toEqual(ids(251, 252));
  });

  test("only what is behind the cursor comes, however often it is asked for", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 5);
    for (let i = 0; i < 2; i++) {
      expect(await take(watch(box, cursorAt(box, 3)), 2)).toEqual(ids(4, 5));
    }
  });

  test("a cursor of another ledger means nothing here: all comes", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 3);
    const cursor = { ...cursorAt(box, 2), ledgerId: "another" };
    expect(await take(watch(box, cursor), 3)).toEqual(ids(1, 3));
  });

  test("a cursor into a queue that was restored, with another command there: all comes", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 3);
    const cursor = { ...cursorAt(box, 2), commandId: "cmd-that-was-lost" };
    expect(await take(watch(box, cursor), 3)).toEqual(ids(1, 3));
  });

  test("a cursor behind the end of a queue that was restored: what is issued then comes", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 2);
    // The store has applied 3 to 5, of which this copy knows nothing.
    const commands = watch(box, { ...cursorAt(box, 5), commandId: "cmd-5" });
    expect(await take(commands, 2)).toEqual(ids(1, 2));
  });

  test("a bare cursor ahead of the queue waits for its number, and meanwhile does nothing", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 2);
    const prepared = vi.spyOn(Database.prototype, "prepare");
    const commands = watch(box, { sequence: 3, ledgerId: "", commandId: "" });
    const next = take(commands, 1);
    await new Promise((resolve) => setImmediate(resolve));
    const looks = prepared.mock.calls.length;
    expect(looks).toBeGreaterThan(0);
    for (let turn = 0; turn < 50; turn++) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(prepared.mock.calls.length).toBe(looks);
    await issue(box.dispatch, 3, 4);
    expect(await next).toEqual(["cmd-4"]);
  });
});

describe("watching with a cursor that makes no sense", () => {
  test.each([Number.NaN, 2 ** 53, 2 ** 63, Number.POSITIVE_INFINITY])(
    "%s waits, and does nothing meanwhile",
    async (sequence) => {
      using box = openLedger();
      await issue(box.dispatch, 1, 2);
      const prepared = vi.spyOn(Database.prototype, "prepare");
      const next = take(watch(box, { sequence, ledgerId: "", commandId: "" }), 1);
      await new Promise((resolve) => setImmediate(resolve));
      const looks = prepared.mock.calls.length;
      for (let turn = 0; turn < 50; turn++) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(prepared.mock.calls.length).toBe(looks);
      stop.abort(new Error("enough"));
      await expect(next).rejects.toThrow("enough");
    },
  );

  test("-1 is as 0, and then waits", async () => {
    using box = openLedger();
    const commands = watch(box, { sequence: -1, ledgerId: "", commandId: "" });
    const next = take(commands, 1);
    await new Promise((resolve) => setImmediate(resolve));
    await issue(box.dispatch, 1, 1);
    expect(await next).toEqual(["cmd-1"]);
  });

  test("commands that are gone meanwhile leave it waiting", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 3);
    const commands = watch(box, cursorAt(box, 0));
    expect(await take(commands, 1)).toEqual(["cmd-1"]);
    box.ledger.database.write(() => box.ledger.database.prepare("DELETE FROM commands").run());
    expect(await take(commands, 2)).toEqual(ids(2, 3));
    const next = take(commands, 1);
    await new Promise((resolve) => setImmediate(resolve));
    stop.abort(new Error("enough"));
    await expect(next).rejects.toThrow("enough");
  });
});

describe("watching without a cursor", () => {
  test("what was written and not received comes again; one round trip does for many", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 5);
    const trips: (() => void)[] = [];
    const flushed = () => new Promise<void>((resolve) => trips.push(resolve));
    const options = { flushed, signal: stop.signal };
    const commands = box.dispatch.watch(storeId, undefined, options);
    expect(await take(commands, 5)).toEqual(ids(1, 5));
    // The first PING left after the first command.
    expect(trips).toHaveLength(1);
    expect(await take(watch(box), 1)).toEqual(["cmd-1"]);
    trips.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
    expect(await take(watch(box), 1)).toEqual(["cmd-2"]);
    expect(trips).toHaveLength(1);
    trips.shift()?.();
    await new Promise((resolve) => setImmediate(resolve));
    expect(await take(watch(box), 1)).toEqual(["cmd-5"]);
  });

  test("a disk that cannot mark it ends the watch with what is wrong", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 1);
    const commands = watch(box);
    expect(await take(commands, 1)).toEqual(["cmd-1"]);
    vi.spyOn(Database.prototype, "write").mockImplementation(() => {
      throw new Error("the disk is full");
    });
    await expect(take(commands, 1)).rejects.toThrow("the disk is full");
  });

  test("what was not delivered comes, once", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 2);
    const commands = watch(box);
    expect(await take(commands, 2)).toEqual(ids(1, 2));
    // To ask for the next one is to have written the one before.
    const third = take(commands, 1);
    await issue(box.dispatch, 3, 3);
    expect(await third).toEqual(["cmd-3"]);
    await commands.return(undefined as never);

    await issue(box.dispatch, 4, 4);
    // The third one was handed out, but nobody has said that it was written.
    expect(await take(watch(box), 2)).toEqual(ids(3, 4));
  });

  test("what was delivered is known to the next server", async () => {
    using folder = tempFolder();
    {
      using box = openLedger(folder.path);
      await issue(box.dispatch, 1, 3);
      expect(await take(watch(box), 3)).toEqual(ids(1, 3));
    }
    using box = openLedger(folder.path);
    expect(await take(watch(box), 1)).toEqual(["cmd-3"]);
  });

  test("one that has a cursor takes nothing from one that has none", async () => {
    using box = openLedger();
    await issue(box.dispatch, 1, 2);
    const withCursor = watch(box, cursorAt(box, 0));
    expect(await take(withCursor, 2)).toEqual(ids(1, 2));
    expect(await take(watch(box), 2)).toEqual(ids(1, 2));
  });
});

describe("who watches", () => {
  test("two of a store get the same, and it is watched until both have left", async () => {
    using box = openLedger();
    expect(box.dispatch.isWatching(storeId)).toBe(false);
    const [one, two] = [watch(box, cursorAt(box, 0)), watch(box, cursorAt(box, 0))];
    const got = Promise.all([take(one, 1), take(two, 1)]);
    await issue(box.dispatch, 1, 1);
    expect(await got).toEqual([["cmd-1"], ["cmd-1"]]);
    expect(box.dispatch.isWatching(storeId)).toBe(true);
    await one.return(undefined as never);
    expect(box.dispatch.isWatching(storeId)).toBe(true);
    await two.return(undefined as never);
    expect(box.dispatch.isWatching(storeId)).toBe(false);
  });

  test("a store hears nothing of another one's commands", async () => {
    using box = openLedger();
    const commands = watch(box, cursorAt(box, 0), "store-02");
    const next = take(commands, 1);
    await issue(box.dispatch, 1, 3);
    await issueOne(box.dispatch, price(7, { storeId: "store-02" }));
    expect(await next).toEqual(["cmd-7"]);
  });

  test("the signal ends a watch that waits, with its reason, and nobody watches any more", async () => {
    using box = openLedger();
    const next = watch(box, cursorAt(box, 0)).next();
    const reason = new Error("enough");
    stop.abort(reason);
    await expect(next).rejects.toBe(reason);
    expect(box.dispatch.isWatching(storeId)).toBe(false);
  });
});
