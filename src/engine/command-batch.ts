/**
 * Issues a command to many stores, for all of them or for none, without holding up the server.
 *
 * It is written in transactions of a few stores each, with a turn of the event loop after each one.
 * Readers see none of it before the last transaction has marked the batch as complete. So a crash in
 * between has queued nothing, and the next call removes what it has left. Calls run one after the
 * other: else a store could be sent a later sequence before an earlier one is visible, and would never
 * ask for the earlier one.
 */

import { setImmediate as nextTurn } from "node:timers/promises";
import { StatusError } from "../errors.ts";
import type { Database, Statement } from "../sqlite.ts";
import { lastSequence } from "./command-schema.ts";
import type { QueuedCommand } from "./dispatch.ts";
import { safe } from "./safe-integer.ts";

/** A command with its id, and when it was issued, in Unix milliseconds. */
type IssuedCommand = Pick<QueuedCommand, "commandId" | "type" | "payloadJson" | "issuedAt">;

/** How many stores get a command queued in one transaction: some milliseconds' worth. */
const maxStoresAtOnce = 100;

export class CommandBatches {
  readonly #database: Database;
  readonly #last: Statement;
  readonly #insert: Statement;
  /** Resolves when no call is queueing commands. */
  #lastCall: Promise<void> = Promise.resolve();

  constructor(database: Database) {
    this.#database = database;
    this.#last = database.prepare(`SELECT ${lastSequence("?")} AS last`);
    this.#insert = database.prepare(
      "INSERT INTO commands (store_id, sequence, command_id, batch) VALUES (?, ?, ?, ?)",
    );
  }

  /**
   * Queues the command for each of these stores; all are on the disk when this resolves. A store that
   * has the command already keeps it. Rejects with ALREADY_EXISTS if one of the stores has a command
   * of that id with another content, with FAILED_PRECONDITION if it was cancelled for one of them, and
   * with the signal's reason, and then nothing was queued.
   */
  async issue(
    storeIds: readonly string[],
    command: IssuedCommand,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<QueuedCommand[]> {
    const queueing = this.#lastCall.then(() => this.#queue(storeIds, command, { signal }));
    // The next call waits for this one whether or not it succeeds.
    this.#lastCall = queueing.then(
      () => {},
      () => {},
    );
    return queueing;
  }

  async #queue(
    storeIds: readonly string[],
    command: IssuedCommand,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<QueuedCommand[]> {
    signal.throwIfAborted();
    this.#removeIncomplete();
    const queued = await this.#known(storeIds, command, { signal });
    const missing = storeIds.filter((storeId) => !queued.has(storeId));
    let batch = 0;
    try {
      for (let from = 0; from < missing.length; from += maxStoresAtOnce) {
        if (from > 0) {
          await nextTurn();
          signal.throwIfAborted();
        }
        const isLast = from + maxStoresAtOnce >= missing.length;
        this.#database.write(() => {
          batch = from === 0 ? this.#begin(command) : batch;
          for (const storeId of missing.slice(from, from + maxStoresAtOnce)) {
            queued.set(storeId, this.#append(storeId, command, batch));
          }
          if (isLast) {
            this.#complete(batch);
          }
        });
      }
    } catch (error) {
      this.#removeIncomplete();
      throw error;
    }
    return storeIds.flatMap((storeId) => queued.get(storeId) ?? []);
  }

  /** Finds the stores that have the command already. Throws ALREADY_EXISTS for another content. */
  async #known(
    storeIds: readonly string[],
    { commandId, type, payloadJson }: IssuedCommand,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<Map<string, QueuedCommand>> {
    const found = new Map<string, QueuedCommand>();
    /** When each batch that was found to have the same content was issued; many stores share one. */
    const times = new Map<number, number>();
    const find = this.#database.prepare(
      `SELECT ${safe("sequence")} AS sequence, batch FROM commands
       WHERE store_id = ? AND command_id = ?`,
    );
    const compare = this.#database.prepare(
      `SELECT type = ? AND payload = ? AS is_same, ${safe("issued_at")} AS issued_at
       FROM command_batches WHERE number = ?`,
    );
    const findCancelled = this.#database.prepare(
      "SELECT 1 FROM cancelled_commands WHERE store_id = ? AND command_id = ?",
    );
    for (const [i, storeId] of storeIds.entries()) {
      const row = find.get(storeId, commandId);
      if (row !== undefined) {
        if (findCancelled.get(storeId, commandId) !== undefined) {
          throw new StatusError(
            "FAILED_PRECONDITION",
            `command ${commandId} was cancelled for store ${storeId}; issue it under another id`,
          );
        }
        const batch = Number(row["batch"]);
        const content = times.has(batch) ? undefined : compare.get(type, payloadJson, batch);
        if (content !== undefined && content["is_same"] !== 1) {
          throw new StatusError(
            "ALREADY_EXISTS",
            `store ${storeId} has a command ${commandId} already, with another content`,
          );
        }
        const issuedAt = times.get(batch) ?? Number(content?.["issued_at"]);
        times.set(batch, issuedAt);
        const sequence = Number(row["sequence"]);
        found.set(storeId, { storeId, commandId, type, payloadJson, sequence, issuedAt });
      }
      if ((i + 1) % maxStoresAtOnce === 0) {
        await nextTurn();
        signal.throwIfAborted();
      }
    }
    return found;
  }

  #begin({ type, payloadJson, issuedAt }: IssuedCommand): number {
    const { lastInsertRowid } = this.#database
      .prepare(
        "INSERT INTO command_batches (type, payload, issued_at, is_complete) VALUES (?, ?, ?, 0)",
      )
      .run(type, payloadJson, issuedAt);
    return Number(lastInsertRowid);
  }

  #append(storeId: string, command: IssuedCommand, batch: number): QueuedCommand {
    const sequence = Number(this.#last.get(storeId)?.["last"]) + 1;
    this.#insert.run(storeId, sequence, command.commandId, batch);
    return { storeId, sequence, ...command };
  }

  #complete(batch: number): void {
    this.#database
      .prepare("UPDATE command_batches SET is_complete = 1 WHERE number = ?")
      .run(batch);
  }

  /** Removes what a call has left that did not come to its end. */
  #removeIncomplete(): void {
    const incomplete = "SELECT number FROM command_batches WHERE is_complete = 0";
    if (this.#database.prepare(incomplete).get() !== undefined) {
      this.#database.write(() => {
        this.#database.prepare(`DELETE FROM commands WHERE batch IN (${incomplete})`).run();
        this.#database.prepare("DELETE FROM command_batches WHERE is_complete = 0").run();
      });
    }
  }
}
