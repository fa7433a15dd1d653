/**
 * The ledger: the cloud's memory of every event that it has taken, for ever.
 *
 * - `take` returns only after what it took is on the disk, all of a batch with one fsync.
 * - An event is (store, event_id), once, in the transaction that takes it: there is no window of
 *   time or number after which a repetition would count again. The same content (type, payload,
 *   timestamp) is a duplicate, which is a success; another content is a conflict, and refused.
 * - Then (store, epoch, seq) must be unused. A taken seq means that the store's outbox was restored
 *   from an old copy or cloned, and the event is refused until the outbox numbers it anew.
 * - A seq that was never seen is a gap. What was refused for good is seen: it is no gap for ever.
 * - Order is (store, number of the epoch, seq), never a clock. The event's own timestamp is kept.
 */

import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { StatusError } from "../errors.ts";
import { Database, inMemory, type Kind, type Lock, type Statement, takeLock } from "../sqlite.ts";
import {
  faultOfEvent,
  faultOfName,
  maxNameBytes,
  maxTakenPayloadBytes,
  type StoreEvent,
} from "../store-event.ts";
import { dispatchSchema, receiptsSchema } from "./dispatch.ts";
import { Presence } from "./presence.ts";

export interface OfferedEvent extends StoreEvent {
  readonly storeId: string;
  /** Empty: the store does not number its events. */
  readonly epoch: string;
  readonly seq: number;
}

export interface TakenEvent extends OfferedEvent {
  /** Grows with every event taken: a cursor. */
  readonly position: number;
  /** Unix milliseconds, by the cloud's clock. */
  readonly receivedAt: number;
}

export type Outcome =
  | { readonly kind: "accepted" }
  | { readonly kind: "duplicate" }
  | {
      readonly kind: "refused";
      readonly code: "invalid" | "conflict" | "seq taken";
      readonly reason: string;
    };

export interface Gaps {
  readonly epoch: string;
  /** How many numbers below the highest were never seen. */
  readonly missing: number;
  readonly highest: number;
}

export interface StatusReport {
  readonly storeId: string;
  /** When it came, by the cloud's clock. */
  readonly cameAt: number;
  readonly depth: number;
  readonly bytes: number;
  readonly oldestUnacked: number;
  readonly parked: number;
  readonly epoch: string;
  readonly sentAt: number;
  readonly version: string;
  /** Of the ledger whose commands the two numbers below count. */
  readonly ledgerId: string;
  readonly receivedSequence: number;
  readonly appliedSequence: number;
  readonly commandsParked: number;
  /** Those of them that came last. */
  readonly parkedCommands: readonly { readonly commandId: string; readonly reason: string }[];
  readonly alarms: readonly string[];
}

/** What the cloud knows of a store. Times in Unix milliseconds; 0 for never. */
export interface StoreState
  extends Omit<
    StatusReport,
    "cameAt" | "epoch" | "sentAt" | "version" | "ledgerId" | "parkedCommands" | "alarms"
  > {
  readonly isConnected: boolean;
  readonly lastSeen: number;
  readonly reportedAt: number;
  /** Numbers below the highest of each epoch that were never seen. */
  readonly gaps: number;
  /** The same of the newest epoch. */
  readonly currentGaps: number;
  /** Numbers that were seen, of all epochs. */
  readonly seen: number;
  /** Events that were refused because another one has their id. */
  readonly conflicts: number;
  readonly clockOffsetMs: number;
  readonly queuedSequence: number;
  readonly epoch: string;
  readonly epochs: number;
  readonly version: string;
  readonly alarms: readonly string[];
}

/** A stretch of the ledger, looked through for one store. */
export interface Stretch {
  readonly events: readonly TakenEvent[];
  /** Up to which position there is nothing else. */
  readonly through: number;
  readonly isAtEnd: boolean;
}

export interface LedgerOptions {
  /** Its folder; `:memory:` for one that is to be forgotten. */
  readonly folder: string;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** Between two times that it is written down when stores were seen, in milliseconds. */
const saveSeenEveryMs = 10_000;

/** Of those, in one transaction: some milliseconds' worth. */
const maxSeenSaved = 200;

/**
 * Positions that are looked at in one call for one store: a few milliseconds, in which nothing else
 * goes on, however few of them are the store's.
 */
const maxLooked = 5_000;

/** Of what a report says, and of how long each text may be, in characters. */
const maxAlarms = 10;
const maxParkedCommands = 20;
const maxTextLength = 1_024;

const conflictsSchema = `
    -- Events that were refused because another one has their id.
    CREATE TABLE conflicts (
      store     INTEGER NOT NULL REFERENCES stores,
      event_id  TEXT NOT NULL,
      at        INTEGER NOT NULL,
      reason    TEXT NOT NULL,
      PRIMARY KEY (store, event_id)
    ) STRICT, WITHOUT ROWID;
`;

const kind: Kind = {
  name: "ledger",
  applicationId: 0x42724c64, // BrLd
  version: 2,
  upgrades: [
    `
    ALTER TABLE stores ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
    ${conflictsSchema}
    ${receiptsSchema}
    `,
  ],
  schema: `
    -- One row. The id tells a ledger from one that was lost and made anew.
    CREATE TABLE ledger (
      one         INTEGER PRIMARY KEY CHECK (one = 1),
      id          TEXT NOT NULL,
      server_pid  INTEGER NOT NULL DEFAULT 0   -- 0: it was closed
    ) STRICT;

    CREATE TABLE stores (
      number    INTEGER PRIMARY KEY,
      store_id  TEXT NOT NULL UNIQUE,
      status    TEXT NOT NULL DEFAULT '',    -- the last report, as JSON
      reported_at      INTEGER NOT NULL DEFAULT 0,
      clock_offset_ms  INTEGER NOT NULL DEFAULT 0,
      seen_at          INTEGER NOT NULL DEFAULT 0   -- when it was heard of last, within seconds
    ) STRICT;

    -- Numbered as they are first seen, which is their order.
    CREATE TABLE epochs (
      number   INTEGER PRIMARY KEY AUTOINCREMENT,
      store    INTEGER NOT NULL REFERENCES stores,
      epoch    TEXT NOT NULL,
      highest  INTEGER NOT NULL DEFAULT 0,   -- seq seen
      seen     INTEGER NOT NULL DEFAULT 0,   -- how many different ones
      UNIQUE (store, epoch)
    ) STRICT;

    CREATE TABLE events (
      position     INTEGER PRIMARY KEY AUTOINCREMENT,
      store        INTEGER NOT NULL REFERENCES stores,
      event_id     TEXT NOT NULL,
      type         TEXT NOT NULL,
      payload      BLOB NOT NULL,            -- UTF-8
      timestamp    INTEGER NOT NULL,
      epoch        INTEGER NOT NULL,         -- 0: not numbered
      seq          INTEGER NOT NULL,
      received_at  INTEGER NOT NULL,
      UNIQUE (store, event_id)
    ) STRICT;
    CREATE UNIQUE INDEX seqs ON events (epoch, seq) WHERE epoch > 0;

    -- Numbers that were seen without an event of theirs in the table above: refused for good, or a
    -- duplicate under a number that it did not have before.
    CREATE TABLE other_seqs (
      epoch     INTEGER NOT NULL,
      seq       INTEGER NOT NULL,
      event_id  TEXT NOT NULL,
      why       TEXT NOT NULL,
      PRIMARY KEY (epoch, seq)
    ) STRICT, WITHOUT ROWID;
    ${conflictsSchema}
    ${dispatchSchema}
  `,
};

/** Of the payloads that are read at a time, in characters: four of the largest. */
const maxPageSize = 4 * maxTakenPayloadBytes;

export class Ledger {
  /** Random; made with the ledger. */
  readonly id: string;
  /** The queues of commands share the file. */
  readonly database: Database;
  /** Which stores are there now. */
  readonly presence: Presence;
  readonly #now: () => number;
  readonly #lock: Lock | undefined;
  readonly #statements: Statements;
  readonly #stores = new Map<string, number>();
  readonly #epochs = new Map<string, Epoch>();
  #seenSavedAt = 0;

  /**
   * Opens the ledger, making it if it is not there. Throws `StatusError`: FAILED_PRECONDITION, with
   * the process's id, if another server has it; what `Database` throws.
   */
  constructor({ folder, now }: LedgerOptions) {
    const path = folder === inMemory ? inMemory : join(folder, "ledger.db");
    this.#now = now;
    this.presence = new Presence({ now });
    this.#lock = path === inMemory ? undefined : lockFor(path);
    let database: Database | undefined;
    try {
      database = new Database(path, kind);
      this.database = database;
      // We have the lock, so nobody has it open: the last server did not close it, or could not
      // read it. Its log alone would not tell that: it is gone when a damaged ledger was refused.
      const last = database.prepare("SELECT server_pid FROM ledger").get();
      if (database.hasHotLog || (last !== undefined && last["server_pid"] !== 0)) {
        database.check();
      }
      this.database.write(() => {
        this.database
          .prepare("INSERT INTO ledger (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING")
          .run(randomBytes(8).toString("hex"));
        this.database.prepare("UPDATE ledger SET server_pid = ?").run(process.pid);
      });
      this.id = String(this.database.prepare("SELECT id FROM ledger").get()?.["id"]);
      this.#statements = prepare(this.database);
    } catch (error) {
      const explained = database?.explain(error) ?? error;
      database?.close();
      this.#lock?.release();
      throw explained;
    }
  }

  /**
   * Takes a batch, in order, in one transaction; the outcomes are in the same order. An event that is
   * refused costs no other. Throws what the disk throws, and then nothing of the batch was taken.
   */
  take(events: readonly OfferedEvent[]): Outcome[] {
    const at = this.#now();
    try {
      return this.database.write(() => {
        const outcomes = events.map((event) => this.#takeOne(event, at));
        for (const epoch of this.#epochs.values()) {
          if (epoch.isChanged) {
            this.#statements.advance.run(epoch.highest, epoch.seen, epoch.number);
            epoch.isChanged = false;
          }
        }
        this.#hear(events, at);
        return outcomes;
      });
    } catch (error) {
      // What was counted beside the database did not happen.
      this.#epochs.clear();
      this.#stores.clear();
      throw error;
    }
  }

  /** Whose events these are was heard of now. Within a transaction. */
  #hear(events: readonly OfferedEvent[], at: number): void {
    let last: string | undefined;
    for (const { storeId } of events) {
      // Most of a batch are one store's. A name that cannot be one has no number.
      if (storeId !== last && this.#stores.has(storeId)) {
        this.presence.hear(storeId, at);
      }
      last = storeId;
    }
    this.presence.changed.ring();
    this.#saveSeen(at);
  }

  /** Writes down when stores were seen, now and then, in a transaction that happens anyway. */
  #saveSeen(at: number): void {
    if (Math.abs(at - this.#seenSavedAt) < saveSeenEveryMs) {
      return;
    }
    let saved = 0;
    for (const { storeId, seenAt } of this.presence.unsaved(maxSeenSaved)) {
      this.#statements.see.run(seenAt, storeId);
      saved += 1;
    }
    if (saved < maxSeenSaved) {
      this.#seenSavedAt = at;
    }
  }

  #takeOne(event: OfferedEvent, at: number): Outcome {
    const { storeId, eventId, type, payload, timestamp, seq } = event;
    const storeFault = faultOfName("store_id", storeId) ?? faultOfNumber(event);
    if (storeFault !== undefined) {
      return refused("invalid", storeFault);
    }
    const store = this.#storeNumber(storeId);
    const epoch = event.epoch === "" ? undefined : this.#epoch(store, event.epoch);
    const fault = faultOfEvent(event, maxTakenPayloadBytes);
    if (fault !== undefined) {
      this.#see(epoch, seq, eventId, fault);
      return refused("invalid", fault);
    }
    const other = epoch === undefined ? undefined : this.#otherAt(epoch, seq);
    if (!epoch?.isForked && (other === undefined || other === eventId)) {
      const { changes } = this.#statements.insert.run(
        store,
        eventId,
        type,
        Buffer.from(payload),
        timestamp,
        epoch?.number ?? 0,
        // Without an epoch it was not checked: it may be one that SQLite cannot keep.
        epoch === undefined ? 0 : seq,
        at,
      );
      if (changes === 1) {
        if (other === eventId) {
          // It was refused before, and somebody has put that right.
          this.#statements.forgetOther.run(epoch?.number ?? 0, seq);
        } else if (epoch !== undefined) {
          count(epoch, seq);
        }
        return { kind: "accepted" };
      }
    }
    const known = this.#statements.byId.get(store, eventId);
    if (known === undefined) {
      const reason = epoch?.isForked
        ? "this epoch has had two events with one seq"
        : `seq ${seq} of this epoch is another event's`;
      if (epoch !== undefined) {
        // Those behind it must not overtake it: they would be in the order of the old numbers.
        epoch.isForked = true;
      }
      return refused("seq taken", reason);
    }
    const differs = [
      ...(known["type"] === type ? [] : ["type"]),
      ...(textOf(known["payload"]) === payload ? [] : ["payload"]),
      ...(known["timestamp"] === timestamp ? [] : ["timestamp"]),
    ];
    const conflict = `event_id is taken by an event with another ${differs.join(" and ")}`;
    this.#see(epoch, seq, eventId, differs.length === 0 ? "duplicate" : conflict);
    if (differs.length > 0) {
      this.#statements.insertConflict.run(store, eventId, at, conflict);
    }
    return differs.length === 0 ? { kind: "duplicate" } : refused("conflict", conflict);
  }

  /** Remembers a seq that leaves no event; not one that is another event's. */
  #see(epoch: Epoch | undefined, seq: number, eventId: string, why: string): void {
    if (epoch === undefined || this.#statements.bySeq.get(epoch.number, seq) !== undefined) {
      return;
    }
    const id = eventId.slice(0, maxNameBytes);
    const { changes } = this.#statements.insertOther.run(epoch.number, seq, id, why);
    epoch.hasOthers = true;
    if (changes === 1) {
      count(epoch, seq);
    }
  }

  #otherAt(epoch: Epoch, seq: number): string | undefined {
    const row = epoch.hasOthers ? this.#statements.otherAt.get(epoch.number, seq) : undefined;
    return row && String(row["event_id"]);
  }

  #storeNumber(storeId: string): number {
    let number = this.#stores.get(storeId);
    if (number === undefined) {
      this.#statements.insertStore.run(storeId);
      number = Number(this.#statements.store.get(storeId)?.["number"]);
      this.#stores.set(storeId, number);
    }
    return number;
  }

  #epoch(store: number, name: string): Epoch {
    const key = `${store} ${name}`;
    let epoch = this.#epochs.get(key);
    if (epoch === undefined) {
      this.#statements.insertEpoch.run(store, name);
      const row = this.#statements.epoch.get(store, name);
      const number = Number(row?.["number"]);
      epoch = {
        number,
        highest: Number(row?.["highest"]),
        seen: Number(row?.["seen"]),
        hasOthers: this.#statements.anyOther.get(number) !== undefined,
        isForked: false,
        isChanged: false,
      };
      this.#epochs.set(key, epoch);
    }
    return epoch;
  }

  /** The highest seq seen of a store's epoch; 0 for none. */
  highestSeen(storeId: string, epoch: string): number {
    return Number(this.#statements.seen.get(storeId, epoch)?.["highest"] ?? 0);
  }

  /** A store's epochs in order, with what was never seen of each. */
  gaps(storeId: string): Gaps[] {
    return this.#statements.gaps.all(storeId).map((row) => ({
      epoch: String(row["epoch"]),
      highest: Number(row["highest"]),
      missing: Number(row["highest"]) - Number(row["seen"]),
    }));
  }

  /** Events behind a position, in the order in which they were taken. */
  events({ after, limit }: { readonly after: number; readonly limit: number }): TakenEvent[] {
    return this.#statements.all.all(after, limit).map(readEvent);
  }

  /**
   * The same of one store. They may lie far apart, so a call looks at a bounded stretch behind the
   * position: whoever asks goes on from `through` until it `isAtEnd`.
   */
  eventsOf({
    storeId,
    after,
    limit,
  }: {
    readonly storeId: string;
    readonly after: number;
    readonly limit: number;
  }): Stretch {
    const from = Math.max(0, after);
    const end = Number(this.#statements.end.get()?.["position"] ?? 0);
    const store = this.#statements.store.get(storeId)?.["number"];
    if (store === undefined || from >= end) {
      return { events: [], through: Math.max(from, end), isAtEnd: true };
    }
    const through = Math.min(from + maxLooked, end);
    const events = this.#statements.ofStore.all(from, through, Number(store), limit).map(readEvent);
    const last = events.length === limit ? events.at(-1) : undefined;
    const got = last?.position ?? through;
    return { events, through: got, isAtEnd: got >= end };
  }

  /**
   * A store's events behind an id, in the order of the bytes of the ids, at most `limit`, and fewer if
   * they are large: only an empty answer is the end.
   */
  eventsById(storeId: string, after: string, limit: number): StoreEvent[] {
    const events: StoreEvent[] = [];
    let size = 0;
    for (const row of this.#statements.behindId.iterate(storeId, after, limit)) {
      const [eventId, type, payload, timestamp] = row;
      const event = {
        eventId: String(eventId),
        type: String(type),
        payload: textOf(payload),
        timestamp: Number(timestamp),
      };
      events.push(event);
      size += event.payload.length;
      if (size >= maxPageSize) {
        break;
      }
    }
    return events;
  }

  /** How many events there are. */
  size(): number {
    return Number(this.database.prepare("SELECT count(*) AS n FROM events").get()?.["n"]);
  }

  /** Makes a store known that has asked for something and sent nothing yet. */
  know(storeId: string): void {
    if (!this.isKnown(storeId)) {
      this.database.write(() => {
        this.#statements.insertStore.run(storeId);
        this.#statements.see.run(this.#now(), storeId);
      });
    }
  }

  /** Whether the cloud has ever heard of a store. */
  isKnown(storeId: string): boolean {
    return this.#stores.has(storeId) || this.#statements.store.get(storeId) !== undefined;
  }

  /** All stores that it has ever heard of, in the order of their ids. */
  storeIds(): string[] {
    return this.#statements.storeIds.all().map((row) => String(row["store_id"]));
  }

  /** What is known of a store; undefined for one that was never heard of. */
  store(storeId: string): StoreState | undefined {
    const row = this.#statements.state.get(storeId);
    if (row === undefined) {
      return undefined;
    }
    const status = String(row["status"]);
    const report = status === "" ? {} : (JSON.parse(status) as Partial<StatusReport>);
    const isConnected = this.presence.isConnected(storeId);
    return {
      storeId,
      isConnected,
      // Of what is on the disk it may be that it is from a clock which has been set back since.
      lastSeen: this.presence.seenAt(storeId) || Number(row["seen_at"]),
      reportedAt: Number(row["reported_at"]),
      depth: report.depth ?? 0,
      bytes: report.bytes ?? 0,
      oldestUnacked: report.oldestUnacked ?? 0,
      parked: report.parked ?? 0,
      gaps: Number(row["gaps"]),
      currentGaps: Number(row["current_gaps"]),
      seen: Number(row["seen"]),
      conflicts: Number(row["conflicts"]),
      clockOffsetMs: Number(row["clock_offset_ms"]),
      queuedSequence: Number(row["queued"]),
      receivedSequence: Number(row["received"]),
      appliedSequence: Number(row["applied"]),
      commandsParked: report.commandsParked ?? 0,
      epoch: report.epoch || String(row["epoch"]),
      epochs: Number(row["epochs"]),
      version: report.version ?? "",
      alarms: report.alarms ?? [],
    };
  }

  /**
   * Keeps reports of stores, each in place of the one before, in one transaction. Returns how far each
   * store's clock is ahead of ours, in milliseconds. How far it is with its commands counts only if
   * they are this ledger's.
   */
  report(reports: readonly StatusReport[]): number[] {
    const offsets = reports.map(({ sentAt, cameAt }) => sentAt - cameAt);
    this.database.write(() => {
      for (const [i, report] of reports.entries()) {
        this.#keepReport(report, offsets[i] ?? 0);
      }
      this.#saveSeen(this.#now());
    });
    for (const { storeId, cameAt } of reports) {
      this.presence.hear(storeId, cameAt);
    }
    this.presence.changed.ring();
    return offsets;
  }

  #keepReport({ cameAt, parkedCommands, ...report }: StatusReport, offsetMs: number): void {
    const { storeId } = report;
    const { insertStore, progress, unpark, park } = this.#statements;
    insertStore.run(storeId);
    const alarms = report.alarms.slice(0, maxAlarms).map(shortened);
    const status = JSON.stringify({ ...report, alarms });
    this.#statements.report.run(status, cameAt, offsetMs, cameAt, storeId);
    if (report.ledgerId === this.id) {
      progress.run(storeId, report.receivedSequence, report.appliedSequence);
    }
    unpark.run(storeId);
    for (const { commandId, reason } of parkedCommands.slice(0, maxParkedCommands)) {
      park.run(storeId, shortened(commandId), shortened(reason));
    }
  }

  close(): void {
    try {
      this.database.write(() => {
        for (const { storeId, seenAt } of this.presence.unsaved(Number.POSITIVE_INFINITY)) {
          this.#statements.see.run(seenAt, storeId);
        }
        this.database.prepare("UPDATE ledger SET server_pid = 0").run();
      });
    } catch {
      // A disk that takes nothing any more. The next server checks the ledger, as after a kill.
    }
    this.database.close();
    this.#lock?.release();
  }
}

/** What the ledger keeps in mind of an epoch, beside its row. */
interface Epoch {
  readonly number: number;
  highest: number;
  seen: number;
  hasOthers: boolean;
  /** Two events had the same seq: whoever still counts in this epoch must begin another. */
  isForked: boolean;
  isChanged: boolean;
}

function count(epoch: Epoch, seq: number): void {
  epoch.seen += 1;
  epoch.highest = Math.max(epoch.highest, seq);
  epoch.isChanged = true;
}

function refused(code: Extract<Outcome, { kind: "refused" }>["code"], reason: string): Outcome {
  return { kind: "refused", code, reason };
}

function faultOfNumber({ epoch, seq }: OfferedEvent): string | undefined {
  if (epoch === "") {
    return undefined;
  }
  return (
    faultOfName("epoch", epoch) ??
    (Number.isSafeInteger(seq) && seq >= 1 ? undefined : `seq is ${seq}; expected 1 or more`)
  );
}

function textOf(blob: unknown): string {
  const { buffer, byteOffset, byteLength } = blob as Uint8Array;
  return Buffer.from(buffer, byteOffset, byteLength).toString();
}

/** Not in the middle of a character. */
function shortened(text: string): string {
  return text.slice(0, maxTextLength).toWellFormed();
}

function readEvent(row: Record<string, unknown>): TakenEvent {
  return {
    position: Number(row["position"]),
    storeId: String(row["store_id"]),
    eventId: String(row["event_id"]),
    type: String(row["type"]),
    payload: textOf(row["payload"]),
    timestamp: Number(row["timestamp"]),
    epoch: String(row["epoch"]),
    seq: Number(row["seq"]),
    receivedAt: Number(row["received_at"]),
  };
}

function lockFor(path: string): Lock {
  const lock = takeLock(`${path}-server`);
  if (lock === undefined) {
    const database = new Database(path, kind);
    const pid = database.prepare("SELECT server_pid FROM ledger").get()?.["server_pid"];
    database.close();
    throw new StatusError(
      "FAILED_PRECONDITION",
      `another brewctl serve, process ${pid || "just starting"}, has the ledger ${path}`,
      { hint: "give this one a folder of its own with --data-dir, or --memory" },
    );
  }
  return lock;
}

type Statements = ReturnType<typeof prepare>;

function prepare(database: Database) {
  const sql = (text: string): Statement => database.prepare(text);
  const event =
    "position, store_id, event_id, type, payload, timestamp, coalesce(epochs.epoch, '') AS epoch, seq, received_at";
  const fromEvents =
    "FROM events JOIN stores ON stores.number = events.store LEFT JOIN epochs ON epochs.number = events.epoch";
  return {
    insert: sql(`INSERT INTO events
      (store, event_id, type, payload, timestamp, epoch, seq, received_at)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`),
    byId: sql("SELECT type, payload, timestamp FROM events WHERE store = ? AND event_id = ?"),
    bySeq: sql("SELECT 1 FROM events WHERE epoch = ? AND epoch > 0 AND seq = ?"),
    insertOther: sql(`INSERT INTO other_seqs (epoch, seq, event_id, why) VALUES (?, ?, ?, ?)
      ON CONFLICT DO NOTHING`),
    otherAt: sql("SELECT event_id FROM other_seqs WHERE epoch = ? AND seq = ?"),
    anyOther: sql("SELECT 1 FROM other_seqs WHERE epoch = ? LIMIT 1"),
    forgetOther: sql("DELETE FROM other_seqs WHERE epoch = ? AND seq = ?"),
    insertStore: sql("INSERT INTO stores (store_id) VALUES (?) ON CONFLICT DO NOTHING"),
    store: sql("SELECT number FROM stores WHERE store_id = ?"),
    insertEpoch: sql("INSERT INTO epochs (store, epoch) VALUES (?, ?) ON CONFLICT DO NOTHING"),
    epoch: sql("SELECT number, highest, seen FROM epochs WHERE store = ? AND epoch = ?"),
    advance: sql("UPDATE epochs SET highest = ?, seen = ? WHERE number = ?"),
    seen: sql(`SELECT highest FROM epochs JOIN stores ON stores.number = store
      WHERE store_id = ? AND epoch = ?`),
    gaps: sql(`SELECT epoch, highest, seen FROM epochs JOIN stores ON stores.number = store
      WHERE store_id = ? ORDER BY epochs.number`),
    behindId: sql(`SELECT event_id, type, payload, timestamp FROM events
      WHERE store = (SELECT number FROM stores WHERE store_id = ?) AND event_id > ?
      ORDER BY event_id LIMIT ?`),
    all: sql(`SELECT ${event} ${fromEvents} WHERE position > ? ORDER BY position LIMIT ?`),
    // By position: an index would give all of a store's events in another order.
    ofStore: sql(`SELECT ${event} ${fromEvents.replace("events", "events NOT INDEXED")}
      WHERE position > ? AND position <= ? AND events.store = ? ORDER BY position LIMIT ?`),
    end: sql("SELECT max(position) AS position FROM events"),
    storeIds: sql("SELECT store_id FROM stores ORDER BY store_id"),
    state: sql(`SELECT stores.*, coalesce(received, 0) AS received, coalesce(applied, 0) AS applied,
        (SELECT coalesce(max(sequence), 0) FROM commands WHERE commands.store_id = stores.store_id)
          AS queued,
        (SELECT count(*) FROM conflicts WHERE store = stores.number) AS conflicts,
        count(epochs.number) AS epochs, coalesce(sum(seen), 0) AS seen,
        coalesce(sum(highest - seen), 0) AS gaps,
        coalesce((SELECT highest - seen FROM epochs WHERE store = stores.number
          ORDER BY number DESC LIMIT 1), 0) AS current_gaps,
        coalesce((SELECT epoch FROM epochs WHERE store = stores.number
          ORDER BY number DESC LIMIT 1), '') AS epoch
      FROM stores LEFT JOIN progress USING (store_id) LEFT JOIN epochs ON epochs.store = stores.number
      WHERE store_id = ? GROUP BY stores.number`),
    insertConflict: sql(`INSERT INTO conflicts (store, event_id, at, reason) VALUES (?, ?, ?, ?)
      ON CONFLICT DO NOTHING`),
    see: sql("UPDATE stores SET seen_at = ? WHERE store_id = ?"),
    progress: sql(`INSERT INTO progress (store_id, received, applied) VALUES (?, ?, ?)
      ON CONFLICT (store_id) DO UPDATE SET received = excluded.received, applied = excluded.applied`),
    unpark: sql("DELETE FROM parked_commands WHERE store_id = ?"),
    park: sql(`INSERT INTO parked_commands (store_id, command_id, reason) VALUES (?, ?, ?)
      ON CONFLICT DO NOTHING`),
    report: sql(`UPDATE stores SET status = ?, reported_at = ?, clock_offset_ms = ?, seen_at = ?
      WHERE store_id = ?`),
  };
}
