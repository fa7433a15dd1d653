/**
 * The outbox: a store's durable, ordered buffer of events, one SQLite file a store.
 *
 * What must hold, whatever happens to the process, the machine or the network:
 *
 * - `append` returns only after the events are on the disk.
 * - An event leaves the pending ones only by an answer that names it: `settle`.
 * - event_id is unique. The same event again is the same answer; the same id with another content is
 *   refused, never taken for the same.
 * - (epoch, seq) is contiguous in the order of appending. A new epoch is minted when the numbers can
 *   no longer be trusted: when the cloud knows another event by one of them, and after a salvage,
 *   which leaves the numbers of the events that it could read as they were.
 * - Nothing is dropped when the disk is full: appending is refused while there is still room to mark
 *   what the cloud acknowledges.
 * - A file that cannot be read is set aside, never deleted, and what is readable goes on.
 *
 * Any process may append and look. One alone may drain: see `drainerOf`.
 */

import { existsSync, rmSync } from "node:fs";
import { formatBytes } from "../bytes.ts";
import { systemUptime, type Uptime } from "../clock.ts";
import { DiskRoom, type Room } from "../disk-room.ts";
import { StatusError } from "../errors.ts";
import { type ChecksummedEvent, checksumOf, isCorrupt } from "../event-checksum.ts";
import { type DigestCell, DigestCells, dayOf, digestOf } from "../event-digest.ts";
import { makePrivateFile } from "../private-file.ts";
import {
  BusyError,
  bytesOf,
  type Database,
  databaseFile,
  freeBytes,
  inMemory,
  type Lock,
  type Statement,
  takeLock,
} from "../sqlite.ts";
import {
  faultOfEvent,
  faultOfName,
  maxRecordedPayloadBytes,
  type StoreEvent,
} from "../store-event.ts";
import { AgeClock } from "./age-clock.ts";
import { finishArrival, isArriving } from "./arrival.ts";
import {
  lockPath,
  mintEpoch,
  openOrSalvage,
  openWhole,
  renumber,
  resumeSalvage,
  salvagingPath,
  storeOf,
} from "./buffer-file.ts";
import { type HandedOver, handedOver, insistOnOurs } from "./hand-over-mark.ts";
import { HighWaterMark, highWaterOf, noteLostTail } from "./high-water.ts";
import { acknowledged, markSalvaged, type Salvaged, salvagedIn } from "./salvage-mark.ts";

/**
 * `pending`: no final answer yet. `acked`: the cloud has it; kept for a while, for `replay`.
 * `parked`: refused for good, or too often; waits for a person.
 */
export const eventStates = ["pending", "acked", "parked"] as const;
export type EventState = (typeof eventStates)[number];

/** An event in the outbox. */
export interface Recorded extends ChecksummedEvent {
  /** The order of appending; never used twice. */
  readonly position: number;
  readonly epoch: string;
  readonly seq: number;
  readonly state: EventState;
  /** How often the cloud has refused it. */
  readonly attempts: number;
  /** Unix milliseconds before which it is not sent again; 0: at once. */
  readonly notBefore: number;
  /** Why it was refused last; empty if it never was. */
  readonly reason: string;
  /**
   * When it was acked or parked, in milliseconds by the buffer's age clock, which is near Unix time on a
   * machine that is never off; 0 if it never was.
   */
  readonly settledAt: number;
}

/** An event to be recorded. */
export interface NewEvent extends Omit<StoreEvent, "timestamp"> {
  /**
   * Left out: now. Then the same event again is the same, whenever that is, and keeps the first time.
   */
  readonly timestamp?: number | undefined;
}

/** What became of an event that was to be recorded. */
export type Appended =
  | {
      readonly kind: "recorded";
      readonly event: Recorded;
      /** False if it was there already. */
      readonly isNew: boolean;
    }
  | { readonly kind: "refused"; readonly why: StatusError };

/** What the cloud's answer, or the lack of one, makes of an event. */
export type Settlement =
  | { readonly kind: "acked"; readonly position: number }
  /** To be sent again, not before `notBefore`. */
  | {
      readonly kind: "retry";
      readonly position: number;
      readonly notBefore: number;
      readonly reason: string;
    }
  | { readonly kind: "parked"; readonly position: number; readonly reason: string };

export interface OutboxCounts {
  readonly pending: number;
  readonly acked: number;
  readonly parked: number;
  /** The timestamp of the pending or parked event that was recorded first; undefined without one. */
  readonly oldestUnacked: number | undefined;
}

/** What the cloud says of its ledger. */
export interface LedgerSeen {
  readonly ledgerId: string;
  /** The epoch that it was asked about. */
  readonly epoch: string;
  /** The highest seq of it that the ledger has seen; undefined if it does not say. */
  readonly seen: number | undefined;
}

export interface OutboxOptions {
  /** The file; `:memory:` for one that is to be forgotten. */
  readonly path: string;
  /** Whose it is; if left out, the file must be there already. */
  readonly storeId?: string | undefined;
  /** Unix milliseconds. */
  readonly now: () => number;
  /** How long the machine has been running; a test has its own. */
  readonly uptime?: () => Uptime;
  /** What the disk has left; a test has its own. */
  readonly free?: (path: string) => number;
  /** Is told of each event that was parked because it is corrupt on this disk. */
  readonly onCorrupt?: ((event: Recorded) => void) | undefined;
  /** False: a damaged file is refused with `DamagedError` and stays as it is. The check reads all of it. */
  readonly salvages?: boolean;
}

/** Which of the acknowledged events are to go, and from where on to look for them. */
export interface PruneOptions {
  /** A position; those behind it are looked at. */
  readonly after?: number;
  /** How long ago an event must have been acknowledged, in milliseconds by the age clock. */
  readonly keepMs?: number;
}

export interface PruneStep {
  readonly removed: number;
  /** Where to go on: the `after` of the next step. */
  readonly next: number;
}

/** Of what was pruned; left out: all of it. */
export interface PrunedRange {
  readonly type?: string;
  /** The first and the last day, as `dayOf`. */
  readonly fromDay?: string;
  readonly toDay?: string;
}

/**
 * What an append leaves on the disk for the marks of what is acknowledged, in bytes. A mark changes a
 * few pages, and SQLite's log grows to about 4 MB before it begins anew.
 */
export const reserveBytes = 16 * 1024 * 1024;

/**
 * The most marks of one transaction while the disk is nearly full. Each may change a page of its own, so
 * the log takes half a megabyte.
 */
const marksWhenShort = 128;

/** How long acknowledged events are kept, in milliseconds: as long as a cloud may lose its memory. */
export const retentionMs = 7 * 24 * 3_600_000;

/** The reason of an event that is parked because its row does not have its checksum any more. */
export const corruptHere = "corrupt on the store's disk: it does not have its checksum";

/** No refused event is asked to wait for longer, in milliseconds. */
export const maxRetryWaitMs = 600_000;

/** Of the payloads that are read at a time, in characters: four of the largest. */
const maxPageSize = 4 * maxRecordedPayloadBytes;

/**
 * Of a step of pruning, so that no till waits for long: rows looked at, bytes of their payloads, and
 * rows removed. Among a million the ids of a hundred are on as many pages, which takes about 5 ms.
 */
const maxLooked = 500;
const maxLookedBytes = 1024 * 1024;
const maxPruned = 100;

/** How long the lock of the drainer is waited for, in milliseconds: others look whether it is free. */
const lookedMs = 200;

/** In the order in which `#read` takes them. */
const columns =
  "position, event_id, type, payload, timestamp, epoch, seq, state, attempts, not_before, reason, settled_at, checksum";

/** A row as an array, which costs half of one as an object. */
type EventRow = [
  ...[position: number, eventId: string, type: string, payload: Uint8Array, timestamp: number],
  ...[epoch: number, seq: number, state: number, attempts: number, notBefore: number],
  ...[reason: string, settledAt: number, checksum: number | null],
];

/** Positions that are looked at in a step of a replay: some milliseconds. */
const replayStep = 5_000;

export class Outbox {
  readonly path: string;
  readonly storeId: string;
  /** The inbox shares the file, so that a command and its cursor are one transaction. */
  readonly database: Database;
  /**
   * Whether this opening has salvaged a damaged file, finished a salvage that was interrupted, or found
   * that the last events are gone; then `salvaged` tells what became of it. A later opening of the same file finds false here.
   */
  readonly hasJustSalvaged: boolean;
  readonly #now: () => number;
  readonly #room: DiskRoom;
  readonly #age: AgeClock;
  readonly #onCorrupt: (event: Recorded) => void;
  readonly #statements: Statements;
  readonly #highWater: HighWaterMark;
  /** Of this connection, which does not see its own in SQLite's data version. */
  #appends = 0;
  /** The names of epochs, by their numbers here. */
  readonly #epochs = new Map<number, string>();

  /**
   * Opens the file, making it if it is not there; checks it if it was not closed properly; salvages
   * what is readable if it is damaged. Throws `StatusError`: INVALID_ARGUMENT for a wrong store id,
   * NOT_FOUND without a store id and a file, FAILED_PRECONDITION for another store's file, and what
   * `Database` throws.
   */
  constructor(options: OutboxOptions) {
    const {
      path: name,
      storeId,
      now,
      uptime = systemUptime,
      free = freeBytes,
      onCorrupt = () => {},
      salvages = true,
    } = options;
    const path = databaseFile(name);
    const fault = storeId === undefined ? undefined : faultOfName("store_id", storeId);
    if (fault !== undefined) {
      throw new StatusError("INVALID_ARGUMENT", fault);
    }
    if (isArriving(path)) {
      finishArrival(path);
    }
    const hasResumed = salvages && existsSync(salvagingPath(path)) && resumeSalvage(path);
    if (storeId === undefined && !existsSync(path)) {
      throw new StatusError("NOT_FOUND", `no store buffer ${path}`, {
        hint: "name the store that it is for with --store, and it is made",
      });
    }
    this.path = path;
    this.#now = now;
    this.#onCorrupt = onCorrupt;
    const highWater = highWaterOf(path);
    const { database, isSalvaged } = salvages
      ? openOrSalvage(path, { storeId, now, probe: prepare })
      : { database: openWhole(path, prepare), isSalvaged: false };
    this.database = database;
    this.#room = new DiskRoom({
      ...{ database, reserveBytes },
      free: path === inMemory ? () => Number.POSITIVE_INFINITY : () => free(path),
    });
    this.#age = new AgeClock({ database, now, uptime });
    try {
      this.storeId = this.#belongTo(storeId);
      const hasLost = noteLostTail(database, highWater, now());
      this.hasJustSalvaged = hasResumed || isSalvaged || hasLost;
    } catch (error) {
      this.database.close();
      throw error;
    }
    this.#statements = prepare(this.database);
    this.#highWater = new HighWaterMark(path);
  }

  /** The store id of the file; a new file is given one. */
  #belongTo(storeId: string | undefined): string {
    const known = storeOf(this.database);
    if (known === undefined) {
      if (storeId === undefined) {
        throw new StatusError("NOT_FOUND", `${this.path} belongs to no store yet`, {
          hint: "name the store that it is for with --store",
        });
      }
      // From now on this file is known as ours, whatever becomes of what is in it.
      if (this.path !== inMemory) {
        takeLock(lockPath(this.path))?.release();
      }
      this.database.write(() => {
        // Another process may have been faster.
        if (existsSync(salvagingPath(this.path))) {
          throw new StatusError("UNAVAILABLE", `${this.path} is just being salvaged`, {
            hint: "try again",
          });
        }
        if (storeOf(this.database) === undefined) {
          this.database
            .prepare("INSERT INTO outbox (one, store_id, epoch, next_seq) VALUES (1, ?, ?, 1)")
            .run(storeId, mintEpoch(this.database));
        }
      });
    }
    const owner = storeOf(this.database) ?? "";
    if (storeId !== undefined && owner !== storeId) {
      throw new StatusError(
        "FAILED_PRECONDITION",
        `${this.path} is the buffer of store ${owner}, not of ${storeId}`,
        { hint: "each store has a file of its own" },
      );
    }
    return owner;
  }

  /**
   * Records events, in order, in one transaction; on the disk when this returns. An event that is
   * refused costs no other, and says why: INVALID_ARGUMENT for one that the cloud would refuse,
   * ALREADY_EXISTS for an event_id that is there with another content. Throws, and nothing was
   * recorded, what `Database` throws, RESOURCE_EXHAUSTED when the disk is full, and
   * FAILED_PRECONDITION when the buffer was handed over to another box.
   */
  append(events: readonly NewEvent[]): Appended[] {
    this.#room.insistOnEnough({
      keptFor: "what the cloud acknowledges",
      hint: "nothing was recorded, nothing was lost; make room, or remove what is acknowledged: brewctl store-sync prune",
    });
    for (;;) {
      try {
        return this.#append(events);
      } catch (error) {
        // A till waits as long as that takes. A mark that was left behind makes it no longer.
        if (!(error instanceof BusyError && existsSync(compactingPath(this.path)))) {
          throw error;
        }
      }
    }
  }

  #append(events: readonly NewEvent[]): Appended[] {
    const { insert, advance } = this.#statements;
    let last = { epoch: "", seq: 0 };
    const appended = this.database.write(() => {
      this.insistOnOurs();
      const { epoch, name, next } = this.#numbering();
      let seq = next;
      const at = this.#now();
      const appended = events.map((event): Appended => {
        const { eventId, type, payload, timestamp = at } = event;
        const fault = faultOfEvent({ ...event, timestamp }, maxRecordedPayloadBytes);
        if (fault !== undefined) {
          return refused("INVALID_ARGUMENT", `event ${JSON.stringify(eventId)}: ${fault}`);
        }
        const checksum = checksumOf({ eventId, type, payload, timestamp });
        const { changes, lastInsertRowid } = insert.run(
          eventId,
          type,
          Buffer.from(payload),
          timestamp,
          epoch,
          seq,
          checksum,
          at,
        );
        const known = changes === 0 ? this.#byId(eventId) : undefined;
        if (known !== undefined) {
          return this.#mend(event, known) ?? again(event, known);
        }
        seq += 1;
        const recorded: Recorded = {
          ...{ eventId, type, payload, timestamp, checksum },
          position: Number(lastInsertRowid),
          ...{ epoch: name, seq: seq - 1 },
          ...{ state: "pending", attempts: 0, notBefore: 0, reason: "", settledAt: 0 },
        };
        return { kind: "recorded", event: recorded, isNew: true };
      });
      advance.run(seq);
      this.#appends += 1;
      last = { epoch: name, seq: seq - 1 };
      return appended;
    });
    // After the commit: a number that was rolled back is not one that was given.
    this.#highWater.note(last);
    return appended;
  }

  /**
   * Puts an event right that is corrupt on this disk, from the same event that a till repeats: it has the
   * checksum that was kept. Returns undefined if nothing is wrong, or this is another event. Within a
   * transaction.
   */
  #mend(event: NewEvent, known: Recorded): Appended | undefined {
    const { type, payload, timestamp = known.timestamp } = event;
    const mended: Recorded = { ...known, type, payload, timestamp };
    if (!isCorrupt(known) || isCorrupt(mended)) {
      return undefined;
    }
    const { mend, unpark } = this.#statements;
    mend.run(type, Buffer.from(payload), timestamp, known.position);
    if (known.state === "parked" && known.reason === corruptHere) {
      unpark.run(known.position);
    }
    return { kind: "recorded", event: mended, isNew: false };
  }

  /**
   * Pending events behind a position, in order, at most `limit`, and fewer if they are large: only
   * an empty answer is the end. Those that wait for their next attempt are left out: see `retries`.
   * An event that is corrupt on this disk is parked instead of returned.
   */
  pending(after: number, limit: number): Recorded[] {
    return this.#intact(() => this.#page(this.#statements.due.iterate(after, limit)));
  }

  /**
   * Pending events whose time has come to be sent again, the longest due first. A time that is too far
   * away to have been meant has come too: the clock was set back. Corrupt events are parked, as in
   * `pending`. `now` is the time by which the waits are counted, in Unix milliseconds.
   */
  retries(limit: number, now = this.#now()): Recorded[] {
    return this.#intact(() =>
      this.#page(this.#statements.retries.iterate(now, now + maxRetryWaitMs, limit)),
    );
  }

  /** Returns the first page that is empty or has an intact event. Parks the corrupt ones on the way. */
  #intact(read: () => Recorded[]): Recorded[] {
    for (;;) {
      const page = read();
      const corrupt = page.filter(isCorrupt);
      if (corrupt.length === 0) {
        return page;
      }
      this.settle(
        corrupt.map(({ position }) => ({ kind: "parked", position, reason: corruptHere })),
      );
      corrupt.forEach(this.#onCorrupt);
      if (corrupt.length < page.length) {
        return page.filter((event) => !corrupt.includes(event));
      }
    }
  }

  /** Returns how many parked events are corrupt on this disk. */
  corrupt(): number {
    return Number(this.#statements.corrupt.get(corruptHere)?.["corrupt"]);
  }

  /** When the next of `retries` is due, in Unix milliseconds by `now`; undefined if nothing waits. */
  nextRetryAt(now = this.#now()): number | undefined {
    const { first, last } = this.#statements.nextRetry.get() ?? {};
    if (first === null) {
      return undefined;
    }
    return Number(last) > now + maxRetryWaitMs ? now : Number(first);
  }

  /**
   * Makes the cloud's answers last. An event that is acked already stays so, whatever comes later. On a
   * disk that is nearly full it takes several small transactions, each of which writes over the log of
   * the one before. When this throws, the last of them may be missing, and can be settled again.
   */
  settle(settlements: readonly Settlement[]): void {
    const { isShort, isEnough } = this.#room.look();
    const step = isShort ? marksWhenShort : settlements.length;
    if (isEnough) {
      this.#keepAge();
    }
    for (let from = 0; from < settlements.length; from += step) {
      inPartsThatFit(settlements.slice(from, from + step), (part) => this.#settle(part));
    }
  }

  /**
   * Saves the age clock's reading once a minute. Not on a full disk, where it could be in the way of a
   * mark: a boot then loses more, and events are kept for longer.
   */
  #keepAge(): void {
    if (this.#age.isUnsaved()) {
      this.database.write(() => this.#age.save());
    }
  }

  #settle(settlements: readonly Settlement[]): void {
    const { ack, retry, park } = this.#statements;
    this.database.write(() => {
      const at = this.#age.reading();
      for (const [first, last] of runsOf(settlements)) {
        ack.run(at, first, last);
      }
      for (const settlement of settlements) {
        const { kind, position } = settlement;
        if (kind === "acked") {
          continue;
        }
        if (kind === "retry") {
          retry.run(settlement.notBefore, settlement.reason, position);
        } else {
          park.run(settlement.reason, at, position);
        }
      }
    });
  }

  /** The events in a state, or all, behind a position, in order, at most `limit`. */
  events({ state, after = 0, limit }: { state?: EventState; after?: number; limit: number }) {
    const statement = this.#statements[state ?? "all"];
    return this.#page(statement.iterate(after, limit));
  }

  /**
   * Events behind an id, in the order of the bytes of the ids, at most `limit`, and fewer if they are
   * large: only an empty answer is the end. For whoever compares them with others.
   */
  eventsById(after: string, limit: number): Recorded[] {
    return this.#page(this.#statements.behindId.iterate(after, limit));
  }

  /** One event; undefined if there is none of this id. */
  event(eventId: string): Recorded | undefined {
    return this.#byId(eventId);
  }

  counts(): OutboxCounts {
    const unsettled = this.unsettled();
    const total = Number(this.#statements.total.get()?.["total"]);
    return { ...unsettled, acked: total - unsettled.pending - unsettled.parked };
  }

  /** `counts` without the acked ones, of which there may be millions. Cheap. */
  unsettled(): Omit<OutboxCounts, "acked"> {
    const { unsettled, parked, pending } = this.#statements;
    const of = unsettled.get() ?? {};
    const [first] = [
      ...this.#page(pending.iterate(0, 1)),
      ...this.#page(parked.iterate(0, 1)),
    ].sort((a, b) => a.position - b.position);
    return {
      pending: Number(of["pending"]),
      parked: Number(of["parked"]),
      oldestUnacked: first?.timestamp,
    };
  }

  /** Grows when this or another process may have made something pending. Cheap. */
  version(): number {
    return this.database.dataVersion() + this.#appends;
  }

  /** Whether nothing is pending. Cheap. */
  isDrained(): boolean {
    return this.#statements.anyPending.get() === undefined;
  }

  /** The current epoch, as the cloud sees it. */
  epoch(): string {
    return this.#numbering().name;
  }

  /**
   * To be called with what the cloud says of its ledger, each time it is met. If it no longer knows
   * what it has acknowledged, this returns why; `alarm` does so too until `replay`.
   */
  meet({ ledgerId, seen, epoch }: LedgerSeen): string | undefined {
    const known = String(
      this.database.prepare("SELECT ledger_id FROM outbox").get()?.["ledger_id"],
    );
    const acked = this.#statements.lastAcked.get();
    const hasForgotten = acked?.["epoch"] === epoch && Number(acked["seq"]) > (seen ?? Infinity);
    if (known === ledgerId && !hasForgotten) {
      return undefined;
    }
    const why =
      known === "" || acked === undefined
        ? ""
        : known === ledgerId
          ? `the cloud's ledger ${ledgerId} ends at seq ${seen}, and ${acked["seq"]} was acknowledged: it was restored from an older copy`
          : `the cloud has another ledger now, ${ledgerId}; ${known} had acknowledged events`;
    this.database.write(() => {
      this.database.prepare("UPDATE outbox SET ledger_id = ?").run(ledgerId);
      if (why !== "") {
        this.database.prepare("UPDATE outbox SET alarm = ?").run(why);
      }
    });
    return why || undefined;
  }

  /** The room that the disk has left for this buffer. */
  room(): Room {
    return this.#room.look();
  }

  /** What a person should know of the cloud's ledger; empty for nothing. */
  alarm(): string {
    return String(this.database.prepare("SELECT alarm FROM outbox").get()?.["alarm"]);
  }

  #byId(eventId: string): Recorded | undefined {
    const [event] = this.#page(this.#statements.byId.iterate(eventId));
    return event;
  }

  /** No more than fits into memory well, but one at least. */
  #page(rows: Iterable<unknown[]>): Recorded[] {
    const page: Recorded[] = [];
    let size = 0;
    for (const row of rows) {
      const event = this.#read(row);
      page.push(event);
      size += event.payload.length;
      if (size >= maxPageSize) {
        break;
      }
    }
    return page;
  }

  readonly #read = (row: unknown[]): Recorded => {
    const [
      position,
      eventId,
      type,
      payload,
      timestamp,
      epoch,
      seq,
      state,
      attempts,
      notBefore,
      reason,
      settledAt,
      checksum,
    ] = row as EventRow;
    if (!(payload instanceof Uint8Array) || typeof eventId !== "string") {
      throw this.database.damaged(`event ${position} makes no sense`);
    }
    return {
      position,
      eventId,
      type,
      payload: Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).toString(),
      timestamp,
      epoch: this.#epochs.get(epoch) ?? this.#nameOf(epoch),
      seq,
      state: eventStates[state] ?? "pending",
      attempts,
      notBefore,
      reason,
      settledAt: state === 0 ? 0 : settledAt,
      checksum: checksum ?? undefined,
    };
  };

  #nameOf(epoch: number): string {
    const name = String(this.#statements.epoch.get(epoch)?.["epoch"]);
    this.#epochs.set(epoch, name);
    return name;
  }

  #numbering(): { epoch: number; name: string; next: number } {
    const row = this.#statements.numbering.get();
    return {
      epoch: Number(row?.["epoch"]),
      name: String(row?.["name"]),
      next: Number(row?.["next_seq"]),
    };
  }

  /** Mints an epoch and numbers all that is not acknowledged anew, in order. */
  renumber(): void {
    this.database.write(() => renumber(this.database));
  }

  /**
   * Makes parked events pending again, those named or all. With `newIds` each becomes an event of its
   * own, under the id that the function gives, and the old one is gone: the way out of a conflict.
   * Throws NOT_FOUND for an id that is not parked, DATA_LOSS for an event that is corrupt on this disk,
   * ALREADY_EXISTS for a new id that is there already; then nothing has changed. "all" leaves out what
   * is corrupt. Returns the new ids.
   */
  retry(eventIds: readonly string[] | "all", newIds?: () => string): string[] {
    const { parked, unpark, remove, insert, advance, addGone } = this.#statements;
    return this.database.write(() => {
      this.insistOnOurs();
      const chosen =
        eventIds === "all"
          ? Array.from(parked.iterate(0, Number.MAX_SAFE_INTEGER), this.#read).filter(
              (event) => !isCorrupt(event),
            )
          : eventIds.map((eventId) => {
              const event = this.#byId(eventId);
              if (event?.state !== "parked") {
                throw new StatusError("NOT_FOUND", `no parked event ${JSON.stringify(eventId)}`, {
                  hint: "see: brewctl store-sync events --state parked",
                });
              }
              if (isCorrupt(event)) {
                throw new StatusError(
                  "DATA_LOSS",
                  `event ${JSON.stringify(eventId)} is ${corruptHere}`,
                  {
                    hint: "nothing was changed; record what it should say as an event of its own",
                  },
                );
              }
              return event;
            });
      return chosen.map(({ position, eventId, type, payload, timestamp, epoch: oldEpoch }) => {
        if (newIds === undefined) {
          unpark.run(position);
          return eventId;
        }
        const { epoch, next } = this.#numbering();
        const newId = newIds();
        const checksum = checksumOf({ eventId: newId, type, payload, timestamp });
        const content = [newId, type, Buffer.from(payload), timestamp] as const;
        const { changes } = insert.run(...content, epoch, next, checksum, this.#now());
        if (changes === 0) {
          const taken = `there is an event ${JSON.stringify(newId)} already`;
          throw new StatusError("ALREADY_EXISTS", taken);
        }
        remove.run(position);
        // Not summed up with what was pruned: the event lives on.
        addGone.run(1, oldEpoch);
        advance.run(next + 1);
        return newId;
      });
    });
  }

  /**
   * Makes acknowledged events that are still kept pending again, for a cloud that has lost them; what
   * it still has is a duplicate there. Returns how many.
   */
  replay(): number {
    return this.replaying().reduce((sum, events) => sum + events, 0);
  }

  /** The same in steps, between which others can have their turn; each yields how many. */
  *replaying(): Generator<number, void> {
    const { replay, lastPosition } = this.#statements;
    const last = Number(lastPosition.get()?.["last"] ?? 0);
    for (let from = 0; from < last; from += replayStep) {
      yield this.database.write(() => {
        this.insistOnOurs();
        return Number(replay.run(from, from + replayStep).changes);
      });
    }
    this.database.write(() => {
      this.insistOnOurs();
      this.database.prepare("UPDATE outbox SET alarm = ''").run();
    });
  }

  /**
   * A step of pruning: looks at some of the events behind a position, removes those that were
   * acknowledged longer than `keepMs` ago, and adds them to the sums of `pruned`. Pending and parked
   * events stay, and are not in the way. An event that seems to be acknowledged in the future counts as
   * acknowledged now, so that it is not kept for ever. Undefined: there is nothing behind that position. A step
   * takes a few milliseconds, of which a till waits for the removal alone.
   */
  prune({ after = 0, keepMs = retentionMs }: PruneOptions = {}): PruneStep | undefined {
    const { ages, byPosition, redate } = this.#statements;
    if (this.#room.look().isEnough) {
      this.#keepAge();
    }
    const age = this.#age.reading();
    const before = age - keepMs;
    const old: number[] = [];
    const future: number[] = [];
    let next = after;
    let bytes = 0;
    for (const row of ages.iterate(after, maxLooked)) {
      const [position, payloadBytes, state, settledAt] = row as number[];
      next = Number(position);
      bytes += Number(payloadBytes);
      if (eventStates[Number(state)] === "acked") {
        if (Number(settledAt) < before) {
          old.push(next);
        } else if (Number(settledAt) > age) {
          future.push(next);
        }
      }
      if (bytes >= maxLookedBytes || old.length + future.length === maxPruned) {
        break;
      }
    }
    if (next === after) {
      return undefined;
    }
    if (old.length + future.length === 0) {
      return { removed: 0, next };
    }
    // Digested before the write begins: an event never changes, and its position is never another's.
    const events = old
      .flatMap((position) => Array.from(byPosition.iterate(position), this.#read))
      .map((event) => ({ ...event, day: dayOf(event.timestamp), digest: digestOf(event) }));
    let removed = 0;
    inPartsThatFit(events, (part) => {
      removed += this.#remove(part, before);
    });
    inPartsThatFit(future, (part) =>
      this.database.write(() => {
        this.insistOnOurs();
        for (const position of part) {
          redate.run(age, position, age);
        }
      }),
    );
    return { removed, next };
  }

  /** Removes these acknowledged events, and adds them to the sums; returns how many were still there. */
  #remove(events: readonly DatedEvent[], before: number): number {
    const { removeAcked, addGone } = this.#statements;
    return this.database.write(() => {
      this.insistOnOurs();
      const cells = new DigestCells();
      const gone = new Map<string, number>();
      let count = 0;
      for (const { position, epoch, type, day, digest } of events) {
        // A replay, or somebody else who prunes, may have been faster.
        if (Number(removeAcked.run(position, before).changes) > 0) {
          cells.addCell({ type, day, count: 1, digest });
          gone.set(epoch, (gone.get(epoch) ?? 0) + 1);
          count += 1;
        }
      }
      addPruned(this.database, cells.all());
      for (const [epoch, n] of gone) {
        addGone.run(n, epoch);
      }
      return count;
    });
  }

  /** What was pruned, summed up by type and day, by day and then by type. */
  pruned({ type, fromDay = "", toDay = "9999-12-31" }: PrunedRange = {}): DigestCell[] {
    const { ofType, ofAll } = this.#statements;
    const rows = type === undefined ? ofAll.all(fromDay, toDay) : ofType.all(fromDay, toDay, type);
    const cells = new DigestCells();
    for (const row of rows) {
      cells.addCell(cellOf(row));
    }
    return cells.all();
  }

  /** Where the buffer was handed over to; undefined if it is in use here. */
  handedOver(): HandedOver | undefined {
    return handedOver(this.database);
  }

  /** Throws FAILED_PRECONDITION if it was handed over: two boxes must not be one store by accident. */
  insistOnOurs(): void {
    insistOnOurs(this.database);
  }

  /** What was done to a damaged file, if this one replaces one. */
  salvaged(): Salvaged | undefined {
    return salvagedIn(this.database);
  }

  /**
   * Notes that a person has seen what the salvage has lost: it is no alarm any more. Returns what was
   * salvaged, as it was before, or undefined if nobody had to be told of anything.
   */
  acknowledgeSalvage(): Salvaged | undefined {
    return this.database.write(() => {
      const salvaged = this.salvaged();
      if (salvaged === undefined || salvaged.acknowledgedAt !== undefined) {
        return undefined;
      }
      markSalvaged(this.database, acknowledged(salvaged, this.#now()));
      return salvaged;
    });
  }

  /**
   * Gives the room of what was removed back to the disk. Throws RESOURCE_EXHAUSTED, before anything is
   * done, if the disk has too little for the way there; the drainer's lock must be held. Returns the
   * bytes of before and after; not `isDone`: others still read, and the room is given back after that.
   * Whoever records meanwhile waits.
   */
  compact(): { readonly before: number; readonly after: number; readonly isDone: boolean } {
    const before = this.bytes();
    // What the log holds goes into the file, and its room back to the disk.
    this.database.emptyLog();
    const needed = this.database.compactBytes();
    const { free } = this.#room.look();
    if (free < needed) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `to compact ${this.path} takes ${formatBytes(needed)} of its disk for a while, and ${formatBytes(free)} are left`,
        {
          hint: `nothing was changed; make ${formatBytes(needed - free)} of room more, or remove more events first: brewctl store-sync prune`,
        },
      );
    }
    makePrivateFile(compactingPath(this.path));
    try {
      const isDone = this.database.compact();
      return { before, after: this.bytes(), isDone };
    } finally {
      rmSync(compactingPath(this.path), { force: true });
    }
  }

  /** Of the file and its log. */
  bytes(): number {
    return bytesOf(this.path);
  }

  /**
   * Makes this process the one that drains. Throws FAILED_PRECONDITION, with the process's id, while
   * another one is, and when the buffer was handed over to another box.
   */
  drain(): Lock {
    const lock = this.lock();
    try {
      this.insistOnOurs();
      return lock;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** The drainer's lock for something else that no drainer must run beside. Throws as `drain`. */
  lock(): Lock {
    const lock = takeLock(lockPath(this.path), { waitMs: lookedMs });
    if (lock === undefined) {
      const pid = this.database.prepare("SELECT drainer_pid FROM outbox").get()?.["drainer_pid"];
      throw new StatusError(
        "FAILED_PRECONDITION",
        `another process, ${pid || "just starting"}, drains the buffer of store ${this.storeId}`,
        { hint: "one drainer at a time; recording and looking are free to all" },
      );
    }
    try {
      this.database.write(() => {
        this.database.prepare("UPDATE outbox SET drainer_pid = ?").run(process.pid);
      });
    } catch (error) {
      // It is only for people. A full disk is what draining makes room on.
      if (!(error instanceof StatusError && error.code === "RESOURCE_EXHAUSTED")) {
        lock.release();
        throw error;
      }
    }
    return lock;
  }

  close(): void {
    this.#highWater.close();
    this.database.close();
  }
}

/** An event that is to be removed, with what it adds to the sums. */
interface DatedEvent extends Recorded {
  readonly day: string;
  readonly digest: Uint8Array;
}

/**
 * Runs `write` for all items, or for halves of them, and so on, when the transaction is too large for
 * what a full disk has left for the log. Throws what `write` throws for one item, and then the parts
 * before it are written.
 */
function inPartsThatFit<T>(items: readonly T[], write: (part: readonly T[]) => void): void {
  if (items.length === 0) {
    return;
  }
  try {
    write(items);
  } catch (error) {
    const isFull = error instanceof StatusError && error.code === "RESOURCE_EXHAUSTED";
    if (!isFull || items.length === 1) {
      throw error;
    }
    const half = Math.ceil(items.length / 2);
    inPartsThatFit(items.slice(0, half), write);
    inPartsThatFit(items.slice(half), write);
  }
}

/** There while the file is compacted. */
function compactingPath(path: string): string {
  return `${path}-compacting`;
}

/** The positions that are acked, as stretches without a gap: one statement for hundreds of marks. */
function runsOf(settlements: readonly Settlement[]): [first: number, last: number][] {
  const runs: [number, number][] = [];
  for (const { kind, position } of settlements) {
    const run = runs.at(-1);
    if (kind !== "acked") {
      continue;
    }
    if (run !== undefined && position === run[1] + 1) {
      run[1] = position;
    } else {
      runs.push([position, position]);
    }
  }
  return runs;
}

function refused(
  code: "INVALID_ARGUMENT" | "ALREADY_EXISTS",
  message: string,
  hint?: string,
): Appended {
  const options = hint === undefined ? {} : { hint };
  return { kind: "refused", why: new StatusError(code, message, options) };
}

/** An event whose id is there already. */
function again(event: NewEvent, known: Recorded): Appended {
  const differs = (["type", "payload", "timestamp"] as const).filter(
    (field) => event[field] !== undefined && event[field] !== known[field],
  );
  return differs.length === 0
    ? { kind: "recorded", event: known, isNew: false }
    : refused(
        "ALREADY_EXISTS",
        `event ${JSON.stringify(event.eventId)} is recorded already, with another ${differs.join(" and ")}`,
        "another event needs another id",
      );
}

/** Adds to the sums of what was pruned; within a transaction. */
export function addPruned(database: Database, cells: readonly DigestCell[]): void {
  const known = database.prepare("SELECT * FROM pruned WHERE type = ? AND day = ?");
  const keep = database.prepare(
    `INSERT INTO pruned (type, day, count, digest) VALUES (?, ?, ?, ?)
     ON CONFLICT (type, day) DO UPDATE SET count = excluded.count, digest = excluded.digest`,
  );
  for (const cell of cells) {
    const sum = new DigestCells();
    sum.addCell(cell);
    const row = known.get(cell.type, cell.day);
    if (row !== undefined) {
      sum.addCell(cellOf(row));
    }
    for (const { type, day, count, digest } of sum.all()) {
      keep.run(type, day, count, digest);
    }
  }
}

function cellOf(row: Record<string, unknown>): DigestCell {
  return {
    type: String(row["type"]),
    day: String(row["day"]),
    count: Number(row["count"]),
    digest: row["digest"] as Uint8Array,
  };
}

const behind = "position > ? ORDER BY position LIMIT ?";

type Statements = ReturnType<typeof prepare>;

function prepare(database: Database) {
  const sql = (text: string): Statement => database.prepare(text);
  const events = (where: string) => sql(`SELECT ${columns} FROM events WHERE ${where}`);
  return {
    // A pending event has a time in settled_at that means nothing: the mark then has the size of what it
    // replaces, changes one page however large the payload, and makes the file no larger.
    insert:
      sql(`INSERT INTO events (event_id, type, payload, timestamp, epoch, seq, checksum, state, settled_at)
      VALUES (?, ?, ?, ?, ?, ?, ?, 0, ?) ON CONFLICT (event_id) DO NOTHING`),
    numbering: sql(`SELECT outbox.epoch AS epoch, next_seq, epochs.epoch AS name
      FROM outbox JOIN epochs ON number = outbox.epoch`),
    advance: sql("UPDATE outbox SET next_seq = ?"),
    epoch: sql("SELECT epoch FROM epochs WHERE number = ?"),
    byId: events("event_id = ?"),
    behindId: events("event_id > ? ORDER BY event_id LIMIT ?"),
    due: events("state = 0 AND position > ? AND not_before = 0 ORDER BY position LIMIT ?"),
    anyPending: sql("SELECT 1 FROM events WHERE state = 0 LIMIT 1"),
    retries: events(`state = 0 AND not_before > 0 AND (not_before <= ? OR not_before > ?)
      ORDER BY not_before, position LIMIT ?`),
    nextRetry: sql(`SELECT
      (SELECT min(not_before) FROM events WHERE state = 0 AND not_before > 0) AS first,
      (SELECT max(not_before) FROM events WHERE state = 0 AND not_before > 0) AS last`),
    ack: sql(`UPDATE events SET state = 1, not_before = 0, reason = '', settled_at = ?
      WHERE position BETWEEN ? AND ? AND state <> 1`),
    retry: sql(`UPDATE events SET attempts = attempts + 1, not_before = ?, reason = ?
      WHERE position = ? AND state = 0`),
    park: sql(`UPDATE events SET state = 2, attempts = attempts + 1, not_before = 0, reason = ?,
      settled_at = ? WHERE position = ? AND state = 0`),
    // Due at once, and where a drainer that has gone past it looks again.
    unpark: sql(`UPDATE events SET state = 0, attempts = 0, not_before = 1, reason = ''
      WHERE position = ?`),
    mend: sql("UPDATE events SET type = ?, payload = ?, timestamp = ? WHERE position = ?"),
    remove: sql("DELETE FROM events WHERE position = ?"),
    removeAcked: sql("DELETE FROM events WHERE position = ? AND state = 1 AND settled_at < ?"),
    redate: sql(
      "UPDATE events SET settled_at = ? WHERE position = ? AND state = 1 AND settled_at > ?",
    ),
    addGone: sql("UPDATE epochs SET gone = gone + ? WHERE epoch = ?"),
    // length() is asked first: to find what stands behind a large payload takes reading it.
    ages: sql(`SELECT position, length(payload), state, settled_at FROM events
      WHERE position > ? ORDER BY position LIMIT ?`),
    byPosition: events("position = ?"),
    ofAll: sql("SELECT * FROM pruned WHERE day BETWEEN ? AND ?"),
    ofType: sql("SELECT * FROM pruned WHERE day BETWEEN ? AND ? AND type = ?"),
    replay: sql(`UPDATE events SET state = 0, attempts = 0, not_before = 1
      WHERE state = 1 AND position > ? AND position <= ?`),
    lastPosition: sql("SELECT max(position) AS last FROM events"),
    all: events(behind),
    // A literal state, since only so does SQLite see which of the small indexes fits.
    pending: events(`state = 0 AND ${behind}`),
    acked: events(`state = 1 AND ${behind}`),
    parked: events(`state = 2 AND ${behind}`),
    unsettled: sql(`SELECT (SELECT count(*) FROM events WHERE state = 0) AS pending,
      (SELECT count(*) FROM events WHERE state = 2) AS parked`),
    corrupt: sql("SELECT count(*) AS corrupt FROM events WHERE state = 2 AND reason = ?"),
    total: sql("SELECT count(*) AS total FROM events"),
    // Of those before the first pending one: to look further would take long.
    lastAcked: sql(`SELECT seq, e.epoch AS epoch FROM events
      JOIN epochs e ON e.number = events.epoch WHERE state = 1 AND position <
      coalesce((SELECT min(position) FROM events WHERE state = 0), 9e18)
      ORDER BY position DESC LIMIT 1`),
  };
}
