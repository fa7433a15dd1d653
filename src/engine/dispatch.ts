/**
 * The commands that the cloud has for each store: a queue a store, on the disk, numbered from 1.
 * Nothing is ever taken out of a queue; a store says how far it has come.
 */

import { randomBytes } from "node:crypto";
import { Bell } from "../bell.ts";
import { StatusError } from "../errors.ts";
import type { Database } from "../sqlite.ts";
import { faultOfName } from "../store-event.ts";

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
  readonly state: "queued" | "received" | "applied" | "parked";
  /** Why it is parked, as the store says. */
  readonly reason: string;
}

/** Of stores that a command may be for: one transaction, in which the cloud does nothing else. */
const maxStores = 10_000;

/** In bytes of UTF-8. */
const maxPayloadBytes = 1024 * 1024;

/** Read from the disk at a time. */
const pageSize = 100;

export const receiptsSchema = `
    -- How far each store says that it is with its commands.
    CREATE TABLE progress (
      store_id  TEXT PRIMARY KEY,
      received  INTEGER NOT NULL,
      applied   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    -- Commands that a store could not apply, as it says.
    CREATE TABLE parked_commands (
      store_id    TEXT NOT NULL,
      command_id  TEXT NOT NULL,
      reason      TEXT NOT NULL,
      PRIMARY KEY (store_id, command_id)
    ) STRICT, WITHOUT ROWID;
`;

/** Part of the ledger's file. */
export const dispatchSchema = `
    ${receiptsSchema}
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

    -- What was written to the stream of a store that keeps no cursor of its own.
    CREATE TABLE deliveries (
      store_id  TEXT PRIMARY KEY,
      sequence  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
`;

export class Dispatch {
  readonly #database: Database;
  readonly #ledgerId: string;
  readonly #now: () => number;
  /** Of each store that watches, how many do. */
  readonly #watching = new Map<string, number>();
  readonly #news = new Bell();

  /** `database` and `ledgerId`: a ledger's. `now`: Unix milliseconds. */
  constructor(
    database: Database,
    { ledgerId, now }: { readonly ledgerId: string; readonly now: () => number },
  ) {
    this.#database = database;
    this.#ledgerId = ledgerId;
    this.#now = now;
  }

  /**
   * Queues a command for each of these stores, in one transaction: on the disk when this returns. A
   * store that has the same command already keeps the one that is there. Throws `StatusError`, and
   * then nothing was queued: INVALID_ARGUMENT, ALREADY_EXISTS for a command_id with another content.
   */
  issue(
    storeIds: readonly string[],
    { commandId: wantedId, type, payloadJson }: NewCommand,
  ): QueuedCommand[] {
    const commandId = wantedId || `cmd-${randomBytes(6).toString("hex")}`;
    const fault =
      faultOfStores(storeIds) ??
      faultOfName("command_id", commandId) ??
      faultOfName("type", type) ??
      faultOfPayload(payloadJson);
    if (fault !== undefined) {
      throw new StatusError("INVALID_ARGUMENT", fault);
    }
    const issuedAt = this.#now();
    const insert = this.#database.prepare(
      `INSERT INTO commands (store_id, sequence, command_id, type, payload, issued_at)
       VALUES (?, ?, ?, ?, ?, ?)`,
    );
    const queued = this.#database.write(() =>
      [...new Set(storeIds)].map((storeId): QueuedCommand => {
        const known = this.#byId(storeId, commandId);
        if (known !== undefined) {
          if (known.type !== type || known.payloadJson !== payloadJson) {
            throw new StatusError(
              "ALREADY_EXISTS",
              `store ${storeId} has a command ${commandId} already, with another content`,
            );
          }
          return known;
        }
        const sequence = this.highest(storeId) + 1;
        insert.run(storeId, sequence, commandId, type, payloadJson, issuedAt);
        return { storeId, commandId, type, payloadJson, sequence, issuedAt };
      }),
    );
    this.#news.ring();
    return queued;
  }

  /** Commands of a store, or of all, behind a place, by store and sequence. */
  commands({
    storeId = "",
    after,
    limit = pageSize,
  }: {
    readonly storeId?: string;
    readonly after: { readonly storeId: string; readonly sequence: number };
    readonly limit?: number;
  }): CommandFate[] {
    const ofOne = storeId === "" ? "" : "commands.store_id = ? AND";
    return this.#database
      .prepare(
        `SELECT commands.*, coalesce(received, 0) AS received, coalesce(applied, 0) AS applied, reason
         FROM commands LEFT JOIN progress USING (store_id)
           LEFT JOIN parked_commands USING (store_id, command_id)
         WHERE ${ofOne} (commands.store_id, sequence) > (?, ?)
         ORDER BY commands.store_id, sequence LIMIT ?`,
      )
      .all(...(storeId === "" ? [] : [storeId]), after.storeId, after.sequence, limit)
      .map(readFate);
  }

  isWatching(storeId: string): boolean {
    return this.#watching.has(storeId);
  }

  /**
   * The commands behind the cursor, in order, and then those still to come, until the signal aborts,
   * with whose reason it throws. Without a cursor, those not yet delivered; each counts as delivered
   * when the next one is asked for.
   */
  async *watch(
    storeId: string,
    cursor: StoreCursor | undefined,
    { signal }: { readonly signal: AbortSignal },
  ): AsyncGenerator<QueuedCommand, never> {
    let sequence = cursor === undefined ? this.#delivered(storeId) : this.#placeOf(storeId, cursor);
    this.#watching.set(storeId, (this.#watching.get(storeId) ?? 0) + 1);
    try {
      for (;;) {
        const news = this.#news.next({ signal });
        for (const command of this.#behind(storeId, sequence)) {
          signal.throwIfAborted();
          yield command;
          sequence = command.sequence;
          if (cursor === undefined) {
            this.#deliver(storeId, sequence);
          }
        }
        if (this.highest(storeId) <= sequence) {
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
    const isRestored = commandId !== "" && this.#byId(storeId, commandId)?.sequence !== sequence;
    return isOfOther || isRestored ? 0 : sequence;
  }

  #behind(storeId: string, sequence: number): QueuedCommand[] {
    return this.#database
      .prepare(
        "SELECT * FROM commands WHERE store_id = ? AND sequence > ? ORDER BY sequence LIMIT ?",
      )
      .all(storeId, sequence, pageSize)
      .map(readCommand);
  }

  #byId(storeId: string, commandId: string): QueuedCommand | undefined {
    const row = this.#database
      .prepare("SELECT * FROM commands WHERE store_id = ? AND command_id = ?")
      .get(storeId, commandId);
    return row && readCommand(row);
  }

  /** The sequence of a store's last command; 0 for none. */
  highest(storeId: string): number {
    const row = this.#database
      .prepare("SELECT max(sequence) AS highest FROM commands WHERE store_id = ?")
      .get(storeId);
    return Number(row?.["highest"] ?? 0);
  }

  #delivered(storeId: string): number {
    const row = this.#database
      .prepare("SELECT sequence FROM deliveries WHERE store_id = ?")
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
  if (storeIds.length > maxStores) {
    return `a command for ${storeIds.length} stores; at most ${maxStores} are allowed`;
  }
  return storeIds.map((storeId) => faultOfName("store_id", storeId)).find(Boolean);
}

function faultOfPayload(json: string): string | undefined {
  const bytes = Buffer.byteLength(json);
  if (bytes > maxPayloadBytes) {
    return `payload_json has ${bytes} bytes; at most ${maxPayloadBytes} are allowed`;
  }
  try {
    JSON.parse(json);
    return undefined;
  } catch {
    return "payload_json is not JSON";
  }
}

function readCommand(row: Record<string, unknown>): QueuedCommand {
  return {
    storeId: String(row["store_id"]),
    sequence: Number(row["sequence"]),
    commandId: String(row["command_id"]),
    type: String(row["type"]),
    payloadJson: String(row["payload"]),
    issuedAt: Number(row["issued_at"]),
  };
}

function readFate(row: Record<string, unknown>): CommandFate {
  const command = readCommand(row);
  const { sequence } = command;
  if (row["reason"] !== null) {
    return { ...command, state: "parked", reason: String(row["reason"]) };
  }
  const isApplied = sequence <= Number(row["applied"]);
  const isReceived = sequence <= Number(row["received"]);
  return {
    ...command,
    state: isApplied ? "applied" : isReceived ? "received" : "queued",
    reason: "",
  };
}
