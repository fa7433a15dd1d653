/** Files as version 1 of the schemas made them, to be brought up to date. */

import { writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";

const bufferSchema = `
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
  CREATE TABLE epochs (
    number  INTEGER PRIMARY KEY,
    epoch   TEXT NOT NULL UNIQUE
  ) STRICT;
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
`;

const ledgerSchema = `
  CREATE TABLE ledger (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    id          TEXT NOT NULL,
    server_pid  INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE stores (
    number    INTEGER PRIMARY KEY,
    store_id  TEXT NOT NULL UNIQUE,
    status    TEXT NOT NULL DEFAULT '',
    reported_at      INTEGER NOT NULL DEFAULT 0,
    clock_offset_ms  INTEGER NOT NULL DEFAULT 0
  ) STRICT;
  CREATE TABLE epochs (
    number   INTEGER PRIMARY KEY AUTOINCREMENT,
    store    INTEGER NOT NULL REFERENCES stores,
    epoch    TEXT NOT NULL,
    highest  INTEGER NOT NULL DEFAULT 0,
    seen     INTEGER NOT NULL DEFAULT 0,
    UNIQUE (store, epoch)
  ) STRICT;
  CREATE TABLE events (
    position     INTEGER PRIMARY KEY AUTOINCREMENT,
    store        INTEGER NOT NULL REFERENCES stores,
    event_id     TEXT NOT NULL,
    type         TEXT NOT NULL,
    payload      BLOB NOT NULL,
    timestamp    INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    received_at  INTEGER NOT NULL,
    UNIQUE (store, event_id)
  ) STRICT;
  CREATE UNIQUE INDEX seqs ON events (epoch, seq) WHERE epoch > 0;
  CREATE TABLE other_seqs (
    epoch     INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    event_id  TEXT NOT NULL,
    why       TEXT NOT NULL,
    PRIMARY KEY (epoch, seq)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE commands (
    store_id    TEXT NOT NULL,
    sequence    INTEGER NOT NULL,
    command_id  TEXT NOT NULL,
    type        TEXT NOT NULL,
    payload     TEXT NOT NULL,
    issued_at   INTEGER NOT NULL,
    PRIMARY KEY (store_id, sequence),
    UNIQUE (store_id, command_id)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE deliveries (
    store_id  TEXT PRIMARY KEY,
    sequence  INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
`;

function make(path: string, schema: string, applicationId: number, rows: string): void {
  const sqlite = new DatabaseSync(path);
  try {
    sqlite.exec(schema);
    sqlite.exec(`PRAGMA application_id = ${applicationId}`);
    sqlite.exec("PRAGMA user_version = 1");
    sqlite.exec("PRAGMA journal_mode = WAL");
    sqlite.exec(rows);
  } finally {
    sqlite.close();
  }
}

export const bufferEpoch = "1111111111111111";

/**
 * A buffer of store-01: events e1 to e<n>, of which the first two were acknowledged and e1 was pruned,
 * and the third is parked; a command that was applied and one that was parked.
 */
export function makeBufferOfVersion1(path: string, { events = 5 } = {}): void {
  make(
    path,
    bufferSchema,
    0x42725362,
    `
    INSERT INTO epochs (epoch) VALUES ('${bufferEpoch}');
    INSERT INTO outbox (one, store_id, epoch, next_seq, ledger_id)
      VALUES (1, 'store-01', 1, ${events + 1}, 'ledger-1');
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${events})
    INSERT INTO events (event_id, type, payload, timestamp, epoch, seq, state, attempts, reason,
        settled_at)
      SELECT 'e' || i, 'Sale', CAST('sale ' || i AS BLOB), 1000 + i, 1, i,
        CASE WHEN i <= 2 THEN 1 WHEN i = 3 THEN 2 ELSE 0 END,
        CASE i WHEN 3 THEN 4 ELSE 0 END, CASE i WHEN 3 THEN 'no such product' ELSE '' END,
        CASE WHEN i <= 3 THEN 5000 ELSE 0 END
      FROM n;
    DELETE FROM events WHERE event_id = 'e1';
    INSERT INTO commands (command_id, type, payload, sequence, issued_at, received_at, reason)
      VALUES ('cmd-1', 'PriceUpdate', '{}', 1, 100, 200, ''),
        ('cmd-2', 'Dance', '{}', 2, 101, 201, 'unknown type "Dance"');
    INSERT INTO cursors (ledger_id, sequence, command_id, used_at)
      VALUES ('ledger-1', 2, 'cmd-2', 201);
    `,
  );
  // It was drained once.
  writeFileSync(`${path}-drainer`, "");
}

/** A ledger with two events of store-01, and a command in its queue. */
export function makeLedgerOfVersion1(path: string): void {
  make(
    path,
    ledgerSchema,
    0x42724c64,
    `
    INSERT INTO ledger (one, id) VALUES (1, 'ledger-1');
    INSERT INTO stores (store_id, reported_at) VALUES ('store-01', 77);
    INSERT INTO epochs (store, epoch, highest, seen) VALUES (1, 'aaaaaaaaaaaaaaaa', 3, 3);
    INSERT INTO events (store, event_id, type, payload, timestamp, epoch, seq, received_at)
      VALUES (1, 'sale-1', 'Sale', CAST('{"total":1}' AS BLOB), 1001, 1, 1, 2001),
        (1, 'sale-2', 'Sale', CAST('{"total":2}' AS BLOB), 1002, 1, 2, 2002);
    INSERT INTO other_seqs (epoch, seq, event_id, why) VALUES (1, 3, 'bad', 'invalid');
    INSERT INTO commands (store_id, sequence, command_id, type, payload, issued_at)
      VALUES ('store-01', 1, 'cmd-1', 'PriceUpdate', '{}', 100);
    `,
  );
}

export function versionOf(path: string): number {
  const sqlite = new DatabaseSync(path, { readOnly: true });
  try {
    return Number(sqlite.prepare("PRAGMA user_version").get()?.["user_version"]);
  } finally {
    sqlite.close();
  }
}
