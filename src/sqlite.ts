/**
 * SQLite as a store of things that must not be lost: what was committed is on the disk, and what is
 * not as it should be is refused when the file is opened, in words that say what to do.
 *
 * Every connection is in WAL mode with `synchronous=FULL`, which costs one fsync a commit; both are
 * read back, since a setting that SQLite cannot follow is not an error to it. See
 * docs/decisions/sqlite-in-node.md.
 */

import {
  type BigIntStats,
  closeSync,
  existsSync,
  openSync,
  readSync,
  realpathSync,
  rmSync,
  statfsSync,
  statSync,
} from "node:fs";
import { dirname, resolve } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { pathToFileURL } from "node:url";
import {
  DamagedError,
  diskError,
  errnoOf,
  ReplacedError,
  sqliteCodeOf,
  sqliteCodes,
} from "./disk-error.ts";
import { messageOf, StatusError } from "./errors.ts";
import {
  isDanglingLink,
  isLink,
  isPlainFile,
  makePrivateFile,
  makePrivateFolder,
  tighten,
  tightenDatabase,
} from "./private-file.ts";
import { isReadOnlyForAll, isReadOnlyHere } from "./read-only-disk.ts";

export { BusyError, DamagedError, needsReopening, ReplacedError } from "./disk-error.ts";

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

/**
 * Before this one, two connections to a file could corrupt it when the one committed while the other
 * made a checkpoint (sqlite.org/wal.html, "The WAL-Reset Bug").
 */
const minSqliteVersion = [3, 51, 3];

/**
 * The size to which the file of a log is cut when it begins again at its start, in bytes. SQLite makes a
 * checkpoint after 4 MB, so a log that no reader holds up is never cut and never grows.
 */
const maxLogBytes = 8 * 1024 * 1024;

/** SQLite's own number of pages in the log after which a commit makes a checkpoint. */
const pagesToCheckpoint = 1_000;

/** The most bytes that `compact` copies in memory. A larger file is copied in a file beside it. */
const maxCopiedInMemory = 64 * 1024 * 1024;

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

export interface DatabaseOptions {
  /** Opens a file that is there, and changes nothing in it. */
  readonly isReadOnly?: boolean;
  /** A file whose owner a new database gets when root makes it. */
  readonly ownerOf?: string | undefined;
}

export class Database {
  readonly path: string;
  /**
   * Whether the last one who had it open did not close it, or still has it open, or has met damage
   * in it: then it should be checked.
   */
  readonly hasHotLog: boolean;
  /** Whether nothing can be written here, as was asked for, or since the file system is read-only. */
  readonly isReadOnly: boolean;
  /**
   * Whether the disk was so full at the opening that SQLite had no room for the file through which
   * processes share a log: then no other process can open this database until it is closed here.
   */
  readonly isExclusive: boolean;
  readonly #sqlite: DatabaseSync;
  /** Which file this is, whatever name it is opened by; undefined in memory. */
  readonly #identity: string | undefined;
  readonly #lost = new AbortController();
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #dataVersion: StatementSync;
  #checkpointsEachCommit = false;

  /**
   * Opens the file, making it and its folder if it is not there, for their owner alone. Throws `StatusError`:
   * FAILED_PRECONDITION for a file of another program or of a newer brewctl, which stays as it is,
   * and for a disk or an SQLite that cannot keep the promise; `DamagedError` for one that is ours
   * and cannot be read; RESOURCE_EXHAUSTED, UNAVAILABLE, PERMISSION_DENIED as the disk says.
   *
   * Read-only, the file must be there and of this version, else FAILED_PRECONDITION, and nothing is
   * changed in it, except that an interrupted transaction is rolled back. A file with a second name (a
   * hard link) is refused with FAILED_PRECONDITION.
   */
  constructor(name: string, kind: Kind, options: DatabaseOptions = {}) {
    const path = databaseFile(name);
    this.path = path;
    const isFile = path !== inMemory;
    const { ownerOf } = options;
    const isReadOnly =
      (options.isReadOnly ?? false) || (isFile && existsSync(path) && isReadOnlyHere(path));
    this.isReadOnly = isReadOnly;
    if (isFile) {
      refuseLogAlone(path, kind);
    }
    if (isFile && !isReadOnly) {
      makeFolder(dirname(resolve(path)));
      refuseNetworkFileSystem(path);
      makePrivate(path, ownerOf);
    }
    if (isFile) {
      refuseSecondName(path);
    }
    this.hasHotLog =
      isFile && (sizeOf(`${path}-wal`) > 0 || hasJournal(path) || existsSync(suspicionPath(path)));
    const what = `${kind.name} ${path}`;
    const wasThere = isFile && sizeOf(path) > 0;
    // Opening it asks for nothing that a whole file does not have.
    const describe = (error: unknown) =>
      wasThere && sqliteCodeOf(error) === sqliteCodes.error
        ? new DamagedError(`${what} is damaged: ${messageOf(error)}`, error)
        : diskError(error, what, path);
    let sqlite: DatabaseSync | undefined;
    try {
      if (wasThere) {
        checkKind(path, kind);
      }
      const opened = openShared(path, { isReadOnly });
      sqlite = opened.sqlite;
      this.isExclusive = opened.isExclusive;
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
    const there = isFile ? statOf(path) : undefined;
    this.#identity = there === undefined ? undefined : identityOf(there);
  }

  /**
   * Aborts with `ReplacedError` at the first write that finds the file gone or replaced, and with
   * `DamagedError` at the first that finds it emptied: nothing can be written here any more. A process
   * that is there to write should end, and be started again.
   */
  get lost(): AbortSignal {
    return this.#lost.signal;
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
      throw sqliteCodeOf(error) === sqliteCodes.error
        ? this.damaged(messageOf(error))
        : this.explain(error);
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
      this.insistOnFile();
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
   * Throws `ReplacedError` if the file was removed or replaced, and `DamagedError` if it was emptied. What
   * is written after that would be gone with the process.
   */
  insistOnFile(): void {
    if (this.#identity === undefined) {
      return;
    }
    const there = statOf(this.path);
    if (there === undefined || identityOf(there) !== this.#identity) {
      const error = new ReplacedError(this.path, { isGone: there === undefined });
      this.#lost.abort(error);
      throw error;
    }
    if (there.size === 0n) {
      const error = this.damaged("it was emptied while it was open here");
      this.#lost.abort(error);
      throw error;
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
    const [pages, size] = ["page_count", "page_size"].map((pragma) =>
      numberOf(this.#sqlite, pragma),
    ) as [number, number];
    return pages * size - this.unusedBytes();
  }

  /** The size of the free pages inside the file, in bytes. Reads the file's first page alone. */
  unusedBytes(): number {
    return numberOf(this.#sqlite, "freelist_count") * numberOf(this.#sqlite, "page_size");
  }

  /** The size of the log's file, in bytes, at most what is kept of it when it begins again. */
  keptLogBytes(): number {
    return Math.min(sizeOf(`${this.path}-wal`), maxLogBytes);
  }

  /**
   * Makes every commit of this connection bring the log into the file, as far as readers allow, instead
   * of every thousandth page. This costs two more fsyncs a commit, and keeps the log small. A checkpoint
   * that fails is no error: the next commit makes another one.
   */
  checkpointEachCommit(isOn: boolean): void {
    if (isOn !== this.#checkpointsEachCommit) {
      this.#sqlite.exec(`PRAGMA wal_autocheckpoint = ${isOn ? 1 : pagesToCheckpoint}`);
      this.#checkpointsEachCommit = isOn;
    }
  }

  /**
   * The bytes that `compact` takes of the disk for a while: those of the pages in use go through the log,
   * and through a file beside it if they are too many for memory.
   */
  compactBytes(): number {
    const used = this.usedBytes();
    // A page in the log has 24 bytes more, and the log 32.
    const logged = Math.ceil(used * (1 + 24 / 4096)) + 32;
    return used > maxCopiedInMemory ? logged + used : logged;
  }

  /**
   * Writes the file again without its free pages. On the way it takes `compactBytes` of the disk. Others
   * wait to write meanwhile, and may read. Returns false if somebody still reads what it was; then the
   * disk gets its room when nobody does any more.
   */
  compact(): boolean {
    try {
      // Where the room was looked for; by default it is elsewhere.
      const folder = dirname(resolve(this.path)).replaceAll("'", "''");
      this.#sqlite.exec(`PRAGMA temp_store_directory = '${folder}'`);
      const store = this.usedBytes() > maxCopiedInMemory ? "FILE" : "MEMORY";
      this.#sqlite.exec(`PRAGMA temp_store = ${store}`);
      this.#sqlite.exec("VACUUM");
      return this.emptyLog();
    } catch (error) {
      throw this.explain(error);
    } finally {
      this.#sqlite.exec("PRAGMA temp_store = DEFAULT");
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
      if (!this.isReadOnly) {
        rmSync(suspicionPath(this.path), { force: true });
      }
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** What SQLite threw, in our words; anything else stays as it is. */
  explain(error: unknown): unknown {
    const explained = diskError(error, this.path, this.path);
    if (explained instanceof DamagedError && explained !== error) {
      this.#suspect();
      if (this.#identity !== undefined && sizeOf(this.path) === 0) {
        // What SQLite met is a page that an emptied file does not have.
        this.#lost.abort(explained);
      }
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
      makePrivateFile(suspicionPath(this.path), { ownerOf: this.path });
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
 * page, past rows that are whole or back to those that he has seen. `isClosed` says that nobody has the
 * file open and it has no log: then SQLite makes no files beside it.
 */
export function* salvage(
  path: string,
  table: string,
  key: string,
  { isClosed = false }: { readonly isClosed?: boolean } = {},
): Generator<Record<string, unknown>, void> {
  if (sizeOf(path) === 0) {
    // SQLite would delete the log of an empty file.
    return;
  }
  const sqlite = isClosed
    ? new DatabaseSync(`${pathToFileURL(path)}?immutable=1`, { readOnly: true })
    : openToRead(path);
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
    // A lock must be had on a full disk too. Nothing is ever committed here, so no journal is needed.
    sqlite.exec("PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE");
    // SQLite opens a file that this user may only read as one, and then BEGIN EXCLUSIVE locks nothing
    // and throws nothing. An attempt to write tells; it stays in memory.
    sqlite.exec("PRAGMA user_version = 1");
  } catch (error) {
    sqlite?.close();
    if (sqliteCodeOf(error) === sqliteCodes.busy) {
      return undefined;
    }
    throw notLockable(error, path);
  }
  const held = sqlite;
  return { release: () => held.close() };
}

/** Says why a lock file cannot be locked, and what its owner can do about it. */
function notLockable(error: unknown, path: string): unknown {
  const explained = diskError(error, path, path);
  if (explained instanceof DamagedError) {
    return new StatusError("FAILED_PRECONDITION", `${path} is in the place of a lock and is none`, {
      hint: "brewctl has not written it; nothing was changed; see who did, and remove it",
      cause: error,
    });
  }
  const owner = statSync(path, { throwIfNoEntry: false })?.uid;
  if (
    explained instanceof StatusError &&
    explained.code === "PERMISSION_DENIED" &&
    errnoOf(explained.cause) !== "EROFS"
  ) {
    const user = process.geteuid?.();
    return new StatusError(
      "PERMISSION_DENIED",
      `${path} cannot be locked: it belongs to user ${owner}, and user ${user} may not write it`,
      {
        hint: `nothing was done without the lock; give it to this user: chown ${user} ${path}`,
        cause: error,
      },
    );
  }
  return explained;
}

/** Bytes that this user may still write to the disk of a file or folder. */
export function freeBytes(path: string): number {
  const folder = dirname(resolve(path));
  try {
    const { bavail, bsize } = statfsSync(folder);
    return bavail * bsize;
  } catch (error) {
    throw errnoOf(error) === "ENOENT"
      ? new ReplacedError(folder, { isGone: true, cause: error })
      : diskError(error, path, path);
  }
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

/**
 * Opens a database to look at it. Nothing is changed in it, except that a transaction which a power cut
 * has interrupted is rolled back: SQLite reads nothing before that, and it needs to write for it.
 */
function openToRead(path: string): DatabaseSync {
  return openShared(path, { isReadOnly: !hasJournal(path) }).sqlite;
}

/**
 * Opens a database that other processes may have open too. They share an index of the log in a file of 32
 * KiB, and on a disk without room for it SQLite opens nothing. But a store must be able to send away
 * what it has, and a cloud to show it: then SQLite keeps the index in its own memory, and the database
 * for this process alone (sqlite.org/wal.html, "Use of WAL Without Shared-Memory").
 */
function openShared(
  path: string,
  { isReadOnly }: { isReadOnly: boolean },
): { sqlite: DatabaseSync; isExclusive: boolean } {
  const sqlite = new DatabaseSync(path, { readOnly: isReadOnly, timeout: busyMs });
  try {
    if (sizeOf(path) > 0) {
      // Only reading makes SQLite open the log.
      sqlite.prepare("SELECT count(*) FROM sqlite_schema").get();
    }
    return { sqlite, isExclusive: false };
  } catch (error) {
    sqlite.close();
    if (isReadOnly && isFrozen(path)) {
      // SQLite then makes no files beside the database, and takes no locks.
      const url = pathToFileURL(resolve(path));
      url.searchParams.set("immutable", "1");
      return { sqlite: new DatabaseSync(url, { readOnly: true }), isExclusive: false };
    }
    const explained = diskError(error, path, path);
    if (!(explained instanceof StatusError && explained.code === "RESOURCE_EXHAUSTED")) {
      throw error;
    }
    const exclusive = new DatabaseSync(path, { timeout: busyMs });
    exclusive.exec("PRAGMA locking_mode = EXCLUSIVE");
    return { sqlite: exclusive, isExclusive: true };
  }
}

/**
 * Whether a database was closed well and nobody can change it now: it is on a file system that is
 * read-only for all, and has neither a log with something in it nor the index that is there while a
 * process has it open.
 */
function isFrozen(path: string): boolean {
  return (
    isReadOnlyHere(path) &&
    isReadOnlyForAll(path) &&
    sizeOf(`${path}-wal`) === 0 &&
    !existsSync(`${path}-shm`) &&
    !hasJournal(path)
  );
}

/**
 * Whether a rollback journal is beside the database. New files are made with one, before they are
 * switched to WAL mode, and it outlives a process that is killed meanwhile.
 */
function hasJournal(path: string): boolean {
  return sizeOf(`${path}-journal`) > 0;
}

/**
 * Refuses to open a file that is empty or gone while its log has something in it: SQLite would take the
 * log for a leftover and delete it, and with it what was committed last. The log is looked at first,
 * since a process that makes a new file has filled it before it begins a log.
 */
function refuseLogAlone(path: string, { name }: Kind): void {
  if (sizeOf(`${path}-wal`) > 0 && sizeOf(path) === 0 && !hasJournal(path)) {
    const what = existsSync(path) ? "was emptied" : "is gone";
    throw new DamagedError(`${name} ${path} is damaged: it ${what}, and its log is still there`);
  }
}

/** Looks before anything is written, so that what is not ours stays as it is. */
function checkKind(path: string, kind: Kind): void {
  const sqlite = openToRead(path);
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
  if (version === 0 && numberOf(sqlite, "page_count") === 0) {
    throw new StatusError("FAILED_PRECONDITION", `${path} is empty: it was never finished`, {
      hint: "nothing was ever stored in it; the next command that writes to it makes it",
    });
  }
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
    throw diskError(error, `cannot make the folder ${path}`, path);
  }
}

/**
 * Makes sure that only the owner can read the database, before SQLite opens it: SQLite gives the log and
 * the other files beside it the rights that the database file has, whatever the umask.
 */
function makePrivate(path: string, ownerOf: string | undefined): void {
  if (isDanglingLink(path)) {
    throw new StatusError("FAILED_PRECONDITION", `${path} is a link to a file that is not there`, {
      hint: "nothing was written; remove the link, or name the file itself",
    });
  }
  try {
    if (existsSync(path) || !makePrivateFile(path, { ownerOf })) {
      tightenDatabase(path);
    }
  } catch (error) {
    throw diskError(error, path, path);
  }
}

/** A lock is brewctl's own file: a link there would have another file locked, and its mode changed. */
function makeLockFile(path: string): void {
  try {
    // An administrator's `sudo brewctl` must not lock the store's own user out.
    if (makePrivateFile(path, { ownerOf: dirname(resolve(path)) })) {
      return;
    }
    tighten(path);
  } catch (error) {
    throw diskError(error, path, path);
  }
  if (!isPlainFile(path)) {
    throw new StatusError("FAILED_PRECONDITION", `${path} is not a file, and cannot be a lock`, {
      hint: "brewctl has not made it; nothing was changed; see who did, and remove it",
    });
  }
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

/** What the kernel knows of a file; undefined if there is none of this name. */
function statOf(path: string): BigIntStats | undefined {
  return statSync(path, { bigint: true, throwIfNoEntry: false });
}

/** Tells files apart, whatever their names are. */
function identityOf({ dev, ino }: BigIntStats): string {
  return `${dev}:${ino}`;
}

/**
 * Returns the name under which SQLite keeps the log of a database: that of the file itself where a link
 * is named. Locks and notes beside the database must have this name too, or two processes that name
 * it differently would not see each other's.
 */
export function databaseFile(path: string): string {
  try {
    return path !== inMemory && isLink(path) && existsSync(path) ? realpathSync(path) : path;
  } catch (error) {
    throw diskError(error, path, path);
  }
}

/**
 * A file with two names, which are hard links, would have a log for each of them, and be corrupted by
 * two processes that use both (sqlite.org/howtocorrupt.html, "Multiple links to the same file").
 */
function refuseSecondName(path: string): void {
  const there = statSync(path, { throwIfNoEntry: false });
  if (there?.isFile() && there.nlink > 1) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${path} has ${there.nlink} names (hard links), and processes that use different ones corrupt it`,
      {
        hint: `nothing was changed; remove all names but one: find / -xdev -inum ${there.ino} lists them`,
      },
    );
  }
}
