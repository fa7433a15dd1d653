/**
 * The clock by which acknowledged events grow old. A box's wall clock can be wrong by years, and jump by
 * days, so it decides nothing here: the age clock begins at the wall clock's time and then counts how long
 * the machine has been running, which nobody can set.
 *
 * Its last reading is kept in the buffer, with the uptime and the boot that it was taken at. While the
 * machine runs, the difference of two uptimes is the time between them, whether or not a process of
 * brewctl ran. After a boot, what counts is the uptime since then, and at most a day of it. The time in
 * which the machine was off does not count, so nothing is removed early, and all the rest is removed late.
 */

import type { Uptime } from "../clock.ts";
import type { Database } from "../sqlite.ts";

export interface AgeClockOptions {
  readonly database: Database;
  /** Returns the wall clock's time in Unix milliseconds. Only the first reading of a buffer uses it. */
  readonly now: () => number;
  readonly uptime: () => Uptime;
}

/** A reading that is saved again when it is older than this, in milliseconds. A boot loses the rest. */
const saveEveryMs = 60_000;

/**
 * The most that counts between two readings with a boot in between, in milliseconds. A buffer that is
 * copied to a machine that has been running for months ages by no more than this.
 */
const maxAfterBootMs = 24 * 3_600_000;

/** The table has no row until the first reading is saved. */
export const ageClockSchema = `
    CREATE TABLE age_clock (
      one      INTEGER PRIMARY KEY CHECK (one = 1),
      reading  INTEGER NOT NULL,  -- milliseconds, as the age clock counts them
      boot     TEXT NOT NULL,     -- which boot of which machine; empty if it does not say
      uptime   INTEGER NOT NULL   -- milliseconds since then
    ) STRICT;
`;

interface Saved extends Uptime {
  readonly reading: number;
}

export class AgeClock {
  readonly #options: AgeClockOptions;
  /** The first reading of a buffer that has none yet. */
  #first: Saved | undefined;

  constructor(options: AgeClockOptions) {
    this.#options = options;
  }

  /**
   * Returns the clock's reading in milliseconds. It is near Unix time while the wall clock is right and
   * the machine is never off; only its differences mean something.
   */
  reading(): number {
    return this.#readingAfter(this.#saved() ?? this.#begin());
  }

  /** Returns whether `save` should be called, so that a boot loses no more than a minute. */
  isUnsaved(): boolean {
    const saved = this.#saved();
    return saved === undefined || this.#readingAfter(saved) - saved.reading >= saveEveryMs;
  }

  /** Keeps the reading for the processes to come. To be called within a transaction. */
  save(): void {
    const { database, uptime } = this.#options;
    const reading = this.reading();
    const { boot, ms } = uptime();
    database
      .prepare(
        `INSERT INTO age_clock (one, reading, boot, uptime) VALUES (1, ?, ?, ?)
         ON CONFLICT (one) DO UPDATE
         SET reading = excluded.reading, boot = excluded.boot, uptime = excluded.uptime`,
      )
      .run(reading, boot, ms);
  }

  #readingAfter(saved: Saved): number {
    const { boot, ms } = this.#options.uptime();
    const isSameBoot = boot === saved.boot && ms >= saved.ms;
    return saved.reading + (isSameBoot ? ms - saved.ms : Math.min(ms, maxAfterBootMs));
  }

  /** A buffer of an older brewctl is as old as its last acknowledgement, if the wall clock is later. */
  #begin(): Saved {
    if (this.#first === undefined) {
      const { database, now, uptime } = this.#options;
      const last = database
        .prepare(
          `SELECT settled_at FROM events WHERE state = 1 AND position <
             coalesce((SELECT min(position) FROM events WHERE state = 0), 9e18)
           ORDER BY position DESC LIMIT 1`,
        )
        .get();
      const reading = Math.min(now(), Number(last?.["settled_at"] ?? Number.POSITIVE_INFINITY));
      this.#first = { reading, ...uptime() };
    }
    return this.#first;
  }

  #saved(): Saved | undefined {
    const { database } = this.#options;
    const row = database.prepare("SELECT reading, boot, uptime FROM age_clock").get();
    return (
      row && {
        reading: Number(row["reading"]),
        boot: String(row["boot"]),
        ms: Number(row["uptime"]),
      }
    );
  }
}
