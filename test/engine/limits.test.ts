/** What a ledger does at its limits, and with rows that an older version or another program wrote. */

import { describe, expect, test } from "vitest";
import {
  type Ledger,
  maxConflicts,
  maxEpochs,
  maxOtherSeqs,
  type TakenEvent,
} from "../../src/engine/ledger.ts";
import { maxNewStoresPerMinute, maxStores } from "../../src/engine/newcomers.ts";
import { maxPageSize } from "../../src/engine/page.ts";
import { knowStores, noon, type OpenLedger, openLedger, sale } from "../support/open-ledger.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";

const accepted = { kind: "accepted" };

const run = ({ database }: Ledger, sql: string) =>
  database.write(() => database.prepare(sql).run());

const rowsOf = ({ database }: Ledger, table: string) =>
  Number(database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.["n"]);

const command = { commandId: "cmd-1", type: "StockAlert", payloadJson: "{}" };

const far = "9223372036854775807";

describe("a ledger with numbers that JavaScript cannot hold", () => {
  /** Two good stores, and between them one with nothing but the largest numbers that SQLite has. */
  async function withFarNumbers(folder: string): Promise<void> {
    using box = openLedger(folder);
    for (const storeId of ["a", "b", "c"]) {
      box.ledger.take([sale(1, { storeId }), sale(2, { storeId, epoch: "second" })]);
      await box.dispatch.issue([storeId], command, { signal: never });
    }
    const store = "(SELECT number FROM stores WHERE store_id = 'b')";
    run(box.ledger, `UPDATE epochs SET highest = ${far}, seen = 1 WHERE store = ${store}`);
    run(
      box.ledger,
      `UPDATE stores SET reported_at = ${far}, clock_offset_ms = -${far}, seen_at = ${far},
         status = 'not JSON' WHERE number = ${store}`,
    );
    run(
      box.ledger,
      `UPDATE events SET timestamp = ${far}, received_at = ${far} WHERE store = ${store}`,
    );
    run(box.ledger, `UPDATE events SET seq = ${far} WHERE store = ${store}`);
    run(
      box.ledger,
      `INSERT INTO progress (store_id, received, applied) VALUES ('b', ${far}, ${far})`,
    );
    run(box.ledger, `INSERT INTO deliveries (store_id, sequence) VALUES ('b', ${far})`);
    run(
      box.ledger,
      `INSERT INTO commands (store_id, sequence, command_id, batch)
         SELECT 'b', ${far}, 'far', number FROM command_batches LIMIT 1`,
    );
  }

  test("lists all stores, and tells the one in an alarm", async () => {
    using folder = tempFolder();
    await withFarNumbers(folder.path);
    using box = openLedger(folder.path);
    const [a, b, c] = box.ledger.storeIds().map((storeId) => box.ledger.store(storeId));
    expect([a, c]).toMatchObject([
      { storeId: "a", gaps: 1, seen: 2, alarms: [] },
      { storeId: "c", gaps: 1, seen: 2, alarms: [] },
    ]);
    expect(b?.gaps).toBe(Number.MAX_SAFE_INTEGER);
    expect(b?.alarms).toEqual([
      "the ledger holds a row that cannot be read: the store's last report",
      "the ledger holds a row that cannot be read: a command with a sequence beyond 2^53 - 1",
      "the ledger holds a row that cannot be read: a time or a count beyond 2^53 - 1",
    ]);
  });

  test("lists the events and the commands of all stores to their ends", async () => {
    using folder = tempFolder();
    await withFarNumbers(folder.path);
    using box = openLedger(folder.path);
    const events = box.ledger.events({ after: 0, limit: 100 });
    expect(events.map(({ storeId }) => storeId)).toEqual(["a", "a", "b", "b", "c", "c"]);
    expect(box.ledger.eventsOf({ storeId: "b", after: 0, limit: 9 }).events).toHaveLength(2);
    expect(box.ledger.eventsById("b", "", 9)).toHaveLength(2);
    const commands = box.dispatch.commands({ after: { storeId: "", sequence: 0 } });
    expect(commands.map(({ storeId, sequence }) => [storeId, sequence])).toEqual([
      ...[["a", 1] as const, ["b", 1] as const, ["c", 1] as const],
    ]);
  });

  test("takes events and commands of that store and of others", async () => {
    using folder = tempFolder();
    await withFarNumbers(folder.path);
    using box = openLedger(folder.path);
    const outcomes = box.ledger.take([
      sale(3, { storeId: "b", epoch: "third" }),
      sale(1, { storeId: "b" }),
      sale(3, { storeId: "c" }),
    ]);
    expect(outcomes).toMatchObject([accepted, { kind: "refused", code: "conflict" }, accepted]);
    const next = { ...command, commandId: "cmd-2" };
    expect(await box.dispatch.issue(["b"], next, { signal: never })).toMatchObject([
      { sequence: 2 },
    ]);
    const cursor = { sequence: 0, ledgerId: "", commandId: "" };
    const watched = box.dispatch.watch("b", cursor, { signal: never });
    expect((await watched.next()).value).toMatchObject({ sequence: 1 });
    expect((await watched.next()).value).toMatchObject({ sequence: 2 });
    await watched.return(undefined as never);
  });

  test("sums that are larger than any number are cut, and throw nothing", () => {
    using box = openLedger();
    const largest = Number.MAX_SAFE_INTEGER;
    box.ledger.take([sale(1), sale(2, { epoch: "b" })]);
    run(box.ledger, `UPDATE epochs SET highest = ${largest}`);
    expect(box.ledger.store("store-01")).toMatchObject({
      ...{ gaps: largest, currentGaps: largest - 1, seen: 2, epochs: 2, alarms: [] },
    });
  });
});

describe("at its limits", () => {
  test(`a store begins at most ${maxEpochs} epochs, and nothing is kept of one more`, () => {
    using box = openLedger();
    const { ledger } = box;
    const events = Array.from({ length: maxEpochs }, (_, i) => sale(i + 1, { epoch: `e${i}` }));
    expect(ledger.take(events)).toEqual(events.map(() => accepted));
    const before = ["events", "epochs", "other_seqs"].map((table) => rowsOf(ledger, table));
    const reason = "the store has had 1000 epochs, and no more are allowed";
    expect(ledger.take([sale(5_000, { epoch: "more" }), sale(5_001, { epoch: "e7" })])).toEqual([
      { kind: "refused", code: "invalid", reason },
      accepted,
    ]);
    before[0] = (before[0] ?? 0) + 1;
    expect(["events", "epochs", "other_seqs"].map((table) => rowsOf(ledger, table))).toEqual(
      before,
    );
    // Another store has its own.
    expect(ledger.take([sale(1, { storeId: "b", epoch: "more" })])).toEqual([accepted]);
  });

  test("new stores come at a bounded rate, known ones at any, and nobody is refused for good", () => {
    let now = noon;
    using box = openLedger(undefined, () => now);
    const { ledger } = box;
    const ids = Array.from({ length: maxNewStoresPerMinute + 2 }, (_, i) => `store-${i}`);
    const outcomes = ledger.take(ids.map((storeId) => sale(1, { storeId })));
    expect(outcomes.filter(({ kind }) => kind === "accepted")).toHaveLength(maxNewStoresPerMinute);
    const reason = "the cloud takes at most 600 new stores a minute; try again later";
    expect(outcomes.slice(-2)).toEqual(Array(2).fill({ kind: "try later", reason }));
    expect(ledger.know(["one-more"])).toEqual([reason]);
    expect(ledger.take([sale(2, { storeId: "store-0" })])).toEqual([accepted]);
    expect(rowsOf(ledger, "stores")).toBe(maxNewStoresPerMinute);
    now += 100;
    const [last = ""] = ids.slice(-1);
    expect(ledger.take([sale(1, { storeId: last })])).toEqual([accepted]);
  });

  test("a full ledger takes no new store, and goes on with those that it knows", async () => {
    using box = openLedger();
    const { ledger, dispatch } = box;
    const ids = Array.from({ length: maxStores }, (_, i) => `store-${i}`);
    knowStores(ledger, ids);
    const reason = "the cloud knows 10000 stores, and takes no new one beyond 10000";
    expect(ledger.take([sale(1, { storeId: "new" }), sale(1, { storeId: "store-7" })])).toEqual([
      { kind: "try later", reason },
      accepted,
    ]);
    expect(ledger.know(["new", "store-8"])).toEqual([reason, undefined]);
    expect(await dispatch.issue(ledger.storeIds(), command, { signal: never })).toHaveLength(
      maxStores,
    );
  });

  test("a batch that failed counts no store and no epoch", () => {
    using box = openLedger();
    const { ledger } = box;
    const ids = Array.from({ length: maxStores - 1 }, (_, i) => `store-${i}`);
    knowStores(ledger, ids);
    run(
      ledger,
      "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'full'); END",
    );
    expect(() => ledger.take([sale(1, { storeId: "last" })])).toThrow("full");
    run(ledger, "DROP TRIGGER full");
    expect(ledger.take([sale(1, { storeId: "last" })])).toEqual([accepted]);
  });

  test("conflicts and refused numbers of a store are kept up to a bound, and refused beyond it", () => {
    using box = openLedger();
    const { ledger } = box;
    ledger.take([sale(1)]);
    run(
      ledger,
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${maxConflicts})
       INSERT INTO conflicts (store, event_id, at, reason) SELECT 1, 'c' || i, 0, '' FROM n`,
    );
    run(
      ledger,
      `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${maxOtherSeqs})
       INSERT INTO other_seqs (epoch, seq, event_id, why) SELECT 1, i + 1000, '', '' FROM n`,
    );
    const conflict = sale(2, { eventId: "sale-1", payload: "another" });
    expect(ledger.take([conflict, sale(3, { type: "" })])).toMatchObject([
      { kind: "refused", code: "conflict" },
      { kind: "refused", code: "invalid" },
    ]);
    expect(rowsOf(ledger, "conflicts")).toBe(maxConflicts);
    expect(rowsOf(ledger, "other_seqs")).toBe(maxOtherSeqs);
  });

  test("events that no store could have sent cost no disk, however many come", () => {
    using box = openLedger();
    const { ledger } = box;
    const empty = { ...{ storeId: "", eventId: "", type: "", payload: "" } };
    const events = Array.from({ length: 1_000 }, () => sale(1, empty));
    for (let i = 0; i < 100; i++) {
      expect(ledger.take(events)[999]).toMatchObject({ kind: "refused" });
    }
    expect(
      ["stores", "epochs", "events", "other_seqs"].map((table) => rowsOf(ledger, table)),
    ).toEqual([0, 0, 0, 0]);
  });
});

describe("a page", () => {
  const payload = "x".repeat(maxPageSize / 4);
  const sizeOf = (events: readonly { payload: string }[]) =>
    events.reduce((size, event) => size + event.payload.length, 0);

  test("of events ends at a size, and the next one goes on after it", () => {
    using box = openLedger();
    const events = Array.from({ length: 10 }, (_, i) => sale(i + 1, { payload }));
    box.ledger.take(events);
    const pages: (readonly TakenEvent[])[] = [];
    for (let after = 0; ; after = pages.at(-1)?.at(-1)?.position ?? 0) {
      const page = box.ledger.events({ after, limit: 200 });
      if (page.length === 0) {
        break;
      }
      pages.push(page);
    }
    expect(pages.map((page) => page.length)).toEqual([4, 4, 2]);
    expect(Math.max(...pages.map(sizeOf))).toBe(maxPageSize);
    const ofOne = box.ledger.eventsOf({ storeId: "store-01", after: 4, limit: 200 });
    expect({ ...ofOne, events: ofOne.events.length }).toEqual({
      ...{ events: 4, through: 8, isAtEnd: false },
    });
  });

  test("of commands ends at a size as well, for a list and for a watch", async () => {
    using box = openLedger();
    const payloadJson = JSON.stringify(payload.slice(2));
    await issueMany(box, 6, payloadJson);
    const first = box.dispatch.commands({ after: { storeId: "", sequence: 0 } });
    expect(first).toHaveLength(4);
    const watched = box.dispatch.watch(
      "a",
      { sequence: 0, ledgerId: "", commandId: "" },
      {
        signal: never,
      },
    );
    for (let n = 1; n <= 6; n++) {
      expect((await watched.next()).value).toMatchObject({ sequence: n });
    }
    await watched.return(undefined as never);
  });

  async function issueMany({ dispatch }: OpenLedger, count: number, payloadJson: string) {
    for (let n = 1; n <= count; n++) {
      const one = { commandId: `cmd-${n}`, type: "PriceUpdate", payloadJson };
      await dispatch.issue(["a"], one, { signal: never });
    }
  }
});
