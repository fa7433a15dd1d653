/**
 * The highest seq that a buffer has given, in a small file beside it. SQLite keeps what was committed
 * last in its log, and opens a file whose log somebody has removed as if nothing had ever been there;
 * this file tells that something was.
 *
 * It is written after each commit and never synced: it survives a process, and may be behind after a
 * power cut. So it only ever tells that events are gone, and never that they are all there.
 */

import { closeSync, constants, openSync, writeSync } from "node:fs";
import { makePrivateFile, readPrivateFile } from "../private-file.ts";
import { type Database, inMemory } from "../sqlite.ts";
import { type Loss, markSalvaged, salvagedIn } from "./salvage-mark.ts";

export interface HighWater {
  readonly epoch: string;
  readonly seq: number;
}

/** The length of the file, in bytes: always the same, so that no write leaves a part of another. */
const fileBytes = 256;

function highWaterPath(path: string): string {
  return `${path}-high-water`;
}

/** Keeps the file up to date for one process. Close it at the end. */
export class HighWaterMark {
  readonly #path: string;
  /** Undefined before the first note; "none" if the file cannot be written. */
  #file: number | "none" | undefined;

  constructor(path: string) {
    this.#path = path;
    this.#file = path === inMemory ? "none" : undefined;
  }

  /** Notes a number. A sale must not fail for it: if the file cannot be written, it is given up. */
  note({ epoch, seq }: HighWater): void {
    try {
      this.#file ??= openFile(highWaterPath(this.#path));
      if (this.#file !== "none") {
        const line = JSON.stringify({ epoch, seq }).padEnd(fileBytes - 1);
        writeSync(this.#file, `${line}\n`, 0);
      }
    } catch {
      this.close();
      this.#file = "none";
    }
  }

  close(): void {
    if (typeof this.#file === "number") {
      closeSync(this.#file);
    }
    this.#file = "none";
  }
}

function openFile(path: string): number {
  makePrivateFile(path);
  return openSync(path, constants.O_WRONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
}

/** Returns what the file says; undefined if there is none, or none that makes sense. */
export function highWaterOf(path: string): HighWater | undefined {
  try {
    const { epoch, seq } = JSON.parse(readPrivateFile(highWaterPath(path)));
    return typeof epoch === "string" && Number.isSafeInteger(seq) ? { epoch, seq } : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Returns the events that are gone from the end of the buffer; undefined if none is. `highWater` must
 * have been read before the buffer is: another process may be recording.
 */
export function lostTail(
  database: Database,
  highWater: HighWater | undefined,
): Omit<Loss, "at"> | undefined {
  const row = database
    .prepare(
      `SELECT e.epoch AS epoch, next_seq, (SELECT count(*) FROM events) AS events
       FROM outbox JOIN epochs e ON e.number = outbox.epoch`,
    )
    .get();
  const next = Number(row?.["next_seq"]);
  if (highWater === undefined || row?.["epoch"] !== highWater.epoch || !(highWater.seq >= next)) {
    return undefined;
  }
  return {
    ...{ read: Number(row["events"]), atLeast: highWater.seq - next + 1 },
    ...{ epoch: highWater.epoch, numbers: [[next, highWater.seq]], isMore: false },
    ...{ hasPruned: false, isTail: true },
  };
}

/**
 * Notes the loss in the buffer and gives none of the lost numbers a second time: the cloud may know
 * them, and sees a gap where it does not. Returns whether there was a loss to be noted.
 */
export function noteLostTail(
  database: Database,
  highWater: HighWater | undefined,
  at: number,
): boolean {
  if (lostTail(database, highWater) === undefined) {
    return false;
  }
  return database.write(() => {
    // Another process may have been faster.
    const loss = lostTail(database, highWater);
    if (loss === undefined || highWater === undefined) {
      return false;
    }
    const before = salvagedIn(database) ?? { at, setAside: "", events: loss.read, losses: [] };
    markSalvaged(database, { ...before, losses: [...before.losses, { at, ...loss }] });
    database.prepare("UPDATE outbox SET next_seq = ?").run(highWater.seq + 1);
    database
      .prepare("UPDATE epochs SET gone = gone + ? WHERE epoch = ?")
      .run(loss.atLeast, loss.epoch);
    return true;
  });
}
