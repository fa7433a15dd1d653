/**
 * The tables of the commands, which are part of the ledger's file. What a command says is stored once
 * for all the stores that one call has issued it to, and each store's queue refers to it.
 */

import { safe } from "./safe-integer.ts";

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

const commandsSchema = `
    -- What a command says, once for all the stores that one call has issued it to.
    CREATE TABLE command_batches (
      number       INTEGER PRIMARY KEY,
      type         TEXT NOT NULL,
      payload      TEXT NOT NULL,
      issued_at    INTEGER NOT NULL,
      is_complete  INTEGER NOT NULL   -- 0: its commands are still being queued, and nobody sees them
    ) STRICT;
    CREATE INDEX incomplete_batches ON command_batches (number) WHERE is_complete = 0;

    CREATE TABLE commands (
      store_id    TEXT NOT NULL,
      sequence    INTEGER NOT NULL,
      command_id  TEXT NOT NULL,
      batch       INTEGER NOT NULL REFERENCES command_batches,
      PRIMARY KEY (store_id, sequence),
      UNIQUE (store_id, command_id)
    ) STRICT, WITHOUT ROWID;
`;

/** Upgrades version 2 of the ledger's file, in which every command had its payload with it, to 3. */
export const commandsUpgrade = `
    ALTER TABLE commands RENAME TO old_commands;
    ${commandsSchema}
    CREATE TABLE old_batches (
      number      INTEGER PRIMARY KEY,
      command_id  TEXT NOT NULL,
      type        TEXT NOT NULL,
      payload     TEXT NOT NULL,
      issued_at   INTEGER NOT NULL
    ) STRICT;
    INSERT INTO old_batches (command_id, type, payload, issued_at)
      SELECT DISTINCT command_id, type, payload, issued_at FROM old_commands;
    CREATE INDEX old_batch_ids ON old_batches (command_id, issued_at);
    INSERT INTO command_batches (number, type, payload, issued_at, is_complete)
      SELECT number, type, payload, issued_at, 1 FROM old_batches;
    INSERT INTO commands (store_id, sequence, command_id, batch)
      SELECT store_id, sequence, command_id, number
      FROM old_commands JOIN old_batches USING (command_id, type, payload, issued_at);
    DROP TABLE old_batches;
    DROP TABLE old_commands;
`;

export const dispatchSchema = `
    ${receiptsSchema}
    ${commandsSchema}
    -- What has reached a store that keeps no cursor of its own.
    CREATE TABLE deliveries (
      store_id  TEXT PRIMARY KEY,
      sequence  INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
`;

/**
 * The table of withdrawn commands. It is made when a ledger is opened, if it is not there, and is no part
 * of a version of the file: a brewctl that does not know the table sends these commands.
 */
export const cancellationsSchema = `
    CREATE TABLE IF NOT EXISTS cancelled_commands (
      store_id    TEXT NOT NULL,
      command_id  TEXT NOT NULL,
      at          INTEGER NOT NULL,
      PRIMARY KEY (store_id, command_id)
    ) STRICT, WITHOUT ROWID;
`;

/** An SQL condition on a row of `commands`: nobody has withdrawn it. */
export const isWanted = `NOT EXISTS (SELECT 1 FROM cancelled_commands
  WHERE cancelled_commands.store_id = commands.store_id
    AND cancelled_commands.command_id = commands.command_id)`;

/** The commands that readers see, each with what it says. */
export const visibleCommands = `commands JOIN command_batches
  ON command_batches.number = commands.batch AND is_complete = 1`;

/** The highest sequence that can be read. A row beyond it is told as an alarm of its store. */
export const lastReadable = Number.MAX_SAFE_INTEGER;

/** An SQL expression for the sequence of a store's last command; 0 for none. */
export function lastSequence(storeId: string): string {
  return lastSequenceOf(storeId, "true");
}

/** The same without the commands that were withdrawn: what the store has still to come to. */
export function lastWantedSequence(storeId: string): string {
  return lastSequenceOf(storeId, isWanted);
}

function lastSequenceOf(storeId: string, condition: string): string {
  return `coalesce((SELECT sequence FROM ${visibleCommands}
    WHERE commands.store_id = ${storeId} AND sequence <= ${lastReadable} AND ${condition}
    ORDER BY sequence DESC LIMIT 1), 0)`;
}

/** The columns of a command, in the order in which `readCommand` takes them. */
export const commandColumns = `commands.store_id, sequence, commands.command_id, type, payload,
  ${safe("issued_at")}`;
