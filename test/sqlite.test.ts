/** SQLite as we open it: what is refused and stays as it is, and what the disk does to a write. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { codeOfErrno, StatusError } from "../src/errors.ts";
import { Database, inMemory, type Kind, salvage, takeLock } from "../src/sqlite.ts";
import { interruptTransaction } from "./support/hot-journal.ts";
import { reap } from "./support/reaper.ts";
import { tempFolder } from "./support/temp.ts";

const kind: Kind = {
  name: "shopping list",
  applicationId: 0x42724c31,
  version: 3,
  schema: "CREATE TABLE things (number INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;",
  upgrades: [],
};

const open = (path: string, options: Partial<Kind> = {}) =>
  new Database(path, { ...kind, ...options });
const put = (database: Database, name: string) =>
  database.write(() => database.prepare("INSERT INTO things (name) VALUES (?)").run(name));
const names = (database: Database) =>
  database
    .prepare("SELECT name FROM things ORDER BY number")
    .all()
    .map(({ name }) => name);

/** What `act` throws, which must be a `StatusError`. */
function refusal(act: () => unknown): StatusError {
  try {
    act();
  } catch (error) {
    if (error instanceof StatusError) {
      return error;
    }
    throw error;
  }
  throw new Error("expected a refusal");
}

/** Opening must be refused with this code, and leave the file as it is. */
function expectUntouched(path: string, code: string, message: RegExp): StatusError {
  const before = readFileSync(path);
  const error = refusal(() => open(path));
  expect(error.code).toBe(code);
  expect(error.message).toMatch(message);
  expect(readFileSync(path).equals(before)).toBe(true);
  return error;
}

test("what is committed is there when the file is opened again, its folder made on the way", () => {
  using folder = tempFolder();
  const path = folder.file("a/b/list.db");
  const database = open(path);
  put(database, "milk");
  database.close();
  const again = open(path);
  expect(names(again)).toEqual(["milk"]);
  again.close();
});

test("a file is in WAL mode with synchronous=FULL, and says what it is", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  const pragma = (name: string) => database.prepare(`PRAGMA ${name}`).get()?.[name];
  expect(pragma("journal_mode")).toBe("wal");
  expect(pragma("synchronous")).toBe(2);
  expect(pragma("application_id")).toBe(kind.applicationId);
  expect(pragma("user_version")).toBe(kind.version);
  put(database, "milk");
  // Looked at while it is open: the header is in the file itself, and not only in its log.
  expect(readFileSync(database.path).readUInt32BE(68)).toBe(kind.applicationId);
  database.close();
});

test("one that is to be forgotten needs no file", () => {
  const database = open(inMemory);
  put(database, "milk");
  expect(names(database)).toEqual(["milk"]);
  expect(database.hasHotLog).toBe(false);
  database.close();
  expect(existsSync(inMemory)).toBe(false);
});

test("another program's database is refused and stays as it is", () => {
  using folder = tempFolder();
  const path = folder.file("theirs.db");
  const theirs = new DatabaseSync(path);
  theirs.exec("CREATE TABLE photos (id INTEGER PRIMARY KEY)");
  theirs.close();
  const error = expectUntouched(path, "FAILED_PRECONDITION", /theirs\.db is no shopping list$/);
  expect(error.hint).toContain("stays as it is");
});

test("a file of a newer version is refused and stays as it is", () => {
  using folder = tempFolder();
  const path = folder.file("list.db");
  open(path, { version: 4 }).close();
  expectUntouched(path, "FAILED_PRECONDITION", /newer brewctl \(schema 4, this one knows 3\)/);
});

test.each<[string, string | Uint8Array]>([
  ["text", "bread and butter, ".repeat(100)],
  ["a few words", "bread, butter"],
  ["nothing but zeros", new Uint8Array(8192)],
  ["SQLite's first words and then garbage", `SQLite format 3\0${"garbage ".repeat(1000)}`],
])("a file of %s is damaged, and stays as it is", (_, content) => {
  using folder = tempFolder();
  const path = folder.file("list.db");
  writeFileSync(path, content);
  expectUntouched(path, "DATA_LOSS", /list\.db is damaged: /);
});

test("an empty file is filled", () => {
  using folder = tempFolder();
  const path = folder.file("list.db");
  writeFileSync(path, "");
  const database = open(path);
  put(database, "milk");
  expect(names(database)).toEqual(["milk"]);
  database.close();
});

test("a file whose making was interrupted by a power cut is made again", () => {
  using folder = tempFolder();
  const path = folder.file("list.db");
  interruptTransaction(path);
  const database = open(path);
  expect(database.hasHotLog).toBe(true);
  put(database, "milk");
  expect(names(database)).toEqual(["milk"]);
  database.close();
});

test("a transaction that a power cut has interrupted is rolled back, also by one who only reads", () => {
  using folder = tempFolder();
  const committed = `${kind.schema} INSERT INTO things (name) VALUES ('milk');
    PRAGMA application_id = ${kind.applicationId}; PRAGMA user_version = ${kind.version}`;
  for (const isReadOnly of [false, true]) {
    const path = folder.file(`list-${isReadOnly}.db`);
    interruptTransaction(path, committed);
    const database = new Database(path, kind, { isReadOnly });
    expect(names(database)).toEqual(["milk"]);
    expect(database.faults(1)).toEqual([]);
    database.close();
  }
});

test("one who only reads is told that a file was never finished", () => {
  using folder = tempFolder();
  const path = folder.file("list.db");
  interruptTransaction(path);
  const error = refusal(() => new Database(path, kind, { isReadOnly: true }));
  expect(error.code).toBe("FAILED_PRECONDITION");
  expect(error.message).toContain("it was never finished");
});

test("a folder that this user may not write to is said so", () => {
  using folder = tempFolder();
  chmodSync(folder.path, 0o555);
  // To root every folder is writable.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    process.seteuid?.(65534);
  }
  try {
    const error = refusal(() => open(folder.file("list.db")));
    expect(error.code).toBe("PERMISSION_DENIED");
    expect(error.hint).toContain("the folder too must be writable");
    expect(refusal(() => open(folder.file("more/list.db"))).message).toContain(
      "cannot make the folder",
    );
    expect(refusal(() => takeLock(folder.file("lock"))).code).toBe("PERMISSION_DENIED");
  } finally {
    if (isRoot) {
      process.seteuid?.(0);
    }
    chmodSync(folder.path, 0o755);
  }
});

test.runIf(existsSync("/proc/self"))(
  "a place where no folder can be made is said so at once",
  () => {
    const error = refusal(() => open("/proc/brewctl/more/list.db"));
    expect(error.message).toMatch(/^cannot make the folder \/proc\/brewctl\/more: .*ENOENT/);
    expect(error.code).toBe("FAILED_PRECONDITION");
  },
);

test.each([
  ["EACCES", "PERMISSION_DENIED"],
  ["EROFS", "PERMISSION_DENIED"],
  ["ENOSPC", "RESOURCE_EXHAUSTED"],
  ["EIO", "UNAVAILABLE"],
  ["ENOENT", "FAILED_PRECONDITION"],
  ["ENOTDIR", "FAILED_PRECONDITION"],
])("%s of the operating system is %s", (code, status) => {
  expect(codeOfErrno(Object.assign(new Error("no"), { code }))).toBe(status);
});

test("a folder cannot be made below a file, and a folder is no file", () => {
  using folder = tempFolder();
  writeFileSync(folder.file("file"), "");
  expect(refusal(() => open(folder.file("file/list.db"))).code).toBe("FAILED_PRECONDITION");
  expect(refusal(() => open(folder.path)).message).toContain(folder.path);
});

test("a transaction that throws leaves nothing, and the next one works", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  const reason = new Error("changed my mind");
  expect(() =>
    database.write(() => {
      database.prepare("INSERT INTO things (name) VALUES ('milk')").run();
      throw reason;
    }),
  ).toThrow(reason);
  expect(names(database)).toEqual([]);
  put(database, "bread");
  expect(names(database)).toEqual(["bread"]);
  database.close();
});

test("another connection's commit is noticed, one's own is not", () => {
  using folder = tempFolder();
  const [one, other] = [open(folder.file("list.db")), open(folder.file("list.db"))];
  const before = one.dataVersion();
  put(one, "milk");
  expect(one.dataVersion()).toBe(before);
  put(other, "bread");
  expect(one.dataVersion()).not.toBe(before);
  expect(names(one)).toEqual(["milk", "bread"]);
  one.close();
  other.close();
});

test("a write that another process keeps waiting is given up, and nothing is written", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  // Not the 5 s of every day.
  database.prepare("PRAGMA busy_timeout = 1").get();
  const other = new DatabaseSync(database.path);
  other.exec("BEGIN IMMEDIATE");
  const error = refusal(() => put(database, "milk"));
  expect(error.code).toBe("UNAVAILABLE");
  expect(error.message).toContain("another process has kept it busy");
  other.exec("COMMIT");
  other.close();
  put(database, "bread");
  expect(names(database)).toEqual(["bread"]);
  database.close();
});

test("a full disk refuses the write whole, and takes the next one when there is room", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  put(database, "milk");
  const pages = Number(database.prepare("PRAGMA page_count").get()?.["page_count"]);
  database.prepare(`PRAGMA max_page_count = ${pages}`).get();
  const error = refusal(() =>
    database.write(() => {
      for (let i = 0; i < 100; i++) {
        database.prepare("INSERT INTO things (name) VALUES (?)").run("x".repeat(500));
      }
    }),
  );
  expect(error.code).toBe("RESOURCE_EXHAUSTED");
  expect(error.hint).toContain("nothing was lost");
  expect(names(database)).toEqual(["milk"]);
  database.prepare("PRAGMA max_page_count = 1000000").get();
  put(database, "bread");
  expect(names(database)).toEqual(["milk", "bread"]);
  database.close();
});

test("nothing is written to a file that was replaced while it was open", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  put(database, "milk");
  renameSync(database.path, folder.file("old.db"));
  expect(refusal(() => put(database, "bread")).code).toBe("UNAVAILABLE");
  copyFileSync(folder.file("old.db"), database.path);
  expect(refusal(() => put(database, "bread")).message).toContain("was replaced");
  expect(names(database)).toEqual(["milk"]);
  database.close();
});

test("a log that was not closed is seen at the next opening", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  expect(database.hasHotLog).toBe(false);
  put(database, "milk");
  for (const suffix of ["", "-wal"]) {
    copyFileSync(database.path + suffix, folder.file("copy.db") + suffix);
  }
  database.close();
  const copy = open(folder.file("copy.db"));
  expect(copy.hasHotLog).toBe(true);
  copy.check();
  expect(names(copy)).toEqual(["milk"]);
  copy.close();
  const closed = open(database.path);
  expect(closed.hasHotLog).toBe(false);
  closed.close();
});

test("damage below the surface is found by a check, and by whoever reads or writes there", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  database.write(() => {
    for (let i = 0; i < 300; i++) {
      database.prepare("INSERT INTO things (name) VALUES (?)").run(`${i}`.repeat(40));
    }
  });
  database.close();
  const bytes = readFileSync(database.path);
  bytes.fill(0xff, 4096 * 3, 4096 * 4);
  writeFileSync(database.path, bytes);

  const damaged = open(database.path);
  for (const act of [
    () => damaged.check(),
    () => names(damaged),
    () => damaged.write(() => damaged.prepare("UPDATE things SET name = ''").run()),
  ]) {
    const error = refusal(act);
    expect(error.code).toBe("DATA_LOSS");
    expect(error.name).toBe("DamagedError");
  }
  damaged.close();
});

test("what is readable of a damaged file is salvaged, up to the broken page and behind it", () => {
  using folder = tempFolder();
  const database = open(folder.file("list.db"));
  const rows = 400;
  database.write(() => {
    for (let i = 1; i <= rows; i++) {
      database
        .prepare("INSERT INTO things (name) VALUES (?)")
        .run(`thing ${i}: ${"x".repeat(200)}`);
    }
  });
  database.close();
  const whole = readFileSync(database.path);
  const bytes = Buffer.from(whole);
  // A leaf of the table in the middle of the file.
  const page = 12;
  const from = 4096 * (page - 1);
  expect(bytes[from]).toBe(0x0d);
  const lost = bytes.readUInt16BE(from + 3);
  bytes.fill(0xff, from, from + 4096);
  writeFileSync(database.path, bytes);

  const kept = Array.from(salvage(database.path, "things", "number"), ({ number }) =>
    Number(number),
  );
  expect(kept).toHaveLength(rows - lost);
  expect(new Set(kept).size).toBe(kept.length);
  expect(readFileSync(database.path).equals(bytes)).toBe(true);
});

test("a lock excludes others until it is released", () => {
  using folder = tempFolder();
  const lock = takeLock(folder.file("sub/lock"));
  expect(lock).toBeDefined();
  expect(takeLock(folder.file("sub/lock"))).toBeUndefined();
  lock?.release();
  const next = takeLock(folder.file("sub/lock"));
  expect(next).toBeDefined();
  next?.release();
});

test("the death of a process releases its lock", async () => {
  using folder = tempFolder();
  const sqlite = fileURLToPath(new URL("../src/sqlite.ts", import.meta.url));
  const script = `
    const { takeLock } = await import(process.argv[1]);
    globalThis.lock = takeLock(process.argv[2]);
    process.stdout.write(globalThis.lock === undefined ? "refused" : "taken");
    setInterval(() => {}, 1000);`;
  const child = spawn(
    process.execPath,
    ["--input-type=module", "-e", script, sqlite, folder.file("lock")],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  reap(child);
  try {
    const [answer] = await once(child.stdout, "data");
    expect(String(answer)).toBe("taken");
    expect(takeLock(folder.file("lock"))).toBeUndefined();
  } finally {
    child.kill("SIGKILL");
    await once(child, "close");
  }
  const lock = takeLock(folder.file("lock"));
  expect(lock).toBeDefined();
  lock?.release();
});

test("a lock that this user may not write is refused, and never taken for one that is held", () => {
  using folder = tempFolder();
  const path = folder.file("lock");
  writeFileSync(path, "");
  chmodSync(folder.path, 0o777);
  chmodSync(path, 0o444);
  // Root may write to any file.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    process.seteuid?.(65534);
  }
  try {
    const error = refusal(() => takeLock(path));
    expect(error.code).toBe("PERMISSION_DENIED");
    expect(error.message).toMatch(
      /lock cannot be locked: it belongs to user \d+, and user \d+ may/,
    );
    expect(error.hint).toContain(`chown ${process.geteuid?.()} ${path}`);
  } finally {
    if (isRoot) {
      process.seteuid?.(0);
    }
  }
});

test("a file with something in it is no lock, and stays as it is", () => {
  using folder = tempFolder();
  const path = folder.file("lock");
  writeFileSync(path, "bread and butter, ".repeat(100));
  const error = refusal(() => takeLock(path));
  expect(error.code).toBe("FAILED_PRECONDITION");
  expect(error.message).toContain("in the place of a lock");
  expect(readFileSync(path, "utf8")).toContain("bread");
});

test("a lock needs nothing of the disk beside its empty file", () => {
  using folder = tempFolder();
  const lock = takeLock(folder.file("lock"));
  expect(readdirSync(folder.path)).toEqual(["lock"]);
  expect(statSync(folder.file("lock")).size).toBe(0);
  lock?.release();
});

test("a database that has a second name is refused by either, and opened again by the one that is left", () => {
  using folder = tempFolder();
  const [path, second] = [folder.file("list.db"), folder.file("second.db")];
  const database = open(path);
  put(database, "milk");
  linkSync(path, second);
  for (const name of [path, second]) {
    for (const isReadOnly of [false, true]) {
      const error = refusal(() => new Database(name, kind, { isReadOnly }));
      expect(error.code).toBe("FAILED_PRECONDITION");
      expect(error.message).toContain(`${name} has 2 names (hard links)`);
      expect(error.hint).toContain(`-inum ${statSync(path).ino} `);
    }
  }
  // Whoever had it open before goes on.
  put(database, "bread");
  database.close();
  rmSync(second);
  const again = open(path);
  expect(names(again)).toEqual(["milk", "bread"]);
  again.close();
});

test("a database that is named by a link is the file that the link means", () => {
  using folder = tempFolder();
  const [path, link] = [folder.file("list.db"), folder.file("link.db")];
  const database = open(path);
  put(database, "milk");
  symlinkSync(path, link);
  const linked = open(link);
  expect(linked.path).toBe(realpathSync(path));
  expect(linked.hasHotLog).toBe(true);
  put(linked, "bread");
  expect(names(database)).toEqual(["milk", "bread"]);
  linked.close();
  database.close();
});

test("a process that has no descriptor left is told so, and that it may try again", async () => {
  using folder = tempFolder();
  const whole = open(folder.file("list.db"));
  whole.close();
  const sqlite = fileURLToPath(new URL("../src/sqlite.ts", import.meta.url));
  const script = `
    import { openSync } from "node:fs";
    const { Database, takeLock } = await import(process.argv[1]);
    const kind = JSON.parse(process.argv[3]);
    const folder = process.argv[2];
    try { for (;;) openSync("/dev/null"); } catch {}
    for (const act of [
      () => new Database(folder + "/list.db", kind),
      () => new Database(folder + "/new.db", kind),
      () => takeLock(folder + "/lock"),
    ]) {
      try { act(); } catch (error) { process._rawDebug(error.code + ": " + error.message); }
    }`;
  const node = [process.execPath, "--input-type=module", "-e", script];
  const child = spawn(
    "/bin/sh",
    ["-c", 'ulimit -n 64; exec "$@"', "sh", ...node, sqlite, folder.path, JSON.stringify(kind)],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  reap(child);
  let said = "";
  child.stderr.on("data", (text) => {
    said += text;
  });
  await once(child, "close");
  const lines = said.trim().split("\n");
  expect(lines).toHaveLength(3);
  for (const line of lines) {
    expect(line).toMatch(/^UNAVAILABLE: .*: this process has too many files open \(EMFILE\)$/);
  }
});
