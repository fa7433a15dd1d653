/**
 * The mark that a salvage leaves in the new buffer: where the damaged file is, and which events could
 * not be read. A loss is told to everybody, the cloud too, until a person acknowledges it.
 */

import { basename, dirname, join } from "node:path";
import type { Database } from "../sqlite.ts";

/** Stands for all numbers from the first to the last. */
export type NumberRange = readonly [first: number, last: number];

/** Describes events that were recorded and that the buffer does not have any more. */
export interface Loss {
  /** The time at which the loss was found, as by a salvage, in Unix milliseconds. */
  readonly at: number;
  /** The events that could be read. */
  readonly read: number;
  readonly atLeast: number;
  /** Left out if the damaged file does not tell how many there were. */
  readonly atMost?: number;
  /** The epoch of `numbers`; empty if its name could not be read. */
  readonly epoch: string;
  /** The seqs of the epoch that no event of the new buffer has, at most `maxRanges` of them. */
  readonly numbers: readonly NumberRange[];
  /** Whether there are more of `numbers` than are listed. */
  readonly isMore: boolean;
  /** Whether some of `numbers` are of events that were removed long before the damage. */
  readonly hasPruned: boolean;
  /** True if no salvage found it: the last events are gone, as when SQLite's log was removed. */
  readonly isTail?: boolean;
  /** The time at which a person took note of the loss, in Unix milliseconds. */
  readonly acknowledgedAt?: number;
}

/** Tells what was done to a damaged file, and what is lost. */
export interface Salvaged {
  /** Unix milliseconds. */
  readonly at: number;
  /** Where the damaged file is now; empty if there was none, and the last events are gone. */
  readonly setAside: string;
  /** The events that could be read. */
  readonly events: number;
  /** The losses of this salvage and of those before it, the oldest first. */
  readonly losses: readonly Loss[];
  /** The time at which a person took note of the salvage, in Unix milliseconds. */
  readonly acknowledgedAt?: number;
}

/** The most ranges of numbers that a loss lists: an alarm has at most 1024 characters. */
export const maxRanges = 20;

/**
 * Returns what was salvaged into this buffer; undefined if it does not replace a damaged one. The
 * damaged file is looked for beside the buffer, since both may have been moved or mounted elsewhere.
 */
export function salvagedIn(database: Database): Salvaged | undefined {
  const text = String(database.prepare("SELECT salvaged FROM outbox").get()?.["salvaged"] ?? "");
  return parseSalvaged(text, database.path);
}

/** Returns undefined for an empty text, and for one that makes no sense, as damage may leave it. */
export function parseSalvaged(text: string, path: string): Salvaged | undefined {
  try {
    // Earlier versions counted no losses.
    const salvaged: Salvaged = { losses: [], ...JSON.parse(text) };
    return salvaged.losses.every(isLoss)
      ? { ...salvaged, setAside: besideOf(path, salvaged.setAside) }
      : undefined;
  } catch {
    return undefined;
  }
}

/** Returns the path of the file of this name that lies in the folder of `path`. */
function besideOf(path: string, name: string): string {
  return name === "" ? "" : join(dirname(path), basename(name));
}

/** Returns whether what was read from a file or an export can be told without a fault. */
function isLoss({ at, read, atLeast, atMost = 0, epoch, numbers }: Loss): boolean {
  const counts = [read, atLeast, atMost, ...numbers.flat()];
  return (
    !Number.isNaN(new Date(at).getTime()) &&
    counts.every((count) => Number.isSafeInteger(count) && count >= 0) &&
    typeof epoch === "string"
  );
}

/** Writes the mark; within a transaction. */
export function markSalvaged(database: Database, salvaged: Salvaged): void {
  database.prepare("UPDATE outbox SET salvaged = ?").run(JSON.stringify(salvaged));
}

/** Returns the losses that nobody has acknowledged yet. */
export function openLosses(salvaged: Salvaged | undefined): readonly Loss[] {
  return (salvaged?.losses ?? []).filter(({ acknowledgedAt }) => acknowledgedAt === undefined);
}

/** Returns the mark as it is after a person has taken note of all that it says. */
export function acknowledged(salvaged: Salvaged, at: number): Salvaged {
  const losses = salvaged.losses.map((loss) => ({ acknowledgedAt: at, ...loss }));
  return { ...salvaged, losses, acknowledgedAt: salvaged.acknowledgedAt ?? at };
}

/** Describes a loss and how it was found, in a sentence without its end. */
export function tellLoss({ at, ...loss }: Loss): string {
  const time = new Date(at).toISOString();
  return loss.isTail === true
    ? `${tellWhatIsLost(loss, "are gone")}; at ${time} the buffer's log was missing, or an older copy was in its place`
    : tellWhatIsLost(loss, `could not be read in the salvage of ${time}`);
}

/** Says how many events are lost, which, and what has become of them: their `fate`. */
export function tellWhatIsLost(
  { read, atLeast, atMost, ...loss }: Omit<Loss, "at">,
  fate: string,
): string {
  const total = read + atLeast;
  const count =
    atMost === atLeast
      ? `${atLeast} of ${total} events`
      : atMost !== undefined
        ? atLeast === 0
          ? `up to ${atMost} of ${read + atMost} events`
          : `${atLeast} to ${atMost} events`
        : atLeast > 0
          ? `at least ${atLeast} of ${total} events`
          : "an unknown number of events";
  const ranges = loss.numbers.map(([first, last]) => (first === last ? first : `${first}-${last}`));
  const numbers = `${ranges.join(", ")}${loss.isMore ? ", ..." : ""}`;
  const where = loss.hasPruned ? ", among the numbers" : `: ${isOne(loss) ? "number" : "numbers"}`;
  const which =
    ranges.length === 0
      ? ""
      : `${where} ${numbers}${loss.epoch === "" ? "" : ` of epoch ${loss.epoch}`}`;
  return `${count} ${fate}${which}`;
}

function isOne({ numbers: [range, ...others] }: Pick<Loss, "numbers">): boolean {
  return range !== undefined && range[0] === range[1] && others.length === 0;
}
