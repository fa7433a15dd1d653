/**
 * A buffer of version 1, as the first brewctl with a store bridge left it, with events in it: it is
 * brought up to date when it is opened, and a crash on the way leaves either version whole.
 */

import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { expect, test } from "vitest";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox } from "../../src/bridge/outbox.ts";
import { eventOf, idsOf } from "../support/oracle.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";

const now = () => Date.UTC(2026, 0, 2, 3, 4, 5);

/** As it was; what is only a comment is left out. */
const schemaOfVersion1 = `
  CREATE TABLE outbox (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    store_id     TEXT NOT NULL,
    epoch        INTEGER NOT NULL,
    next_seq     INTEGER NOT NULL,
    drainer_pid  INTEGER NOT NULL DEFAULT 0,
    ledger_id    TEXT NOT NULL DEFAULT '',
    alarm        TEXT NOT NULL DEFAULT '',
    salvaged     TEXT NOT NULL DEFAULT ''
  ) STRICT;
  CREATE TABLE epochs (number INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE) STRICT;
  CREATE TABLE events (
    position    INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id    TEXT NOT NULL UNIQUE,
    type        TEXT NOT NULL,
    payload     BLOB NOT NULL,
    timestamp   INTEGER NOT NULL,
    epoch       INTEGER NOT NULL REFERENCES epochs,
    seq         INTEGER NOT NULL,
    state       INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    attempts    INTEGER NOT NULL DEFAULT 0,
    not_before  INTEGER NOT NULL DEFAULT 0,
    reason      TEXT NOT NULL DEFAULT '',
    settled_at  INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE INDEX pending ON events (position) WHERE state = 0;
  CREATE INDEX parked ON events (position) WHERE state = 2;
  CREATE INDEX retries ON events (not_before) WHERE state = 0 AND not_before > 0;
  CREATE TABLE commands (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    command_id   TEXT NOT NULL UNIQUE,
    type         TEXT NOT NULL,
    payload      TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    issued_at    INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    reason       TEXT NOT NULL
  ) STRICT;
  CREATE TABLE cursors (
    ledger_id   TEXT NOT NULL UNIQUE,
    sequence    INTEGER NOT NULL,
    command_id  TEXT NOT NULL,
    used_at     INTEGER NOT NULL
  ) STRICT;
  PRAGMA application_id = ${0x42725362};
  PRAGMA user_version = 1;
`;

const ids = idsOf("sale", 40);

/** Left open, so that there is a log: the events are in it. */
function makeVersion1(path: string): DatabaseSync {
  const sqlite = new DatabaseSync(path);
  sqlite.exec(schemaOfVersion1);
  sqlite.exec("PRAGMA journal_mode = WAL");
  sqlite.exec(`
    INSERT INTO epochs (epoch) VALUES ('aaaaaaaaaaaaaaaa');
    INSERT INTO outbox (one, store_id, epoch, next_seq) VALUES (1, 'store-01', 1, ${ids.length + 1});
    INSERT INTO commands (command_id, type, payload, sequence, issued_at, received_at, reason)
      VALUES ('cmd-1', 'PriceUpdate', '{}', 1, 5, 6, ''), ('cmd-2', 'Odd', '{}', 2, 5, 6, 'unknown');
    INSERT INTO cursors VALUES ('ledger', 2, 'cmd-2', 6);
  `);
  const insert = sqlite.prepare(
    `INSERT INTO events (event_id, type, payload, timestamp, epoch, seq, state, reason)
     VALUES (?, ?, ?, ?, 1, ?, ?, ?)`,
  );
  for (const [i, id] of ids.entries()) {
    const { eventId, type, payload, timestamp } = eventOf(id);
    const state = i % 3;
    const reason = state === 2 ? "no" : "";
    insert.run(eventId, type, Buffer.from(payload), timestamp, i + 1, state, reason);
  }
  return sqlite;
}

/** Opens it with what is to be in it, and goes on where it was. */
function expectWhole(path: string): void {
  const outbox = new Outbox({ path, now });
  const inbox = new Inbox(outbox.database, { now });
  try {
    expect(outbox.salvaged()).toBeUndefined();
    outbox.database.check();
    const events = outbox.events({ limit: 100 });
    expect(events.map(({ eventId }) => eventId)).toEqual(ids);
    for (const [i, event] of events.entries()) {
      const state = (["pending", "acked", "parked"] as const)[i % 3];
      expect(event).toMatchObject({ ...eventOf(event.eventId), seq: i + 1, state });
    }
    expect(inbox.counts()).toMatchObject({ received: 0, parked: 1 });
    const [added] = outbox.append([eventOf("next")]);
    expect(added).toMatchObject({ event: { epoch: "aaaaaaaaaaaaaaaa", seq: ids.length + 1 } });
  } finally {
    outbox.close();
  }
}

/** What a crash leaves. */
function copied(folder: TempFolder, name: string, file: Buffer, log: Buffer): string {
  const path = folder.file(name);
  writeFileSync(path, file);
  writeFileSync(`${path}-wal`, log);
  copyFileSync(folder.file("buffer.db-drainer"), `${path}-drainer`);
  return path;
}

test("a buffer of version 1 is brought up to date, and a crash on the way costs nothing", () => {
  using folder = tempFolder();
  const path = folder.file("buffer.db");
  const old = makeVersion1(path);
  writeFileSync(`${path}-drainer`, "");
  const before = readFileSync(`${path}-wal`).length;
  const outbox = new Outbox({ path, now });
  const [file, log] = [readFileSync(path), readFileSync(`${path}-wal`)];
  outbox.close();
  old.close();
  expectWhole(path);

  const frame = 24 + file.readUInt16BE(16);
  // The upgrade is more than a page, all of them behind what was there.
  expect(log.length).toBeGreaterThan(before + 3 * frame);
  for (let end = before; end <= log.length; end += frame) {
    for (const cut of [end, end + frame / 2].filter((cut) => cut <= log.length)) {
      expectWhole(copied(folder, `cut-${cut}.db`, file, log.subarray(0, cut)));
    }
  }
});
