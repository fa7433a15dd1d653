/** Another box takes a store over: all of it, once, and nobody by accident beside it. */

import {
  copyFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test, vi } from "vitest";
import {
  hasArrived,
  headOf,
  type Kept,
  keptIn,
  NewBuffer,
  takeOver,
} from "../../src/bridge/hand-over.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox, type Recorded } from "../../src/bridge/outbox.ts";
import { verify } from "../../src/bridge/verify.ts";
import { StatusError } from "../../src/errors.ts";
import { Database } from "../../src/sqlite.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const time = { now: Date.UTC(2026, 0, 2, 3, 4, 5) };
const now = () => time.now;
const sale = (eventId: string) => ({
  eventId,
  type: "Sale",
  payload: `sale ${eventId} ☕ \0`,
  timestamp: 1000,
});

function opened(path: string, storeId = "store-01") {
  const uptime = () => ({ boot: "boot-1", ms: time.now });
  const outbox = new Outbox({ path, storeId, now, uptime });
  const inbox = new Inbox(outbox.database, { now });
  return { outbox, inbox, [Symbol.dispose]: () => outbox.close() };
}

/** Events in all states, commands in all states, two cursors, and something pruned. */
function fill({ outbox, inbox }: ReturnType<typeof opened>): void {
  outbox.append(["gone", "acked", "parked", "waits", "a", "b"].map(sale));
  outbox.settle([
    { kind: "acked", position: 1 },
    { kind: "parked", position: 3, reason: "no such product" },
    { kind: "retry", position: 4, notBefore: time.now + 5, reason: "busy" },
  ]);
  time.now += 10;
  outbox.prune({ keepMs: 0 });
  outbox.settle([{ kind: "acked", position: 2 }]);
  outbox.meet({ ledgerId: "ledger-1", epoch: outbox.epoch(), seen: 2 });
  const command = (n: number, type: string) => ({
    ...{ commandId: `cmd-${n}`, type, payloadJson: '{"n":1}', sequence: n, issuedAt: 50 + n },
  });
  inbox.receive(command(1, "PriceUpdate"), "ledger-0");
  inbox.receive(command(2, "Dance"), "ledger-0");
  time.now += 1;
  inbox.receive(command(3, "StockAlert"), "ledger-1", { appliesLater: true });
}

const things = ({ outbox, inbox }: ReturnType<typeof opened>) => [...keptIn(outbox, inbox)];

/** With nothing of the numbers, which are made anew. */
const essence = (kept: readonly Kept[]) =>
  kept.map((thing) => {
    if (thing.kind === "event") {
      const { position, seq, epoch, ...event } = thing.event as Recorded;
      return event.state === "acked" ? { ...event, seq, epoch } : event;
    }
    if (thing.kind === "command") {
      const { number, ...command } = thing.command as { number?: number };
      return command;
    }
    return thing;
  });

function take(folder: TempFolder, from: ReturnType<typeof opened>, to = folder.file("new.db")) {
  const lock = from.outbox.lock();
  try {
    const target = new NewBuffer({ path: to, head: headOf(from.outbox), now });
    try {
      takeOver(from, target, { now });
      return target.epoch;
    } finally {
      target.close();
    }
  } finally {
    lock.release();
  }
}

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

test("everything comes along; what is not acked has new numbers in a new epoch, in order", async () => {
  using folder = tempFolder();
  using old = opened(folder.file("old.db"));
  fill(old);
  const before = things(old);
  const epoch = take(folder, old);
  expect(readdirSync(folder.path).filter((name) => name.startsWith("new"))).toEqual([
    "new.db",
    "new.db-drainer",
  ]);
  using taken = opened(folder.file("new.db"));
  expect(essence(things(taken))).toEqual(essence(before));
  expect(before.map(({ kind }) => kind)).toEqual([
    ...["event", "event", "event", "event", "event"],
    ...["command", "command", "command", "cursor", "cursor", "pruned"],
  ]);
  expect(taken.outbox.epoch()).toBe(epoch);
  expect(epoch).not.toBe(old.outbox.epoch());
  expect(
    taken.outbox.events({ limit: 9 }).map((event) => [event.eventId, event.epoch, event.seq]),
  ).toEqual([
    ["acked", old.outbox.epoch(), 2],
    ["parked", epoch, 1],
    ["waits", epoch, 2],
    ["a", epoch, 3],
    ["b", epoch, 4],
  ]);
  expect(taken.outbox.append([sale("new")])[0]).toMatchObject({ event: { seq: 5, epoch } });
  expect(taken.inbox.lastCursor()).toEqual(old.inbox.lastCursor());
  expect(
    taken.inbox.receive(
      { ...sale("x"), commandId: "cmd-2", payloadJson: "", sequence: 2, issuedAt: 1 },
      "ledger-1",
    ),
  ).toEqual({ kind: "known" });
  expect(headOf(taken.outbox).ledgerId).toBe("ledger-1");
  expect((await verify(folder.file("new.db"), { pause: async () => {} })).findings).toEqual([]);
});

test("who has the old buffer open, or opens it, can look and is refused all else", () => {
  using folder = tempFolder();
  using till = opened(folder.file("old.db"));
  using old = opened(folder.file("old.db"));
  fill(old);
  take(folder, old);
  using late = opened(folder.file("old.db"));
  const command = {
    commandId: "c9",
    type: "StockAlert",
    payloadJson: "{}",
    sequence: 9,
    issuedAt: 1,
  };
  for (const { outbox, inbox } of [till, late]) {
    for (const act of [
      () => outbox.append([sale("late")]),
      () => outbox.drain(),
      () => outbox.retry("all"),
      () => outbox.replay(),
      () => inbox.receive(command, "ledger-1"),
      () => inbox.retry("all"),
      () => outbox.prune({ keepMs: -1 }),
    ]) {
      const why = refusal(act);
      expect(why.code).toBe("FAILED_PRECONDITION");
      expect(why.message).toContain("old.db was handed over: since 2026-01-02T03:04:05");
      expect(why.message).toContain(
        `the store's buffer is ${folder.file("new.db")} on ${hostname()}`,
      );
    }
    expect(outbox.event("late")).toBeUndefined();
    expect(outbox.counts()).toMatchObject({ pending: 3, parked: 1, acked: 1 });
  }
  // Who was refused the drain has not kept the lock.
  late.outbox.lock().release();
});

describe("the place", () => {
  test("with a buffer that has something in it is refused, and all stays as it is", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    using other = opened(folder.file("new.db"));
    other.outbox.append([sale("mine")]);
    expect(refusal(() => take(folder, old)).code).toBe("ALREADY_EXISTS");
    expect(old.outbox.handedOver()).toBeUndefined();
    expect(other.outbox.counts().pending).toBe(1);
    expect(old.outbox.append([sale("goes on")])[0]?.kind).toBe("recorded");
    expect(existsSync(folder.file("new.db-importing"))).toBe(false);
  });

  test("with an empty buffer is taken, also from a till that has it open", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    const till = opened(folder.file("new.db"));
    take(folder, old);
    // Its file is gone; it is told so, and what it records then is in the new one.
    expect(refusal(() => till.outbox.append([sale("till")]))).toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("was replaced by another process"),
    });
    using again = opened(folder.file("new.db"));
    again.outbox.append([sale("till")]);
    // The old one's log is not taken for the new one's when it is closed.
    till.outbox.close();
    expect(again.outbox.event("till")).toMatchObject({ seq: 5 });
    expect(again.outbox.counts()).toMatchObject({ pending: 4, parked: 1, acked: 1 });
    again.outbox.database.check();
  });

  test("in which a till records while the import is made keeps what the till recorded", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    for (const isThere of [false, true]) {
      const to = folder.file(`new-${isThere}.db`);
      if (isThere) {
        opened(to).outbox.close();
      }
      const finish = vi.spyOn(NewBuffer.prototype, "finish").mockImplementationOnce(function (
        this: NewBuffer,
      ) {
        finish.mockRestore();
        this.finish();
        using till = opened(to);
        till.outbox.append([sale("till")]);
      });
      expect(refusal(() => take(folder, old, to)).code).toBe("ALREADY_EXISTS");
      using till = opened(to);
      expect(till.outbox.events({ limit: 9 }).map(({ eventId }) => eventId)).toEqual(["till"]);
      expect(old.outbox.handedOver()).toBeUndefined();
      old.outbox.drain().release();
    }
  });

  test("with a log whose file is gone is refused: it would be taken for the new one's", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    using lost = opened(folder.file("new.db"));
    lost.outbox.append([sale("lost")]);
    rmSync(folder.file("new.db"));
    expect(refusal(() => take(folder, old))).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("new.db-wal is the log of a buffer whose file is gone"),
    });
    expect(old.outbox.handedOver()).toBeUndefined();
    expect(existsSync(folder.file("new.db"))).toBe(false);
  });

  test("of another store, or whose drainer runs, is refused", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    opened(folder.file("other.db"), "store-02").outbox.close();
    expect(refusal(() => take(folder, old, folder.file("other.db")))).toMatchObject({
      code: "FAILED_PRECONDITION",
      message: expect.stringContaining("is the buffer of store store-02, not of store-01"),
    });
    using busy = opened(folder.file("busy.db"));
    const lock = busy.outbox.drain();
    expect(refusal(() => take(folder, old, folder.file("busy.db"))).message).toContain(
      `another process, ${process.pid}, drains the buffer`,
    );
    lock.release();
    expect(old.outbox.handedOver()).toBeUndefined();
  });

  test("is left as it was found when the source turns out to be bad", () => {
    using folder = tempFolder();
    const path = folder.file("new.db");
    const head = {
      ...{ storeId: "store-01", epoch: "a", ledgerId: "", alarm: "", salvaged: undefined },
    };
    const target = new NewBuffer({ path, head, now });
    const event: Recorded = {
      ...{ ...sale("a"), position: 1, epoch: "a", seq: 1, state: "pending", attempts: 0 },
      ...{ notBefore: 0, reason: "", settledAt: 0, checksum: undefined },
    };
    const things: Kept[] = [
      { kind: "event", event },
      { kind: "event", event },
    ];
    expect(refusal(() => target.add(things)).message).toBe('event "a" is there twice');
    target.close();
    expect(readdirSync(folder.path)).toEqual([]);
  });
});

describe("a crash", () => {
  /** Copies of the old box's files as they are on the disk now. */
  function copied(folder: TempFolder, to: TempFolder): string {
    for (const suffix of ["", "-wal", "-drainer"]) {
      if (existsSync(folder.file("old.db") + suffix)) {
        copyFileSync(folder.file("old.db") + suffix, to.file("old.db") + suffix);
      }
    }
    return to.file("old.db");
  }

  test("while the new buffer is made leaves the old one in use", () => {
    using folder = tempFolder();
    using crashed = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    let path = "";
    const finish = vi.spyOn(NewBuffer.prototype, "finish").mockImplementationOnce(function (
      this: NewBuffer,
    ) {
      finish.mockRestore();
      path = copied(folder, crashed);
      // Half of a new one, as it would be found by the next attempt.
      copyFileSync(`${this.path}-importing`, crashed.file("new.db-importing"));
      this.finish();
    });
    take(folder, old);
    using again = opened(path);
    expect(again.outbox.handedOver()).toBeUndefined();
    again.outbox.append([sale("goes on")]);
    take(crashed, again);
    using taken = opened(crashed.file("new.db"));
    expect(taken.outbox.counts()).toMatchObject({ pending: 4, parked: 1, acked: 1 });
    expect(existsSync(crashed.file("new.db-importing"))).toBe(false);
  });

  test("between the mark and the new buffer leaves one that can be taken over again", () => {
    using folder = tempFolder();
    using crashed = tempFolder();
    using old = opened(folder.file("old.db"));
    fill(old);
    let path = "";
    const put = vi.spyOn(NewBuffer.prototype, "put").mockImplementationOnce(function (
      this: NewBuffer,
    ) {
      put.mockRestore();
      path = copied(folder, crashed);
      this.put();
    });
    take(folder, old);
    using again = opened(path);
    const mark = again.outbox.handedOver();
    if (mark === undefined) {
      throw new Error("expected a mark");
    }
    expect(refusal(() => again.outbox.append([sale("late")])).code).toBe("FAILED_PRECONDITION");
    // Had it not come to it, no buffer would be there, or another one.
    expect(hasArrived(mark)).toBe(true);
    expect(hasArrived({ ...mark, host: "another" })).toBe(true);
    for (const suffix of ["", "-wal", "-shm"]) {
      rmSync(folder.file("new.db") + suffix, { force: true });
    }
    expect(hasArrived(mark)).toBe(false);
    opened(folder.file("new.db")).outbox.close();
    expect(hasArrived(mark)).toBe(false);
    take(crashed, again);
    using taken = opened(crashed.file("new.db"));
    expect(taken.outbox.counts()).toMatchObject({ pending: 3, parked: 1, acked: 1 });
  });
});

describe("a power cut in the last steps of a take-over", () => {
  /** Runs `run`, and leaves the disk as it was between the mark and the last step. */
  function cutAtPut(folder: TempFolder, run: () => void) {
    using saved = tempFolder();
    const spy = vi.spyOn(NewBuffer.prototype, "put").mockImplementationOnce(function (
      this: NewBuffer,
    ) {
      spy.mockRestore();
      cpSync(folder.path, saved.path, { recursive: true });
      this.put();
    });
    run();
    for (const name of readdirSync(folder.path)) {
      rmSync(folder.file(name));
    }
    cpSync(saved.path, folder.path, { recursive: true });
  }

  test.each([
    ["where there is no buffer", false],
    ["where there is an empty one", true],
  ])("after the mark is finished by the next process that opens the place, %s", (_, isThere) => {
    using folder = tempFolder();
    const old = opened(folder.file("old.db"));
    fill(old);
    if (isThere) {
      opened(folder.file("new.db")).outbox.close();
    }
    cutAtPut(folder, () => {
      take(folder, old);
      old.outbox.close();
    });
    using before = opened(folder.file("old.db"));
    expect(before.outbox.handedOver()?.to).toBe(folder.file("new.db"));
    using taken = opened(folder.file("new.db"));
    expect(taken.outbox.epoch()).toBe(before.outbox.handedOver()?.epoch);
    expect(taken.outbox.counts()).toMatchObject({ pending: 3, parked: 1, acked: 1 });
    taken.outbox.append([sale("goes on")]);
    const left = readdirSync(folder.path).filter((name) => /importing|arriving/.test(name));
    expect(left).toEqual([]);
  });

  test("after the mark can be mended by importing again, if the old buffer is elsewhere by now", () => {
    using folder = tempFolder();
    const old = opened(folder.file("old.db"));
    fill(old);
    cutAtPut(folder, () => {
      take(folder, old);
      old.outbox.close();
    });
    renameSync(folder.file("old.db"), folder.file("moved.db"));
    renameSync(folder.file("old.db-wal"), folder.file("moved.db-wal"));
    const why = refusal(() => opened(folder.file("new.db")));
    expect(why.code).toBe("FAILED_PRECONDITION");
    expect(why.message).toContain(`was interrupted, and ${folder.file("old.db")} is not there`);
    expect(why.hint).toContain("import it again");
    using moved = opened(folder.file("moved.db"));
    take(folder, moved);
    using taken = opened(folder.file("new.db"));
    expect(taken.outbox.counts()).toMatchObject({ pending: 3, parked: 1, acked: 1 });
  });

  test("before the mark leaves the old buffer in use, and nothing of the new one", () => {
    using folder = tempFolder();
    const old = opened(folder.file("old.db"));
    fill(old);
    cutAtPut(folder, () => {
      take(folder, old);
      old.outbox.close();
    });
    // The mark was not on the disk yet.
    const file = new DatabaseSync(folder.file("old.db"));
    file.exec("UPDATE outbox SET handed_over = ''");
    file.close();
    using fresh = opened(folder.file("new.db"));
    expect(fresh.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 0 });
    using again = opened(folder.file("old.db"));
    again.outbox.append([sale("goes on")]);
    const left = readdirSync(folder.path).filter((name) => /importing|arriving/.test(name));
    expect(left).toEqual([]);
  });
});

describe("a full disk", () => {
  const limited = (pages: number) =>
    vi.spyOn(Database.prototype, "relax").mockImplementationOnce(function (this: Database) {
      this.prepare(`PRAGMA max_page_count = ${pages}`).get();
    });
  const head = {
    ...{ storeId: "store-01", epoch: "a", ledgerId: "", alarm: "", salvaged: undefined },
  };

  test("that is met while a new buffer is filled costs the batch alone, as often as it is tried", () => {
    using folder = tempFolder();
    using old = opened(folder.file("old.db"));
    old.outbox.append(
      Array.from({ length: 200 }, (_, i) => ({ ...sale(`e${i}`), payload: "x".repeat(500) })),
    );
    // An acked event brings its own epoch along, which is rolled back with the batch.
    old.outbox.settle([{ kind: "acked", position: 1 }]);
    const batch = things(old);
    limited(40);
    const target = new NewBuffer({ path: folder.file("new.db"), head, now });
    for (let attempt = 1; attempt <= 2; attempt++) {
      expect(refusal(() => target.add(batch))).toMatchObject({
        code: "RESOURCE_EXHAUSTED",
        message: expect.stringContaining("the disk is full"),
      });
    }
    target.add(batch.slice(0, 10));
    target.finish();
    target.put();
    target.close();
    using taken = opened(folder.file("new.db"));
    expect(taken.outbox.pending(0, 99).map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test("that is met before the new buffer has anything in it leaves nothing behind", () => {
    using folder = tempFolder();
    const write = vi.spyOn(Database.prototype, "write").mockImplementationOnce(() => {
      throw new StatusError("RESOURCE_EXHAUSTED", "the disk is full");
    });
    const open = () => new NewBuffer({ path: folder.file("new.db"), head, now });
    expect(refusal(open).code).toBe("RESOURCE_EXHAUSTED");
    write.mockRestore();
    expect(readdirSync(folder.path)).toEqual([]);
  });
});

test("a buffer that was handed over stays so when it is salvaged", () => {
  using folder = tempFolder();
  const old = opened(folder.file("old.db"));
  fill(old);
  old.outbox.append(Array.from({ length: 300 }, (_, i) => sale(`more-${i}`)));
  take(folder, old);
  old.outbox.close();
  const bytes = readFileSync(folder.file("old.db"));
  bytes.fill(0, 4096 * 18, 4096 * 19);
  writeFileSync(folder.file("old.db"), bytes);
  writeFileSync(folder.file("old.db-suspect"), "");
  using salvaged = opened(folder.file("old.db"));
  expect(salvaged.outbox.salvaged()).toBeDefined();
  expect(refusal(() => salvaged.outbox.append([sale("late")])).message).toContain("handed over");
});
