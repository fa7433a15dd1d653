/**
 * How many events a salvage could not read. The damaged file knows how many numbers it had given, and
 * an event that is in neither the new buffer nor among the removed ones is lost.
 */

import type { Database } from "../sqlite.ts";
import type { HighWater } from "./high-water.ts";
import { type Loss, maxRanges, type NumberRange } from "./salvage-mark.ts";

type Row = Readonly<Record<string, unknown>>;

/** Holds what could be read of a damaged file beside its events. */
export interface DamagedHead {
  /** The row of `outbox`. */
  readonly outbox: Row | undefined;
  readonly epochs: readonly Row[];
  /** The last position that was given; undefined if that cannot be read. */
  readonly lastPosition: number | undefined;
  /** What the file beside the buffer says; it may be behind. */
  readonly highWater: HighWater | undefined;
}

/**
 * Returns the last position that SQLite's AUTOINCREMENT has given, from the rows of `sqlite_sequence`;
 * undefined if it cannot be read, or if it makes no sense beside so many events.
 */
export function lastPositionIn(sequences: readonly Row[], events: number): number | undefined {
  return counted(sequences.find(({ name }) => name === "events")?.["seq"], events);
}

/**
 * Returns undefined if no event is missing. `database` is the new buffer with all the events that could
 * be read, each in its old epoch; events in an epoch that could not be read are in the epoch `strays`.
 */
export function lossOf(
  database: Database,
  { outbox, epochs, lastPosition, highWater }: DamagedHead,
  { at, strays }: { readonly at: number; readonly strays: number },
): Loss | undefined {
  const read = countIn(database);
  const current = counted(outbox?.["epoch"], 1) ?? newestEpoch(database, strays);
  const row = epochs.find(({ number }) => number === current);
  const { seqs, absent, last } = numbersOf(database, current);
  // A number that a broken page made up is below the events that are there, or above all positions.
  const given = counted((counted(outbox?.["next_seq"], 1) ?? 0) - 1, last, lastPosition);
  const noted = highWater?.epoch === row?.["epoch"] ? (highWater?.seq ?? 0) : 0;
  // If so, the counters in the file are old ones, and the mark beside it may be behind as well.
  const isLogGone = given !== undefined && noted > given;
  const highest = Math.max(given ?? last, noted);
  const missing = highest - seqs;
  const gone = counted(row?.["gone"], 0, missing);
  const atLeast = gone === undefined ? 0 : missing - gone;
  const isOnlyEpoch = epochs.length === 1 && row !== undefined && seqs === read;
  const removed = epochs.reduce((sum, { gone }) => sum + (counted(gone, 0) ?? 0), 0);
  let atMost: number | undefined;
  if (!isLogGone && isOnlyEpoch && given !== undefined) {
    atMost = missing - (gone ?? 0);
  } else if (!isLogGone && lastPosition !== undefined) {
    // Each event of each epoch had a position, and so had some that were never recorded.
    atMost = Math.max(atLeast, lastPosition - read - removed);
  }
  if (atMost === 0) {
    return undefined;
  }
  const tail: NumberRange[] = highest === last ? [] : [[last + 1, highest]];
  const numbers = [...absent, ...tail];
  return {
    ...{ at, read, atLeast, ...(atMost === undefined ? {} : { atMost }) },
    epoch: typeof row?.["epoch"] === "string" ? row["epoch"] : "",
    numbers: numbers.slice(0, maxRanges),
    isMore: numbers.length > maxRanges,
    hasPruned: gone !== 0,
  };
}

/** Returns the value if it is a whole number within these bounds, and undefined otherwise. */
function counted(value: unknown, min: number, max = Number.MAX_SAFE_INTEGER): number | undefined {
  const number = Number(value);
  return value !== null && Number.isSafeInteger(number) && number >= min && number <= max
    ? number
    : undefined;
}

function countIn(database: Database): number {
  return Number(database.prepare("SELECT count(*) AS n FROM events").get()?.["n"]);
}

/** Returns the epoch of the last event, which is the current one if an event was recorded in it. */
function newestEpoch(database: Database, strays: number): number {
  const newest = database
    .prepare("SELECT epoch FROM events WHERE epoch <> ? ORDER BY position DESC LIMIT 1")
    .get(strays);
  return Number(newest?.["epoch"] ?? 0);
}

/** Counts the events of an epoch and finds the highest seq and the ranges below it that are absent. */
function numbersOf(database: Database, epoch: number) {
  const absent: NumberRange[] = [];
  let seqs = 0;
  let last = 0;
  const rows = database.prepare("SELECT seq FROM events WHERE epoch = ? ORDER BY seq");
  for (const [value] of rows.iterate(epoch)) {
    const seq = Number(value);
    if (seq > last + 1 && absent.length <= maxRanges) {
      absent.push([last + 1, seq - 1]);
    }
    seqs += 1;
    last = seq;
  }
  return { seqs, absent, last };
}
