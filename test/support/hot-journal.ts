/** Database files as a power cut leaves them in the middle of a transaction with a rollback journal. */

import { copyFileSync, existsSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { tempFolder } from "./temp.ts";

/**
 * Writes at `path` the database and the journal of a transaction that was interrupted. `before` is what
 * had been committed; without it, the file was just being made.
 */
export function interruptTransaction(path: string, before = ""): void {
  using folder = tempFolder();
  const elsewhere = folder.file("database");
  const sqlite = new DatabaseSync(elsewhere);
  try {
    sqlite.exec("PRAGMA journal_mode = DELETE");
    sqlite.exec(before);
    // With a cache of two pages SQLite writes most of the transaction to the file before the commit,
    // and the journal before that.
    sqlite.exec("PRAGMA cache_size = 2; BEGIN IMMEDIATE");
    sqlite.exec("CREATE TABLE half (number INTEGER PRIMARY KEY, filler BLOB)");
    const insert = sqlite.prepare("INSERT INTO half (filler) VALUES (zeroblob(3000))");
    for (let i = 0; i < 20; i++) {
      insert.run();
    }
    for (const suffix of ["", "-journal"]) {
      copyFileSync(elsewhere + suffix, path + suffix);
    }
  } finally {
    sqlite.close();
  }
  if (!existsSync(`${path}-journal`) || statSync(`${path}-journal`).size === 0) {
    throw new Error("the transaction has left no journal");
  }
}
