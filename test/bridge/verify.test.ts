/** What is wrong with a buffer is found and named, and nothing is changed in looking. */

import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, test } from "vitest";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { verify } from "../../src/bridge/verify.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const time = { now: Date.UTC(2026, 0, 2, 3, 4, 5) };
const now = () => time.now;
const uptime = () => ({ boot: "boot-1", ms: time.now });
const open = (path: string) => new Outbox({ path, storeId: "store-01", now, uptime });
const sales = (first: number, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    eventId: `e${first + i}`,
    type: "Sale",
    payload: `sale ${first + i}`,
    timestamp: 1000 + i,
  }));
const ack = (position: number) => ({ kind: "acked", position }) as const;
const park = (position: number) => ({ kind: "parked", position, reason: "no" }) as const;

async function findings(path: string, pause: () => Promise<void> = async () => {}) {
  return (await verify(path, { pause })).findings;
}

/** A buffer with something of everything: 1200 events, two of them parked, and two commands. */
function buffer(folder: TempFolder): string {
  const path = folder.file("buffer.db");
  const outbox = open(path);
  outbox.append(sales(1, 1200));
  outbox.settle([ack(1), ack(2), park(3), park(700), ack(1100)]);
  const inbox = new Inbox(outbox.database, { now });
  for (const [i, type] of ["PriceUpdate", "Dance"].entries()) {
    const command = { commandId: `c${i}`, type, payloadJson: "{}", sequence: i + 1, issuedAt: 5 };
    inbox.receive(command, "ledger-1");
  }
  outbox.close();
  return path;
}

/** As no program of ours would: checks and references are off. */
function tamper(path: string, sql: string): void {
  const sqlite = new DatabaseSync(path, { enableForeignKeyConstraints: false });
  try {
    sqlite.exec(`PRAGMA ignore_check_constraints = ON; ${sql}`);
  } finally {
    sqlite.close();
  }
}

test("a buffer in use is well, and what is pending or parked is told and no fault", async () => {
  using folder = tempFolder();
  const path = buffer(folder);
  const bytes = readFileSync(path);
  const verdict = await verify(path, { pause: async () => {} });
  expect(verdict).toEqual({
    storeId: "store-01",
    epoch: expect.stringMatching(/^[0-9a-f]{16}$/),
    events: { pending: 1195, acked: 3, parked: 2 },
    commands: { received: 0, applied: 1, parked: 1 },
    ...{ pruned: 0, handedOver: undefined, findings: [], isMore: false },
  });
  expect(readFileSync(path).equals(bytes)).toBe(true);
});

test("what a crash has left in the log is read, and stays there", async () => {
  using folder = tempFolder();
  using crashed = tempFolder();
  const path = buffer(folder);
  const outbox = open(path);
  outbox.append(sales(3000, 1));
  for (const suffix of ["", "-wal", "-drainer"]) {
    copyFileSync(path + suffix, crashed.file("buffer.db") + suffix);
  }
  outbox.close();
  const files = () =>
    ["", "-wal"].map((suffix) => readFileSync(crashed.file("buffer.db") + suffix));
  const before = files();
  const verdict = await verify(crashed.file("buffer.db"), { pause: async () => {} });
  expect(verdict).toMatchObject({ events: { pending: 1196 }, findings: [] });
  expect(files().map((bytes, i) => bytes.equals(before[i] ?? bytes.subarray(1)))).toEqual([
    true,
    true,
  ]);
});

test("what was pruned, retried under a new id or numbered anew is no gap", async () => {
  using folder = tempFolder();
  const path = buffer(folder);
  const outbox = open(path);
  time.now += 1;
  outbox.prune({ keepMs: 0 });
  outbox.retry(["e3"], () => "e3-anew");
  expect(await findings(path)).toEqual([]);
  outbox.renumber();
  outbox.append(sales(2000, 3));
  outbox.settle([ack(700)]);
  time.now += 1;
  outbox.prune({ after: 600, keepMs: 0 });
  expect(await findings(path)).toEqual([]);
  const { pruned, events } = await verify(path, { pause: async () => {} });
  expect(pruned + events.pending + events.acked + events.parked).toBe(1203);
  outbox.close();
});

test("tills, a drainer and a rotation beside it are no fault", async () => {
  using folder = tempFolder();
  const path = buffer(folder);
  const outbox = open(path);
  let pauses = 0;
  const meanwhile = async () => {
    pauses += 1;
    outbox.append(sales(5000 + pauses * 10, 3));
    outbox.settle([ack(3 + pauses), ack(600 + pauses)]);
    time.now += 1;
    // Before and behind where the walk is.
    outbox.prune({ after: 0, keepMs: 0 });
    outbox.prune({ after: 590, keepMs: 0 });
    if (pauses === 2) {
      outbox.renumber();
    }
  };
  expect(await findings(path, meanwhile)).toEqual([]);
  // Once around for nothing, and then again.
  expect(pauses).toBeGreaterThan(4);
  outbox.close();
});

test("it never holds a look for longer than a page", async () => {
  using folder = tempFolder();
  const path = buffer(folder);
  const outbox = open(path);
  const logs: boolean[] = [];
  await verify(path, {
    pause: async () => {
      outbox.append(sales(9000 + logs.length, 1));
      // Possible only while nobody reads.
      logs.push(outbox.database.emptyLog());
    },
  });
  expect(logs.length).toBeGreaterThan(3);
  expect(logs.every(Boolean)).toBe(true);
  outbox.close();
});

describe("what is wrong is named", () => {
  test.each<[string, string, string | RegExp]>([
    ["a gap", "DELETE FROM events WHERE position = 50", /have a gap: 1200 were given, 1199/],
    ["a number too many", "UPDATE outbox SET next_seq = 1200", /event 1200: its seq is 1200; exp/],
    [
      "numbers out of order",
      "UPDATE events SET seq = 91 - seq WHERE position IN (45, 46)",
      "event 46: its seq is 45; expected one above 46 and below 1201",
    ],
    [
      "an unknown epoch",
      "UPDATE events SET epoch = 7 WHERE position = 9",
      /event 9: its epoch 7 is/,
    ],
    [
      "no current epoch",
      "UPDATE outbox SET epoch = 7",
      "its current epoch is not among its epochs",
    ],
    [
      "an impossible state",
      "UPDATE events SET state = 7 WHERE position = 9",
      /event 9: its state is 7/,
    ],
    [
      "a payload that is no UTF-8",
      "UPDATE events SET payload = x'61ff' WHERE position = 9",
      "event 9: its payload is no valid UTF-8",
    ],
    [
      "an id that is no UTF-8",
      "UPDATE events SET event_id = CAST(x'61ff' AS TEXT) WHERE position = 9",
      "event 9: its event_id is no valid UTF-8",
    ],
    [
      "an id too long",
      `UPDATE events SET event_id = '${"x".repeat(129)}' WHERE position = 9`,
      "event 9: event_id has 129 bytes; at most 128 are allowed",
    ],
    ["no type", "UPDATE events SET type = '' WHERE position = 9", "event 9: type is empty"],
    [
      "a time before 1970",
      "UPDATE events SET timestamp = -1 WHERE position = 9",
      /event 9: timestamp is -1; expected/,
    ],
    [
      "a payload too large",
      "UPDATE events SET payload = zeroblob(1048577) WHERE position = 9",
      /event 9: payload has 1048577 bytes/,
    ],
    [
      "what is acked and waits",
      "UPDATE events SET not_before = 5 WHERE position = 1",
      "event 1: it is acknowledged, and is still to be sent again",
    ],
    [
      "what is parked and waits",
      "UPDATE events SET not_before = 5 WHERE position = 3",
      "event 3: it is parked, and is still to be sent again",
    ],
    [
      "a number below 0",
      "UPDATE events SET attempts = -1 WHERE position = 9",
      "event 9: it has a number below 0",
    ],
    [
      "a command's state",
      "UPDATE commands SET state = 9 WHERE number = 1",
      /command 1: its state is 9/,
    ],
    [
      "a command that is no UTF-8",
      "UPDATE commands SET payload = CAST(x'ff' AS TEXT) WHERE number = 2",
      "command 2: its payload is no valid UTF-8",
    ],
    [
      "a sum that is none",
      "INSERT INTO pruned (type, day, count, digest) VALUES ('Sale', 'Monday', 1, x'00')",
      "the sum of the events of Monday and type Sale makes no sense",
    ],
    ["no owner", "DELETE FROM outbox", "it has 0 rows that say whose it is; expected one"],
  ])("%s", async (_, sql, expected) => {
    using folder = tempFolder();
    const path = buffer(folder);
    tamper(path, sql);
    const found = await findings(path);
    expect(found).toContainEqual(
      typeof expected === "string" ? expected : expect.stringMatching(expected),
    );
  });

  test("a broken page, by SQLite's own check", async () => {
    using folder = tempFolder();
    const path = buffer(folder);
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096 * 20, 4096 * 21);
    writeFileSync(path, bytes);
    const found = await findings(path);
    expect(found[0]).toMatch(/^SQLite: /);
    // It stays as it is, for whoever writes to it next to salvage it.
    expect(readFileSync(path).equals(bytes)).toBe(true);
    expect(open(path).salvaged()).toBeDefined();
  });

  test("an index that lacks rows, and whoever opens it next checks it", async () => {
    using folder = tempFolder();
    const path = buffer(folder);
    const bytes = readFileSync(path);
    const index = "CREATE INDEX parked ON events (position) WHERE state = ";
    bytes.write("1", bytes.indexOf(index) + index.length);
    writeFileSync(path, bytes);
    const found = await findings(path);
    expect(found).toContainEqual(expect.stringMatching(/^SQLite: row 1 missing from index parked/));
    expect(existsSync(`${path}-suspect`)).toBe(true);
  });

  test("a file that is broken throughout has a list with an end", async () => {
    using folder = tempFolder();
    const path = buffer(folder);
    tamper(path, "UPDATE events SET payload = x'ff'");
    const verdict = await verify(path, { pause: async () => {} });
    expect(verdict.findings).toHaveLength(100);
    expect(verdict.isMore).toBe(true);
  });
});
