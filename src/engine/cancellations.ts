/**
 * Withdraws commands that stores have not been sent yet. The command stays in its queue, so that every
 * other command keeps its sequence, and is marked as cancelled: no store is sent it any more.
 *
 * A command that was sent cannot be taken back. The store may have it on its disk, and may be applying it.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import { StatusError } from "../errors.ts";
import type { Database, Statement } from "../sqlite.ts";
import { lastReadable, visibleCommands } from "./command-schema.ts";
import { safe } from "./safe-integer.ts";

/** What has become of a command of one store after somebody wanted to withdraw it. */
export interface Cancellation {
  readonly storeId: string;
  readonly sequence: number;
  /** `received`: it was sent, and the store may still apply it. */
  readonly state: "cancelled" | "received" | "applied" | "parked";
}

export interface CancelOptions {
  /** The sequence up to which a store was sent its commands, as far as this process knows. */
  readonly sent: (storeId: string) => number;
  /** Unix milliseconds. */
  readonly now: () => number;
  readonly signal: AbortSignal;
}

/** How many stores are looked at in one transaction: some milliseconds' worth. */
const maxStoresAtOnce = 100;

export class Cancellations {
  readonly #database: Database;
  readonly #find: Statement;
  readonly #insert: Statement;
  readonly #nextStore: Statement;
  #revision = 0;

  constructor(database: Database) {
    this.#database = database;
    this.#find = database.prepare(
      `SELECT ${safe("sequence")} AS sequence, ${safe("coalesce(received, 0)")} AS received,
         ${safe("coalesce(applied, 0)")} AS applied,
         coalesce((SELECT sequence FROM deliveries WHERE store_id = ?1), 0) AS delivered,
         EXISTS (SELECT 1 FROM parked_commands WHERE store_id = ?1 AND command_id = ?2) AS is_parked,
         EXISTS (SELECT 1 FROM cancelled_commands WHERE store_id = ?1 AND command_id = ?2)
           AS is_cancelled
       FROM ${visibleCommands} LEFT JOIN progress ON progress.store_id = commands.store_id
       WHERE commands.store_id = ?1 AND commands.command_id = ?2 AND sequence <= ${lastReadable}`,
    );
    this.#insert = database.prepare(
      "INSERT INTO cancelled_commands (store_id, command_id, at) VALUES (?, ?, ?)",
    );
    this.#nextStore = database.prepare(
      "SELECT min(store_id) AS store_id FROM commands WHERE store_id > ?",
    );
  }

  /** Grows with every command that is cancelled: a page of commands that was read before may hold it. */
  get revision(): number {
    return this.#revision;
  }

  /**
   * Withdraws the command for these stores, or for all that have it if none is named, and resolves with
   * what has become of it at each, by id. Rejects with `StatusError`: NOT_FOUND if no store has it, or if
   * one of those named has not, and FAILED_PRECONDITION if all are done with it; then nothing has
   * changed. Rejects with the signal's reason between two transactions; the call may be repeated.
   */
  async cancel(
    commandId: string,
    storeIds: readonly string[],
    options: CancelOptions,
  ): Promise<Cancellation[]> {
    const { signal } = options;
    const targets = Array.from(new Set(storeIds)).sort();
    for (const storeId of targets) {
      if (this.#find.get(storeId, commandId) === undefined) {
        throw new StatusError("NOT_FOUND", `store ${storeId} has no command ${commandId}`);
      }
    }
    const found: Cancellation[] = [];
    const stores = targets.length > 0 ? targets : this.#storesWithCommands();
    for (const chunk of chunks(stores)) {
      this.#database.write(() => {
        for (const storeId of chunk) {
          found.push(...this.#cancelOne(storeId, commandId, options));
        }
      });
      await nextTurn();
      signal.throwIfAborted();
    }
    insistOnCancelled(commandId, found);
    return found;
  }

  #cancelOne(storeId: string, commandId: string, { sent, now }: CancelOptions): Cancellation[] {
    const row = this.#find.get(storeId, commandId);
    if (row === undefined) {
      return [];
    }
    const sequence = Number(row["sequence"]);
    const reached = Math.max(Number(row["received"]), Number(row["delivered"]), sent(storeId));
    if (row["is_cancelled"] === 1) {
      return [{ storeId, sequence, state: "cancelled" }];
    }
    if (row["is_parked"] === 1) {
      return [{ storeId, sequence, state: "parked" }];
    }
    if (sequence <= Number(row["applied"])) {
      return [{ storeId, sequence, state: "applied" }];
    }
    if (sequence <= reached) {
      return [{ storeId, sequence, state: "received" }];
    }
    this.#insert.run(storeId, commandId, now());
    this.#revision += 1;
    return [{ storeId, sequence, state: "cancelled" }];
  }

  /** Steps from one store's commands to the next store's, since a scan would read all commands. */
  *#storesWithCommands(): Generator<string, void> {
    let last: unknown = "";
    for (;;) {
      last = this.#nextStore.get(String(last))?.["store_id"];
      if (typeof last !== "string") {
        return;
      }
      yield last;
    }
  }
}

function* chunks(storeIds: Iterable<string>): Generator<readonly string[], void> {
  let chunk: string[] = [];
  for (const storeId of storeIds) {
    chunk.push(storeId);
    if (chunk.length === maxStoresAtOnce) {
      yield chunk;
      chunk = [];
    }
  }
  if (chunk.length > 0) {
    yield chunk;
  }
}

function insistOnCancelled(commandId: string, found: readonly Cancellation[]): void {
  const [first] = found;
  if (first === undefined) {
    throw new StatusError("NOT_FOUND", `no store has a command ${commandId}`);
  }
  if (found.every(({ state }) => state === "applied" || state === "parked")) {
    const who = found.length === 1 ? `store ${first.storeId} is` : `all ${found.length} stores are`;
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${who} done with command ${commandId} (${first.state}), and it cannot be withdrawn; issue a command that undoes it`,
    );
  }
}
