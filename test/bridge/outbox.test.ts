/** The outbox: what is recorded stays, in order, until an answer names it. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test, vi } from "vitest";
import { type Appended, Outbox, reserveBytes, retentionMs } from "../../src/bridge/outbox.ts";
import { formatBytes } from "../../src/bytes.ts";
import { StatusError } from "../../src/errors.ts";
import { DigestCells, dayOf } from "../../src/event-digest.ts";
import { BusyError, Database, inMemory } from "../../src/sqlite.ts";
import { maxRecordedPayloadBytes, type StoreEvent } from "../../src/store-event.ts";
import { reap } from "../support/reaper.ts";
import { tempFolder } from "../support/temp.ts";

const start = Date.UTC(2026, 0, 2, 3, 4, 5);

function opened(path = inMemory, storeId: string | undefined = "store-01") {
  const time = { now: start };
  const uptime = () => ({ boot: "boot-1", ms: time.now });
  const outbox = new Outbox({ path, storeId, now: () => time.now, uptime });
  return { outbox, time };
}

const sale = (eventId: string, more: Partial<StoreEvent> = {}): StoreEvent => ({
  eventId,
  type: "Sale",
  payload: `sale ${eventId}`,
  timestamp: 1000,
  ...more,
});
const sales = (...ids: string[]) => ids.map((id) => sale(id));
const ids = (events: readonly { eventId: string }[]) => events.map(({ eventId }) => eventId);
const ack = (position: number) => ({ kind: "acked", position }) as const;
const park = (position: number, reason = "no such product") =>
  ({ kind: "parked", position, reason }) as const;
const later = (position: number, notBefore: number) =>
  ({ kind: "retry", position, notBefore, reason: "busy" }) as const;

function refusal(act: () => unknown): StatusError {
  try {
    act();
  } catch (error) {
    if (error instanceof StatusError) {
      return error;
    }
    throw error;
  }
  throw new Error("expected a refusal");
}

const whyOf = (appended: Appended | undefined) =>
  appended?.kind === "refused" ? appended.why : undefined;

describe("recording", () => {
  test("events are numbered from 1 without a gap, in one epoch, and come out in order", () => {
    const { outbox } = opened();
    const appended = [...outbox.append(sales("a", "b")), ...outbox.append(sales("c"))];
    const recorded = appended.map((one) => (one.kind === "recorded" ? one.event : undefined));
    expect(recorded.map((event) => event?.seq)).toEqual([1, 2, 3]);
    expect(outbox.pending(0, 10)).toEqual(recorded);
    expect(new Set(recorded.map((event) => event?.epoch))).toEqual(new Set([outbox.epoch()]));
    expect(outbox.epoch()).toMatch(/^[0-9a-f]{16}$/);
    expect(ids(outbox.pending(1, 1))).toEqual(["b"]);
    expect(outbox.pending(0, 10)[0]).toMatchObject({ ...sale("a"), state: "pending", attempts: 0 });
  });

  test("the same event again is the same answer, in every state", () => {
    const { outbox } = opened();
    const [first] = outbox.append(sales("a"));
    for (const settle of [[], [park(1)], [ack(1)]]) {
      outbox.settle(settle);
      const [again] = outbox.append(sales("a"));
      expect(again).toMatchObject({ kind: "recorded", isNew: false, event: { seq: 1 } });
    }
    expect(first).toMatchObject({ isNew: true });
    const [twice, same] = outbox.append(sales("b", "b"));
    expect([twice, same]).toMatchObject([{ isNew: true }, { isNew: false }]);
    expect(outbox.append(sales("c"))[0]).toMatchObject({ event: { seq: 3 } });
    expect(outbox.counts()).toMatchObject({ acked: 1, pending: 2 });
  });

  test.each<[string, Partial<StoreEvent>]>([
    ["payload", { payload: "another" }],
    ["type", { type: "Return" }],
    ["timestamp", { timestamp: 1001 }],
    ["type and payload and timestamp", { type: "Return", payload: "", timestamp: 0 }],
  ])("the same id with another %s is refused and costs no other", (differs, change) => {
    const { outbox } = opened();
    outbox.append(sales("a"));
    const [before, conflict, behind] = outbox.append([sale("b"), sale("a", change), sale("c")]);
    expect(whyOf(conflict)).toMatchObject({
      code: "ALREADY_EXISTS",
      message: `event "a" is recorded already, with another ${differs}`,
    });
    expect([before, behind]).toMatchObject([{ event: { seq: 2 } }, { event: { seq: 3 } }]);
    expect(outbox.event("a")).toMatchObject(sale("a"));
  });

  test("what the cloud would refuse is refused here, names the fault and costs no other", () => {
    const { outbox } = opened();
    const bad = [
      sale(""),
      sale("x".repeat(129)),
      sale("a\nb"),
      sale("s", { payload: "\ud83d" }),
      sale("t", { timestamp: -1 }),
      sale("u", { type: "" }),
      sale("v", { payload: "x".repeat(maxRecordedPayloadBytes + 1) }),
    ];
    const appended = outbox.append(bad.flatMap((event, i) => [event, sale(`good${i}`)]));
    expect(appended.map(({ kind }) => kind)).toEqual(bad.flatMap(() => ["refused", "recorded"]));
    for (const one of appended.filter(({ kind }) => kind === "refused")) {
      expect(whyOf(one)?.code).toBe("INVALID_ARGUMENT");
    }
    expect(outbox.pending(0, 100).map(({ seq }) => seq)).toEqual(bad.map((_, i) => i + 1));
  });

  test.each([
    ["nothing", ""],
    ["NULs", "a\0b\0"],
    ["four-byte characters", "😀𝒳\u{10ffff}"],
    ["what looks like SQL", `'); DROP TABLE events; --"`],
    ["line ends and a byte-order mark", "\ufeff\r\n\u2028"],
    ["as many bytes as there may be", "é".repeat(maxRecordedPayloadBytes / 2)],
  ])("a payload of %s is kept exactly", (_, payload) => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    outbox.append([sale("a", { payload })]);
    outbox.close();
    const again = opened(folder.file("buffer.db")).outbox;
    expect(again.event("a")?.payload === payload).toBe(true);
    expect(again.append([sale("a", { payload })])[0]).toMatchObject({ isNew: false });
    again.close();
  });

  test("timestamps are kept exactly, from 1970 to 9999", () => {
    const { outbox } = opened();
    const timestamps = [0, 1, start + 0.0, 253_402_300_799_999];
    outbox.append(timestamps.map((timestamp) => sale(`t${timestamp}`, { timestamp })));
    expect(outbox.events({ limit: 9 }).map(({ timestamp }) => timestamp)).toEqual(timestamps);
  });

  test("two processes number one after the other", () => {
    using folder = tempFolder();
    const one = opened(folder.file("buffer.db")).outbox;
    const other = opened(folder.file("buffer.db")).outbox;
    for (let i = 0; i < 10; i++) {
      (i % 3 === 0 ? one : other).append(sales(`e${i}`));
    }
    expect(one.pending(0, 99).map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    expect(other.pending(0, 99)).toEqual(one.pending(0, 99));
    one.close();
    other.close();
  });
});

describe("settling", () => {
  test("only what is named changes, and acked is for ever", () => {
    const { outbox, time } = opened();
    outbox.append(sales("a", "b", "c", "d", "e"));
    outbox.settle([ack(1), ack(2), park(3), later(4, start + 10)]);
    expect(outbox.counts()).toEqual({ pending: 2, acked: 2, parked: 1, oldestUnacked: 1000 });
    expect(ids(outbox.pending(0, 9))).toEqual(["e"]);
    outbox.settle([park(1), later(2, 5)]);
    expect(ids(outbox.events({ state: "acked", limit: 9 }))).toEqual(["a", "b"]);
    expect(outbox.event("c")).toMatchObject({ reason: "no such product", attempts: 1 });
    time.now += 10;
    // A late answer: the cloud has it after all.
    outbox.settle([ack(3), ack(4), ack(5)]);
    expect(outbox.isDrained()).toBe(true);
    expect(outbox.counts()).toEqual({ pending: 0, acked: 5, parked: 0, oldestUnacked: undefined });
  });

  test("what was refused for now comes back at its time, the longest due first", () => {
    const { outbox, time } = opened();
    outbox.append(sales("a", "b"));
    expect(outbox.nextRetryAt()).toBeUndefined();
    outbox.settle([later(1, start + 20), later(2, start + 10)]);
    expect(outbox.nextRetryAt()).toBe(start + 10);
    expect(outbox.pending(0, 9)).toEqual([]);
    expect(outbox.isDrained()).toBe(false);
    time.now = start + 9;
    expect(outbox.retries(9)).toEqual([]);
    time.now = start + 10;
    expect(ids(outbox.retries(9))).toEqual(["b"]);
    time.now = start + 30;
    expect(outbox.retries(9)).toMatchObject([
      { eventId: "b", attempts: 1, reason: "busy" },
      { eventId: "a", attempts: 1 },
    ]);
  });

  test("parked events go again when a person says so: some, all, or none of them", () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b", "c"));
    outbox.settle([park(1), park(2), ack(3)]);
    for (const wrong of ["c", "nothing"]) {
      expect(refusal(() => outbox.retry(["a", wrong])).code).toBe("NOT_FOUND");
    }
    expect(outbox.counts()).toMatchObject({ parked: 2 });
    expect(outbox.retry(["b"])).toEqual(["b"]);
    expect(outbox.event("b")).toMatchObject({ state: "pending", attempts: 0, reason: "", seq: 2 });
    expect(outbox.retry("all")).toEqual(["a"]);
    expect(ids(outbox.retries(9)).sort()).toEqual(["a", "b"]);
    expect(outbox.retry("all")).toEqual([]);
  });

  test("under a new id it is an event of its own, with a number of its own", () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b"));
    outbox.settle([park(1)]);
    expect(outbox.retry(["a"], () => "a-anew")).toEqual(["a-anew"]);
    expect(outbox.event("a")).toBeUndefined();
    expect(outbox.event("a-anew")).toMatchObject({
      ...sale("a", { eventId: "a-anew" }),
      seq: 3,
      state: "pending",
    });
    expect(outbox.append(sales("c"))[0]).toMatchObject({ event: { seq: 4 } });
  });

  test("a new id that is there already costs nothing", () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b"));
    outbox.settle([park(1)]);
    expect(refusal(() => outbox.retry(["a"], () => "b")).code).toBe("ALREADY_EXISTS");
    expect(outbox.event("a")).toMatchObject({ state: "parked" });
  });

  test("a replay makes acked events pending, and parked ones stay", () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b", "c", "d"));
    outbox.settle([ack(1), ack(2), park(3)]);
    expect(outbox.replay()).toBe(2);
    expect(outbox.counts()).toMatchObject({ pending: 3, acked: 0, parked: 1 });
    expect(ids([...outbox.pending(0, 9), ...outbox.retries(9)]).sort()).toEqual(["a", "b", "d"]);
    expect(outbox.replay()).toBe(0);
  });
});

/** Through all of the buffer; what each step removed. */
function pruneAll(outbox: Outbox, keepMs?: number): number[] {
  const removed: number[] = [];
  for (let after = 0; ; ) {
    const step = outbox.prune({ after, ...(keepMs === undefined ? {} : { keepMs }) });
    if (step === undefined) {
      return removed;
    }
    removed.push(step.removed);
    after = step.next;
  }
}

const goneOf = (outbox: Outbox, epoch: string) =>
  outbox.database.prepare("SELECT gone FROM epochs WHERE epoch = ?").get(epoch)?.["gone"];

describe("pruning", () => {
  test("acked events are kept for a week, and go step by step", () => {
    const { outbox, time } = opened();
    outbox.append(Array.from({ length: 1200 }, (_, i) => sale(`e${i}`)));
    outbox.settle(Array.from({ length: 1150 }, (_, i) => ack(i + 1)));
    time.now += retentionMs;
    expect(pruneAll(outbox)).toEqual([0, 0, 0]);
    time.now += 1;
    expect(pruneAll(outbox)).toEqual([...Array(11).fill(100), 50]);
    expect(pruneAll(outbox)).toEqual([0]);
    expect(outbox.counts()).toMatchObject({ pending: 50, parked: 0, acked: 0 });
    // Positions and numbers are not used twice.
    expect(outbox.append(sales("new"))[0]).toMatchObject({ event: { seq: 1201, position: 1201 } });
  });

  test("what is pending or parked stays, and is not in the way of what is behind it", () => {
    const { outbox, time } = opened();
    outbox.append(Array.from({ length: 1300 }, (_, i) => sale(`e${i}`)));
    outbox.settle([
      ...Array.from({ length: 600 }, (_, i) => park(i + 1)),
      ...Array.from({ length: 100 }, (_, i) => ack(i + 1201)),
    ]);
    time.now += 11;
    expect(pruneAll(outbox, 11)).toEqual([0, 0, 0]);
    expect(pruneAll(outbox, 10)).toEqual([0, 0, 100]);
    expect(outbox.counts()).toMatchObject({ pending: 600, parked: 600, acked: 0 });
  });

  test("a step reads no more than some payloads, and always gets on", () => {
    const { outbox, time } = opened();
    const payload = "x".repeat(maxRecordedPayloadBytes);
    outbox.append(["a", "b"].map((id) => sale(id, { payload })));
    outbox.append(sales("c"));
    outbox.settle([ack(1), ack(2), ack(3)]);
    time.now += 1;
    expect(pruneAll(outbox, 0)).toEqual([1, 1, 1]);
    expect(outbox.prune()).toBeUndefined();
  });

  test("the sums of what is gone are those of the events, whatever the steps", () => {
    const day = 86_400_000;
    const events = Array.from({ length: 700 }, (_, i) =>
      sale(`e${i}`, { type: i % 3 === 0 ? "Return" : "Sale", timestamp: start + (i % 2) * day }),
    );
    const cells = new DigestCells();
    const { outbox, time } = opened();
    outbox.append(events);
    outbox.settle(events.map((_, i) => ack(i + 1)));
    for (const event of events) {
      cells.add(event);
    }
    time.now += 1;
    expect(pruneAll(outbox, 0)).toEqual(Array(7).fill(100));
    expect(outbox.pruned()).toEqual(cells.all());
    expect(outbox.pruned()).toHaveLength(4);
    // What comes later is added.
    outbox.append([sale("late", { timestamp: start })]);
    outbox.settle([ack(701)]);
    cells.add(sale("late", { timestamp: start }));
    time.now += 1;
    pruneAll(outbox, 0);
    expect(outbox.pruned()).toEqual(cells.all());
    const [first] = cells.all().filter(({ type }) => type === "Sale");
    expect(outbox.pruned({ type: "Sale", toDay: dayOf(start) })).toEqual([first]);
    expect(outbox.pruned({ fromDay: dayOf(start + day) })).toEqual(cells.all().slice(2));
  });

  test("is counted with the epoch whose numbers are gone", () => {
    const { outbox, time } = opened();
    outbox.append(sales("a", "b", "c", "d"));
    outbox.settle([ack(1), ack(2)]);
    const old = outbox.epoch();
    outbox.renumber();
    outbox.settle([ack(3)]);
    time.now += 1;
    expect(pruneAll(outbox, 0)).toEqual([3]);
    expect([goneOf(outbox, old), goneOf(outbox, outbox.epoch())]).toEqual([2, 1]);
    // An event that goes on under a new id leaves its number, and is no part of the sums.
    const sums = outbox.pruned();
    outbox.settle([park(4)]);
    outbox.retry(["d"], () => "d-anew");
    expect(goneOf(outbox, outbox.epoch())).toBe(2);
    expect(outbox.pruned()).toEqual(sums);
  });

  test("leaves what a replay has made pending between the look and the removal", () => {
    using folder = tempFolder();
    const { outbox, time } = opened(folder.file("buffer.db"));
    const other = opened(folder.file("buffer.db")).outbox;
    outbox.append(sales("a", "b"));
    outbox.settle([ack(1), ack(2)]);
    time.now += 1;
    // Just before the write begins.
    const write = outbox.database.write.bind(outbox.database);
    vi.spyOn(outbox.database, "write").mockImplementationOnce((work) => {
      other.replay();
      return write(work);
    });
    expect(outbox.prune({ keepMs: 0 })).toEqual({ removed: 0, next: 2 });
    expect(outbox.counts()).toMatchObject({ pending: 2, acked: 0 });
    expect(outbox.pruned()).toEqual([]);
    outbox.close();
    other.close();
  });
});

describe("compacting", () => {
  /** Two megabytes, of which nearly nothing is still needed. */
  const pruned = (path: string, free?: () => number) => {
    const time = { now: start };
    const outbox = new Outbox({
      ...{ path, storeId: "store-01", now: () => time.now },
      uptime: () => ({ boot: "boot-1", ms: time.now }),
      ...(free === undefined ? {} : { free }),
    });
    const payload = "x".repeat(1000);
    outbox.append(Array.from({ length: 2000 }, (_, i) => sale(`e${i + 1}`, { payload })));
    outbox.settle(Array.from({ length: 1990 }, (_, i) => ack(i + 1)));
    time.now += 1;
    pruneAll(outbox, 0);
    return outbox;
  };

  test("gives back the room of what is gone, and keeps the rest as it was", () => {
    using folder = tempFolder();
    const outbox = pruned(folder.file("buffer.db"));
    const events = outbox.events({ limit: 99 });
    const { before, after, isDone } = outbox.compact();
    expect(isDone).toBe(true);
    expect(before).toBeGreaterThan(2_000_000);
    expect(after).toBeLessThan(200_000);
    expect(outbox.bytes()).toBe(after);
    expect(outbox.events({ limit: 99 })).toEqual(events);
    expect(outbox.append(sales("next"))[0]).toMatchObject({ event: { seq: 2001, position: 2001 } });
    outbox.close();
  });

  test("is refused before it begins when the disk has too little for the way there", () => {
    using folder = tempFolder();
    let free = Number.POSITIVE_INFINITY;
    const outbox = pruned(folder.file("buffer.db"), () => free);
    const needed = outbox.database.compactBytes();
    const size = outbox.bytes();
    free = needed - 1;
    expect(refusal(() => outbox.compact())).toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      message: expect.stringContaining(
        `takes ${formatBytes(needed)} of its disk for a while, and ${formatBytes(free)} a`,
      ),
      hint: expect.stringContaining("make 1 bytes of room more, or remove more events first"),
    });
    expect(outbox.event("e2000")).toBeDefined();
    // What is gone already takes no room on the way.
    expect(needed).toBeLessThan(size / 10);
    free = needed;
    outbox.compact();
    expect(outbox.bytes()).toBeLessThan(size / 10);
    outbox.close();
  });

  test("makes whoever records wait, however long it takes", () => {
    using folder = tempFolder();
    const outbox = pruned(folder.file("buffer.db"));
    const till = opened(folder.file("buffer.db")).outbox;
    const busy = () => {
      throw new BusyError("the buffer", undefined);
    };
    const write = vi.spyOn(till.database, "write");
    const compact = outbox.database.compact.bind(outbox.database);
    vi.spyOn(outbox.database, "compact").mockImplementationOnce(() => {
      write.mockImplementationOnce(busy).mockImplementationOnce(busy);
      expect(till.append(sales("waited"))[0]).toMatchObject({ isNew: true });
      return compact();
    });
    outbox.compact();
    expect(outbox.event("waited")).toBeDefined();
    // Of anybody else it does not wait for so long.
    write.mockImplementationOnce(busy);
    expect(refusal(() => till.append(sales("refused"))).code).toBe("UNAVAILABLE");
    vi.spyOn(outbox.database, "compact").mockImplementationOnce(busy);
    expect(refusal(() => outbox.compact()).code).toBe("UNAVAILABLE");
    write.mockImplementationOnce(busy);
    expect(refusal(() => till.append(sales("refused"))).code).toBe("UNAVAILABLE");
    till.close();
    outbox.close();
  });

  test("says so when somebody still reads what it was, and the room comes later", () => {
    using folder = tempFolder();
    const outbox = pruned(folder.file("buffer.db"));
    const other = opened(folder.file("buffer.db")).outbox;
    const snapshot = other.database.snapshot();
    const seen = other.events({ limit: 99 });
    expect(outbox.compact().isDone).toBe(false);
    expect(other.events({ limit: 99 })).toEqual(seen);
    snapshot[Symbol.dispose]();
    other.close();
    outbox.close();
    expect(readdirSync(folder.path).sort()).toEqual([
      "buffer.db",
      "buffer.db-drainer",
      "buffer.db-high-water",
    ]);
    expect(statSync(folder.file("buffer.db")).size).toBeLessThan(200_000);
    // SQLite waits for the other one for 5 s.
  }, 20_000);
});

describe("numbering anew", () => {
  test("gives what is not acked new numbers in order, and leaves what is", () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b", "c", "d"));
    outbox.settle([ack(1), ack(3), park(2)]);
    const old = outbox.epoch();
    outbox.renumber();
    expect(outbox.epoch()).not.toBe(old);
    outbox.append(sales("e"));
    expect(
      outbox.events({ limit: 9 }).map(({ eventId, epoch, seq }) => [eventId, epoch, seq]),
    ).toEqual([
      ["a", old, 1],
      ["b", outbox.epoch(), 1],
      ["c", old, 3],
      ["d", outbox.epoch(), 2],
      ["e", outbox.epoch(), 3],
    ]);
  });
});

describe("meeting the cloud's ledger", () => {
  const meeting = () => {
    const { outbox } = opened();
    outbox.append(sales("a", "b", "c"));
    outbox.settle([ack(1), ack(2)]);
    return { outbox, epoch: outbox.epoch() };
  };

  test("the first one, and the same one again, are no news", () => {
    const { outbox, epoch } = meeting();
    expect(outbox.meet({ ledgerId: "one", epoch, seen: 2 })).toBeUndefined();
    expect(outbox.meet({ ledgerId: "one", epoch, seen: 3 })).toBeUndefined();
    expect(outbox.meet({ ledgerId: "one", epoch, seen: undefined })).toBeUndefined();
    expect(outbox.alarm()).toBe("");
  });

  test("another one is told of, until a replay", () => {
    const { outbox, epoch } = meeting();
    outbox.meet({ ledgerId: "one", epoch, seen: 2 });
    const why = outbox.meet({ ledgerId: "two", epoch, seen: 0 });
    expect(why).toBe("the cloud has another ledger now, two; one had acknowledged events");
    expect(outbox.alarm()).toBe(why);
    outbox.replay();
    expect(outbox.alarm()).toBe("");
    expect(outbox.meet({ ledgerId: "two", epoch, seen: 0 })).toBeUndefined();
  });

  test("one that has forgotten what it acknowledged is told of", () => {
    const { outbox, epoch } = meeting();
    outbox.meet({ ledgerId: "one", epoch, seen: 2 });
    expect(outbox.meet({ ledgerId: "one", epoch, seen: 1 })).toContain("ends at seq 1, and 2 was");
  });

  test("what it has seen of another epoch says nothing", () => {
    const { outbox, epoch } = meeting();
    outbox.meet({ ledgerId: "one", epoch, seen: 2 });
    outbox.renumber();
    expect(outbox.meet({ ledgerId: "one", epoch: outbox.epoch(), seen: 0 })).toBeUndefined();
  });

  test("another one is no news to a store that had nothing acknowledged", () => {
    const { outbox } = opened();
    const epoch = outbox.epoch();
    outbox.append(sales("a"));
    outbox.meet({ ledgerId: "one", epoch, seen: 0 });
    expect(outbox.meet({ ledgerId: "two", epoch, seen: 0 })).toBeUndefined();
  });
});

describe("a full disk", () => {
  test("refuses the recording while there is room for marks, and takes it when there is more", () => {
    using folder = tempFolder();
    let free = reserveBytes;
    const outbox = new Outbox({
      ...{ path: folder.file("buffer.db"), storeId: "store-01" },
      now: () => start,
      free: () => free,
    });
    outbox.append(sales("a"));
    // What the log holds of the disk is written over.
    free = reserveBytes - outbox.database.keptLogBytes() - 1;
    expect(refusal(() => outbox.append(sales("b"))).code).toBe("RESOURCE_EXHAUSTED");
    outbox.settle([ack(1)]);
    expect(outbox.counts()).toMatchObject({ acked: 1, pending: 0 });
    free = reserveBytes;
    expect(outbox.append(sales("b"))[0]).toMatchObject({ event: { seq: 2 } });
    outbox.close();
  });

  test("that is met in the middle of it costs the whole recording, and no more", () => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    const pragma = (text: string) => outbox.database.prepare(`PRAGMA ${text}`).get();
    outbox.append(sales("a", "b"));
    const { page_count: pages } = pragma("page_count") ?? {};
    pragma(`max_page_count = ${Number(pages) + 2}`);
    const many = Array.from({ length: 200 }, (_, i) =>
      sale(`big${i}`, { payload: "x".repeat(500) }),
    );
    expect(refusal(() => outbox.append(many)).code).toBe("RESOURCE_EXHAUSTED");
    expect(ids(outbox.pending(0, 999))).toEqual(["a", "b"]);
    outbox.settle([ack(1)]);
    pragma("max_page_count = 100000");
    const appended = outbox.append(many);
    expect(appended[0]).toMatchObject({ kind: "recorded", isNew: true, event: { seq: 3 } });
    expect(outbox.counts()).toMatchObject({ acked: 1, pending: 201 });
    outbox.close();
  });

  test("that is met while marking leaves all of it pending", () => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    const pragma = (text: string) => outbox.database.prepare(`PRAGMA ${text}`).get();
    outbox.append(Array.from({ length: 300 }, (_, i) => sale(`e${i}`)));
    const { page_count: pages } = pragma("page_count") ?? {};
    pragma(`max_page_count = ${Number(pages)}`);
    const parked = Array.from({ length: 300 }, (_, i) => park(i + 1, "r".repeat(400)));
    expect(refusal(() => outbox.settle(parked)).code).toBe("RESOURCE_EXHAUSTED");
    expect(outbox.counts()).toMatchObject({ pending: 300, parked: 0 });
    pragma("max_page_count = 100000");
    outbox.settle(parked);
    expect(outbox.counts()).toMatchObject({ pending: 0, parked: 300 });
    outbox.close();
  });
});

describe("whose it is", () => {
  test("a file keeps its store, and is refused to another", () => {
    using folder = tempFolder();
    opened(folder.file("buffer.db")).outbox.close();
    const size = statSync(folder.file("buffer.db")).size;
    expect(refusal(() => opened(folder.file("buffer.db"), "store-02"))).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("is the buffer of store store-01, not of store-02"),
    });
    const again = new Outbox({ path: folder.file("buffer.db"), now: () => start });
    expect(again.storeId).toBe("store-01");
    again.close();
    expect(statSync(folder.file("buffer.db")).size).toBe(size);
  });

  test("a store's id is an id, and a file without one must be there", () => {
    using folder = tempFolder();
    const open = (storeId?: string) => () =>
      new Outbox({ path: folder.file("buffer.db"), storeId, now: () => start });
    expect(refusal(open("")).code).toBe("INVALID_ARGUMENT");
    expect(refusal(open("a\nb")).code).toBe("INVALID_ARGUMENT");
    expect(refusal(open("x".repeat(129))).code).toBe("INVALID_ARGUMENT");
    expect(refusal(open()).code).toBe("NOT_FOUND");
  });
});

describe("draining", () => {
  test("is for one at a time, and the second is told who the first one is", () => {
    using folder = tempFolder();
    const one = opened(folder.file("buffer.db")).outbox;
    const other = opened(folder.file("buffer.db")).outbox;
    const lock = one.drain();
    expect(refusal(() => other.drain())).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining(`another process, ${process.pid}, drains`),
    });
    // Recording and looking are free to all.
    other.append(sales("a"));
    expect(one.counts().pending).toBe(1);
    lock.release();
    other.drain().release();
    one.close();
    other.close();
  });

  test("can begin while somebody else checks a file that was not closed", () => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    outbox.append(sales("a"));
    const check = vi.spyOn(Database.prototype, "check").mockImplementation(() => {
      outbox.drain().release();
    });
    try {
      opened(folder.file("buffer.db")).outbox.close();
      expect(check).toHaveBeenCalledOnce();
    } finally {
      check.mockRestore();
      outbox.close();
    }
  });

  test("waits a moment for somebody who only looks whether it is drained", async () => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    const script = `
      const { takeLock } = await import(process.argv[1]);
      const lock = takeLock(process.argv[2]);
      process.stdout.write("taken");
      setTimeout(() => lock.release(), 20);`;
    const source = fileURLToPath(new URL("../../src/sqlite.ts", import.meta.url));
    const child = spawn(
      process.execPath,
      ["--input-type=module", "-e", script, source, folder.file("buffer.db-drainer")],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    reap(child);
    try {
      await once(child.stdout, "data");
      outbox.drain().release();
    } finally {
      child.kill("SIGKILL");
      await once(child, "close");
      outbox.close();
    }
  });

  test("ends with the process, however it dies", async () => {
    using folder = tempFolder();
    const { outbox } = opened(folder.file("buffer.db"));
    const script = `
      const { Outbox } = await import(process.argv[1]);
      globalThis.outbox = new Outbox({ path: process.argv[2], now: Date.now });
      globalThis.lock = globalThis.outbox.drain();
      process.stdout.write("draining");
      setInterval(() => {}, 1000);`;
    const source = fileURLToPath(new URL("../../src/bridge/outbox.ts", import.meta.url));
    const child = spawn(
      process.execPath,
      ["--input-type=module", "-e", script, source, folder.file("buffer.db")],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    reap(child);
    try {
      await once(child.stdout, "data");
      expect(refusal(() => outbox.drain()).message).toContain(`another process, ${child.pid},`);
    } finally {
      child.kill("SIGKILL");
      await once(child, "close");
    }
    outbox.drain().release();
    outbox.close();
  });
});
