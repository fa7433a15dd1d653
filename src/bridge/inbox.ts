/**
 * The inbox: what the cloud has told a store, each command once. It shares the outbox's file, so
 * that a command and the cursor behind it are one transaction: after a crash the stream goes on
 * exactly where the store is.
 */

import { StatusError } from "../errors.ts";
import { beginning, plain } from "../plain.ts";
import type { Database } from "../sqlite.ts";
import { faultOfName, maxNameBytes, maxTimestamp } from "../store-event.ts";
import { insistOnOurs } from "./hand-over-mark.ts";

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

/** The highest sequence of a command, far beyond what a cloud can have counted to. */
export const maxCommandSequence = 2 ** 40;

/** The largest payload of a command, in bytes of UTF-8: twice what our cloud lets head office issue. */
export const maxCommandPayloadBytes = 2 * 1024 * 1024;

/**
 * What is wrong with a command's fields, in words that name the field; undefined if nothing is. A
 * cloud of the original contract sends neither a sequence nor a time: both are 0 then.
 */
export function faultOfBounds(command: Command): string | undefined {
  const { commandId, type, payloadJson, sequence, issuedAt } = command;
  const bytes = Buffer.byteLength(payloadJson);
  return (
    faultOfInteger("sequence", sequence, maxCommandSequence) ??
    faultOfInteger("issued_at", issuedAt, maxTimestamp) ??
    faultOfName("command_id", commandId) ??
    faultOfName("type", type) ??
    (bytes > maxCommandPayloadBytes
      ? `payload_json has ${bytes} bytes; at most ${maxCommandPayloadBytes} are allowed`
      : undefined)
  );
}

function faultOfInteger(field: string, value: number, max: number): string | undefined {
  return Number.isSafeInteger(value) && value >= 0 && value <= max
    ? undefined
    : `${field} is ${value}; expected 0 to ${max}`;
}

/**
 * A command with each field within its bounds, so that it can be kept and shown. An id that cannot be
 * kept is replaced by one that names the place in the queue. A payload that is too large is left out
 * altogether: a part of it could be taken for the whole.
 */
export function withinBounds(command: Command): Command {
  const { commandId, type, payloadJson, sequence, issuedAt } = command;
  return {
    commandId:
      faultOfName("command_id", commandId) === undefined ? commandId : `refused-${sequence}`,
    type: faultOfName("type", type) === undefined ? type : shortName(type),
    payloadJson: Buffer.byteLength(payloadJson) > maxCommandPayloadBytes ? "" : payloadJson,
    sequence: clamped(sequence, maxCommandSequence),
    issuedAt: clamped(issuedAt, maxTimestamp),
  };
}

/** A character takes at most three bytes of UTF-8. */
function shortName(name: string): string {
  return beginning(plain(name), Math.floor(maxNameBytes / 3)) || "none";
}

function clamped(value: number, max: number): number {
  return Math.min(max, Math.max(0, value));
}

/**
 * `received`: on the disk, and still to be applied. `applied`: done. `parked`: it could not be
 * applied, and a person should look; the ones behind it went on.
 */
export const commandStates = ["received", "applied", "parked"] as const;
export type CommandState = (typeof commandStates)[number];

/** A command on the store's disk. */
export interface ReceivedCommand extends Command {
  /** The order in which they came, whatever the ledger. */
  readonly number: number;
  /** Whose sequence it is. */
  readonly ledgerId: string;
  /** Unix milliseconds, by this store's clock. */
  readonly receivedAt: number;
  readonly state: CommandState;
  /** How often it could not be applied. */
  readonly attempts: number;
  /** Unix milliseconds before which it is not tried again. */
  readonly notBefore: number;
  /** Why it could not be applied last; empty if it never could not. */
  readonly reason: string;
  /**
   * What is wrong with the numbers in the file, which are clamped here; undefined if nothing is. An
   * earlier version kept whatever the cloud sent.
   */
  readonly fault?: string | undefined;
}

/** What became of a command that was to be applied. */
export type CommandOutcome =
  | { readonly kind: "applied" }
  /** To be tried again, not before `notBefore`. */
  | { readonly kind: "retry"; readonly notBefore: number; readonly reason: string }
  | { readonly kind: "parked"; readonly reason: string };

/** How far a store has come with the commands of one ledger. */
export interface Cursor {
  readonly ledgerId: string;
  readonly sequence: number;
  /** Of the command at that place; empty for none. */
  readonly commandId: string;
}

export interface KeptCursor extends Cursor {
  /** Unix milliseconds of when it was moved last. */
  readonly usedAt: number;
}

export type Received =
  /** It waits to be applied. */
  | { readonly kind: "received" }
  | { readonly kind: "applied" }
  | { readonly kind: "parked"; readonly reason: string }
  /** It had come before. */
  | { readonly kind: "known" };

/** How far a store is with the commands of the ledger that it met last. */
export interface CommandProgress {
  /** Empty: it has never met one. */
  readonly ledgerId: string;
  /** The last command that is on the disk. */
  readonly receivedSequence: number;
  /** The last one that is done with, as are all before it. */
  readonly appliedSequence: number;
}

/** What a store of this version can do by itself. */
export const commandTypes = ["PriceUpdate", "PromoActivate", "StockAlert"];

const smallIndexes = `
    -- Small: of what is still to be done.
    CREATE INDEX received_commands ON commands (number) WHERE state = 0;
    CREATE INDEX parked_commands ON commands (number) WHERE state = 2;
`;

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
      reason       TEXT NOT NULL,           -- why it could not be applied; empty if it never could not
      state        INTEGER NOT NULL DEFAULT 1 CHECK (state IN (0, 1, 2)),
      attempts     INTEGER NOT NULL DEFAULT 0,
      not_before   INTEGER NOT NULL DEFAULT 0,
      ledger_id    TEXT NOT NULL DEFAULT '' -- whose sequence it is
    ) STRICT;
    ${smallIndexes}

    -- A ledger that was lost and made anew counts from 1 again, hence one cursor a ledger.
    CREATE TABLE cursors (
      ledger_id   TEXT NOT NULL UNIQUE,
      sequence    INTEGER NOT NULL,
      command_id  TEXT NOT NULL,
      used_at     INTEGER NOT NULL
    ) STRICT;
`;

/** From version 1 of the outbox's file, where a command was applied or parked as it came. */
export const commandsUpgrade = `
    ALTER TABLE commands ADD COLUMN state INTEGER NOT NULL DEFAULT 1 CHECK (state IN (0, 1, 2));
    ALTER TABLE commands ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE commands ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE commands ADD COLUMN ledger_id TEXT NOT NULL DEFAULT '';
    UPDATE commands SET state = 2 WHERE reason <> '';
    ${smallIndexes}
`;

const columns = `number, command_id, type, payload, sequence, issued_at, ledger_id, received_at,
  state, attempts, not_before, reason`;

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
    const last = this.cursors().at(-1);
    return last && { ledgerId: last.ledgerId, sequence: last.sequence, commandId: last.commandId };
  }

  /** Those of all ledgers, in the order in which they were used last. */
  cursors(): KeptCursor[] {
    return this.#database
      .prepare("SELECT * FROM cursors ORDER BY used_at, rowid")
      .all()
      .map((row) => ({
        ledgerId: String(row["ledger_id"]),
        ...placeOf(Number(row["sequence"]), String(row["command_id"])),
        usedAt: clamped(Number(row["used_at"]), maxTimestamp),
      }));
  }

  /**
   * Keeps a command and moves the cursor behind it, in one transaction: on the disk when this
   * returns. One that has come before only moves the cursor. With `appliesLater` it waits for
   * `next`; else it is applied now, or parked if this store does not know what to do with it.
   *
   * A command with a field out of bounds is parked too, with the field cut or clamped, so that those
   * after it in the queue still come. That takes a sequence to move the cursor past it. Without one
   * this throws `StatusError` DATA_LOSS and keeps nothing. Throws FAILED_PRECONDITION when the buffer
   * was handed over to another box.
   */
  receive(
    sent: Command,
    ledgerId: string,
    { appliesLater = false }: { readonly appliesLater?: boolean } = {},
  ): Received {
    const misplaced = faultOfPlace(sent, ledgerId);
    if (misplaced !== undefined) {
      throw new StatusError("DATA_LOSS", `the cloud sent a command whose ${misplaced}`);
    }
    const outOfBounds = faultOfBounds(sent);
    const command = withinBounds(sent);
    const { commandId, type, payloadJson, sequence, issuedAt } = command;
    const reason = outOfBounds ?? (appliesLater ? "" : faultOfCommand(command));
    const state: CommandState = reason !== "" ? "parked" : appliesLater ? "received" : "applied";
    const at = this.#now();
    return this.#database.write(() => {
      insistOnOurs(this.#database);
      // A ledger that was made anew may have another place for it.
      const known = this.#database
        .prepare("UPDATE commands SET sequence = ?, ledger_id = ? WHERE command_id = ?")
        .run(sequence, ledgerId, commandId).changes;
      this.#database
        .prepare(
          `INSERT INTO commands
             (command_id, type, payload, sequence, issued_at, received_at, reason, state, ledger_id)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (command_id) DO NOTHING`,
        )
        .run(
          ...([commandId, type, payloadJson, sequence, issuedAt, at, reason] as const),
          ...([commandStates.indexOf(state), ledgerId] as const),
        );
      this.#database
        .prepare(
          `INSERT INTO cursors (ledger_id, sequence, command_id, used_at) VALUES (?, ?, ?, ?)
           ON CONFLICT (ledger_id) DO UPDATE SET sequence = excluded.sequence,
             command_id = excluded.command_id, used_at = excluded.used_at`,
        )
        .run(ledgerId, sequence, commandId, at);
      if (Number(known) > 0) {
        return { kind: "known" };
      }
      return state === "parked" ? { kind: state, reason } : { kind: state };
    });
  }

  /** The first command that waits to be applied; undefined if none does. Cheap. */
  next(): ReceivedCommand | undefined {
    return this.#read("state = 0 ORDER BY number LIMIT 1")[0];
  }

  /** What has become of one that was `next`: on the disk when this returns. */
  settle(number: number, outcome: CommandOutcome): void {
    const { kind } = outcome;
    const state: CommandState = kind === "retry" ? "received" : kind;
    const reason = kind === "applied" ? "" : outcome.reason;
    this.#database.write(() => {
      this.#database
        .prepare(
          `UPDATE commands SET state = ?, attempts = attempts + ?, not_before = ?, reason = ?
           WHERE number = ?`,
        )
        .run(
          ...([commandStates.indexOf(state), kind === "applied" ? 0 : 1] as const),
          ...([kind === "retry" ? outcome.notBefore : 0, reason, number] as const),
        );
    });
  }

  /**
   * Makes parked commands wait to be applied again, those named or all. Throws NOT_FOUND for an id that
   * is not parked; then nothing has changed. Returns the ids.
   */
  retry(commandIds: readonly string[] | "all"): string[] {
    return this.#database.write(() => {
      insistOnOurs(this.#database);
      const parked = this.#read("state = 2 ORDER BY number").map(({ commandId }) => commandId);
      const chosen = commandIds === "all" ? parked : commandIds;
      for (const commandId of chosen) {
        if (!parked.includes(commandId)) {
          throw new StatusError("NOT_FOUND", `no parked command ${JSON.stringify(commandId)}`, {
            hint: "see: brewctl store-sync commands --state parked",
          });
        }
        this.#database
          .prepare(
            "UPDATE commands SET state = 0, attempts = 0, not_before = 0 WHERE command_id = ?",
          )
          .run(commandId);
      }
      return [...chosen];
    });
  }

  /** Commands in a state, or all, behind a number, in the order in which they came. */
  commands({
    state,
    after = 0,
    limit,
  }: {
    readonly state?: CommandState;
    readonly after?: number;
    readonly limit: number;
  }): ReceivedCommand[] {
    // A literal state, since only so does SQLite see which of the small indexes fits.
    const which = state === undefined ? "" : `state = ${commandStates.indexOf(state)} AND `;
    return this.#read(`${which}number > ? ORDER BY number LIMIT ?`, after, limit);
  }

  /** The parked ones that came last, the last first. */
  lastParked(limit: number): ReceivedCommand[] {
    return this.#read("state = 2 ORDER BY number DESC LIMIT ?", limit);
  }

  progress(): CommandProgress {
    const { ledgerId = "", sequence = 0 } = this.lastCursor() ?? {};
    const row = this.#database
      .prepare("SELECT min(sequence) AS first FROM commands WHERE state = 0 AND ledger_id = ?")
      .get(ledgerId);
    const first = row?.["first"];
    return {
      ledgerId,
      receivedSequence: sequence,
      appliedSequence:
        first === null ? sequence : Math.max(0, Math.min(sequence, Number(first) - 1)),
    };
  }

  /** How many there are in each state. */
  counts(): Readonly<Record<CommandState, number>> {
    const row = this.#database
      .prepare(
        `SELECT (SELECT count(*) FROM commands WHERE state = 0) AS received,
           (SELECT count(*) FROM commands WHERE state = 2) AS parked,
           (SELECT count(*) FROM commands) AS total`,
      )
      .get();
    const received = Number(row?.["received"]);
    const parked = Number(row?.["parked"]);
    return { received, parked, applied: Number(row?.["total"]) - parked - received };
  }

  #read(where: string, ...values: number[]): ReceivedCommand[] {
    return this.#database
      .prepare(`SELECT ${columns} FROM commands WHERE ${where}`)
      .all(...values)
      .map((row) => {
        const command: Command = {
          commandId: String(row["command_id"]),
          type: String(row["type"]),
          payloadJson: String(row["payload"]),
          sequence: Number(row["sequence"]),
          issuedAt: Number(row["issued_at"]),
        };
        return {
          ...command,
          number: Number(row["number"]),
          sequence: clamped(command.sequence, maxCommandSequence),
          issuedAt: clamped(command.issuedAt, maxTimestamp),
          ledgerId: String(row["ledger_id"]),
          receivedAt: clamped(Number(row["received_at"]), maxTimestamp),
          state: commandStates[Number(row["state"])] ?? "parked",
          attempts: Number(row["attempts"]),
          notBefore: Number(row["not_before"]),
          reason: String(row["reason"]),
          fault: faultOfBounds(command),
        };
      });
  }
}

/** A cursor that no queue can have led to is taken for none: then every command comes again. */
function placeOf(sequence: number, commandId: string): Pick<Cursor, "sequence" | "commandId"> {
  const isPlace = sequence >= 0 && sequence <= maxCommandSequence;
  return isPlace ? { sequence, commandId } : { sequence: 0, commandId: "" };
}

/**
 * Why the cursor cannot move past a command; undefined if it can. A cloud that does not name its
 * ledger need not number its commands: each is told by its id, and is not sent again.
 */
function faultOfPlace({ sequence, commandId }: Command, ledgerId: string): string | undefined {
  return ledgerId === "" && sequence === 0
    ? faultOfName("command_id", commandId)
    : sequence >= 1 && sequence <= maxCommandSequence
      ? undefined
      : `sequence is ${sequence}; expected 1 to ${maxCommandSequence}`;
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
