/**
 * SQLite as a store of things that must not be lost: what was committed is on the disk, and what is
 * not as it should be is refused when the file is opened, in words that say what to do.
 *
 * Every connection is in WAL mode with `synchronous=FULL`, which costs one fsync a commit; both are
 * read back, since a setting that SQLite cannot follow is not an error to it. See
 * docs/decisions/sqlite-in-node.md.
 */

import { closeSync, existsSync, openSync, readSync, rmSync, statfsSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { codeOfErrno, messageOf, StatusError } from "./errors.ts";
import {
  isDanglingLink,
  isPlainFile,
  makePrivateFile,
  makePrivateFolder,
  tighten,
  tightenDatabase,
} from "./private-file.ts";

/** What a file holds, and how to tell that it does. */
export interface Kind {
  /** For people, such as `store buffer`. */
  readonly name: string;
  /** SQLite's `application_id`: four bytes of the file's header. */
  readonly applicationId: number;
  /** SQLite's `user_version`: that of the schema. */
  readonly version: number;
  /** Makes a new one. */
  readonly schema: string;
  /**
   * What makes a file of the next version of one: first from 1 to 2, then from 2 to 3, and so on. An
   * older file is brought up to date when it is opened, in one transaction.
   */
  readonly upgrades: readonly string[];
}

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
 * Before this one, two connections to a file could corrupt it when the one committed while the other
 * made a checkpoint (sqlite.org/wal.html, "The WAL-Reset Bug").
 */
const minSqliteVersion = [3, 51, 3];

/** Of the file of a log that is begun anew, in bytes: four of the checkpoints that SQLite makes. */
const maxLogBytes = 16 * 1024 * 1024;

/** Of a file that is being made: the ids of a million events fit. */
const relaxedCacheKiB = 64 * 1024;

/** How long a write waits for another process to finish its own, in milliseconds. */
const busyMs = 5_000;

/** File systems over a network, whose locks cannot be trusted; from statfs(2). */
const networkFileSystems: Readonly<Record<number, string>> = {
  [0x6969]: "NFS",
  [0x517b]: "SMB",
  [0xff534d42]: "SMB",
  [0xfe534d42]: "SMB",
  [0x01021997]: "9P",
  [0x73757245]: "Coda",
  [0x5346414f]: "AFS",
};

/**
 * Runs `read`, and again with BigInts when a row has an integer that no JavaScript number can hold.
 *
 * node:sqlite throws ERR_OUT_OF_RANGE for such an integer, and one row would make a whole table
 * unreadable. None of our code writes one, but a file may hold it. It is returned as the nearest safe
 * integer, and the code that knows the column decides what an absurd number means there.
 */
function readingSafely<T>(statement: StatementSync, read: () => T, safe: (read: T) => T): T {
  try {
    return read();
  } catch (error) {
    if (!isUnsafeInteger(error)) {
      throw error;
    }
    statement.setReadBigInts(true);
    try {
      return safe(read());
    } finally {
      statement.setReadBigInts(false);
    }
  }
}

function isUnsafeInteger(error: unknown): boolean {
  return error instanceof RangeError && "code" in error && error.code === "ERR_OUT_OF_RANGE";
}

/** Replaces the BigInts of a row, which is an object or an array. */
function safeRow<R extends object | undefined>(row: R): R {
  for (const [key, value] of Object.entries(row ?? {})) {
    if (typeof value === "bigint") {
      Object.assign(row ?? {}, { [key]: safeInteger(value) });
    }
  }
  return row;
}

function safeInteger(value: bigint): number {
  const max = BigInt(Number.MAX_SAFE_INTEGER);
  return Number(value > max ? max : value < -max ? -max : value);
}

/** For a database that lives as long as the process. */
export const inMemory = ":memory:";

type SqlValue = string | number | bigint | Uint8Array | null;

export interface Statement {
  run(...values: SqlValue[]): {
    readonly changes: number | bigint;
    readonly lastInsertRowid: number | bigint;
  };
  get(...values: SqlValue[]): Record<string, unknown> | undefined;
  all(...values: SqlValue[]): Record<string, unknown>[];
  /** As arrays, one by one: for rows that are many, or large. */
  iterate(...values: SqlValue[]): Iterable<unknown[]>;
}

export class Database {
  readonly path: string;
  /**
   * Whether the last one who had it open did not close it, or still has it open, or has met damage
   * in it: then it should be checked.
   */
  readonly hasHotLog: boolean;
  readonly #sqlite: DatabaseSync;
  readonly #inode: bigint | undefined;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #dataVersion: StatementSync;

  /**
   * Opens the file, making it and its folder if it is not there, for their owner alone. Throws `StatusError`:
   * FAILED_PRECONDITION for a file of another program or of a newer brewctl, which stays as it is,
   * and for a disk or an SQLite that cannot keep the promise; `DamagedError` for one that is ours
   * and cannot be read; RESOURCE_EXHAUSTED, UNAVAILABLE, PERMISSION_DENIED as the disk says.
   *
   * Read-only, the file must be there and of this version, else FAILED_PRECONDITION, and nothing is
   * ever changed in it.
   */
  constructor(
    path: string,
    kind: Kind,
    { isReadOnly = false }: { readonly isReadOnly?: boolean } = {},
  ) {
    this.path = path;
    const isFile = path !== inMemory;
    if (isFile && !isReadOnly) {
      makeFolder(dirname(resolve(path)));
      refuseNetworkFileSystem(path);
      makePrivate(path);
    }
    this.hasHotLog = isFile && (sizeOf(`${path}-wal`) > 0 || existsSync(suspicionPath(path)));
    const what = `${kind.name} ${path}`;
    const wasThere = isFile && sizeOf(path) > 0;
    // Opening it asks for nothing that a whole file does not have.
    const describe = (error: unknown) =>
      wasThere && codeOf(error) === codes.error
        ? new DamagedError(`${what} is damaged: ${messageOf(error)}`, error)
        : fromSqlite(error, what);
    let sqlite: DatabaseSync | undefined;
    try {
      if (wasThere) {
        checkKind(path, kind);
      }
      sqlite = new DatabaseSync(path, { timeout: busyMs, readOnly: isReadOnly });
      checkVersion(sqlite);
      if (isReadOnly) {
        insistOnVersion(sqlite, kind, path);
      } else {
        create(sqlite, kind);
        if (isFile) {
          insistOnDurability(sqlite, path);
        }
      }
      this.#begin = sqlite.prepare("BEGIN IMMEDIATE");
      this.#commit = sqlite.prepare("COMMIT");
      this.#dataVersion = sqlite.prepare("PRAGMA data_version");
    } catch (error) {
      sqlite?.close();
      throw describe(error);
    }
    this.#sqlite = sqlite;
    this.#inode = isFile ? inodeOf(path) : undefined;
  }

  /** What the statement throws is a `StatusError` too: reading is how damage is met. */
  prepare(sql: string): Statement {
    try {
      const statement = this.#sqlite.prepare(sql);
      const explained =
        <A extends SqlValue[], R>(run: (...values: A) => R) =>
        (...values: A): R => {
          try {
            return run(...values);
          } catch (error) {
            throw this.explain(error);
          }
        };
      return {
        run: explained((...values: SqlValue[]) => statement.run(...values)),
        get: explained((...values: SqlValue[]) =>
          readingSafely(statement, () => statement.get(...values), safeRow),
        ),
        all: explained((...values: SqlValue[]) =>
          readingSafely(
            statement,
            () => statement.all(...values),
            (rows) => rows.map(safeRow),
          ),
        ),
        iterate: (...values) => this.#iterate(statement, values),
      };
    } catch (error) {
      // The statements are ours and fit the schema: what does not is the schema of the file.
      throw codeOf(error) === codes.error ? this.damaged(messageOf(error)) : this.explain(error);
    }
  }

  *#iterate(statement: StatementSync, values: SqlValue[]): Generator<unknown[], void> {
    statement.setReturnArrays(true);
    let yielded = 0;
    try {
      for (const row of statement.iterate(...values) as Iterable<unknown[]>) {
        yielded += 1;
        yield row;
      }
    } catch (error) {
      if (!isUnsafeInteger(error)) {
        throw this.explain(error);
      }
      // The rows that were yielded are passed over, and the others are read as BigInt.
      const read = () => statement.all(...values) as unknown as unknown[][];
      yield* readingSafely(statement, read, (rows) => rows.map(safeRow)).slice(yielded);
    } finally {
      statement.setReturnArrays(false);
    }
  }

  /**
   * Runs `work` in one transaction. When this returns, all that it wrote is on the disk; when it
   * throws, nothing is. Throws what `work` throws, and `StatusError` as the constructor does.
   */
  write<T>(work: () => T): T {
    try {
      this.#begin.run();
    } catch (error) {
      throw this.explain(error);
    }
    try {
      if (this.#inode !== undefined && inodeOf(this.path) !== this.#inode) {
        throw new StatusError("UNAVAILABLE", `${this.path} was replaced by another process`, {
          hint: "nothing was written; run the command again",
        });
      }
      const result = work();
      this.#commit.run();
      return result;
    } catch (error) {
      // Some errors have rolled it back already.
      if (this.#sqlite.isTransaction) {
        this.#sqlite.exec("ROLLBACK");
      }
      throw this.explain(error);
    }
  }

  /**
   * Until it is disposed of, all that is read here is as it was at the first reading. Meanwhile SQLite's
   * log only grows, and nothing can be written here.
   */
  snapshot(): Disposable {
    try {
      this.#sqlite.exec("BEGIN");
    } catch (error) {
      throw this.explain(error);
    }
    return {
      [Symbol.dispose]: () => {
        if (this.#sqlite.isOpen && this.#sqlite.isTransaction) {
          this.#sqlite.exec("COMMIT");
        }
      },
    };
  }

  /**
   * For a file that nobody relies on yet: what is written is on the disk only when it was closed and
   * `syncPath` has returned for it.
   */
  relax(): void {
    this.#sqlite.exec(`PRAGMA synchronous = OFF; PRAGMA cache_size = -${relaxedCacheKiB}`);
  }

  /** Of the pages that hold something, in bytes. */
  usedBytes(): number {
    const [pages, free, size] = ["page_count", "freelist_count", "page_size"].map((pragma) =>
      numberOf(this.#sqlite, pragma),
    ) as [number, number, number];
    return (pages - free) * size;
  }

  /**
   * Writes the file anew without the room of what was removed. On the way it takes up to twice
   * `usedBytes` more on the disk. Others wait to write meanwhile, and may read. False: somebody still
   * reads what it was, and the disk gets its room when nobody does any more.
   */
  compact(): boolean {
    try {
      // Where the room was looked for; by default it is elsewhere.
      const folder = dirname(resolve(this.path)).replaceAll("'", "''");
      this.#sqlite.exec(`PRAGMA temp_store_directory = '${folder}'`);
      this.#sqlite.exec("VACUUM");
      return this.emptyLog();
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** Brings all that is in the log into the file. False if others are in the way, by reading. */
  emptyLog(): boolean {
    const row = this.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get();
    return row?.["busy"] === 0;
  }

  /** All that SQLite finds wrong with the file, its indexes too, at most so much. Reads all of it. */
  faults(limit: number): string[] {
    const found: string[] = [];
    try {
      for (const [fault] of this.prepare(`PRAGMA integrity_check(${limit})`).iterate()) {
        found.push(String(fault));
      }
    } catch (error) {
      // A page that not even the check can read; what it has told before that counts.
      if (!(error instanceof DamagedError)) {
        throw error;
      }
      found.push(error.message);
    }
    if (found.length === 1 && found[0] === "ok") {
      return [];
    }
    this.#suspect();
    return found;
  }

  /** Changes when another connection has committed something. */
  dataVersion(): number {
    return Number(this.#dataVersion.get()?.["data_version"]);
  }

  /** Throws `DamagedError` if the pages of the file do not make sense; reads all of it. */
  check(): void {
    try {
      const [first] = this.#sqlite.prepare("PRAGMA quick_check(1)").all();
      const verdict = String(first?.["quick_check"]);
      if (verdict !== "ok") {
        throw this.damaged(verdict);
      }
      rmSync(suspicionPath(this.path), { force: true });
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** What SQLite threw, in our words; anything else stays as it is. */
  explain(error: unknown): unknown {
    const explained = fromSqlite(error, this.path);
    if (explained instanceof DamagedError && explained !== error) {
      this.#suspect();
    }
    return explained;
  }

  /** To be thrown for a row that makes no sense. */
  damaged(why: string): DamagedError {
    this.#suspect();
    return new DamagedError(`${this.path} is damaged: ${why}`);
  }

  /** Damage is met by reading, also in a file that was closed well: whoever opens it next checks it. */
  #suspect(): void {
    try {
      makePrivateFile(suspicionPath(this.path));
    } catch {
      // Then it is met again.
    }
  }

  close(): void {
    this.#sqlite.close();
  }
}

/**
 * The rows of a damaged file that can still be read, in the order of `key`, an integer primary key
 * that counts from 1. Where a page is broken its rows are left out. Reading changes nothing.
 *
 * Each row is asked for by its key: whoever walks from row to row is led astray by the first broken
 * page, past rows that are whole or back to those that he has seen.
 */
export function* salvage(
  path: string,
  table: string,
  key: string,
): Generator<Record<string, unknown>, void> {
  const sqlite = new DatabaseSync(path, { readOnly: true, timeout: busyMs });
  try {
    const row = sqlite.prepare(`SELECT ${key} AS at, * FROM ${table} NOT INDEXED WHERE ${key} = ?`);
    const next = sqlite.prepare(
      `SELECT ${key} AS next FROM ${table} NOT INDEXED WHERE ${key} >= ? ORDER BY ${key} LIMIT 1`,
    );
    let step = 1;
    for (let at = 1, misses = 0; Number.isSafeInteger(at); ) {
      const { at: foundAt, ...found } = readOr(broken, () => row.get(at)) ?? broken;
      if (foundAt === at) {
        yield found;
        misses = 0;
        step = 1;
        at += 1;
      } else if (misses < maxKeysMissed) {
        misses += 1;
        at += 1;
      } else {
        // Nothing here for long: rows that were removed, or a page above many others is broken.
        const jump = readOr(broken, () => next.get(at));
        if (jump === undefined) {
          return;
        }
        step *= 2;
        at = jump === broken ? at + step : Math.max(at + 1, Number(jump["next"]));
      }
    }
  } finally {
    sqlite.close();
  }
}

/** More keys in a row without a row than a few broken pages account for. */
const maxKeysMissed = 5_000;

const broken: Record<string, unknown> = {};

function readOr<T>(otherwise: T, read: () => T): T {
  try {
    return read();
  } catch {
    return otherwise;
  }
}

/** A lock that the kernel gives back when the process ends, however it ends. */
export interface Lock {
  release(): void;
}

/**
 * Takes the lock that this file stands for; undefined if somebody else has it, and does not give it
 * back within `waitMs` milliseconds, during which this process stands still.
 */
export function takeLock(path: string, { waitMs = 0 } = {}): Lock | undefined {
  makeFolder(dirname(resolve(path)));
  makeLockFile(path);
  let sqlite: DatabaseSync | undefined;
  try {
    sqlite = new DatabaseSync(path, { timeout: waitMs });
    sqlite.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    sqlite?.close();
    if (codeOf(error) === codes.busy) {
      return undefined;
    }
    throw fromSqlite(error, path);
  }
  const held = sqlite;
  return { release: () => held.close() };
}

/** Bytes that this user may still write to the disk of a file or folder. */
export function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(dirname(resolve(path)));
  return bavail * bsize;
}

/** The file that says of another that it should be checked. */
export function suspicionPath(path: string): string {
  return `${path}-suspect`;
}

/** Of the database with its log; 0 if it is not there. */
export function bytesOf(path: string): number {
  return sizeOf(path) + sizeOf(`${path}-wal`);
}

function checkVersion(sqlite: DatabaseSync): void {
  const version = String(sqlite.prepare("SELECT sqlite_version() AS version").get()?.["version"]);
  const parts = version.split(".").map(Number);
  const differs = minSqliteVersion.findIndex((part, i) => part !== parts[i]);
  if (differs >= 0 && (parts[differs] ?? 0) < (minSqliteVersion[differs] ?? 0)) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `SQLite ${version} can corrupt a file that two processes use; ${minSqliteVersion.join(".")} is needed`,
      { hint: "a Node from https://nodejs.org, 24.15 or newer, brings it" },
    );
  }
}

/** Looks before anything is written, so that what is not ours stays as it is. */
function checkKind(path: string, kind: Kind): void {
  const sqlite = new DatabaseSync(path, { readOnly: true, timeout: busyMs });
  try {
    const applicationId = numberOf(sqlite, "application_id");
    const version = numberOf(sqlite, "user_version");
    const tables = Number(sqlite.prepare("SELECT count(*) AS n FROM sqlite_schema").get()?.["n"]);
    if (applicationId !== kind.applicationId && tables > 0) {
      throw new StatusError("FAILED_PRECONDITION", `${path} is no ${kind.name}`, {
        hint: "it belongs to another program, and stays as it is; choose another file",
      });
    }
    if (version > kind.version) {
      throw new StatusError(
        "FAILED_PRECONDITION",
        `${path} was written by a newer brewctl (schema ${version}, this one knows ${kind.version})`,
        { hint: "it stays as it is; use the newer brewctl" },
      );
    }
  } finally {
    sqlite.close();
  }
}

/**
 * Makes a new file, or brings an older one up to date. Before the switch to WAL, so that the file
 * itself says what it is, and not only its log.
 */
function create(sqlite: DatabaseSync, kind: Kind): void {
  if (numberOf(sqlite, "user_version") === kind.version) {
    return;
  }
  sqlite.exec("BEGIN IMMEDIATE");
  try {
    // Another process may have been faster.
    const version = numberOf(sqlite, "user_version");
    const steps = version === 0 ? [kind.schema] : kind.upgrades.slice(version - 1);
    for (const step of steps) {
      sqlite.exec(step);
    }
    sqlite.exec(`PRAGMA application_id = ${kind.applicationId}`);
    sqlite.exec(`PRAGMA user_version = ${kind.version}`);
    sqlite.exec("COMMIT");
  } catch (error) {
    if (sqlite.isTransaction) {
      sqlite.exec("ROLLBACK");
    }
    throw error;
  }
}

function insistOnVersion(sqlite: DatabaseSync, kind: Kind, path: string): void {
  const version = numberOf(sqlite, "user_version");
  if (version !== kind.version) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} is of schema ${version}, and this brewctl reads ${kind.version}`,
      { hint: "any command that writes to it brings it up to date" },
    );
  }
}

function insistOnDurability(sqlite: DatabaseSync, path: string): void {
  const mode = sqlite.prepare("PRAGMA journal_mode = WAL").get()?.["journal_mode"];
  sqlite.exec("PRAGMA synchronous = FULL");
  // macOS only: its fsync leaves data in the drive's own memory.
  sqlite.exec("PRAGMA fullfsync = ON");
  // The log begins anew at each checkpoint, but its file would stay as large as it once was.
  sqlite.exec(`PRAGMA journal_size_limit = ${maxLogBytes}`);
  const synchronous = numberOf(sqlite, "synchronous");
  if (mode !== "wal" || synchronous !== 2) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} cannot be made durable (journal_mode ${mode}, synchronous ${synchronous})`,
      { hint: "choose a file on a local disk" },
    );
  }
}

function numberOf(sqlite: DatabaseSync, pragma: string): number {
  return Number(sqlite.prepare(`PRAGMA ${pragma}`).get()?.[pragma]);
}

function refuseNetworkFileSystem(path: string): void {
  const name = networkFileSystems[statfsSync(dirname(resolve(path))).type];
  if (name !== undefined) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} is on a network file system (${name}), whose locks and syncs cannot be trusted`,
      { hint: "choose a file on a local disk" },
    );
  }
}

function makeFolder(path: string): void {
  try {
    makePrivateFolder(path);
  } catch (error) {
    throw refusedByDisk(error, `cannot make the folder ${path}`);
  }
}

/**
 * Makes sure that only the owner can read the database, before SQLite opens it: SQLite gives the log and
 * the other files beside it the rights that the database file has, whatever the umask.
 */
function makePrivate(path: string): void {
  if (isDanglingLink(path)) {
    throw new StatusError("FAILED_PRECONDITION", `${path} is a link to a file that is not there`, {
      hint: "nothing was written; remove the link, or name the file itself",
    });
  }
  try {
    if (existsSync(path) || !makePrivateFile(path)) {
      tightenDatabase(path);
    }
  } catch (error) {
    throw refusedByDisk(
      error,
      `${path}: cannot be written`,
      "the folder too must be writable: SQLite keeps its log beside the file",
    );
  }
}

/** A lock is brewctl's own file: a link there would have another file locked, and its mode changed. */
function makeLockFile(path: string): void {
  try {
    if (makePrivateFile(path)) {
      return;
    }
    tighten(path);
  } catch (error) {
    throw refusedByDisk(error, path);
  }
  if (!isPlainFile(path)) {
    throw new StatusError("FAILED_PRECONDITION", `${path} is not a file, and cannot be a lock`, {
      hint: "brewctl has not made it; nothing was changed; see who did, and remove it",
    });
  }
}

function refusedByDisk(error: unknown, what: string, hint?: string): StatusError {
  return new StatusError(codeOfErrno(error), `${what}: ${messageOf(error)}`, {
    cause: error,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** Whether a file says that it is a database. */
export function isSqliteFile(path: string): boolean {
  if (!statSync(path, { throwIfNoEntry: false })?.isFile()) {
    return false;
  }
  const magic = Buffer.from("SQLite format 3\0");
  const head = Buffer.alloc(magic.length);
  const fd = openSync(path, "r");
  try {
    return readSync(fd, head) === magic.length && head.equals(magic);
  } finally {
    closeSync(fd);
  }
}

function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

function inodeOf(path: string): bigint | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false })?.ino;
}

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const codes = {
  error: 1,
  permission: 3,
  busy: 5,
  readOnly: 8,
  io: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  tooBig: 18,
  format: 24,
  notADatabase: 26,
} as const;

function codeOf(error: unknown): number | undefined {
  const { code, errcode } = error as { code?: string; errcode?: number };
  return code === "ERR_SQLITE_ERROR" && errcode !== undefined ? errcode & 0xff : undefined;
}

function fromSqlite(error: unknown, what: string): unknown {
  const why = messageOf(error);
  switch (codeOf(error)) {
    case codes.busy:
      return new BusyError(what, error);
    case codes.full:
      return new StatusError("RESOURCE_EXHAUSTED", `${what}: the disk is full`, {
        hint: "nothing was written, nothing was lost; make room and try again",
        cause: error,
      });
    case codes.permission:
    case codes.readOnly:
    case codes.cannotOpen:
      return new StatusError("PERMISSION_DENIED", `${what}: cannot be written: ${why}`, {
        hint: "the folder too must be writable: SQLite keeps its log beside the file",
        cause: error,
      });
    case codes.corrupt:
    // We never write anything so big: a length that was read makes no sense.
    case codes.tooBig:
    case codes.format:
    case codes.notADatabase:
      return new DamagedError(`${what} is damaged: ${why}`, error);
    case codes.io:
      return new StatusError("UNAVAILABLE", `${what}: the disk reports an error: ${why}`, {
        hint: "nothing was written; look at the disk",
        cause: error,
      });
    default:
      return error;
  }
}
