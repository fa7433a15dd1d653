/**
 * The inbox: what the cloud has told a store, each command once. It shares the outbox's file, so
 * that a command and the cursor behind it are one transaction: after a crash the stream goes on
 * exactly where the store is.
 */

import { StatusError } from "../errors.ts";
import type { Database } from "../sqlite.ts";
import { faultOfName } from "../store-event.ts";

export interface Command {
  readonly commandId: string;
  readonly type: string;
  /** A JSON value. */
  readonly payloadJson: string;
  /** Its place in the store's queue, from 1. */
  readonly sequence: number;
  /** Unix milliseconds, by the cloud's clock. */
  readonly issuedAt: number;
}

/** `parked`: the store does not know what to do with it, and a person should look. */
export type CommandState = "applied" | "parked";

/** How far a store has come with the commands of one ledger. */
export interface Cursor {
  readonly ledgerId: string;
  readonly sequence: number;
  /** Of the command at that place; empty for none. */
  readonly commandId: string;
}

export type Received =
  | { readonly kind: "applied" }
  | { readonly kind: "parked"; readonly reason: string }
  /** It had come before. */
  | { readonly kind: "known" };

/** What a store of this version can do. */
export const commandTypes = ["PriceUpdate", "PromoActivate", "StockAlert"];

/** Part of the outbox's file. */
export const commandsSchema = `
    -- The cloud's commands, in the order in which they came.
    CREATE TABLE commands (
      number       INTEGER PRIMARY KEY AUTOINCREMENT,
      command_id   TEXT NOT NULL UNIQUE,
      type         TEXT NOT NULL,
      payload      TEXT NOT NULL,
      sequence     INTEGER NOT NULL,
      issued_at    INTEGER NOT NULL,
      received_at  INTEGER NOT NULL,
      reason       TEXT NOT NULL            -- why it is parked; empty if it was applied
    ) STRICT;

    -- A ledger that was lost and made anew counts from 1 again, hence one cursor a ledger.
    CREATE TABLE cursors (
      ledger_id   TEXT NOT NULL UNIQUE,
      sequence    INTEGER NOT NULL,
      command_id  TEXT NOT NULL,
      used_at     INTEGER NOT NULL
    ) STRICT;
`;

export class Inbox {
  readonly #database: Database;
  readonly #now: () => number;

  /** `database`: an outbox's. `now`: Unix milliseconds. */
  constructor(database: Database, { now }: { now: () => number }) {
    this.#database = database;
    this.#now = now;
  }

  /** The cursor that was used last, of whichever ledger; undefined if there is none yet. */
  lastCursor(): Cursor | undefined {
    const row = this.#database
      .prepare("SELECT * FROM cursors ORDER BY used_at DESC, rowid DESC LIMIT 1")
      .get();
    return (
      row && {
        ledgerId: String(row["ledger_id"]),
        sequence: Number(row["sequence"]),
        commandId: String(row["command_id"]),
      }
    );
  }

  /**
   * Keeps a command and moves the cursor behind it, in one transaction: on the disk when this
   * returns. One that has come before only moves the cursor. Throws `StatusError` INTERNAL for one
   * that names nothing, which only a broken cloud sends.
   */
  receive(command: Command, ledgerId: string): Received {
    const { commandId, type, payloadJson, sequence, issuedAt } = command;
    const fault = faultOfName("command_id", commandId);
    if (fault !== undefined) {
      throw new StatusError("INTERNAL", `the cloud sent a command whose ${fault}`);
    }
    const reason = faultOfCommand(command);
    const at = this.#now();
    return this.#database.write(() => {
      const { changes } = this.#database
        .prepare(
          `INSERT INTO commands (command_id, type, payload, sequence, issued_at, received_at, reason)
           VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (command_id) DO NOTHING`,
        )
        .run(commandId, type, payloadJson, sequence, issuedAt, at, reason);
      this.#database
        .prepare(
          `INSERT INTO cursors (ledger_id, sequence, command_id, used_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (ledger_id) DO UPDATE SET sequence = excluded.sequence,
             command_id = excluded.command_id, used_at = excluded.used_at`,
        )
        .run(ledgerId, sequence, commandId, at);
      if (changes === 0) {
        return { kind: "known" };
      }
      return reason === "" ? { kind: "applied" } : { kind: "parked", reason };
    });
  }

  /** How many there are. */
  counts(): { readonly applied: number; readonly parked: number } {
    const row = this.#database
      .prepare("SELECT count(*) AS total, count(nullif(reason, '')) AS parked FROM commands")
      .get();
    const parked = Number(row?.["parked"]);
    return { applied: Number(row?.["total"]) - parked, parked };
  }
}

/** Why a store cannot apply it; empty if it can. */
function faultOfCommand({ type, payloadJson }: Command): string {
  if (!commandTypes.includes(type)) {
    return `unknown type ${JSON.stringify(type)}`;
  }
  try {
    JSON.parse(payloadJson);
    return "";
  } catch {
    return "its payload is not JSON";
  }
}
