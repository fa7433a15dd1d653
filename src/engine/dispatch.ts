/**
 * The commands that the cloud has for each store: a queue a store, on the disk, numbered from 1.
 * Nothing is ever taken out of a queue; a store says how far it has come.
 */

import { randomBytes } from "node:crypto";
import { Bell } from "../bell.ts";
import { StatusError } from "../errors.ts";
import type { Database } from "../sqlite.ts";
import { faultOfName } from "../store-event.ts";
import { type Cancellation, Cancellations } from "./cancellations.ts";
import { CommandBatches } from "./command-batch.ts";
import {
  commandColumns,
  isWanted,
  lastReadable,
  lastSequence,
  visibleCommands,
} from "./command-schema.ts";
import { DeliveryMarks } from "./delivery-marks.ts";
import { readPage, turnToRead } from "./page.ts";
import { safe } from "./safe-integer.ts";

export interface NewCommand {
  /** Empty: one is made up. */
  readonly commandId: string;
  readonly type: string;
  readonly payloadJson: string;
}

export interface QueuedCommand extends NewCommand {
  readonly storeId: string;
  readonly sequence: number;
  /** Unix milliseconds. */
  readonly issuedAt: number;
}

/** Where a store says that it is; a store without a memory says nothing. */
export interface StoreCursor {
  readonly sequence: number;
  readonly ledgerId: string;
  readonly commandId: string;
}

/** What has become of a command. Of a store that parks many, the older ones count as applied. */
export interface CommandFate extends QueuedCommand {
  readonly state: "queued" | "received" | "applied" | "parked" | "cancelled";
  /** Why it is parked, as the store says. */
  readonly reason: string;
}

/** The largest payload of a command, in bytes of UTF-8. */
export const maxCommandPayloadBytes = 1024 * 1024;

/**
 * The most bytes that one call may have delivered: its payload times its stores. The payload is on our
 * disk once, and goes over the wire to each of them.
 */
export const maxDeliveredBytes = 64 * 1024 * 1024;

/**
 * The most stores that commands wait for although the cloud has never heard of them. A command may be
 * issued before its store comes for the first time, but names cannot be invented without end.
 */
export const maxAwaitedStores = 1_000;

/** The most commands that are read from the disk at a time. */
const pageSize = 100;

export class Dispatch {
  readonly #database: Database;
  readonly #ledgerId: string;
  readonly #now: () => number;
  readonly #insistOnRoom: () => void;
  /** Of each store that watches, how many do. */
  readonly #watching = new Map<string, number>();
  readonly #news = new Bell();
  readonly #batches: CommandBatches;
  readonly #cancellations: Cancellations;
  /** Of each store, the sequence up to which its commands were sent since this process started. */
  readonly #sent = new Map<string, number>();

  /**
   * `database` and `ledgerId` are those of a ledger, and `insistOnRoom` throws when its disk is full.
   * `now` returns Unix milliseconds.
   */
  constructor(
    database: Database,
    {
      ledgerId,
      now,
      insistOnRoom,
    }: {
      readonly ledgerId: string;
      readonly now: () => number;
      readonly insistOnRoom: () => void;
    },
  ) {
    this.#database = database;
    this.#batches = new CommandBatches(database);
    this.#cancellations = new Cancellations(database);
    this.#ledgerId = ledgerId;
    this.#now = now;
    this.#insistOnRoom = insistOnRoom;
  }

  /**
   * Queues a command for each of these stores, for all or for none: on the disk when this resolves. A
   * store that has the same command already keeps the one that is there. Rejects with `StatusError`,
   * and then nothing was queued: INVALID_ARGUMENT, RESOURCE_EXHAUSTED for more bytes than may be
   * delivered and while the disk is full, ALREADY_EXISTS for a command_id with another content; and with
   * the signal's reason.
   */
  async issue(
    storeIds: readonly string[],
    { commandId: wantedId, type, payloadJson }: NewCommand,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<QueuedCommand[]> {
    const commandId = wantedId || `cmd-${randomBytes(6).toString("hex")}`;
    const fault =
      faultOfStores(storeIds) ??
      faultOfName("command_id", commandId) ??
      faultOfName("type", type) ??
      faultOfPayload(payloadJson);
    if (fault !== undefined) {
      throw new StatusError("INVALID_ARGUMENT", fault);
    }
    const targets = Array.from(new Set(storeIds));
    insistOnDeliverable(targets.length, Buffer.byteLength(payloadJson));
    this.#insistOnHeardOf(targets);
    this.#insistOnRoom();
    const command = { commandId, type, payloadJson, issuedAt: this.#now() };
    const queued = await this.#batches.issue(targets, command, { signal });
    this.#news.ring();
    return queued;
  }

  /** Withdraws a command, with the results and the errors of `Cancellations.cancel`. */
  async cancel(
    { commandId, storeIds }: { readonly commandId: string; readonly storeIds: readonly string[] },
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Cancellation[]> {
    const sent = (storeId: string) => this.#sent.get(storeId) ?? 0;
    return this.#cancellations.cancel(commandId, storeIds, { sent, now: this.#now, signal });
  }

  /**
   * Commands of a store, or of all, after a place, by store and sequence: at most `limit`, and fewer if
   * they are large, so only an empty answer is the end.
   */
  commands({
    storeId = "",
    after,
    limit = pageSize,
  }: {
    readonly storeId?: string;
    readonly after: { readonly storeId: string; readonly sequence: number };
    readonly limit?: number;
  }): readonly CommandFate[] {
    const ofOne = storeId === "" ? "" : "commands.store_id = ? AND";
    const rows = this.#database
      .prepare(
        `SELECT ${commandColumns}, ${safe("coalesce(received, 0)")},
           ${safe("coalesce(applied, 0)")}, reason, ${isWanted}
         FROM ${visibleCommands} LEFT JOIN progress ON progress.store_id = commands.store_id
           LEFT JOIN parked_commands ON parked_commands.store_id = commands.store_id
             AND parked_commands.command_id = commands.command_id
         WHERE ${ofOne} (commands.store_id, sequence) > (?, ?) AND sequence <= ${lastReadable}
         ORDER BY commands.store_id, sequence LIMIT ?`,
      )
      .iterate(...(storeId === "" ? [] : [storeId]), after.storeId, after.sequence, limit);
    return readPage(rows, { limit, read: readFate, sizeOf: sizeOfCommand }).items;
  }

  /** Throws RESOURCE_EXHAUSTED if commands would wait for too many stores that have never come. */
  #insistOnHeardOf(storeIds: readonly string[]): void {
    const isNew = this.#database.prepare(
      `SELECT NOT EXISTS (SELECT 1 FROM stores WHERE store_id = ?1)
         AND NOT EXISTS (SELECT 1 FROM commands WHERE store_id = ?1) AS is_new`,
    );
    const added = storeIds.filter((storeId) => isNew.get(storeId)?.["is_new"] === 1).length;
    if (added === 0) {
      return;
    }
    // Steps from one store's commands to the next store's: a count would read all commands.
    const row = this.#database
      .prepare(
        `WITH RECURSIVE queues (store_id) AS (
           SELECT min(store_id) FROM commands UNION ALL
           SELECT (SELECT min(store_id) FROM commands WHERE store_id > queues.store_id)
           FROM queues WHERE store_id IS NOT NULL)
         SELECT count(*) AS awaited FROM queues
         WHERE store_id IS NOT NULL AND store_id NOT IN (SELECT store_id FROM stores)`,
      )
      .get();
    const awaited = Number(row?.["awaited"]) + added;
    if (awaited > maxAwaitedStores) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `commands would wait for ${awaited} stores that the cloud has never heard of; at most ${maxAwaitedStores} are allowed`,
      );
    }
  }

  isWatching(storeId: string): boolean {
    return this.#watching.has(storeId);
  }

  /**
   * The commands after the cursor, in order, and then those still to come, until the signal aborts,
   * with whose reason it throws. Without a cursor, those not yet delivered. A command was delivered
   * when the next one was asked for, which means that it was written, and `flushed` has resolved
   * after that, which means that the store has received what was written.
   */
  async *watch(
    storeId: string,
    cursor: StoreCursor | undefined,
    {
      flushed = async () => {},
      signal,
    }: { readonly flushed?: () => Promise<void>; readonly signal: AbortSignal },
  ): AsyncGenerator<QueuedCommand, never> {
    let sequence = cursor === undefined ? this.#delivered(storeId) : this.#placeOf(storeId, cursor);
    const failed = new AbortController();
    const either = { signal: AbortSignal.any([signal, failed.signal]) };
    const marks = new DeliveryMarks({
      flushed,
      mark: (upTo) => this.#deliver(storeId, upTo),
      onFailure: (error) => failed.abort(error),
    });
    if (!this.isWatching(storeId)) {
      // The store says where it is, and what was sent to it on an earlier stream is not on its way.
      this.#sent.set(storeId, sequence);
    }
    this.#watching.set(storeId, (this.#watching.get(storeId) ?? 0) + 1);
    try {
      for (;;) {
        await turnToRead(either);
        const news = this.#news.next(either);
        const { revision } = this.#cancellations;
        const page = this.#after(storeId, sequence);
        for (const command of page) {
          either.signal.throwIfAborted();
          if (revision !== this.#cancellations.revision) {
            // One of this page may have been withdrawn since it was read.
            break;
          }
          this.#sent.set(storeId, Math.max(command.sequence, this.#sent.get(storeId) ?? 0));
          yield command;
          sequence = command.sequence;
          if (cursor === undefined) {
            marks.written(sequence);
          }
        }
        if (page.length === 0) {
          // Nothing is after the cursor, whatever it is, and only a new command can change that.
          await news;
        }
      }
    } finally {
      const left = (this.#watching.get(storeId) ?? 1) - 1;
      if (left > 0) {
        this.#watching.set(storeId, left);
      } else {
        this.#watching.delete(storeId);
      }
    }
  }

  /** From the start for a cursor of another ledger, and for one into a queue that was restored. */
  #placeOf(storeId: string, { sequence, ledgerId, commandId }: StoreCursor): number {
    const isOfOther = ledgerId !== "" && ledgerId !== this.#ledgerId;
    const isRestored = commandId !== "" && this.#sequenceOf(storeId, commandId) !== sequence;
    return isOfOther || isRestored ? 0 : sequence;
  }

  #after(storeId: string, sequence: number): readonly QueuedCommand[] {
    const rows = this.#database
      .prepare(
        `SELECT ${commandColumns} FROM ${visibleCommands}
         WHERE commands.store_id = ? AND sequence > ? AND sequence <= ${lastReadable}
           AND ${isWanted}
         ORDER BY sequence LIMIT ?`,
      )
      .iterate(storeId, sequence, pageSize);
    return readPage(rows, { limit: pageSize, read: readCommand, sizeOf: sizeOfCommand }).items;
  }

  #sequenceOf(storeId: string, commandId: string): number | undefined {
    const row = this.#database
      .prepare(
        `SELECT ${safe("sequence")} AS sequence FROM ${visibleCommands}
         WHERE commands.store_id = ? AND commands.command_id = ?`,
      )
      .get(storeId, commandId);
    return row && Number(row["sequence"]);
  }

  /** The sequence of a store's last command; 0 for none. */
  highest(storeId: string): number {
    const row = this.#database.prepare(`SELECT ${lastSequence("?")} AS last`).get(storeId);
    return Number(row?.["last"]);
  }

  #delivered(storeId: string): number {
    const row = this.#database
      .prepare(`SELECT ${safe("sequence")} AS sequence FROM deliveries WHERE store_id = ?`)
      .get(storeId);
    return Number(row?.["sequence"] ?? 0);
  }

  #deliver(storeId: string, sequence: number): void {
    this.#database.write(() => {
      this.#database
        .prepare(
          `INSERT INTO deliveries (store_id, sequence) VALUES (?, ?)
           ON CONFLICT (store_id) DO UPDATE SET sequence = max(sequence, excluded.sequence)`,
        )
        .run(storeId, sequence);
    });
  }
}

function faultOfStores(storeIds: readonly string[]): string | undefined {
  if (storeIds.length === 0) {
    return "store_ids is empty; expected at least one store, or all_stores";
  }
  return storeIds.map((storeId) => faultOfName("store_id", storeId)).find(Boolean);
}

function insistOnDeliverable(stores: number, payloadBytes: number): void {
  const bytes = stores * payloadBytes;
  if (bytes > maxDeliveredBytes) {
    throw new StatusError(
      "RESOURCE_EXHAUSTED",
      `a payload of ${payloadBytes} bytes for ${stores} stores is ${bytes} bytes to deliver; ` +
        `at most ${maxDeliveredBytes} are allowed; issue it to fewer stores at a time`,
    );
  }
}

function faultOfPayload(json: string): string | undefined {
  const bytes = Buffer.byteLength(json);
  if (bytes > maxCommandPayloadBytes) {
    return `payload_json has ${bytes} bytes; at most ${maxCommandPayloadBytes} are allowed`;
  }
  try {
    JSON.parse(json);
    return undefined;
  } catch {
    return "payload_json is not JSON";
  }
}

function readCommand(row: unknown[]): QueuedCommand {
  const [storeId, sequence, commandId, type, payload, issuedAt] = row;
  return {
    storeId: String(storeId),
    sequence: Number(sequence),
    commandId: String(commandId),
    type: String(type),
    payloadJson: String(payload),
    issuedAt: Number(issuedAt),
  };
}

function sizeOfCommand({ payloadJson }: QueuedCommand): number {
  return payloadJson.length;
}

function readFate(row: unknown[]): CommandFate {
  const command = readCommand(row);
  const [received, applied, reason, isWanted] = row.slice(-4);
  if (isWanted === 0) {
    return { ...command, state: "cancelled", reason: "" };
  }
  if (reason !== null) {
    return { ...command, state: "parked", reason: String(reason) };
  }
  const { sequence } = command;
  const isApplied = sequence <= Number(applied);
  const isReceived = sequence <= Number(received);
  return {
    ...command,
    state: isApplied ? "applied" : isReceived ? "received" : "queued",
    reason: "",
  };
}
