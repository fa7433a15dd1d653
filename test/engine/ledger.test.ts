/** The cloud's memory: each event once, for ever, and no answer before it is on the disk. */

import { cpSync, existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { afterEach, describe, expect, test, vi } from "vitest";
import { formatBytes } from "../../src/bytes.ts";
import {
  type Ledger,
  ledgerReserveBytes,
  type OfferedEvent,
  type StatusReport,
} from "../../src/engine/ledger.ts";
import { checksumOf, messageChecksum } from "../../src/event-checksum.ts";
import { DamagedError, Database } from "../../src/sqlite.ts";
import {
  knowStores,
  noon,
  type OpenLedger,
  openLedger,
  sale,
  sales,
} from "../support/open-ledger.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";

/** Two contents of one event that CRC-32 does not tell apart: among 200,000 there are some. */
function withOneChecksum(): [OfferedEvent, OfferedEvent] {
  const seen = new Map<number, OfferedEvent>();
  for (let i = 0; i < 1_000_000; i++) {
    const event = sale(1, { payload: `${i} ${i * i}` });
    const checksum = checksumOf(event);
    const other = seen.get(checksum);
    if (other !== undefined) {
      return [other, event];
    }
    seen.set(checksum, event);
  }
  throw new Error("no two of a million contents have one checksum");
}

const accepted = { kind: "accepted" };
const duplicate = { kind: "duplicate" };
const day = 24 * 3_600_000;
const other = "bbbbbbbbbbbbbbbb";

afterEach(() => {
  vi.restoreAllMocks();
});

const idsOf = (ledger: Ledger) =>
  ledger.events({ after: 0, limit: 100_000 }).map(({ eventId }) => eventId);

describe("an event is taken once", () => {
  test("an event that comes again is a duplicate, and is kept as it came first", () => {
    let now = noon;
    using box = openLedger(undefined, () => now);
    expect(box.ledger.take([sale(1)])).toEqual([accepted]);
    now += 5000;
    expect(box.ledger.take([sale(1)])).toEqual([duplicate]);
    expect(box.ledger.events({ after: 0, limit: 10 })).toEqual([
      { ...sale(1), position: 1, receivedAt: noon, messageChecksum: expect.any(Number) },
    ]);
  });

  test("an event whose row is corrupt is mended when its store sends it again", () => {
    using box = openLedger();
    box.ledger.take([sale(1), sale(2)]);
    box.ledger.database.prepare("UPDATE events SET payload = X'00', timestamp = 5").run();
    // Under another number, as after a restore of the store.
    const again = sale(1, { epoch: "bbbbbbbbbbbbbbbb", seq: 1 });
    expect(box.ledger.take([again])).toEqual([duplicate]);
    const [first, second] = box.ledger.events({ after: 0, limit: 9 });
    expect(first).toMatchObject(sale(1));
    expect(second).toMatchObject({ payload: "\0", timestamp: 5 });
  });

  test("an event with another content mends nothing, whether the row is corrupt or not", () => {
    using box = openLedger();
    box.ledger.take([sale(1)]);
    const other = sale(1, { payload: "another" });
    const conflict = { kind: "refused", code: "conflict" };
    expect(box.ledger.take([other])).toMatchObject([conflict]);
    box.ledger.database.prepare("UPDATE events SET payload = X'00'").run();
    expect(box.ledger.take([other])).toMatchObject([conflict]);
  });

  test("an event with another content mends nothing, also if it has the checksum of the first", () => {
    const [one, other] = withOneChecksum();
    using box = openLedger();
    expect(box.ledger.take([one])).toEqual([accepted]);
    expect(box.ledger.take([other])).toMatchObject([{ kind: "refused", code: "conflict" }]);
    expect(box.ledger.events({ after: 0, limit: 9 })).toMatchObject([one]);
  });

  test("an event of a client without numbers is kept with a checksum that its row has", () => {
    using box = openLedger();
    const alone = sale(1, { epoch: "", seq: 77 });
    const sent = { ...alone, messageChecksum: messageChecksum(checksumOf(alone), alone) };
    expect(box.ledger.take([sent])).toEqual([accepted]);
    const [kept] = box.ledger.events({ after: 0, limit: 9 });
    expect(kept?.messageChecksum).toBe(messageChecksum(checksumOf(alone), { ...alone, seq: 0 }));
  });

  test("an event that is in a batch twice is taken once", () => {
    using box = openLedger();
    expect(box.ledger.take([sale(1), sale(1), sale(2)])).toEqual([accepted, duplicate, accepted]);
    expect(idsOf(box.ledger)).toEqual(["sale-1", "sale-2"]);
  });

  test("there is no time and no number of events after which a repetition counts again", () => {
    let now = noon;
    using box = openLedger(undefined, () => now);
    box.ledger.take([sale(1)]);
    box.ledger.take(sales(2, 5000));
    now += 3650 * day;
    expect(box.ledger.take([sale(1)])).toEqual([duplicate]);
    expect(box.ledger.size()).toBe(5000);
  });

  test("a ledger that is opened again has the same id and the same memory", () => {
    using folder = tempFolder();
    let id: string;
    {
      using box = openLedger(folder.path);
      id = box.ledger.id;
      box.ledger.take(sales(1, 3));
    }
    using box = openLedger(folder.path);
    expect(box.ledger.id).toBe(id);
    expect(box.ledger.take(sales(2, 4))).toEqual([duplicate, duplicate, accepted]);
    expect(idsOf(box.ledger)).toEqual(["sale-1", "sale-2", "sale-3", "sale-4"]);
  });

  test("two ledgers have different ids", () => {
    using one = openLedger();
    using two = openLedger();
    expect(one.ledger.id).not.toBe(two.ledger.id);
  });

  test("the same id in another store is another event", () => {
    using box = openLedger();
    expect(box.ledger.take([sale(1), sale(1, { storeId: "store-02" })])).toEqual([
      accepted,
      accepted,
    ]);
  });

  test("what was taken by a server that was killed is there when the next one opens", () => {
    using folder = tempFolder();
    using copy = tempFolder();
    using box = openLedger(folder.path);
    box.ledger.take(sales(1, 3));
    // A copy of what is on the disk while the ledger is open is what a kill leaves.
    cpSync(folder.path, copy.path, { recursive: true });
    using after = openLedger(copy.path);
    expect(after.ledger.take(sales(1, 4))).toEqual([duplicate, duplicate, duplicate, accepted]);
  });
});

describe("another content under a known id", () => {
  test.each([
    [{ type: "Refund" }, "type"],
    [{ payload: '{"total":2}' }, "payload"],
    [{ timestamp: noon }, "timestamp"],
    [{ type: "Refund", payload: "", timestamp: 0 }, "type and payload and timestamp"],
  ])("%j is a conflict that names the field, and is never taken", (changes, fields) => {
    using box = openLedger();
    box.ledger.take([sale(1)]);
    expect(box.ledger.take([sale(1, changes), sale(1, { ...changes, seq: 2 })])).toEqual(
      Array(2).fill({
        kind: "refused",
        code: "conflict",
        reason: `event_id is taken by an event with another ${fields}`,
      }),
    );
    expect(box.ledger.events({ after: 0, limit: 10 })).toMatchObject([sale(1)]);
  });

  test("content is compared byte by byte, NUL and lookalikes included", () => {
    using box = openLedger();
    const payloads = ["a", "a\u0000", "a\u0000b", "\u00e9", "e\u0301", "", " ", "😀"];
    box.ledger.take(payloads.map((payload, i) => sale(i + 1, { payload })));
    expect(box.ledger.events({ after: 0, limit: 10 }).map(({ payload }) => payload)).toEqual(
      payloads,
    );
    const turned = payloads.map((_, i) => sale(i + 1, { payload: payloads.at(i - 1) ?? "" }));
    for (const outcome of box.ledger.take(turned)) {
      expect(outcome).toMatchObject({ code: "conflict" });
    }
    const again = payloads.map((payload, i) => sale(i + 1, { payload }));
    expect(box.ledger.take(again)).toEqual(Array(8).fill(duplicate));
  });
});

describe("a seq that another event has", () => {
  test("is refused as such, so that the store can number its events anew", () => {
    using box = openLedger();
    box.ledger.take([sale(1)]);
    expect(box.ledger.take([sale(2, { seq: 1 })])).toEqual([
      { kind: "refused", code: "seq taken", reason: "seq 1 of this epoch is another event's" },
    ]);
    expect(box.ledger.take([sale(2, { seq: 1, epoch: other })])).toEqual([accepted]);
  });

  test("the id is looked up first: a known event under a taken seq is a duplicate", () => {
    using box = openLedger();
    box.ledger.take(sales(1, 2));
    expect(box.ledger.take([sale(2, { seq: 1 })])).toEqual([duplicate]);
    expect(box.ledger.take([sale(2, { seq: 1, payload: "x" })])).toMatchObject([
      { code: "conflict" },
    ]);
  });

  test("is free in another epoch and in another store", () => {
    using box = openLedger();
    const outcomes = box.ledger.take([
      sale(1),
      sale(2, { seq: 1, epoch: other }),
      sale(3, { seq: 1, storeId: "store-02" }),
    ]);
    expect(outcomes).toEqual([accepted, accepted, accepted]);
  });

  test("events of a client that does not number them never collide", () => {
    using box = openLedger();
    expect(box.ledger.take(sales(1, 3, { epoch: "", seq: 0 }))).toEqual([
      accepted,
      accepted,
      accepted,
    ]);
    expect(box.ledger.gaps("store-01")).toEqual([]);
  });

  test("without an epoch a seq means nothing, however absurd it is", () => {
    using box = openLedger();
    const absurd = [-1, 2 ** 53, 2 ** 63, -(2 ** 63), 7];
    const events = absurd.map((seq, i) => sale(i + 1, { epoch: "", seq }));
    expect(box.ledger.take([...events, sale(9)])).toEqual(Array(6).fill(accepted));
    expect(box.ledger.events({ after: 0, limit: 10 }).map(({ seq }) => seq)).toEqual([
      ...[0, 0, 0, 0, 0],
      9,
    ]);
  });
});

describe("what was never seen is a gap", () => {
  const gap = (missing: number, highest: number, epoch = sale(1).epoch) => ({
    epoch,
    missing,
    highest,
  });

  test("a gap is counted until its event comes", () => {
    using box = openLedger();
    box.ledger.take([sale(1), sale(4)]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(2, 4)]);
    expect(box.ledger.highestSeen("store-01", sale(1).epoch)).toBe(4);
    box.ledger.take([sale(3)]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(1, 4)]);
    box.ledger.take([sale(2)]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(0, 4)]);
  });

  test("an event that is refused for good is seen", () => {
    using box = openLedger();
    const outcomes = box.ledger.take([
      sale(1),
      sale(2, { type: "" }),
      sale(3, { eventId: "sale-1" }),
      sale(4, { timestamp: -1 }),
      sale(5, { eventId: "" }),
      sale(6),
    ]);
    expect(outcomes.map((outcome) => outcome.kind)).toEqual([
      ...["accepted", "refused", "refused", "refused", "refused", "accepted"],
    ]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(0, 6)]);
    // Seen is seen once.
    box.ledger.take([sale(2, { type: "" })]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(0, 6)]);
  });

  test("a duplicate under a new seq is seen: it will not come under that number again", () => {
    using box = openLedger();
    box.ledger.take(sales(1, 2));
    // After a renumbering, what had been taken before comes under another number.
    expect(
      box.ledger.take([
        sale(2, { epoch: other, seq: 1 }),
        sale(3, { epoch: other, seq: 2 }),
        sale(1, { epoch: other, seq: 4 }),
      ]),
    ).toEqual([duplicate, accepted, duplicate]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(0, 2), gap(1, 4, other)]);
  });

  test("a refused event that somebody has put right is taken under its own seq", () => {
    using box = openLedger();
    box.ledger.take([sale(1, { type: "" })]);
    expect(box.ledger.take([sale(1)])).toEqual([accepted]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(0, 1)]);
    expect(box.ledger.take([sale(2, { seq: 1 })])).toMatchObject([{ code: "seq taken" }]);
  });

  test("behind a taken seq nothing new is taken in that epoch, or it would overtake", () => {
    using box = openLedger();
    box.ledger.take([sale(1), sale(2)]);
    const taken = { kind: "refused", code: "seq taken" };
    const outcomes = box.ledger.take([
      ...[sale(8, { seq: 2 }), sale(9, { seq: 3 }), sale(2)],
      ...[sale(8, { seq: 1, epoch: "b" }), sale(9, { seq: 2, epoch: "b" })],
    ]);
    expect(outcomes).toMatchObject([taken, taken, { kind: "duplicate" }, accepted, accepted]);
  });

  test("the seq of a refused event is not free for another one", () => {
    using box = openLedger();
    box.ledger.take([sale(1, { type: "" })]);
    expect(box.ledger.take([sale(2, { seq: 1 })])).toMatchObject([{ code: "seq taken" }]);
  });

  test("what was seen is known to the next server too", () => {
    using folder = tempFolder();
    {
      using box = openLedger(folder.path);
      box.ledger.take([sale(1), sale(2, { type: "" }), sale(5)]);
    }
    using box = openLedger(folder.path);
    expect(box.ledger.gaps("store-01")).toEqual([gap(2, 5)]);
    box.ledger.take([sale(3)]);
    expect(box.ledger.gaps("store-01")).toEqual([gap(1, 5)]);
    expect(box.ledger.take([sale(9, { seq: 2 })])).toMatchObject([{ code: "seq taken" }]);
    expect(box.ledger.highestSeen("store-01", "never met")).toBe(0);
  });

  test("epochs are numbered as they are first seen, whatever they are called", () => {
    using box = openLedger();
    const names = ["ff", "aa", "cc", "00"];
    for (const epoch of names) {
      box.ledger.take([sale(1, { epoch, eventId: epoch })]);
    }
    box.ledger.take([sale(2, { epoch: "aa" })]);
    expect(box.ledger.gaps("store-01").map(({ epoch }) => epoch)).toEqual(names);
  });
});

describe("a bad event costs no other", () => {
  const bad: [string, Parameters<typeof sale>[1], RegExp][] = [
    ["an empty store_id", { storeId: "" }, /^store_id is empty$/],
    ["a long store_id", { storeId: "s".repeat(129) }, /^store_id has 129 bytes; at most 128/],
    ["a store_id that moves the cursor", { storeId: "a\u001b[2J" }, /control characters/],
    ["an empty event_id", { eventId: "" }, /^event_id is empty$/],
    ["an event_id of too many bytes", { eventId: "é".repeat(65) }, /^event_id has 130 bytes/],
    ["a NUL in the event_id", { eventId: "a\u0000" }, /control characters/],
    ["an empty type", { type: "" }, /^type is empty$/],
    ["a huge payload", { payload: "x".repeat(2 ** 21 + 1) }, /^payload has 2097153 bytes/],
    ["half a surrogate pair", { payload: "\ud83d" }, /^payload is not valid Unicode/],
    ["a time before 1970", { timestamp: -1 }, /^timestamp is -1;/],
    ["a time after 9999", { timestamp: 253_402_300_800_000 }, /^timestamp is 253402300800000;/],
    ["a time beyond 2^53", { timestamp: 2 ** 63 }, /^timestamp is 92233720368547\d+;/],
    ["no number at all", { timestamp: Number.NaN }, /^timestamp is NaN/],
    ["a seq of 0", { seq: 0 }, /^seq is 0; expected 1 to 1099511627776$/],
    ["a negative seq", { seq: -3 }, /^seq is -3;/],
    ["a seq beyond 2^40", { seq: 2 ** 40 + 1 }, /^seq is 1099511627777; expected 1 to/],
    ["a seq beyond 2^53", { seq: 2 ** 62 }, /^seq is 46116860184273\d+;/],
    ["a long epoch", { epoch: "e".repeat(200) }, /^epoch has 200 bytes/],
  ];

  test.each(bad)("%s is refused, and its neighbours are taken", (_, changes, reason) => {
    using box = openLedger();
    const outcomes = box.ledger.take([sale(1), sale(2, changes), sale(3)]);
    expect(outcomes).toEqual([
      accepted,
      { kind: "refused", code: "invalid", reason: expect.stringMatching(reason) },
      accepted,
    ]);
    expect(idsOf(box.ledger)).toEqual(["sale-1", "sale-3"]);
  });

  test("the bounds themselves are allowed", () => {
    using box = openLedger();
    const id = "é".repeat(64);
    const events = [
      sale(1, { storeId: id, eventId: id, type: id, epoch: id }),
      sale(2, { payload: "x".repeat(2 ** 21), timestamp: 0 }),
      sale(3, { timestamp: 253_402_300_799_999, seq: 2 ** 40 }),
    ];
    expect(box.ledger.take(events)).toEqual([accepted, accepted, accepted]);
    const kept = [0, 1, 2].flatMap((after) => box.ledger.events({ after, limit: 1 }));
    expect(kept).toMatchObject(events);
  });

  test("an empty batch is nothing", () => {
    using box = openLedger();
    expect(box.ledger.take([])).toEqual([]);
  });
});

test("events are listed in the order in which they were taken, from a position on", () => {
  using box = openLedger();
  box.ledger.take([sale(3), sale(1, { storeId: "store-02" }), sale(2)]);
  const at = (after: number, limit: number) =>
    box.ledger.events({ after, limit }).map(({ position }) => position);
  expect(at(0, 10)).toEqual([1, 2, 3]);
  expect(at(1, 1)).toEqual([2]);
  expect(at(3, 10)).toEqual([]);
});

test("the cloud's own time of arrival stands beside the event's", () => {
  let now = noon;
  using box = openLedger(undefined, () => now);
  box.ledger.take([sale(1, { timestamp: noon + 2 * day })]);
  now -= 2 * day;
  box.ledger.take([sale(2, { timestamp: 0 })]);
  expect(box.ledger.events({ after: 0, limit: 10 })).toMatchObject([
    { timestamp: noon + 2 * day, receivedAt: noon },
    { timestamp: 0, receivedAt: noon - 2 * day },
  ]);
});

/** A report by itself. */
const tell = ({ ledger }: OpenLedger, one: StatusReport) => ledger.report([one])[0];

const report = (changes: Partial<StatusReport> = {}): StatusReport => ({
  ...{ storeId: "store-01", depth: 3, bytes: 4096, oldestUnacked: noon, parked: 0, sentAt: noon },
  ...{ cameAt: noon },
  ...{ epoch: "aa", version: "1.0.0", ledgerId: "", receivedSequence: 0, appliedSequence: 0 },
  ...{ commandsParked: 0, parkedCommands: [], alarms: [] },
  ...changes,
});

test("a report gives the offset of the store's clock, and a later one replaces it", () => {
  using box = openLedger();
  expect(tell(box, report({ sentAt: noon + 1500 }))).toBe(1500);
  expect(tell(box, report({ sentAt: noon - 2 * day }))).toBe(-2 * day);
  const row = box.ledger.database.prepare("SELECT * FROM stores").get();
  expect(row).toMatchObject({ store_id: "store-01", clock_offset_ms: -2 * day });
});

describe("what is known of a store", () => {
  test("nothing of one that was never heard of", () => {
    using box = openLedger();
    expect(box.ledger.store("store-01")).toBeUndefined();
    expect(box.ledger.isKnown("store-01")).toBe(false);
    expect(box.ledger.storeIds()).toEqual([]);
  });

  test("an event, a report or a question makes it known; a command to it does not", async () => {
    using box = openLedger();
    box.ledger.take([sale(1, { storeId: "d" })]);
    tell(box, report({ storeId: "b" }));
    box.ledger.know(["c"]);
    const alert = { commandId: "", type: "StockAlert", payloadJson: "{}" };
    await box.dispatch.issue(["a"], alert, { signal: never });
    expect(box.ledger.storeIds()).toEqual(["b", "c", "d"]);
    expect(box.ledger.isKnown("a")).toBe(false);
    // One whose events are all refused by their name is no store.
    box.ledger.take([sale(1, { storeId: "" })]);
    expect(box.ledger.storeIds()).toEqual(["b", "c", "d"]);
  });

  test("the last report, its clock, its commands, and the numbers that were seen", async () => {
    using box = openLedger();
    box.ledger.take([sale(1), sale(4), sale(5, { epoch: "bb" })]);
    for (const commandId of ["one", "two", "three"]) {
      const alert = { commandId, type: "StockAlert", payloadJson: "{}" };
      await box.dispatch.issue(["store-01"], alert, { signal: never });
    }
    tell(box, report({ depth: 9 }));
    tell(
      box,
      report({
        ...{ depth: 7, parked: 2, commandsParked: 1, alarms: ["salvaged"], sentAt: noon + 1500 },
        ...{ ledgerId: box.ledger.id, receivedSequence: 2, appliedSequence: 1 },
      }),
    );
    expect(box.ledger.store("store-01")).toEqual({
      ...{ storeId: "store-01", isConnected: false, lastSeen: noon, reportedAt: noon },
      ...{ depth: 7, bytes: 4096, oldestUnacked: noon, parked: 2, commandsParked: 1 },
      ...{ isForgotten: false, openConflicts: 0 },
      // 2 and 3 of the one epoch, 1 to 4 of the other.
      ...{
        gaps: 6,
        currentGaps: 4,
        seen: 3,
        conflicts: 0,
        clockOffsetMs: 1500,
        epoch: "aa",
        epochs: 2,
      },
      ...{ queuedSequence: 3, receivedSequence: 2, appliedSequence: 1 },
      ...{ version: "1.0.0", alarms: ["salvaged"] },
    });
  });

  test("how far a store is with the commands of another ledger is not taken", () => {
    using box = openLedger();
    const mine = { ledgerId: box.ledger.id, receivedSequence: 2, appliedSequence: 1 };
    tell(box, report(mine));
    tell(box, report({ ledgerId: "another", receivedSequence: 9, appliedSequence: 9 }));
    const at = () => {
      const { receivedSequence, appliedSequence } = box.ledger.store("store-01") ?? {};
      return [receivedSequence, appliedSequence];
    };
    expect(at()).toEqual([2, 1]);
    // A store whose disk was lost begins anew.
    tell(box, report({ ...mine, receivedSequence: 0, appliedSequence: 0 }));
    expect(at()).toEqual([0, 0]);
  });

  test("a conflict counts once for each id, however often it is sent", () => {
    using box = openLedger();
    box.ledger.take([sale(1), sale(2)]);
    for (let i = 0; i < 3; i++) {
      box.ledger.take([sale(1, { payload: `${i}` }), sale(2)]);
    }
    expect(box.ledger.store("store-01")?.conflicts).toBe(1);
    box.ledger.take([sale(2, { type: "Refund" }), sale(3, { type: "" })]);
    expect(box.ledger.store("store-01")?.conflicts).toBe(2);
  });

  test("too many alarms and too long ones are cut, between characters", () => {
    using box = openLedger();
    const alarms = Array.from({ length: 12 }, () => `${"x".repeat(1023)}😀`);
    tell(box, report({ alarms }));
    const kept = box.ledger.store("store-01")?.alarms ?? [];
    expect(kept).toHaveLength(10);
    expect(kept[0]).toBe(`${"x".repeat(1023)}\ufffd`);
  });

  test("when it was seen is exact, and on the disk within seconds", () => {
    using folder = tempFolder();
    let now = noon;
    using box = openLedger(folder.path, () => now);
    const saved = () =>
      Number(box.ledger.database.prepare("SELECT seen_at FROM stores").get()?.["seen_at"]);
    box.ledger.take([sale(1)]);
    expect(saved()).toBe(noon);
    now += 9_000;
    box.ledger.take([sale(2)]);
    expect(saved()).toBe(noon);
    expect(box.ledger.store("store-01")?.lastSeen).toBe(noon + 9_000);
    now += 1_000;
    box.ledger.take([sale(3)]);
    expect(saved()).toBe(noon + 10_000);
  });

  test("a server that is stopped leaves it exact for the next one", () => {
    using folder = tempFolder();
    let now = noon;
    {
      using box = openLedger(folder.path, () => now);
      box.ledger.take([sale(1)]);
      now += 3_000;
      box.ledger.take([sale(2)]);
    }
    now += 60_000;
    using box = openLedger(folder.path, () => now);
    expect(box.ledger.store("store-01")).toMatchObject({
      lastSeen: noon + 3_000,
      isConnected: false,
    });
  });

  test("3,000 stores are written down a part at a time, and all of them in the end", () => {
    let now = noon;
    using box = openLedger(undefined, () => now);
    const ids = Array.from({ length: 3_000 }, (_, i) => `store-${i}`);
    knowStores(box.ledger, ids);
    box.ledger.take(ids.map((storeId) => sale(1, { storeId })));
    const saved = () =>
      Number(
        box.ledger.database.prepare("SELECT count(*) AS n FROM stores WHERE seen_at > 0").get()?.[
          "n"
        ],
      );
    expect(saved()).toBe(200);
    for (let i = 2; i <= 15; i++) {
      now += 1;
      box.ledger.take([sale(i)]);
    }
    expect(saved()).toBe(3_000);
  });
});

describe("the events of one store", () => {
  test("a call looks at a stretch, and says up to where", () => {
    using box = openLedger();
    box.ledger.take(sales(1, 12_000, { storeId: "store-02", epoch: "bb" }));
    box.ledger.take([sale(1)]);
    const calls: number[] = [];
    const found: number[] = [];
    for (let after = 0, isAtEnd = false; !isAtEnd; ) {
      const stretch = box.ledger.eventsOf({ storeId: "store-01", after, limit: 10 });
      found.push(...stretch.events.map(({ position }) => position));
      ({ isAtEnd, through: after } = stretch);
      calls.push(after);
    }
    expect(calls).toEqual([5_000, 10_000, 12_001]);
    expect(found).toEqual([12_001]);
  });

  test("a page that is full goes on behind its last event", () => {
    using box = openLedger();
    box.ledger.take([...sales(1, 3), sale(1, { storeId: "store-02", epoch: "bb" }), sale(4)]);
    const at = (after: number, limit: number, storeId = "store-01") => {
      const { events, ...rest } = box.ledger.eventsOf({ storeId, after, limit });
      return { ...rest, found: events.map(({ position }) => position) };
    };
    expect(at(0, 2)).toEqual({ found: [1, 2], through: 2, isAtEnd: false });
    expect(at(2, 2)).toEqual({ found: [3, 5], through: 5, isAtEnd: true });
    expect(at(3, 2)).toEqual({ found: [5], through: 5, isAtEnd: true });
    expect(at(0, 2, "nobody")).toEqual({ found: [], through: 5, isAtEnd: true });
    // A place that this ledger does not have yet.
    expect(at(99, 2)).toEqual({ found: [], through: 99, isAtEnd: true });
    expect(at(-9, 1)).toEqual({ found: [1], through: 1, isAtEnd: false });
  });
});

describe("a disk that is full", () => {
  test("keeps room for reports, and takes events and commands again when there is more", async () => {
    using folder = tempFolder();
    let free = ledgerReserveBytes;
    using box = openLedger(folder.path, undefined, () => free);
    const { ledger, dispatch } = box;
    ledger.take(sales(1, 3));
    const bell = { type: "Bell", payloadJson: "{}", commandId: "cmd-1" };
    const issue = () => dispatch.issue(["store-01"], bell, { signal: never });
    free = ledgerReserveBytes - ledger.database.keptLogBytes() - 1;
    const full = expect.objectContaining({
      code: "RESOURCE_EXHAUSTED",
      message: expect.stringMatching(
        `ledger.db is full: ${formatBytes(free)} are left, .* ${formatBytes(ledgerReserveBytes)} are kept for what stores report`,
      ),
    });
    expect(() => ledger.take([sale(4)])).toThrow(full);
    await expect(issue()).rejects.toThrow(full);
    expect(idsOf(ledger)).toEqual(["sale-1", "sale-2", "sale-3"]);
    expect(ledger.report([report()])).toEqual([0]);
    free += 1;
    expect(ledger.take([sale(4)])).toEqual([accepted]);
    await expect(issue()).resolves.toHaveLength(1);
  });

  test("is written to without the log growing, whatever comes", () => {
    using folder = tempFolder();
    using box = openLedger(folder.path, undefined, () => ledgerReserveBytes);
    for (let first = 1; first < 4000; first += 100) {
      box.ledger.take(sales(first, first + 99, { payload: "x".repeat(1000) }));
    }
    expect(statSync(folder.file("ledger.db-wal")).size).toBeLessThan(1024 * 1024);
  });

  /** As if the disk had room for so many more pages. */
  const allow = ({ database }: Ledger, pages: number) => {
    const { page_count: used } = database.prepare("PRAGMA page_count").get() ?? {};
    database.prepare(`PRAGMA max_page_count = ${Number(used) + pages}`).get();
  };

  test("takes nothing of the batch, says so, and the ledger works on when there is room", () => {
    using folder = tempFolder();
    using box = openLedger(folder.path);
    box.ledger.take(sales(1, 3));
    allow(box.ledger, 4);
    const large = sales(4, 30, { payload: "x".repeat(4096) });
    // The counters that the ledger keeps in mind are of an epoch and a store that are new here.
    const batch = [...large, sale(31, { epoch: other, storeId: "store-02" })];
    expect(() => box.ledger.take(batch)).toThrow(
      expect.objectContaining({
        code: "RESOURCE_EXHAUSTED",
        message: expect.stringMatching(/ledger\.db: the disk is full$/),
      }),
    );
    expect(idsOf(box.ledger)).toEqual(["sale-1", "sale-2", "sale-3"]);
    expect(box.ledger.gaps("store-01")).toMatchObject([{ missing: 0, highest: 3 }]);

    expect(box.ledger.take([sale(1), sale(4)])).toEqual([duplicate, accepted]);
    allow(box.ledger, 1000);
    expect(box.ledger.take(batch)).toMatchObject([
      { code: "conflict" },
      ...Array(27).fill(accepted),
    ]);
    expect(box.ledger.gaps("store-01")).toMatchObject([{ missing: 0, highest: 30 }]);
    expect(box.ledger.gaps("store-02")).toEqual([{ epoch: other, missing: 30, highest: 31 }]);
  });
});

describe("opening", () => {
  test("a second server on the same folder is told who has it, and harms nothing", () => {
    using folder = tempFolder();
    using box = openLedger(folder.path);
    expect(() => openLedger(folder.path)).toThrow(
      expect.objectContaining({
        code: "FAILED_PRECONDITION",
        message: `another brewctl serve, process ${process.pid}, has the ledger ${folder.file("ledger.db")}`,
        hint: expect.stringContaining("--data-dir"),
      }),
    );
    expect(box.ledger.take([sale(1)])).toEqual([accepted]);
    box[Symbol.dispose]();
    using next = openLedger(folder.path);
    expect(next.ledger.take([sale(1)])).toEqual([duplicate]);
  });

  test.each([
    ["its first page is noise", Buffer.alloc(4096, "noise ")],
    ["it is cut off in its header", Buffer.from("SQLite format 3\u0000")],
  ])("a ledger is refused as it is when %s", (_, bytes) => {
    using folder = tempFolder();
    {
      using box = openLedger(folder.path);
      box.ledger.take(sales(1, 100));
    }
    const file = folder.file("ledger.db");
    const damaged = Buffer.concat([bytes, readFileSync(file).subarray(bytes.length)]);
    writeFileSync(file, damaged.length > 4096 && bytes.length < 4096 ? bytes : damaged);
    const before = readFileSync(file);
    for (let i = 0; i < 2; i++) {
      expect(() => openLedger(folder.path)).toThrow(DamagedError);
      expect(() => openLedger(folder.path)).toThrow(new RegExp(`^ledger ${file} is damaged: `));
    }
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("after a kill a damaged page is found at once, and the file is not held on to", () => {
    using folder = tempFolder();
    using copy = tempFolder();
    const file = copy.file("ledger.db");
    {
      using box = openLedger(folder.path);
      box.ledger.take(sales(1, 2000));
      box.ledger.database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
      box.ledger.take([sale(2001)]);
      cpSync(folder.path, copy.path, { recursive: true });
    }
    expect(statSync(`${file}-wal`).size).toBeGreaterThan(0);
    const pages = readFileSync(file);
    pages.fill(0xa5, pages.length / 2, pages.length / 2 + 20_000);
    writeFileSync(file, pages);
    expect(() => openLedger(copy.path)).toThrow(DamagedError);
    // Whoever closes a database last takes its log with it.
    expect(existsSync(`${file}-wal`)).toBe(false);
    // And it is no less damaged when it is looked at again.
    for (let i = 0; i < 2; i++) {
      expect(() => openLedger(copy.path)).toThrow(/ is damaged: /);
    }
  });

  test("a ledger that was closed is not read through at each start", () => {
    using folder = tempFolder();
    {
      using box = openLedger(folder.path);
      box.ledger.take([sale(1)]);
    }
    const checks = vi.spyOn(Database.prototype, "check");
    using box = openLedger(folder.path);
    expect(checks).not.toHaveBeenCalled();
    using copy = tempFolder();
    cpSync(folder.path, copy.path, { recursive: true });
    using after = openLedger(copy.path);
    expect(checks).toHaveBeenCalledTimes(1);
    expect([box, after].map(({ ledger }) => ledger.size())).toEqual([1, 1]);
  });

  test("a file of another program, and one of a newer brewctl, stay as they are", () => {
    using folder = tempFolder();
    {
      using box = openLedger(folder.path);
      box.ledger.database.prepare("PRAGMA user_version = 99").get();
    }
    expect(() => openLedger(folder.path)).toThrow(/was written by a newer brewctl \(schema 99/);
    {
      using folder2 = tempFolder();
      cpSync(folder.path, folder2.path, { recursive: true });
      const file = folder2.file("ledger.db");
      const bytes = readFileSync(file);
      // The application_id in SQLite's header.
      bytes.writeUInt32BE(0x12345678, 68);
      writeFileSync(file, bytes);
      expect(() => openLedger(folder2.path)).toThrow(/ledger\.db is no ledger$/);
      expect(readFileSync(file).equals(bytes)).toBe(true);
    }
  });
});
