/**
 * The last steps of a take-over: the old buffer is marked as handed over, and then the new one takes its
 * place. A power cut between the two must not leave the store without a buffer, so the intention is on
 * the disk before the mark, and the next process that opens the place finishes what was begun.
 */

import { existsSync, linkSync, renameSync, rmSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { diskError, errnoOf } from "../disk-error.ts";
import { StatusError } from "../errors.ts";
import { readPrivateFile, replaceFile, syncPath } from "../private-file.ts";
import { bytesOf, Database, takeLock } from "../sqlite.ts";
import { bufferKind, lockPath } from "./buffer-file.ts";
import { handedOver } from "./hand-over-mark.ts";

/** Describes a take-over that is about to end. */
interface Arrival {
  /** The path of the old buffer. */
  readonly from: string;
  /** The epoch that was minted for the new one, which is in the mark of the old one. */
  readonly epoch: string;
}

/** Returns the name under which a new buffer is made. */
export function importingPath(path: string): string {
  return `${path}-importing`;
}

/** Returns the name of the file that holds the intention. */
function arrivalPath(path: string): string {
  return `${path}-arriving`;
}

/** Returns whether a take-over to this place was begun and has not been seen to end. */
export function isArriving(path: string): boolean {
  return existsSync(arrivalPath(path));
}

/** Notes the intention. It and the names of all files in the folder are on the disk when this returns. */
export function announceArrival(path: string, { from, epoch }: Arrival): void {
  const text = `${JSON.stringify({ from: resolve(from), epoch })}\n`;
  onDisk(path, () => replaceFile(arrivalPath(path), text));
}

/** Removes the intention, which was carried out or given up. */
export function forgetArrival(path: string): void {
  rmSync(arrivalPath(path), { force: true });
}

/** Removes what is left of a new buffer that was not put in its place. */
export function removeImporting(path: string): void {
  for (const suffix of ["-wal", "-shm", "-journal", "-suspect", ""]) {
    rmSync(importingPath(path) + suffix, { force: true });
  }
}

/**
 * Finishes a take-over that was interrupted after the old buffer had been marked, and forgets one that
 * was interrupted before. Throws UNAVAILABLE while the import runs, FAILED_PRECONDITION when the old
 * buffer is not there to be asked, and ALREADY_EXISTS, once, if something was recorded here meanwhile.
 */
export function finishArrival(path: string): void {
  const lock = takeLock(lockPath(path));
  if (lock === undefined) {
    // A drainer that runs here has opened the buffer, so there is nothing to be finished.
    if (existsSync(path)) {
      return;
    }
    throw new StatusError("UNAVAILABLE", `${path} is just being imported`, { hint: "try again" });
  }
  try {
    const arrival: Arrival = JSON.parse(readPrivateFile(arrivalPath(path)));
    if (!isInPlace(path) && isMarked(path, arrival)) {
      try {
        putInPlace(path);
      } catch (error) {
        if (error instanceof StatusError && error.code === "ALREADY_EXISTS") {
          forgetArrival(path);
          const { from } = arrival;
          throw new StatusError(
            error.code,
            `the import of ${from} was interrupted: ${error.message}`,
            {
              hint: `import ${from} again into another file; the next command goes on with this one`,
            },
          );
        }
        throw error;
      }
    }
    removeImporting(path);
    forgetArrival(path);
  } finally {
    lock.release();
  }
}

/** Returns whether the new buffer has its name. It may have the one under which it was made as well. */
function isInPlace(path: string): boolean {
  const [made, there] = [importingPath(path), path].map((name) =>
    statSync(name, { bigint: true, throwIfNoEntry: false }),
  );
  return made === undefined || made.ino === there?.ino;
}

/** Returns whether the old buffer says that this take-over is where the store has gone. */
function isMarked(path: string, { from, epoch }: Arrival): boolean {
  const again = { hint: "nothing was changed; put it back and try again, or import it again" };
  const message = `the import of ${from} into ${path} was interrupted`;
  if (!existsSync(from)) {
    throw new StatusError("FAILED_PRECONDITION", `${message}, and ${from} is not there`, again);
  }
  const old = new Database(from, bufferKind, { isReadOnly: true });
  try {
    return handedOver(old)?.epoch === epoch;
  } finally {
    old.close();
  }
}

/**
 * Gives the new buffer its name, at once or not at all. It may replace a buffer that has nothing in it.
 * Throws ALREADY_EXISTS if something has been recorded there, or was made there meanwhile.
 */
export function putInPlace(path: string): void {
  if (existsSync(path)) {
    const there = new Database(path, bufferKind);
    try {
      replace(path, there);
    } finally {
      there.close();
    }
  } else {
    onDisk(path, () => linkSync(importingPath(path), path));
  }
  onDisk(path, () => syncPath(dirname(resolve(path))));
}

/** A process that waits to record there finds the file replaced, and records in the new one. */
function replace(path: string, there: Database): void {
  there.emptyLog();
  there.write(() => {
    insistOnEmpty(there);
    if (bytesOf(`${path}-wal`) > 0) {
      throw new StatusError("UNAVAILABLE", `another process uses ${path}`, {
        hint: "nothing was changed; try again",
      });
    }
    // The log of the old file is empty, and SQLite would take it for that of the new one.
    for (const suffix of ["-wal", "-shm"]) {
      rmSync(path + suffix, { force: true });
    }
    renameSync(importingPath(path), path);
  });
}

/** Throws ALREADY_EXISTS for a buffer that has anything in it. */
export function insistOnEmpty(database: Database): void {
  const row = database
    .prepare(
      `SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM commands) +
         (SELECT count(*) FROM pruned) AS things`,
    )
    .get();
  if (Number(row?.["things"]) > 0) {
    throw new StatusError(
      "ALREADY_EXISTS",
      `${database.path} is there already and has something in it`,
      {
        hint: "nothing was changed; a buffer is only imported where there is none, or an empty one",
      },
    );
  }
}

/** Runs `act` and throws what the disk refuses as a `StatusError`: RESOURCE_EXHAUSTED if it is full. */
export function onDisk<T>(path: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (errnoOf(error) === "EEXIST") {
      throw new StatusError("ALREADY_EXISTS", `another process has just made ${path}`, {
        hint: "nothing was changed here",
      });
    }
    throw diskError(error, `the buffer cannot be put at ${path}`, path);
  }
}
