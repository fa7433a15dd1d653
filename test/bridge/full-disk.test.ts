/** A disk that is full: what the buffer frees inside its own file counts, and marks always have room. */

import { statSync } from "node:fs";
import { expect, test } from "vitest";
import { type NewEvent, Outbox, reserveBytes } from "../../src/bridge/outbox.ts";
import { formatBytes } from "../../src/bytes.ts";
import { memoryFolder, type TempFolder } from "../support/temp.ts";

const ack = (position: number) => ({ kind: "acked", position }) as const;
const acks = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => ack(from + i + 1));

const sales = (from: number, count: number, payload: string): NewEvent[] =>
  Array.from({ length: count }, (_, i) => ({ eventId: `e${from + i}`, type: "Sale", payload }));

function opened(folder: TempFolder, free: () => number) {
  const time = { now: Date.UTC(2026, 0, 2) };
  const path = folder.file("buffer.db");
  const now = () => time.now;
  const uptime = () => ({ boot: "boot-1", ms: time.now });
  const outbox = new Outbox({ path, storeId: "store-01", now, uptime, free });
  return { outbox, time, logBytes: () => statSync(`${path}-wal`).size };
}

/** Records batches until the disk is full; returns how many events there are then. */
function fill(outbox: Outbox, from: number): number {
  for (let count = from; ; count += 100) {
    try {
      outbox.append(sales(count, 100, "x".repeat(1000)));
    } catch (error) {
      expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED" });
      return count;
    }
  }
}

function pruneAll(outbox: Outbox): void {
  for (let step = outbox.prune({ keepMs: 0 }); step !== undefined; ) {
    step = outbox.prune({ after: step.next, keepMs: 0 });
  }
}

test("a buffer that has filled its disk records again when what it holds is acknowledged and pruned", () => {
  using folder = memoryFolder();
  // A disk on which nothing else is: what the files take is not free.
  let taken = () => 0;
  const { outbox, time } = opened(folder, () => 24 * 1024 * 1024 - taken());
  taken = () => outbox.bytes();
  const first = fill(outbox, 0);
  expect(first).toBeGreaterThan(2000);
  outbox.settle(acks(0, first));
  time.now += 1;
  pruneAll(outbox);
  // The file is as large as it was, and its free pages are used again, three times over.
  for (let done = first, round = 0; round < 3; round++) {
    const now = fill(outbox, done);
    expect(now - done).toBeGreaterThan(first - 400);
    outbox.settle(acks(done, now));
    time.now += 1;
    pruneAll(outbox);
    done = now;
  }
  expect(outbox.compact().after).toBeLessThan(1024 * 1024);
  outbox.close();
});

test("free pages do not count when the log has no room", () => {
  using folder = memoryFolder();
  let free = Number.POSITIVE_INFINITY;
  const { outbox, time } = opened(folder, () => free);
  outbox.append(sales(0, 1_000, "x".repeat(20_000)));
  outbox.settle(acks(0, 1_000));
  time.now += 1;
  pruneAll(outbox);
  outbox.database.emptyLog();
  expect(outbox.database.unusedBytes()).toBeGreaterThan(reserveBytes);
  free = reserveBytes / 2 - 1;
  expect(() => outbox.append(sales(1_000, 1, ""))).toThrow(
    `is full: ${formatBytes(free)} are left, with 0 bytes in its log and ${formatBytes(outbox.database.unusedBytes())} in its free pages`,
  );
  free = reserveBytes / 2;
  expect(outbox.append(sales(1_000, 1, ""))).toMatchObject([{ isNew: true }]);
  outbox.close();
});

test("marks on a full disk write over one small log, however many there are", () => {
  using folder = memoryFolder();
  let free = Number.POSITIVE_INFINITY;
  const { outbox, logBytes } = opened(folder, () => free);
  outbox.append(sales(0, 4000, "x".repeat(3000)));
  outbox.database.emptyLog();
  free = 0;
  outbox.settle(acks(0, 4000));
  expect(outbox.isDrained()).toBe(true);
  expect(logBytes()).toBeLessThan(1024 * 1024);
  outbox.close();
});

test("a mark takes no page of the file, and one page of the log, however large the payload", () => {
  using folder = memoryFolder();
  const { outbox, logBytes } = opened(folder, () => Number.POSITIVE_INFINITY);
  const pages = () => outbox.database.prepare("PRAGMA page_count").get()?.["page_count"];
  outbox.append(sales(0, 5000, "x".repeat(200)));
  outbox.append(sales(5000, 8, "x".repeat(500_000)));
  outbox.settle([ack(1)]);
  const before = pages();
  outbox.settle(acks(1, 5000));
  expect(pages()).toBe(before);
  outbox.database.emptyLog();
  outbox.settle(acks(5000, 5008));
  expect(logBytes()).toBeLessThan(100_000);
  expect(outbox.events({ limit: 1, state: "acked" })).toMatchObject([
    { settledAt: Date.UTC(2026, 0, 2) },
  ]);
  outbox.close();
});

test("of marks that are too many for the room that is left, those that fit are made", () => {
  using folder = memoryFolder();
  let free = Number.POSITIVE_INFINITY;
  const { outbox } = opened(folder, () => free);
  const pragma = (text: string) => outbox.database.prepare(`PRAGMA ${text}`).get();
  outbox.append(sales(0, 300, "x"));
  free = 0;
  // A reason makes its event larger, and so the file.
  const reason = "r".repeat(400);
  const parked = Array.from({ length: 300 }, (_, i) => ({
    ...({ kind: "parked", position: i + 1, reason } as const),
  }));
  pragma(`max_page_count = ${Number(pragma("page_count")?.["page_count"]) + 8}`);
  expect(() => outbox.settle(parked)).toThrow(
    expect.objectContaining({ code: "RESOURCE_EXHAUSTED" }),
  );
  const made = outbox.counts().parked;
  expect(made).toBeGreaterThan(20);
  expect(made).toBeLessThan(300);
  pragma("max_page_count = 100000");
  outbox.settle(parked);
  expect(outbox.counts()).toMatchObject({ pending: 0, parked: 300 });
  outbox.close();
});
