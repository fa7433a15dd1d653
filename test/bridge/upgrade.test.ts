/** A buffer of an older version is brought up to date when it is opened: as a whole, or not at all. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { bufferKind } from "../../src/bridge/buffer-file.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { verify } from "../../src/bridge/verify.ts";
import { Database } from "../../src/sqlite.ts";
import { reap } from "../support/reaper.ts";
import { serveCloud } from "../support/serve-cloud.ts";
import { openBox } from "../support/store-box.ts";
import { tempFolder } from "../support/temp.ts";
import { bufferEpoch, makeBufferOfVersion1, versionOf } from "../support/version-1.ts";

const now = () => Date.UTC(2026, 0, 2, 3, 4, 5);
const open = (path: string) => new Outbox({ path, now });
const pause = async () => {};

/** All that version 1 had is there, in the words of this version. */
function expectKept(outbox: Outbox): void {
  expect(outbox.events({ limit: 9 })).toMatchObject([
    { eventId: "e2", payload: "sale 2", timestamp: 1002, seq: 2, state: "acked", settledAt: 5000 },
    { eventId: "e3", seq: 3, state: "parked", attempts: 4, reason: "no such product" },
    { eventId: "e4", seq: 4, state: "pending", position: 4 },
    { eventId: "e5", seq: 5, state: "pending", position: 5 },
  ]);
  const inbox = new Inbox(outbox.database, { now });
  expect(inbox.commands({ limit: 9 })).toMatchObject([
    { commandId: "cmd-1", state: "applied", reason: "", sequence: 1, receivedAt: 200 },
    { commandId: "cmd-2", state: "parked", reason: 'unknown type "Dance"', attempts: 0 },
  ]);
  expect(inbox.lastCursor()).toEqual({ ledgerId: "ledger-1", sequence: 2, commandId: "cmd-2" });
}

test("every event, command and cursor of version 1 is kept, and numbering goes on", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  expect(versionOf(path)).toBe(1);
  const outbox = open(path);
  expect(versionOf(path)).toBe(3);
  expectKept(outbox);
  expect(outbox.epoch()).toBe(bufferEpoch);
  expect(outbox.append([{ eventId: "e6", type: "Sale", payload: "" }])[0]).toMatchObject({
    event: { seq: 6, position: 6 },
  });
  expect(outbox.pruned()).toEqual([]);
  const inbox = new Inbox(outbox.database, { now });
  expect(inbox.retry("all")).toEqual(["cmd-2"]);
  expect(inbox.next()).toMatchObject({ commandId: "cmd-2" });
  outbox.close();
  // What version 1 had removed is accounted for.
  expect((await verify(path, { pause })).findings).toEqual([]);
});

test("and it drains", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  await using cloud = await serveCloud();
  using box = openBox({ path });
  box.outbox.retry("all");
  await using drain = box.flush(cloud.address);
  await drain.done;
  expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 4 });
});

test("events of version 2 have no checksum and drain as they are, and new ones have one", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion2(path);
  await using cloud = await serveCloud();
  using box = openBox({ path });
  expect(versionOf(path)).toBe(3);
  expect(box.outbox.event("e1")?.checksum).toBeUndefined();
  box.record(["e2"]);
  expect(box.outbox.event("e2")?.checksum).toEqual(expect.any(Number));
  await using drain = box.flush(cloud.address);
  await drain.done;
  expect(box.outbox.counts()).toMatchObject({ pending: 0, parked: 0, acked: 2 });
  expect((await verify(path, { pause })).findings).toEqual([]);
});

test("an upgrade from version 2 that fails leaves the file at version 2", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion2(path);
  const [first = "", second = ""] = bufferKind.upgrades;
  const failing = { ...bufferKind, upgrades: [first, `${second}; INSERT INTO nowhere`] };
  expect(() => new Database(path, failing)).toThrow(/nowhere|incomplete|syntax/);
  expect(versionOf(path)).toBe(2);
  open(path).close();
  expect(versionOf(path)).toBe(3);
});

function makeBufferOfVersion2(path: string): void {
  const outbox = new Outbox({ path, storeId: "store-01", now });
  outbox.append([{ eventId: "e1", type: "Sale", payload: "sale 1" }]);
  outbox.close();
  const sqlite = new DatabaseSync(path);
  sqlite.exec(
    "ALTER TABLE events DROP COLUMN checksum; DROP TABLE age_clock; PRAGMA user_version = 2",
  );
  sqlite.close();
}

test("one that fails in the middle leaves the file at version 1, as it was", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  const failing = { ...bufferKind, upgrades: [`${bufferKind.upgrades[0]}; INSERT INTO nowhere`] };
  const before = readFileSync(path);
  expect(() => new Database(path, failing)).toThrow(/nowhere|incomplete|syntax/);
  expect(versionOf(path)).toBe(1);
  expect(readFileSync(path).equals(before)).toBe(true);
  const outbox = open(path);
  expectKept(outbox);
  outbox.close();
});

test("one whose process dies in the middle leaves the file at version 1", async () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  // More than SQLite keeps in memory, so that some of it is written before the end.
  makeBufferOfVersion1(path, { events: 20_000 });
  const script = `
    const { bufferKind } = await import(process.argv[1]);
    const { DatabaseSync } = await import("node:sqlite");
    const sqlite = new DatabaseSync(process.argv[2]);
    sqlite.exec("PRAGMA cache_size = 5; BEGIN IMMEDIATE");
    sqlite.exec(bufferKind.upgrades[0]);
    sqlite.exec("UPDATE events SET reason = 'x'; PRAGMA user_version = 2");
    process.stdout.write("in the middle");
    setInterval(() => {}, 1000);`;
  const source = fileURLToPath(new URL("../../src/bridge/buffer-file.ts", import.meta.url));
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, source, path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  reap(child);
  try {
    await once(child.stdout, "data");
  } finally {
    child.kill("SIGKILL");
    await once(child, "close");
  }
  expect(readFileSync(`${path}-wal`).length).toBeGreaterThan(0);
  expect(versionOf(path)).toBe(1);
  const outbox = open(path);
  expect(versionOf(path)).toBe(3);
  expect(outbox.counts()).toMatchObject({ acked: 1, parked: 1, pending: 20_000 - 3 });
  expect(outbox.event("e3")?.reason).toBe("no such product");
  outbox.close();
});

test("one whose log was cut anywhere by a crash is of one version or the other, and whole", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  const outbox = open(path);
  const [file, log] = [readFileSync(path), readFileSync(`${path}-wal`)];
  outbox.close();
  const frame = 24 + file.readUInt16BE(16);
  expect(log.length).toBeGreaterThan(5 * frame);
  const ends = Array.from({ length: Math.floor(log.length / frame) }, (_, i) => 32 + i * frame);
  for (const end of ends.flatMap((end) => [end, end + frame / 2, end + frame])) {
    const cut = folder.file(`cut-${end}.db`);
    writeFileSync(cut, file);
    writeFileSync(`${cut}-wal`, log.subarray(0, end));
    const reopened = open(cut);
    expect(reopened.salvaged()).toBeUndefined();
    expectKept(reopened);
    reopened.close();
    expect(versionOf(cut)).toBe(3);
  }
});

test("a newer one is refused and stays as it is, also to be read only", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  openNewer(path);
  const before = readFileSync(path);
  const message = /was written by a newer brewctl \(schema 4, this one knows 3\)/;
  expect(() => open(path)).toThrow(message);
  expect(() => new Outbox({ path, now, salvages: false })).toThrow(message);
  expect(() => new Database(path, bufferKind, { isReadOnly: true })).toThrow(message);
  expect(readFileSync(path).equals(before)).toBe(true);
});

function openNewer(path: string): void {
  new Outbox({ path, storeId: "store-01", now }).close();
  const sqlite = new DatabaseSync(path);
  sqlite.exec("PRAGMA user_version = 4");
  sqlite.close();
}

test("to be read only, one of version 1 is refused and stays as it is", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  expect(() => new Database(path, bufferKind, { isReadOnly: true })).toThrow(
    /is of schema 1, and this brewctl reads 3/,
  );
  expect(versionOf(path)).toBe(1);
});

test("a damaged one is salvaged into this version", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path, { events: 400 });
  const bytes = readFileSync(path);
  // A page in the middle, of events or of their ids.
  bytes.fill(0, 4096 * 8, 4096 * 9);
  writeFileSync(path, bytes);
  writeFileSync(`${path}-suspect`, "");
  const outbox = open(path);
  expect(outbox.salvaged()?.events).toBeGreaterThan(200);
  expect(versionOf(path)).toBe(3);
  expect(outbox.event("e3") ?? outbox.event("e399")).toBeDefined();
  const commands = new Inbox(outbox.database, { now }).commands({ limit: 9 });
  expect(commands).toMatchObject([
    { commandId: "cmd-1", state: "applied" },
    { commandId: "cmd-2", state: "parked", reason: 'unknown type "Dance"' },
  ]);
  outbox.close();
  expect(readdirSync(folder.path).some((name) => name.includes(".damaged-"))).toBe(true);
});

test("what is salvaged straight from a file of version 1 has its commands' states", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  makeBufferOfVersion1(path);
  const bytes = readFileSync(path);
  // Its list of free pages leads nowhere: it can be read, but nothing can be added, so not upgraded.
  bytes.writeUInt32BE(0xffff, 32);
  bytes.writeUInt32BE(1, 36);
  writeFileSync(path, bytes);
  writeFileSync(`${path}-suspect`, "");
  const outbox = open(path);
  expect(outbox.salvaged()?.events).toBe(4);
  expect(versionOf(outbox.salvaged()?.setAside ?? "")).toBe(1);
  const commands = new Inbox(outbox.database, { now }).commands({ limit: 9 });
  expect(commands.map(({ state }) => state)).toEqual(["applied", "parked"]);
  outbox.close();
});
