/**
 * A store goes on in another box: what a buffer keeps, as a sequence of things, and a new buffer that
 * is made of them. It has an epoch of its own, in which all that is not acknowledged is numbered anew,
 * so that the two boxes can never use a number twice; event and command ids stay, so that the cloud
 * counts no event twice and no command is applied again.
 *
 * The new buffer is made beside its place and put there when it is whole and on the disk.
 */

import { existsSync, realpathSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import { resolve } from "node:path";
import { StatusError } from "../errors.ts";
import type { DigestCell } from "../event-digest.ts";
import { syncPath } from "../private-file.ts";
import { bytesOf, Database, databaseFile, type Lock, type Statement, takeLock } from "../sqlite.ts";
import {
  announceArrival,
  forgetArrival,
  importingPath,
  insistOnEmpty,
  isArriving,
  onDisk,
  putInPlace,
  removeImporting,
} from "./arrival.ts";
import { bufferKind, lockPath, mintEpoch, salvagingPath } from "./buffer-file.ts";
import type { HandedOver } from "./hand-over-mark.ts";
import { commandStates, type Inbox, type KeptCursor, type ReceivedCommand } from "./inbox.ts";
import { addPruned, eventStates, Outbox, type Recorded } from "./outbox.ts";
import { markSalvaged, type Salvaged } from "./salvage-mark.ts";

/** What is true of a whole buffer, and goes with it. */
export interface BufferHead {
  readonly storeId: string;
  readonly epoch: string;
  /** Of the cloud's ledger, as it was met last; empty if it never was. */
  readonly ledgerId: string;
  /** As `Outbox.alarm`. */
  readonly alarm: string;
  /** The salvages that made this buffer, which carry a loss that nobody has acknowledged. */
  readonly salvaged: Salvaged | undefined;
}

export type KeptEvent = Omit<Recorded, "position">;
export type KeptCommand = Omit<ReceivedCommand, "number">;

/** What a buffer keeps, one by one. */
export type Kept =
  | { readonly kind: "event"; readonly event: KeptEvent }
  | { readonly kind: "command"; readonly command: KeptCommand }
  | { readonly kind: "cursor"; readonly cursor: KeptCursor }
  | { readonly kind: "pruned"; readonly cell: DigestCell };

/** Read at a time. */
const pageSize = 200;

export function headOf(outbox: Outbox): BufferHead {
  const row = outbox.database.prepare("SELECT ledger_id FROM outbox").get();
  return {
    storeId: outbox.storeId,
    epoch: outbox.epoch(),
    ledgerId: String(row?.["ledger_id"]),
    alarm: outbox.alarm(),
    salvaged: outbox.salvaged(),
  };
}

/** All that is kept: events and commands in their order, then cursors and sums. */
export function* keptIn(outbox: Outbox, inbox: Inbox): Generator<Kept, void> {
  for (let after = 0; ; ) {
    const events = outbox.events({ after, limit: pageSize });
    for (const event of events) {
      yield { kind: "event", event };
    }
    const last = events.at(-1);
    if (last === undefined) {
      break;
    }
    after = last.position;
  }
  for (let after = 0; ; ) {
    const commands = inbox.commands({ after, limit: pageSize });
    for (const command of commands) {
      yield { kind: "command", command };
    }
    const last = commands.at(-1);
    if (last === undefined) {
      break;
    }
    after = last.number;
  }
  for (const cursor of inbox.cursors()) {
    yield { kind: "cursor", cursor };
  }
  for (const cell of outbox.pruned()) {
    yield { kind: "pruned", cell };
  }
}

export interface NewBufferOptions {
  /** Where it will be. */
  readonly path: string;
  readonly head: BufferHead;
  /** Unix milliseconds. */
  readonly now: () => number;
}

/** A buffer that is being made. It must be closed, whatever becomes of it. */
export class NewBuffer {
  readonly path: string;
  /** The one that was minted for it. */
  readonly epoch: string;
  readonly #storeId: string;
  readonly #now: () => number;
  readonly #lock: Lock;
  readonly #hadLockFile: boolean;
  readonly #database: Database;
  readonly #insertEvent: Statement;
  #epochs = new Map<string, number>();
  readonly #current: number;
  #nextSeq = 1;
  #isPut = false;

  /**
   * Throws `StatusError`: ALREADY_EXISTS for a buffer there that has anything in it,
   * FAILED_PRECONDITION for one of another store, or that is being drained; what `Database` throws.
   */
  constructor({ path: name, head, now }: NewBufferOptions) {
    const path = databaseFile(name);
    this.path = path;
    this.#storeId = head.storeId;
    this.#now = now;
    this.#hadLockFile = existsSync(lockPath(path));
    let lock: Lock | undefined;
    let database: Database | undefined;
    try {
      lock = this.#lockPlace();
      this.#lock = lock;
      removeImporting(path);
      database = new Database(importingPath(path), bufferKind);
      this.#database = database;
      this.#database.relax();
      this.#insertEvent = this.#database.prepare(
        `INSERT INTO events (event_id, type, payload, timestamp, epoch, seq, state, attempts,
           not_before, reason, settled_at, checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (event_id) DO NOTHING`,
      );
      [this.#current, this.epoch] = this.#database.write(() => this.#begin(head));
    } catch (error) {
      database?.close();
      if (lock !== undefined) {
        removeImporting(path);
        lock.release();
        this.#removeLockFile();
      }
      throw error;
    }
  }

  #begin({ storeId, ledgerId, alarm, salvaged }: BufferHead): [number: number, epoch: string] {
    const number = mintEpoch(this.#database);
    this.#database
      .prepare(
        `INSERT INTO outbox (one, store_id, epoch, next_seq, ledger_id, alarm)
         VALUES (1, ?, ?, 1, ?, ?)`,
      )
      .run(storeId, number, ledgerId, alarm);
    if (salvaged !== undefined) {
      markSalvaged(this.#database, salvaged);
    }
    const row = this.#database.prepare("SELECT epoch FROM epochs").get();
    return [number, String(row?.["epoch"])];
  }

  /** Nobody else makes, salvages or drains a buffer here now. */
  #lockPlace(): Lock {
    if (existsSync(salvagingPath(this.path))) {
      throw new StatusError("ALREADY_EXISTS", `${this.path} is just being salvaged`);
    }
    if (isArriving(this.path)) {
      // An earlier import was interrupted, and this one begins again.
      const lock = takeLock(lockPath(this.path));
      if (lock !== undefined) {
        forgetArrival(this.path);
        lock.release();
      }
    }
    const there = this.#there();
    if (there !== undefined) {
      try {
        insistOnEmpty(there.database);
        return there.lock();
      } finally {
        there.close();
      }
    }
    if (bytesOf(this.path) > 0) {
      // SQLite would take it for the new file's, and write its pages over ours.
      throw new StatusError(
        "FAILED_PRECONDITION",
        `${this.path}-wal is the log of a buffer whose file is gone`,
        { hint: "nothing was changed; put the file back, or move the log away" },
      );
    }
    let lock: Lock | undefined;
    try {
      lock = takeLock(lockPath(this.path));
    } catch (error) {
      // On a full disk its file can be made, and not be locked.
      this.#removeLockFile();
      throw error;
    }
    if (lock === undefined) {
      throw new StatusError("FAILED_PRECONDITION", `another process is just making ${this.path}`, {
        hint: "nothing was changed; try again",
      });
    }
    return lock;
  }

  /** What is in our place; it must be closed. */
  #there(): Outbox | undefined {
    return existsSync(this.path)
      ? new Outbox({ path: this.path, storeId: this.#storeId, now: this.#now, salvages: false })
      : undefined;
  }

  /**
   * Adds them in order, in one transaction: all of them, or none if this throws. Throws ALREADY_EXISTS
   * for an event or a command whose id is there already, and what `Database` throws.
   */
  add(things: Iterable<Kept>): void {
    const nextSeq = this.#nextSeq;
    const epochs = new Map(this.#epochs);
    try {
      this.#database.write(() => {
        for (const thing of things) {
          this.#add(thing);
        }
      });
    } catch (error) {
      // Numbers that were given within the transaction are free again.
      this.#nextSeq = nextSeq;
      this.#epochs = epochs;
      throw error;
    }
  }

  #add(thing: Kept): void {
    switch (thing.kind) {
      case "event": {
        // As it is: an event that is corrupt in the old buffer must not pass for intact in the new one.
        const { eventId, type, payload, timestamp, state, checksum = null } = thing.event;
        const { attempts, notBefore, reason, settledAt } = thing.event;
        const isAcked = state === "acked";
        const epoch = isAcked ? this.#numberOf(thing.event.epoch) : this.#current;
        const seq = isAcked ? thing.event.seq : this.#nextSeq++;
        const { changes } = this.#insertEvent.run(
          ...([eventId, type, Buffer.from(payload), timestamp, epoch, seq] as const),
          ...([eventStates.indexOf(state), attempts, notBefore, reason, settledAt] as const),
          checksum,
        );
        insistOnNew(changes, "event", eventId);
        break;
      }
      case "command": {
        const { commandId, type, payloadJson, sequence, issuedAt, receivedAt } = thing.command;
        const { reason, state, attempts, notBefore, ledgerId } = thing.command;
        const { changes } = this.#database
          .prepare(
            `INSERT INTO commands (command_id, type, payload, sequence, issued_at, received_at,
               reason, state, attempts, not_before, ledger_id)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (command_id) DO NOTHING`,
          )
          .run(
            ...([commandId, type, payloadJson, sequence, issuedAt, receivedAt, reason] as const),
            ...([commandStates.indexOf(state), attempts, notBefore, ledgerId] as const),
          );
        insistOnNew(changes, "command", commandId);
        break;
      }
      case "cursor": {
        const { ledgerId, sequence, commandId, usedAt } = thing.cursor;
        const { changes } = this.#database
          .prepare(
            `INSERT INTO cursors (ledger_id, sequence, command_id, used_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (ledger_id) DO NOTHING`,
          )
          .run(ledgerId, sequence, commandId, usedAt);
        insistOnNew(changes, "cursor of ledger", ledgerId);
        break;
      }
      case "pruned":
        addPruned(this.#database, [thing.cell]);
        break;
      default:
        throw thing satisfies never;
    }
  }

  #numberOf(epoch: string): number {
    const known = this.#epochs.get(epoch);
    if (known !== undefined) {
      return known;
    }
    const number = Number(
      this.#database.prepare("INSERT INTO epochs (epoch) VALUES (?)").run(epoch).lastInsertRowid,
    );
    this.#epochs.set(epoch, number);
    return number;
  }

  /** All of it is on the disk when this returns; it is not in its place yet. */
  finish(): void {
    this.#database.write(() => {
      this.#database.prepare("UPDATE outbox SET next_seq = ?").run(this.#nextSeq);
    });
    this.#database.check();
    const made = importingPath(this.path);
    // Closing would do so too, but would not say that the disk is full.
    if (!this.#database.emptyLog()) {
      throw new StatusError("UNAVAILABLE", `another process reads ${made}`, {
        hint: "nothing was changed; try again",
      });
    }
    this.#database.close();
    onDisk(this.path, () => syncPath(made));
  }

  /**
   * Puts it in its place, at once or not at all. Throws ALREADY_EXISTS if somebody has made another
   * one there meanwhile.
   */
  put(): void {
    putInPlace(this.path);
    this.#isPut = true;
  }

  /** Removes what is left of it if it was not put in its place. */
  close(): void {
    try {
      this.#database.close();
    } catch {
      // It was closed when it was finished.
    }
    removeImporting(this.path);
    this.#lock.release();
    if (!this.#isPut) {
      this.#removeLockFile();
    }
  }

  #removeLockFile(): void {
    if (!this.#hadLockFile && !existsSync(this.path)) {
      rmSync(lockPath(this.path), { force: true });
    }
  }
}

function insistOnNew(changes: number | bigint, what: string, id: string): void {
  if (Number(changes) === 0) {
    throw new StatusError("ALREADY_EXISTS", `${what} ${JSON.stringify(id)} is there twice`);
  }
}

/**
 * Takes a buffer of this machine over: fills `target` from it and leaves a mark in it, so that nobody
 * records or drains there any more. Nobody can write to it meanwhile. If this throws, or the process
 * dies, either the old buffer is in use as before or the new one is in its place when it is opened next. The caller has
 * its drainer's lock.
 */
export function takeOver(
  { outbox, inbox }: { readonly outbox: Outbox; readonly inbox: Inbox },
  target: NewBuffer,
  { now }: { readonly now: () => number },
): void {
  const mark: HandedOver = {
    at: now(),
    host: hostname(),
    to: resolve(target.path),
    epoch: target.epoch,
  };
  const { database } = outbox;
  const setMark = database.prepare("UPDATE outbox SET handed_over = ?");
  const before = outbox.handedOver();
  database.write(() => {
    let batch: Kept[] = [];
    for (const thing of keptIn(outbox, inbox)) {
      batch.push(thing);
      if (batch.length === pageSize) {
        target.add(batch);
        batch = [];
      }
    }
    target.add(batch);
    target.finish();
    announceArrival(target.path, { from: outbox.path, epoch: target.epoch });
    setMark.run(JSON.stringify(mark));
  });
  try {
    // After the mark, so that there are never two in use. A crash between the two leaves the intention,
    // which the next process that opens the new place carries out.
    target.put();
  } catch (error) {
    // It may be in its place all the same, where only the folder could not be synced.
    if (!hasArrived(mark)) {
      database.write(() => setMark.run(before === undefined ? "" : JSON.stringify(before)));
    }
    throw error;
  } finally {
    forgetArrival(target.path);
  }
}

/**
 * Whether a buffer that bears this mark has really gone on there: a crash may have come between the
 * mark and the new file. Of another machine's files nothing is known, so they are believed.
 */
export function hasArrived({ host, to, epoch }: HandedOver): boolean {
  if (host !== hostname()) {
    return true;
  }
  if (!existsSync(to)) {
    return false;
  }
  let database: Database | undefined;
  try {
    database = new Database(to, bufferKind, { isReadOnly: true });
    return database.prepare("SELECT 1 FROM epochs WHERE epoch = ?").get(epoch) !== undefined;
  } catch {
    // Something is there, and it cannot be told what.
    return true;
  } finally {
    database?.close();
  }
}

/** Whether both are the same file. */
export function isSameFile(path: string, other: string): boolean {
  const real = (name: string) => (existsSync(name) ? realpathSync(name) : resolve(name));
  return real(path) === real(other);
}
