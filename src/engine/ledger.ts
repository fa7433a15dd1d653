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
import { DiskRoom } from "../disk-room.ts";
import { StatusError } from "../errors.ts";
import { checksumOf, messageChecksum } from "../event-checksum.ts";
import {
  Database,
  databaseFile,
  freeBytes,
  inMemory,
  type Kind,
  type Lock,
  type Statement,
  takeLock,
} from "../sqlite.ts";
import {
  faultOfEvent,
  faultOfName,
  maxTakenPayloadBytes,
  type StoreEvent,
} from "../store-event.ts";
import { Boxes } from "./boxes.ts";
import {
  cancellationsSchema,
  commandsUpgrade,
  dispatchSchema,
  lastWantedSequence,
  receiptsSchema,
} from "./command-schema.ts";
import { Newcomers } from "./newcomers.ts";
import { type Page, readPage } from "./page.ts";
import { Presence } from "./presence.ts";
import { isUnsafe, safe, safeSum } from "./safe-integer.ts";

export interface OfferedEvent extends StoreEvent {
  readonly storeId: string;
  /** Empty: the store does not number its events. */
  readonly epoch: string;
  readonly seq: number;
  /** The result of the function of this name; undefined if the client sends none. */
  readonly messageChecksum?: number | undefined;
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
      readonly code: "invalid" | "conflict" | "seq taken" | "corrupt";
      readonly reason: string;
    }
  /** The store is new, and no new store can come now; nothing is kept of the event. */
  | { readonly kind: "try later"; readonly reason: string };

type TryLater = Extract<Outcome, { kind: "try later" }>;

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
  /** An operator has hidden it, and it was not heard of since. */
  readonly isForgotten: boolean;
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
  /**
   * Those that are not settled. Each conflict is parked at its store, so all are settled once the store
   * has reported, after the last conflict, that nothing is parked.
   */
  readonly openConflicts: number;
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
  /** What the disk has left; a test has its own. */
  readonly free?: (path: string) => number;
}

/**
 * What new events and commands leave on the disk for what the stores report and for checkpoints, in
 * bytes. The largest batch of events takes about 5 MB of the log.
 */
export const ledgerReserveBytes = 16 * 1024 * 1024;

/** Between two times that it is written down when stores were seen, in milliseconds. */
const saveSeenEveryMs = 10_000;

/** Of those, in one transaction: some milliseconds' worth. */
const maxSeenSaved = 200;

/**
 * Positions that are looked at in one call for one store: a few milliseconds, in which nothing else
 * goes on, however few of them are the store's.
 */
const maxLooked = 5_000;

/** The most alarms and the most parked commands of a report. */
export const maxAlarms = 10;
export const maxParkedCommands = 20;

/** The longest alarm or reason of a report that is kept, in UTF-16 units; the rest is cut. */
export const maxTextLength = 1_024;

/** The highest seq of an event, 2^40: a till that sold once a millisecond would need 34 years. */
export const maxSeq = 2 ** 40;

/** The most epochs of one store. It begins one after a restore or a move, and when it was cloned. */
export const maxEpochs = 1_000;

/**
 * The most seqs of one store that are kept without an event of theirs. Beyond, such a seq is not
 * noted and stays a gap.
 */
export const maxOtherSeqs = 100_000;

/** The most conflicts of one store that are kept. Beyond, a conflict is refused and not counted. */
export const maxConflicts = 10_000;

/** The most epochs that are kept in memory; the others are read from the disk when they are needed. */
export const maxEpochsInMemory = 20_000;

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

/** The table of stores that an operator has hidden. */
const forgottenSchema = `
    CREATE TABLE forgotten_stores (
      store_id  TEXT PRIMARY KEY,
      at        INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
`;

const kind: Kind = {
  name: "ledger",
  applicationId: 0x42724c64, // BrLd
  version: 4,
  upgrades: [
    `
    ALTER TABLE stores ADD COLUMN seen_at INTEGER NOT NULL DEFAULT 0;
    ${conflictsSchema}
    ${receiptsSchema}
    `,
    commandsUpgrade,
    `
    ALTER TABLE events ADD COLUMN checksum INTEGER;
    ${cancellationsSchema}
    ${forgottenSchema}
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
      checksum     INTEGER,                  -- see event-checksum.ts; NULL if version 3 took it
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
    ${forgottenSchema}
    ${dispatchSchema}
    ${cancellationsSchema}
  `,
};

export class Ledger {
  /** Random; made with the ledger. */
  readonly id: string;
  /** The queues of commands share the file. */
  readonly database: Database;
  /** Whether the disk had no room at the opening: the ledger can be read, and stores nothing yet. */
  readonly isDiskFull: boolean = false;
  /** Which stores are there now. */
  readonly presence: Presence;
  /** Which boxes speak for the stores. */
  readonly boxes: Boxes;
  readonly #now: () => number;
  readonly #lock: Lock | undefined;
  readonly #room: DiskRoom;
  readonly #statements: Statements;
  readonly #newcomers: Newcomers;
  readonly #stores = new Map<string, Store>();
  readonly #epochs = new Map<string, Epoch>();
  /** The stores that an operator has hidden, as the table of them has it. */
  readonly #forgotten: Set<string>;
  #seenSavedAt = 0;
  /** How many stores there are; undefined until somebody wants to know. */
  #storeCount: number | undefined;

  /**
   * Opens the ledger, making it if it is not there. Throws `StatusError`: FAILED_PRECONDITION, with
   * the process's id, if another server has it; what `Database` throws.
   */
  constructor({ folder, now, free = freeBytes }: LedgerOptions) {
    const path = folder === inMemory ? inMemory : databaseFile(join(folder, "ledger.db"));
    this.#now = now;
    this.presence = new Presence({
      now,
      isKnown: (storeId) => this.isKnown(storeId),
      onHeard: (storeId) => this.#unforget(storeId),
    });
    this.boxes = new Boxes({ now, isKnown: (storeId) => this.isKnown(storeId) });
    this.#newcomers = new Newcomers({ now });
    this.#lock = path === inMemory ? undefined : lockFor(path);
    let database: Database | undefined;
    try {
      database = new Database(path, kind);
      this.database = database;
      this.#room = new DiskRoom({
        ...{ database, reserveBytes: ledgerReserveBytes },
        free: path === inMemory ? () => Number.POSITIVE_INFINITY : () => free(path),
      });
      // We have the lock, so nobody has it open: the last server did not close it, or could not
      // read it. Its log alone would not tell that: it is gone when a damaged ledger was refused.
      const last = database.prepare("SELECT server_pid FROM ledger").get();
      if (database.hasHotLog || (last !== undefined && last["server_pid"] !== 0)) {
        database.check();
      }
      try {
        this.database.write(() => {
          this.database
            .prepare("INSERT INTO ledger (one, id) VALUES (1, ?) ON CONFLICT DO NOTHING")
            .run(randomBytes(8).toString("hex"));
          this.database.prepare("UPDATE ledger SET server_pid = ?").run(process.pid);
        });
      } catch (error) {
        // A ledger that is there can be read on a full disk too.
        if (
          last === undefined ||
          !(error instanceof StatusError) ||
          error.code !== "RESOURCE_EXHAUSTED"
        ) {
          throw error;
        }
        this.isDiskFull = true;
      }
      this.id = String(this.database.prepare("SELECT id FROM ledger").get()?.["id"]);
      this.#statements = prepare(this.database);
      const forgotten = this.#statements.forgotten.all();
      this.#forgotten = new Set(forgotten.map((row) => String(row["store_id"])));
    } catch (error) {
      const explained = database?.explain(error) ?? error;
      database?.close();
      this.#lock?.release();
      throw explained;
    }
  }

  /**
   * Takes a batch, in order, in one transaction; the outcomes are in the same order. An event that is
   * refused costs no other. Throws RESOURCE_EXHAUSTED while the disk is full and what the disk throws,
   * and then nothing of the batch was taken.
   */
  take(events: readonly OfferedEvent[]): Outcome[] {
    this.insistOnRoom();
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
      this.#forgetCounts();
      throw error;
    } finally {
      this.#forgetOldEpochs();
    }
  }

  /** Throws RESOURCE_EXHAUSTED if events and commands that are new have no room on the disk. */
  insistOnRoom(): void {
    this.#room.insistOnEnough({
      keptFor: "what stores report",
      hint: "nothing was stored, and stores keep their events until they are; make room",
    });
  }

  /** For a transaction that was rolled back: what was counted beside the database did not happen. */
  #forgetCounts(): void {
    this.#epochs.clear();
    this.#stores.clear();
    this.#storeCount = undefined;
  }

  #forgetOldEpochs(): void {
    for (const key of this.#epochs.keys()) {
      if (this.#epochs.size <= maxEpochsInMemory) {
        return;
      }
      this.#epochs.delete(key);
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
    const refusal = refusalOf(event);
    if (refusal !== undefined) {
      return refusal;
    }
    const known = this.#store(storeId);
    if ("kind" in known) {
      return known;
    }
    const { number: store } = known;
    const epoch = event.epoch === "" ? undefined : this.#epoch(known, event.epoch);
    if (event.epoch !== "" && epoch === undefined) {
      return refused("invalid", `the store has had ${maxEpochs} epochs, and no more are allowed`);
    }
    const fault = faultOfEvent(event, maxTakenPayloadBytes);
    if (fault !== undefined) {
      this.#see(known, epoch, { seq, eventId, why: fault });
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
        keptChecksum(event),
      );
      if (changes === 1) {
        if (other === eventId) {
          // It was refused before, and somebody has put that right.
          this.#statements.forgetOther.run(epoch?.number ?? 0, seq);
          known.otherSeqs = undefined;
        } else if (epoch !== undefined) {
          count(epoch, seq);
        }
        return { kind: "accepted" };
      }
    }
    const taken = this.#statements.byId.get(store, eventId);
    if (taken === undefined) {
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
      ...(taken["type"] === type ? [] : ["type"]),
      ...(textOf(taken["payload"]) === payload ? [] : ["payload"]),
      ...(taken["timestamp"] === timestamp ? [] : ["timestamp"]),
    ];
    if (differs.length > 0 && this.#mend(store, event)) {
      return { kind: "duplicate" };
    }
    const conflict = `event_id is taken by an event with another ${differs.join(" and ")}`;
    const why = differs.length === 0 ? "duplicate" : conflict;
    this.#see(known, epoch, { seq, eventId, why });
    if (differs.length > 0) {
      this.#noteConflict(known, { eventId, at, why });
    }
    return differs.length === 0 ? { kind: "duplicate" } : refused("conflict", conflict);
  }

  /**
   * Puts a row right that is corrupt on this disk, from the same event that its store sends again: it
   * has the checksum that was kept, and the row has not. Returns whether it did.
   */
  #mend(store: number, event: OfferedEvent): boolean {
    const { storeId, eventId, type, payload, timestamp } = event;
    const row = this.#statements.kept.get(store, eventId) ?? {};
    const origin = { storeId, epoch: String(row["epoch"]), seq: Number(row["seq"]) };
    const isAsKept = (content: StoreEvent) =>
      messageChecksum(checksumOf(content), origin) === row["checksum"];
    const here: StoreEvent = {
      ...{ eventId, type: String(row["type"]), payload: textOf(row["payload"]) },
      timestamp: Number(row["timestamp"]),
    };
    if (!isAsKept(event) || isAsKept(here)) {
      return false;
    }
    this.#statements.mend.run(type, Buffer.from(payload), timestamp, store, eventId);
    return true;
  }

  /** Remembers a seq that leaves no event; not one that is another event's. */
  #see(
    store: Store,
    epoch: Epoch | undefined,
    { seq, eventId, why }: { readonly seq: number; readonly eventId: string; readonly why: string },
  ): void {
    if (epoch === undefined || this.#statements.bySeq.get(epoch.number, seq) !== undefined) {
      return;
    }
    store.otherSeqs ??= this.#countOf(this.#statements.countOthers, store);
    if (store.otherSeqs >= maxOtherSeqs) {
      return;
    }
    // An event whose id is not valid can never be put right under that id.
    const id = faultOfName("event_id", eventId) === undefined ? eventId : "";
    const { changes } = this.#statements.insertOther.run(epoch.number, seq, id, why);
    epoch.hasOthers = true;
    if (changes === 1) {
      store.otherSeqs += 1;
      count(epoch, seq);
    }
  }

  #noteConflict(
    store: Store,
    { eventId, at, why }: { readonly eventId: string; readonly at: number; readonly why: string },
  ): void {
    store.conflicts ??= this.#countOf(this.#statements.countConflicts, store);
    if (store.conflicts < maxConflicts) {
      const { changes } = this.#statements.insertConflict.run(store.number, eventId, at, why);
      store.conflicts += Number(changes);
    }
  }

  #countOf(statement: Statement, { number }: Store): number {
    return Number(statement.get(number)?.["n"]);
  }

  #otherAt(epoch: Epoch, seq: number): string | undefined {
    const row = epoch.hasOthers ? this.#statements.otherAt.get(epoch.number, seq) : undefined;
    return row && String(row["event_id"]);
  }

  /** A store, made known if it is new; or why it cannot come now. Within a transaction. */
  #store(storeId: string): Store | TryLater {
    let store = this.#stores.get(storeId);
    if (store === undefined) {
      let row = this.#statements.store.get(storeId);
      if (row === undefined) {
        this.#storeCount ??= Number(this.#statements.countStores.get()?.["n"]);
        const reason = this.#newcomers.admit(this.#storeCount);
        if (reason !== undefined) {
          return { kind: "try later", reason };
        }
        this.#statements.insertStore.run(storeId);
        this.#storeCount += 1;
        row = this.#statements.store.get(storeId);
      }
      store = { number: Number(row?.["number"]) };
      this.#stores.set(storeId, store);
    }
    return store;
  }

  /** One of a store's epochs, begun if it is new; undefined if the store can begin no more. */
  #epoch(known: Store, name: string): Epoch | undefined {
    const { number: store } = known;
    const key = `${store} ${name}`;
    let epoch = this.#epochs.get(key);
    if (epoch === undefined) {
      let row = this.#statements.epoch.get(store, name);
      if (row === undefined) {
        known.epochs ??= this.#countOf(this.#statements.countEpochs, known);
        if (known.epochs >= maxEpochs) {
          return undefined;
        }
        this.#statements.insertEpoch.run(store, name);
        known.epochs += 1;
        row = this.#statements.epoch.get(store, name);
      }
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

  /**
   * Events after a position, in the order in which they were taken: at most `limit`, and fewer if they
   * are large, so only an empty answer is the end.
   */
  events({
    after,
    limit,
  }: {
    readonly after: number;
    readonly limit: number;
  }): readonly TakenEvent[] {
    return this.#page(this.#statements.all.iterate(after, limit), limit).items;
  }

  #page(rows: Iterable<unknown[]>, limit: number): Page<TakenEvent> {
    return readPage(rows, { limit, read: readEvent, sizeOf: ({ payload }) => payload.length });
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
    const rows = this.#statements.ofStore.iterate(from, through, Number(store), limit);
    const { items: events, isFull } = this.#page(rows, limit);
    const last = isFull ? events.at(-1) : undefined;
    const got = last?.position ?? through;
    return { events, through: got, isAtEnd: got >= end };
  }

  /**
   * A store's events behind an id, in the order of the bytes of the ids, at most `limit`, and fewer if
   * they are large: only an empty answer is the end.
   */
  eventsById(storeId: string, after: string, limit: number): readonly StoreEvent[] {
    return readPage<StoreEvent>(this.#statements.behindId.iterate(storeId, after, limit), {
      limit,
      read: ([eventId, type, payload, timestamp]) => ({
        eventId: String(eventId),
        type: String(type),
        payload: textOf(payload),
        timestamp: Number(timestamp),
      }),
      sizeOf: ({ payload }) => payload.length,
    }).items;
  }

  /** How many events there are. */
  size(): number {
    return Number(this.database.prepare("SELECT count(*) AS n FROM events").get()?.["n"]);
  }

  /**
   * Makes stores known that have asked for something and sent nothing yet, in one transaction. Returns
   * for each why it cannot come now, or undefined.
   */
  know(storeIds: readonly string[]): (string | undefined)[] {
    const at = this.#now();
    try {
      return this.database.write(() =>
        storeIds.map((storeId) => {
          const store = this.#store(storeId);
          if ("kind" in store) {
            return store.reason;
          }
          this.#statements.see.run(at, storeId);
          return undefined;
        }),
      );
    } catch (error) {
      this.#forgetCounts();
      throw error;
    }
  }

  /** Whether the cloud has ever heard of a store. */
  isKnown(storeId: string): boolean {
    return this.#stores.has(storeId) || this.#statements.store.get(storeId) !== undefined;
  }

  /**
   * Hides a store that was closed until it is heard of again. Its events and their ids stay for ever.
   * Throws `StatusError`: NOT_FOUND for a store that was never heard of, FAILED_PRECONDITION for one that
   * is connected now, and what the disk throws.
   */
  forget(storeId: string): void {
    if (!this.isKnown(storeId)) {
      const message = `the cloud has never heard of a store ${JSON.stringify(storeId)}`;
      throw new StatusError("NOT_FOUND", message);
    }
    if (this.presence.isConnected(storeId)) {
      throw new StatusError(
        "FAILED_PRECONDITION",
        `store ${storeId} is connected now, and would be back at once; stop its bridge first`,
      );
    }
    this.database.write(() => this.#statements.forget.run(storeId, this.#now()));
    this.#forgotten.add(storeId);
    this.presence.touch([storeId]);
  }

  /** Shows a store again that was hidden. Also within a transaction. */
  #unforget(storeId: string): void {
    if (this.#forgotten.delete(storeId)) {
      this.#statements.unforget.run(storeId);
    }
  }

  /** All stores that it has ever heard of but for those that are hidden, in the order of their ids. */
  storeIds(): string[] {
    return this.#statements.storeIds.all().map((row) => String(row["store_id"]));
  }

  /**
   * What is known of a store; undefined for one that was never heard of. What cannot be read of it is
   * left out and told as an alarm: it must not end a list of all stores.
   */
  store(storeId: string): StoreState | undefined {
    const row = this.#statements.state.get(storeId);
    if (row === undefined) {
      return undefined;
    }
    const { report, fault } = readStatus(String(row["status"]));
    const unreadable = [
      fault,
      ...(row["has_far_commands"] === 1 ? ["a command with a sequence beyond 2^53 - 1"] : []),
      ...(row["has_far_numbers"] === 1 ? ["a time or a count beyond 2^53 - 1"] : []),
    ].filter((what) => what !== undefined);
    const isConnected = this.presence.isConnected(storeId);
    const rivals = this.boxes.alarm(storeId);
    return {
      storeId,
      isConnected,
      isForgotten: this.#forgotten.has(storeId),
      // Of what is on the disk it may be that it is from a clock which has been set back since.
      lastSeen: this.presence.seenAt(storeId) || Number(row["seen_at"]),
      reportedAt: Number(row["reported_at"]),
      depth: countOf(report.depth),
      bytes: countOf(report.bytes),
      oldestUnacked: countOf(report.oldestUnacked),
      parked: countOf(report.parked),
      gaps: Number(row["gaps"]),
      currentGaps: Number(row["current_gaps"]),
      seen: Number(row["seen"]),
      conflicts: Number(row["conflicts"]),
      openConflicts:
        countOf(report.parked) > 0 ? Number(row["conflicts"]) : Number(row["new_conflicts"]),
      clockOffsetMs: Number(row["clock_offset_ms"]),
      queuedSequence: Number(row["queued"]),
      receivedSequence: Number(row["received"]),
      appliedSequence: Number(row["applied"]),
      commandsParked: countOf(report.commandsParked),
      epoch: String(report.epoch || row["epoch"]),
      epochs: Number(row["epochs"]),
      version: String(report.version ?? ""),
      alarms: [
        ...(rivals === undefined ? [] : [rivals]),
        ...unreadable.map((what) => `the ledger holds a row that cannot be read: ${what}`),
        ...(Array.isArray(report.alarms) ? report.alarms.map(String) : []),
      ],
    };
  }

  /**
   * Keeps reports of stores, each in place of the one before, in one transaction. Returns how far each
   * store's clock is ahead of ours, in milliseconds, or why a new store cannot come now. How far a
   * store is with its commands counts only if they are this ledger's.
   */
  report(reports: readonly StatusReport[]): (number | TryLater)[] {
    this.#room.look();
    try {
      return this.database.write(() => {
        const results = reports.map((report) => this.#keepReport(report));
        this.#saveSeen(this.#now());
        this.presence.changed.ring();
        return results;
      });
    } catch (error) {
      this.#forgetCounts();
      throw error;
    }
  }

  #keepReport({ cameAt, parkedCommands, ...report }: StatusReport): number | TryLater {
    const { storeId } = report;
    const store = this.#store(storeId);
    if ("kind" in store) {
      return store;
    }
    const offsetMs = report.sentAt - cameAt;
    const { progress, unpark, park } = this.#statements;
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
    this.presence.hear(storeId, cameAt);
    return offsetMs;
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

/** What the ledger keeps in memory of a store. The counts are undefined until they are needed. */
interface Store {
  readonly number: number;
  epochs?: number | undefined;
  otherSeqs?: number | undefined;
  conflicts?: number | undefined;
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

/**
 * Says what is wrong with where an event comes from: its store, epoch and seq. Nothing is kept of such
 * an event, not even that it came.
 */
function faultOfOrigin({
  storeId,
  epoch,
  seq,
}: Pick<OfferedEvent, "storeId" | "epoch" | "seq">): string | undefined {
  const fault = faultOfName("store_id", storeId);
  if (fault !== undefined || epoch === "") {
    return fault;
  }
  return (
    faultOfName("epoch", epoch) ??
    (Number.isSafeInteger(seq) && seq >= 1 && seq <= maxSeq
      ? undefined
      : `seq is ${seq}; expected 1 to ${maxSeq}`)
  );
}

/**
 * Says why an event is refused whatever the ledger holds: it was changed on the way here, or where it
 * comes from makes no sense. Nothing is kept of such an event. The checksum comes first, since any other
 * fault of a corrupt event is not the store's.
 */
export function refusalOf(event: OfferedEvent): Outcome | undefined {
  const claimed = event.messageChecksum;
  if (claimed !== undefined && claimed !== messageChecksum(checksumOf(event), event)) {
    return refused("corrupt", "the event does not have its checksum: it was changed on the way");
  }
  const fault = faultOfOrigin(event);
  return fault === undefined ? undefined : refused("invalid", fault);
}

/** Returns the checksum for an event's row, in which an event that is not numbered has the seq 0. */
function keptChecksum(event: OfferedEvent): number {
  return event.epoch === "" || event.messageChecksum === undefined
    ? messageChecksum(checksumOf(event), event.epoch === "" ? { ...event, seq: 0 } : event)
    : event.messageChecksum;
}

/** A count of a report that an older version may have kept unchecked. */
function countOf(value: unknown): number {
  return Number.isSafeInteger(value) ? Number(value) : 0;
}

function readStatus(status: string): {
  readonly report: Partial<StatusReport>;
  readonly fault?: string;
} {
  if (status === "") {
    return { report: {} };
  }
  try {
    const report: unknown = JSON.parse(status);
    if (typeof report === "object" && report !== null) {
      return { report };
    }
  } catch {
    // Told below, as any other status that is not a report.
  }
  return { report: {}, fault: "the store's last report" };
}

function textOf(blob: unknown): string {
  const { buffer, byteOffset, byteLength } = blob as Uint8Array;
  return Buffer.from(buffer, byteOffset, byteLength).toString();
}

/** Not in the middle of a character. */
function shortened(text: string): string {
  return text.slice(0, maxTextLength).toWellFormed();
}

function readEvent(row: unknown[]): TakenEvent {
  const [position, storeId, eventId, type, payload, timestamp, epoch, seq, receivedAt] = row;
  const [, , , , , , , , , checksum] = row;
  return {
    position: Number(position),
    storeId: String(storeId),
    eventId: String(eventId),
    type: String(type),
    payload: textOf(payload),
    timestamp: Number(timestamp),
    epoch: String(epoch),
    seq: Number(seq),
    receivedAt: Number(receivedAt),
    ...(typeof checksum === "number" ? { messageChecksum: checksum } : {}),
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
  const event = `position, store_id, event_id, type, payload, ${safe("timestamp")},
    coalesce(epochs.epoch, ''), ${safe("seq")}, ${safe("received_at")}, checksum`;
  const fromEvents =
    "FROM events JOIN stores ON stores.number = events.store LEFT JOIN epochs ON epochs.number = events.epoch";
  return {
    insert: sql(`INSERT INTO events
      (store, event_id, type, payload, timestamp, epoch, seq, received_at, checksum)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`),
    byId: sql(`SELECT type, payload, ${safe("timestamp")} AS timestamp FROM events
      WHERE store = ? AND event_id = ?`),
    kept: sql(`SELECT type, payload, ${safe("timestamp")} AS timestamp, checksum,
        coalesce(epochs.epoch, '') AS epoch, ${safe("seq")} AS seq
      FROM events LEFT JOIN epochs ON epochs.number = events.epoch
      WHERE events.store = ? AND event_id = ?`),
    mend: sql(`UPDATE events SET type = ?, payload = ?, timestamp = ?
      WHERE store = ? AND event_id = ?`),
    bySeq: sql("SELECT 1 FROM events WHERE epoch = ? AND epoch > 0 AND seq = ?"),
    insertOther: sql(`INSERT INTO other_seqs (epoch, seq, event_id, why) VALUES (?, ?, ?, ?)
      ON CONFLICT DO NOTHING`),
    otherAt: sql("SELECT event_id FROM other_seqs WHERE epoch = ? AND seq = ?"),
    anyOther: sql("SELECT 1 FROM other_seqs WHERE epoch = ? LIMIT 1"),
    forgetOther: sql("DELETE FROM other_seqs WHERE epoch = ? AND seq = ?"),
    insertStore: sql("INSERT INTO stores (store_id) VALUES (?) ON CONFLICT DO NOTHING"),
    store: sql("SELECT number FROM stores WHERE store_id = ?"),
    insertEpoch: sql("INSERT INTO epochs (store, epoch) VALUES (?, ?) ON CONFLICT DO NOTHING"),
    epoch: sql(`SELECT number, ${safe("highest")} AS highest, ${safe("seen")} AS seen FROM epochs
      WHERE store = ? AND epoch = ?`),
    advance: sql("UPDATE epochs SET highest = ?, seen = ? WHERE number = ?"),
    seen: sql(`SELECT ${safe("highest")} AS highest FROM epochs JOIN stores ON stores.number = store
      WHERE store_id = ? AND epoch = ?`),
    gaps: sql(`SELECT epoch, ${safe("highest")} AS highest, ${safe("seen")} AS seen
      FROM epochs JOIN stores ON stores.number = store
      WHERE store_id = ? ORDER BY epochs.number`),
    behindId: sql(`SELECT event_id, type, payload, ${safe("timestamp")} FROM events
      WHERE store = (SELECT number FROM stores WHERE store_id = ?) AND event_id > ?
      ORDER BY event_id LIMIT ?`),
    all: sql(`SELECT ${event} ${fromEvents} WHERE position > ? ORDER BY position LIMIT ?`),
    // By position: an index would give all of a store's events in another order.
    ofStore: sql(`SELECT ${event} ${fromEvents.replace("events", "events NOT INDEXED")}
      WHERE position > ? AND position <= ? AND events.store = ? ORDER BY position LIMIT ?`),
    end: sql("SELECT max(position) AS position FROM events"),
    storeIds: sql(`SELECT store_id FROM stores
      WHERE store_id NOT IN (SELECT store_id FROM forgotten_stores) ORDER BY store_id`),
    forgotten: sql("SELECT store_id FROM forgotten_stores"),
    forget: sql("INSERT INTO forgotten_stores (store_id, at) VALUES (?, ?) ON CONFLICT DO NOTHING"),
    unforget: sql("DELETE FROM forgotten_stores WHERE store_id = ?"),
    countStores: sql("SELECT count(*) AS n FROM stores"),
    countEpochs: sql("SELECT count(*) AS n FROM epochs WHERE store = ?"),
    countOthers: sql(`SELECT count(*) AS n FROM other_seqs
      WHERE epoch IN (SELECT number FROM epochs WHERE store = ?)`),
    countConflicts: sql("SELECT count(*) AS n FROM conflicts WHERE store = ?"),
    state: sql(`SELECT status, ${safe("reported_at")} AS reported_at,
        ${safe("clock_offset_ms")} AS clock_offset_ms, ${safe("seen_at")} AS seen_at,
        ${safe("coalesce(received, 0)")} AS received, ${safe("coalesce(applied, 0)")} AS applied,
        ${lastWantedSequence("stores.store_id")} AS queued,
        EXISTS (SELECT 1 FROM commands WHERE commands.store_id = stores.store_id
          AND sequence > ${Number.MAX_SAFE_INTEGER}) AS has_far_commands,
        ${isUnsafe("reported_at", "clock_offset_ms", "seen_at")}
          OR ${isUnsafe("coalesce(received, 0)", "coalesce(applied, 0)")}
          OR coalesce(max(${isUnsafe("highest", "seen", "highest - seen")}), 0) AS has_far_numbers,
        (SELECT count(*) FROM conflicts WHERE store = stores.number) AS conflicts,
        (SELECT count(*) FROM conflicts WHERE store = stores.number AND at > reported_at)
          AS new_conflicts,
        count(epochs.number) AS epochs, ${safeSum("seen")} AS seen,
        ${safeSum("highest - seen")} AS gaps,
        coalesce((SELECT ${safe("highest - seen")} FROM epochs WHERE store = stores.number
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
