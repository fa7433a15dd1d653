/**
 * What a disk refuses, in the words of `StatusError`. This is the one place that knows what an errno of
 * the operating system or a result code of SQLite means to the person at the terminal, and whether
 * another attempt may succeed.
 */

import { randomBytes } from "node:crypto";
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  openSync,
  rmSync,
  statfsSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { codeOfErrno, messageOf, StatusError } from "./errors.ts";

/** The file is one of ours, but cannot be read as one. Nothing was changed in it. */
export class DamagedError extends StatusError {
  override readonly name = "DamagedError";

  constructor(message: string, cause?: unknown) {
    super("DATA_LOSS", message, { cause });
  }
}

/** Another process has kept us from writing for `busyMs`. */
export class BusyError extends StatusError {
  override readonly name = "BusyError";

  constructor(what: string, cause: unknown) {
    super("UNAVAILABLE", `${what}: another process has kept it busy for 5 s`, {
      hint: "nothing was written; try again",
      cause,
    });
  }
}

/**
 * The file was removed, or replaced by another one, while this process had it open. The process cannot
 * write to it any more; one that is started again opens what is there now.
 */
export class ReplacedError extends StatusError {
  override readonly name = "ReplacedError";

  constructor(path: string, { isGone = false, cause }: { isGone?: boolean; cause?: unknown } = {}) {
    const what = isGone ? "was removed" : "was replaced by another process";
    super("UNAVAILABLE", `${path} ${what} while it was open here`, {
      hint: "nothing was written; start brewctl again, and it opens what is there now",
      cause,
    });
  }
}

/** Whether a process can go on only after it has opened its file again: the next start does that. */
export function needsReopening(error: unknown): error is DamagedError | ReplacedError {
  return error instanceof DamagedError || error instanceof ReplacedError;
}

/** SQLite's primary result codes (sqlite.org/rescode.html). */
export const sqliteCodes = {
  error: 1,
  permission: 3,
  busy: 5,
  noMemory: 7,
  readOnly: 8,
  io: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  protocol: 15,
  tooBig: 18,
  format: 24,
  notADatabase: 26,
} as const;

/**
 * SQLite's extended code for a `-shm` file that could not be made larger. SQLite reports no ENOSPC of its
 * own there.
 */
const cannotExtendSharedMemory = 4874;

/** SQLite's extended code for a transaction that has to be rolled back first, on a disk that takes no writes. */
const cannotRollBack = 776;

const folderHint = "the folder too must be writable: SQLite keeps its log beside the file";

/** Returns SQLite's primary result code, or undefined if SQLite did not throw this. */
export function sqliteCodeOf(error: unknown): number | undefined {
  const code = extendedCodeOf(error);
  return code === undefined ? undefined : code & 0xff;
}

function extendedCodeOf(error: unknown): number | undefined {
  return error instanceof Error &&
    "code" in error &&
    error.code === "ERR_SQLITE_ERROR" &&
    "errcode" in error &&
    typeof error.errcode === "number"
    ? error.errcode
    : undefined;
}

/** Returns the name of the errno that the operating system has answered with, such as `ENOSPC`. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error &&
    "errno" in error &&
    "code" in error &&
    typeof error.code === "string"
    ? error.code
    : undefined;
}

/**
 * Returns what SQLite or node:fs threw as a `StatusError` about `what`, and anything else as it is. `path`
 * is the file; the disk is asked about it where SQLite does not say enough.
 */
export function diskError(error: unknown, what: string, path: string): unknown {
  const code = sqliteCodeOf(error);
  if (code === undefined) {
    return errnoOf(error) === undefined ? error : fromErrno(error, what, path);
  }
  const why = messageOf(error);
  switch (code) {
    case sqliteCodes.busy:
    // The readers and writers of a log kept each other from it too many times in a row.
    case sqliteCodes.protocol:
      return new BusyError(what, error);
    case sqliteCodes.full:
      return noSpace(error, what, path);
    case sqliteCodes.cannotOpen:
    case sqliteCodes.permission:
    case sqliteCodes.readOnly: {
      if (extendedCodeOf(error) === cannotRollBack) {
        const undone = "a transaction that was interrupted must be rolled back first";
        return denied(error, `${what}: ${undone}: ${why}`);
      }
      const reason = reasonNotToOpen(path);
      return reason === undefined
        ? denied(error, `${what}: cannot be written: ${why}`)
        : fromErrno(reason, what, path);
    }
    case sqliteCodes.corrupt:
    // We never write anything so big: a length that was read makes no sense.
    case sqliteCodes.tooBig:
    case sqliteCodes.format:
    case sqliteCodes.notADatabase:
      return new DamagedError(`${what} is damaged: ${why}`, error);
    case sqliteCodes.noMemory:
      return new StatusError("RESOURCE_EXHAUSTED", `${what}: SQLite gets no memory`, {
        hint: "nothing was written; see what takes the memory of this machine",
        cause: error,
      });
    case sqliteCodes.io:
      return extendedCodeOf(error) === cannotExtendSharedMemory
        ? noSpace(error, what, path)
        : failing(error, what);
    default:
      return error;
  }
}

/** As `diskError`, for what node:fs threw. */
function fromErrno(error: unknown, what: string, path: string): StatusError {
  const errno = errnoOf(error);
  switch (errno) {
    case "ENOSPC":
    case "EDQUOT":
      return noSpace(error, what, path);
    case "EMFILE":
    case "ENFILE": {
      const whose = errno === "EMFILE" ? "this process" : "this machine";
      return new StatusError(
        "UNAVAILABLE",
        `${what}: ${whose} has too many files open (${errno})`,
        {
          hint: "nothing was written; raise the limit: ulimit -n, or LimitNOFILE= of a systemd unit",
          cause: error,
        },
      );
    }
    case "EROFS":
      return denied(error, `${what}: the file system is read-only`, "mount it to be written to");
    case "EIO":
    case "ENXIO":
    case "ENODEV":
    case "ESTALE":
    case "ETIMEDOUT":
      return failing(error, what);
    default: {
      const code = codeOfErrno(error);
      const why = `${what}: cannot be written: ${messageOf(error)}`;
      return code === "PERMISSION_DENIED"
        ? denied(error, why)
        : new StatusError(code, why, { cause: error });
    }
  }
}

function denied(cause: unknown, message: string, hint = folderHint): StatusError {
  return new StatusError("PERMISSION_DENIED", message, { hint, cause });
}

function failing(cause: unknown, what: string): StatusError {
  return new StatusError("UNAVAILABLE", `${what}: the disk reports an error: ${messageOf(cause)}`, {
    hint: "nothing was written; look at the disk",
    cause,
  });
}

/** A file system that is out of inodes has room for bytes and yet none for another file. */
function noSpace(cause: unknown, what: string, path: string): StatusError {
  return hasNoInodes(path)
    ? new StatusError("RESOURCE_EXHAUSTED", `${what}: the disk has no inodes left`, {
        hint: "nothing was written, nothing was lost; each file takes an inode: remove some (df -i counts them)",
        cause,
      })
    : new StatusError("RESOURCE_EXHAUSTED", `${what}: the disk is full`, {
        hint: "nothing was written, nothing was lost; make room and try again",
        cause,
      });
}

/** A file system without a fixed number of inodes, such as Btrfs, says that it has 0 in all. */
function hasNoInodes(path: string): boolean {
  try {
    const { files, ffree } = statfsSync(dirname(resolve(path)));
    return files > 0 && ffree === 0;
  } catch {
    // The folder is gone: it is the bytes, then, or nobody can tell.
    return false;
  }
}

/**
 * Returns what keeps SQLite from opening a file. SQLite says only that it cannot, and node:sqlite does not
 * pass the errno on; but another file that is made in the same folder meets the same errno.
 */
function reasonNotToOpen(path: string): unknown {
  const trial = `${path}.${randomBytes(6).toString("hex")}.partial`;
  try {
    closeSync(openSync(trial, "wx", 0o600));
    rmSync(trial);
    if (existsSync(path)) {
      accessSync(path, constants.R_OK | constants.W_OK);
    }
    return undefined;
  } catch (error) {
    return error;
  }
}
