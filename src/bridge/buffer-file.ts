/**
 * A store's buffer as a file: its schema, and what becomes of a file that is damaged. It is set aside,
 * never deleted, and what can be read of it goes on in a new one: a shop must be able to sell.
 */

import { randomBytes } from "node:crypto";
import { existsSync, renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { diskError } from "../disk-error.ts";
import { messageOf, StatusError } from "../errors.ts";
import { makePrivateFile, readPrivateFile, replaceFile } from "../private-file.ts";
import { DamagedError, Database, type Kind, salvage, suspicionPath, takeLock } from "../sqlite.ts";
import { faultOfName } from "../store-event.ts";
import { ageClockSchema } from "./age-clock.ts";
import { highWaterOf } from "./high-water.ts";
import { commandsSchema, commandsUpgrade } from "./inbox.ts";
import { lastPositionIn, lossOf } from "./salvage-loss.ts";
import { parseSalvaged, type Salvaged } from "./salvage-mark.ts";

const prunedSchema = `
    -- What was removed because its time was over, summed up: see event-digest.ts.
    CREATE TABLE pruned (
      number  INTEGER PRIMARY KEY,
      type    TEXT NOT NULL,
      day     TEXT NOT NULL,              -- of the events' timestamps, in UTC
      count   INTEGER NOT NULL,
      digest  BLOB NOT NULL,
      UNIQUE (type, day)
    ) STRICT;
`;

export const bufferKind: Kind = {
  name: "store buffer",
  applicationId: 0x42725362, // BrSb
  version: 3,
  upgrades: [
    `
    ALTER TABLE outbox ADD COLUMN handed_over TEXT NOT NULL DEFAULT '';
    ALTER TABLE epochs ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
    -- Version 1 removed events without counting them.
    UPDATE epochs SET gone = max(0, (SELECT next_seq - 1 FROM outbox) -
        (SELECT count(*) FROM events WHERE events.epoch = epochs.number))
      WHERE number = (SELECT epoch FROM outbox);
    ${prunedSchema}
    ${commandsUpgrade}
    `,
    `
    ALTER TABLE events ADD COLUMN checksum INTEGER;
    ${ageClockSchema}
    `,
  ],
  schema: `
    -- One row: what is true of the whole buffer.
    CREATE TABLE outbox (
      one          INTEGER PRIMARY KEY CHECK (one = 1),
      store_id     TEXT NOT NULL,
      epoch        INTEGER NOT NULL,      -- the current one
      next_seq     INTEGER NOT NULL,      -- in it
      drainer_pid  INTEGER NOT NULL DEFAULT 0,
      ledger_id    TEXT NOT NULL DEFAULT '',  -- of the cloud's ledger, as it was met last
      alarm        TEXT NOT NULL DEFAULT '',  -- what a person should know of it
      salvaged     TEXT NOT NULL DEFAULT '', -- JSON; empty if the file was always whole
      handed_over  TEXT NOT NULL DEFAULT ''  -- JSON; empty if it is in use here
    ) STRICT;

    CREATE TABLE epochs (
      number  INTEGER PRIMARY KEY,
      epoch   TEXT NOT NULL UNIQUE,       -- what the cloud sees of it
      gone    INTEGER NOT NULL DEFAULT 0  -- events that had a seq of it and were removed
    ) STRICT;

    CREATE TABLE events (
      position    INTEGER PRIMARY KEY AUTOINCREMENT,
      event_id    TEXT NOT NULL UNIQUE,
      type        TEXT NOT NULL,
      payload     BLOB NOT NULL,          -- UTF-8; as text, SQL would stop at a NUL
      timestamp   INTEGER NOT NULL,
      epoch       INTEGER NOT NULL REFERENCES epochs,
      seq         INTEGER NOT NULL,
      state       INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
      attempts    INTEGER NOT NULL DEFAULT 0,
      not_before  INTEGER NOT NULL DEFAULT 0,
      reason      TEXT NOT NULL DEFAULT '',
      settled_at  INTEGER NOT NULL DEFAULT 0,
      checksum    INTEGER                 -- see event-checksum.ts; NULL if version 2 recorded it
    ) STRICT;
    -- Small: of what is still to be done.
    CREATE INDEX pending ON events (position) WHERE state = 0;
    CREATE INDEX parked ON events (position) WHERE state = 2;
    CREATE INDEX retries ON events (not_before) WHERE state = 0 AND not_before > 0;
    ${ageClockSchema}
    ${prunedSchema}
    ${commandsSchema}
  `,
};

export function lockPath(path: string): string {
  return `${path}-drainer`;
}

/** The lock of the process that has commands applied by a program. */
export function applierPath(path: string): string {
  return `${path}-applier`;
}

export interface OpenOptions {
  readonly storeId: string | undefined;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly probe: (database: Database) => void;
}

/** A buffer's file that is open, and whether this opening has salvaged it. */
export interface OpenedBuffer {
  readonly database: Database;
  readonly isSalvaged: boolean;
}

/**
 * Opens a buffer's file, or what a salvage makes of it. `probe` asks it for all that the outbox will
 * want of it, and throws `DamagedError` where that is not there.
 */
export function openOrSalvage(path: string, { storeId, now, probe }: OpenOptions): OpenedBuffer {
  try {
    if (wasEmptied(path)) {
      throw new DamagedError(`${bufferKind.name} ${path} is damaged: it was emptied`);
    }
    const database = new Database(path, bufferKind);
    try {
      if (database.hasHotLog && database.isReadOnly) {
        database.check();
      } else if (database.hasHotLog) {
        checkUnlessDrained(database);
      }
      // Whether its tables are there at all.
      storeOf(database);
      probe(database);
    } catch (error) {
      database.close();
      throw error;
    }
    return { database, isSalvaged: false };
  } catch (error) {
    if (!(error instanceof DamagedError)) {
      throw error;
    }
    return replaceDamaged(path, { storeId, now, probe }, error);
  }
}

/**
 * Whether an empty file is in the place of a buffer that was in use: its drainer's lock is made after the
 * file is filled. A transaction that has to be rolled back may leave a new file empty.
 */
function wasEmptied(path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  return there?.size === 0 && existsSync(lockPath(path)) && !existsSync(`${path}-journal`);
}

/**
 * Nobody closed it, or somebody has it open: whoever drains it has checked it. The lock is not kept,
 * since a check takes long, and must not be in the way of a daemon that comes back after a crash.
 */
function checkUnlessDrained(database: Database): void {
  const lock = takeLock(lockPath(database.path));
  if (lock !== undefined) {
    lock.release();
    database.check();
  }
}

/** Opens a buffer's file and reads all of it. Throws `DamagedError` for one that should be salvaged. */
export function openWhole(path: string, probe: OpenOptions["probe"]): Database {
  if (existsSync(salvagingPath(path))) {
    throw new DamagedError(`${path} is damaged: its salvage was interrupted`);
  }
  const database = new Database(path, bufferKind);
  try {
    database.check();
    storeOf(database);
    probe(database);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/** Sets the damaged file aside and fills a new one with what can be read of it. */
function replaceDamaged(
  path: string,
  { storeId, now, probe }: OpenOptions,
  damage: DamagedError,
): OpenedBuffer {
  if (!existsSync(lockPath(path))) {
    // Never drained by us, so nothing says that it is ours at all.
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} is no ${bufferKind.name}: ${damage.message}`,
      {
        hint: "it stays as it is; choose another file, or move it away",
      },
    );
  }
  const known = readable(path, "outbox", "one")[0]?.["store_id"];
  const owner = typeof known === "string" ? known : (storeId ?? "");
  if (owner === "" || (storeId !== undefined && owner !== storeId)) {
    throw new StatusError("FAILED_PRECONDITION", `${damage.message}; whose it is cannot be read`, {
      hint: "it stays as it is; name its store with --store, and what can be read is salvaged",
    });
  }
  const lock = takeLock(lockPath(path));
  if (lock === undefined) {
    throw new DamagedError(`${damage.message}; it is being drained, and is salvaged after that`);
  }
  try {
    const mended = openMended(path, probe);
    if (mended !== undefined) {
      // The process that salvaged it says so.
      return { database: mended, isSalvaged: false };
    }
    // Where only the log is left, an empty file stands for the one that is gone.
    makePrivateFile(path);
    const at = now();
    const name = `${path}.damaged-${new Date(at).toISOString().replace(/[-:.]/g, "")}`;
    let setAside = name;
    for (let i = 2; existsSync(setAside); i++) {
      setAside = `${name}-${i}`;
    }
    const salvaging: Salvaging = { at, owner, setAside: basename(setAside) };
    replaceFile(salvagingPath(path), `${JSON.stringify(salvaging)}\n`);
    return { database: finishSalvage(path, salvaging), isSalvaged: true };
  } catch (error) {
    throw diskError(error, `${path} is damaged, and cannot be salvaged now`, path);
  } finally {
    lock.release();
  }
}

/** The file, if another process has replaced the damaged one meanwhile. */
function openMended(path: string, probe: OpenOptions["probe"]): Database | undefined {
  if (wasEmptied(path)) {
    return undefined;
  }
  let database: Database | undefined;
  try {
    database = new Database(path, bufferKind);
    database.check();
    probe(database);
    return database;
  } catch {
    database?.close();
    return undefined;
  }
}

/** What is to be done to a damaged file: on the disk before it begins, gone when it is done. */
interface Salvaging {
  readonly at: number;
  readonly owner: string;
  /**
   * The name of the damaged file, in the folder of the buffer: the disk may be mounted elsewhere when
   * the salvage is finished. Earlier versions wrote the whole path.
   */
  readonly setAside: string;
}

export function salvagingPath(path: string): string {
  return `${path}-salvaging`;
}

/**
 * Finishes a salvage that a crash has interrupted. Returns true if this process finished it, and false
 * if another one was faster or the salvage had not begun.
 */
export function resumeSalvage(path: string): boolean {
  const lock = takeLock(lockPath(path));
  if (lock === undefined) {
    throw new StatusError("UNAVAILABLE", `${path} is damaged, and is just being salvaged`, {
      hint: "try again",
    });
  }
  try {
    if (existsSync(salvagingPath(path))) {
      const text = intentionAt(salvagingPath(path));
      if (text.endsWith("\n")) {
        finishSalvage(path, JSON.parse(text)).close();
        return true;
      }
      // Cut off while it was written, so nothing had begun.
      rmSync(salvagingPath(path));
    }
    return false;
  } catch (error) {
    throw diskError(error, `the salvage of ${path} cannot be finished now`, path);
  } finally {
    lock.release();
  }
}

function intentionAt(path: string): string {
  try {
    return readPrivateFile(path);
  } catch (error) {
    throw new StatusError("FAILED_PRECONDITION", messageOf(error), {
      hint: "brewctl has not made it; nothing was changed; see who did, and remove it",
      cause: error,
    });
  }
}

/** Can be done again from the beginning, wherever it was interrupted. */
function finishSalvage(path: string, salvaging: Salvaging): Database {
  const { at, owner } = salvaging;
  const setAside = join(dirname(path), basename(salvaging.setAside));
  rmSync(suspicionPath(path), { force: true });
  if (!existsSync(setAside)) {
    // The file itself comes last: then what is at the old path is the new one's.
    for (const suffix of ["-journal", "-wal", "-shm", ""]) {
      if (existsSync(path + suffix)) {
        renameSync(path + suffix, setAside + suffix);
      }
    }
  }
  // When root salvages a buffer, its owner can go on with it.
  const database = new Database(path, bufferKind, { ownerOf: setAside });
  try {
    database.write(() => {
      if (storeOf(database) === undefined) {
        fillFrom(database, setAside, owner, at);
      }
    });
  } catch (error) {
    database.close();
    throw error;
  }
  rmSync(salvagingPath(path));
  return database;
}

/**
 * Events keep their epochs and seqs, so that the cloud sees a gap where some are missing. What is
 * recorded from now on has an epoch of its own: if the damaged file has lost its last numbers, they
 * would be given a second time.
 */
function fillFrom(database: Database, damaged: string, owner: string, at: number): void {
  const epochs = readable(damaged, "epochs", "number").filter(
    ({ epoch }) => typeof epoch === "string" && faultOfName("epoch", epoch) === undefined,
  );
  copy(database, "epochs", epochs);
  const current = mintEpoch(database);
  const known = new Set(epochs.map(({ number }) => number));
  const rows = readable(damaged, "events", "position");
  const sequences = readable(damaged, "sqlite_sequence", "rowid");
  const lastPosition = lastPositionIn(sequences, rows.length);
  const isNumber = (seq: unknown) => Number(seq) >= 1 && Number(seq) <= (lastPosition ?? Infinity);
  const events = copy(
    database,
    "events",
    rows.map((row) =>
      known.has(row["epoch"]) && isNumber(row["seq"]) ? row : { ...row, epoch: current },
    ),
  );
  copy(database, "cursors", readable(damaged, "cursors", "rowid"));
  copy(
    database,
    "commands",
    readable(damaged, "commands", "number").map((row) => ({ ...stateBefore2(row), ...row })),
  );
  copy(database, "pruned", readable(damaged, "pruned", "number"));
  const [outbox] = readable(damaged, "outbox", "one");
  const loss = lossOf(
    database,
    { outbox, epochs, lastPosition, highWater: highWaterOf(database.path) },
    { at, strays: current },
  );
  const earlier = parseSalvaged(String(outbox?.["salvaged"] ?? ""), damaged)?.losses ?? [];
  const losses = loss === undefined ? earlier : [...earlier, loss];
  const salvaged: Salvaged = { at, setAside: damaged, events, losses };
  database
    .prepare(
      `INSERT INTO outbox (one, store_id, epoch, next_seq, salvaged, handed_over)
       VALUES (1, ?, ?, ?, ?, ?)`,
    )
    .run(
      owner,
      current,
      numberStrays(database, current),
      JSON.stringify(salvaged),
      String(outbox?.["handed_over"] ?? ""),
    );
}

/**
 * Gives new numbers of this epoch to its events, and to those whose number another one has: damage may
 * have changed it. Returns the next number.
 */
function numberStrays(database: Database, epoch: number): number {
  const strays = database
    .prepare(
      `SELECT position FROM (SELECT position, epoch,
           row_number() OVER (PARTITION BY epoch, seq ORDER BY position) AS nth FROM events)
         WHERE epoch = ? OR nth > 1 ORDER BY position`,
    )
    .all(epoch);
  const stamp = database.prepare("UPDATE events SET epoch = ?, seq = ? WHERE position = ?");
  for (const [i, { position }] of strays.entries()) {
    stamp.run(epoch, i + 1, Number(position));
  }
  return strays.length + 1;
}

/** A command of version 1 had no state: one with a reason was parked. */
function stateBefore2({ reason }: Record<string, unknown>): Record<string, unknown> {
  return { state: reason === "" ? 1 : 2 };
}

/** What can be read of a damaged table. */
function readable(path: string, table: string, key: string): Record<string, unknown>[] {
  const rows: Record<string, unknown>[] = [];
  try {
    for (const row of salvage(path, table, key)) {
      rows.push(row);
    }
  } catch {
    // Not even the table can be found, or no more of it.
  }
  return rows;
}

/** Rows that make no sense are left behind; they are in the file that was set aside. */
function copy(database: Database, table: string, rows: Record<string, unknown>[]): number {
  let copied = 0;
  for (const row of rows) {
    const names = Object.keys(row);
    const places = names.map(() => "?").join(", ");
    try {
      const insert = `INSERT OR IGNORE INTO ${table} (${names.join(", ")}) VALUES (${places})`;
      const values = Object.values(row) as (string | number | Uint8Array)[];
      copied += Number(database.prepare(insert).run(...values).changes);
    } catch {
      // A value of the wrong kind, where a page was broken.
    }
  }
  return copied;
}

/**
 * The id of the store that the buffer in a file belongs to, whatever the schema and the state of the file.
 * Undefined if that cannot be read. Nothing is changed in the file.
 */
export function ownerOf(path: string): string | undefined {
  // A buffer without a log was closed by everybody.
  const isClosed = !existsSync(`${path}-wal`);
  try {
    for (const { store_id: storeId } of salvage(path, "outbox", "one", { isClosed })) {
      return typeof storeId === "string" ? storeId : undefined;
    }
  } catch {
    // It is not a database, or not one of ours.
  }
  return undefined;
}

export function storeOf(database: Database): string | undefined {
  const row = database.prepare("SELECT store_id FROM outbox").get();
  const storeId = row?.["store_id"];
  if (row !== undefined && typeof storeId !== "string") {
    throw new DamagedError(`${database.path} is damaged: whose it is cannot be read`);
  }
  return storeId as string | undefined;
}

/** Sixteen hex digits; returns the number by which this file knows it. */
export function mintEpoch(database: Database): number {
  const epoch = randomBytes(8).toString("hex");
  return Number(
    database.prepare("INSERT INTO epochs (epoch) VALUES (?)").run(epoch).lastInsertRowid,
  );
}

/** Within a transaction. */
export function renumber(database: Database): void {
  const epoch = mintEpoch(database);
  const positions = database
    .prepare("SELECT position FROM events WHERE state <> 1 ORDER BY position")
    .all();
  const stamp = database.prepare("UPDATE events SET epoch = ?, seq = ? WHERE position = ?");
  for (const [i, { position }] of positions.entries()) {
    stamp.run(epoch, i + 1, Number(position));
  }
  database.prepare("UPDATE outbox SET epoch = ?, next_seq = ?").run(epoch, positions.length + 1);
}
