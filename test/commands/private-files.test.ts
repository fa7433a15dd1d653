/**
 * Whatever the umask: nobody but the owner can read or write what brewctl keeps and writes, and nobody
 * can have it written elsewhere by planting a link or a pipe.
 */

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Running, type RunOptions, root, startProgram } from "../support/brewctl.ts";
import { shop } from "../support/shop.ts";
import { tempFolder } from "../support/temp.ts";

const isRoot = process.geteuid?.() === 0;

const modeOf = (path: string) => (lstatSync(path).mode & 0o7777).toString(8);

/** Every file and folder below this one, by its path there, with what it is and its mode. */
function modesBelow(folder: string): Record<string, string> {
  return Object.fromEntries(
    readdirSync(folder, { recursive: true, encoding: "utf8" }).map((name) => {
      const there = lstatSync(join(folder, name));
      const kind = there.isDirectory() ? "folder" : there.isSocket() ? "socket" : "file";
      return [name, `${kind} ${modeOf(join(folder, name))}`];
    }),
  );
}

/** Those of them that more people than the owner can read or write. */
const openBelow = (folder: string) =>
  Object.entries(modesBelow(folder)).filter(
    ([, mode]) => mode !== "file 600" && mode !== "folder 700",
  );

/** The real program, started by a shell that has this umask. */
function startWith(umask: string, args: readonly string[], options: RunOptions = {}): Running {
  const line = 'umask "$1"; shift; exec "$@"';
  return startProgram("/bin/sh", ["-c", line, "sh", umask, `${root}bin/brewctl`, ...args], options);
}

async function runWith(umask: string, args: readonly string[], options: RunOptions = {}) {
  await using running = startWith(umask, args, options);
  const ended = await running.ended;
  expect(ended, args.join(" ")).toMatchObject({ code: 0 });
  return ended;
}

describe.each(["000", "022", "077"])("with umask %s", (umask) => {
  /** A folder that the user has chosen, which stays as it is, and a buffer in it. */
  function places() {
    const folder = tempFolder();
    const chosen = folder.file("srv");
    mkdirSync(chosen);
    chmodSync(chosen, 0o755);
    const env = { XDG_STATE_HOME: folder.file("state"), BREWCTL_STORE: "store-01" };
    return {
      ...{ folder, chosen, env, buffer: join(chosen, "buffer.db") },
      [Symbol.dispose]: () => folder[Symbol.dispose](),
    };
  }

  test("the files of a daemon and a cloud are for their owner alone, also when they are killed", async () => {
    using place = places();
    const { folder, chosen, env, buffer } = place;
    await using cloud = startWith(umask, [
      ...["serve", "--addr", "127.0.0.1:0", "--data-dir", join(chosen, "cloud")],
    ]);
    const [, port = ""] = await cloud.output(/port=(\d+)/);
    const addr = ["--addr", `127.0.0.1:${port}`];
    const socket = folder.file("tills");
    const run = ["store-sync", "run", "--buffer", buffer, ...addr, "--exec", "true"];
    await using daemon = startWith(umask, [...run, "--listen", `unix:${socket}`], { env });
    await daemon.output(/live: everything/);
    const reconcile = ["head-office", "reconcile", "--store", "store-01", ...addr];
    await runWith(umask, [...reconcile, "--receipt", join(chosen, "receipt.json")], { env });
    expect(modeOf(socket)).toBe("660");
    for (const child of [undefined, daemon, cloud]) {
      child?.child.kill("SIGKILL");
      await child?.ended;
      expect(openBelow(chosen)).toEqual([]);
    }
    expect(Object.keys(modesBelow(chosen))).toEqual(
      expect.arrayContaining([
        ...[
          "buffer.db",
          "buffer.db-wal",
          "buffer.db-shm",
          "buffer.db-drainer",
          "buffer.db-applier",
        ],
        ...["cloud/ledger.db", "cloud/ledger.db-wal", "cloud/ledger.db-server", "receipt.json"],
      ]),
    );
    expect(modeOf(chosen)).toBe("755");
  });

  test("so are an export, an import and what a salvage sets aside", async () => {
    using place = places();
    const { folder, chosen, env, buffer } = place;
    const sync = (...args: string[]) => runWith(umask, ["store-sync", ...args], { env });
    // Without --buffer: the folders are made too.
    await sync("record", "--type", "Sale");
    const made = folder.file("state/brewctl/stores/store-01/buffer.db");
    await sync("export", join(chosen, "out.ndjson"));
    await sync("import", join(chosen, "out.ndjson"), "--buffer", buffer);
    writeFileSync(`${made}-suspect`, "", { mode: 0o600 });
    writeFileSync(made, readFileSync(made).fill(0xab, 4096, 2 * 4096));
    await sync("compact");
    expect(openBelow(chosen)).toEqual([]);
    expect(openBelow(folder.file("state"))).toEqual([]);
    expect([modeOf(folder.file("state")), modeOf(chosen)]).toEqual(["700", "755"]);
    const names = Object.keys({ ...modesBelow(chosen), ...modesBelow(folder.file("state")) });
    expect(names).toEqual(expect.arrayContaining(["buffer.db", "out.ndjson"]));
    expect(names.some((name) => name.includes(".damaged-"))).toBe(true);
    expect(names.filter((name) => /partial|-salvaging|-compacting|-importing/.test(name))).toEqual(
      [],
    );
  });
});

test("what an earlier version left for others to read is for its owner alone from the next opening on", async () => {
  using box = shop();
  await using daemon = await box.run(["--addr", "127.0.0.1:1"]);
  await daemon.stop("SIGKILL");
  const folder = join(box.buffer, "..");
  writeFileSync(`${box.buffer}.damaged-20250101T000000000Z`, "sales");
  writeFileSync(join(folder, "notes.txt"), "the shop's own");
  for (const name of readdirSync(folder)) {
    chmodSync(join(folder, name), 0o644);
  }
  expect((await box.sync("record --type Sale")).code).toBe(0);
  expect(openBelow(folder)).toEqual([["notes.txt", "file 644"]]);
});

// Only root can give a file away, and can use it after that.
test.runIf(isRoot)("the files of another owner are left as they are, and work", async () => {
  using box = shop();
  await box.sync("record --type Sale");
  const folder = join(box.buffer, "..");
  for (const name of readdirSync(folder)) {
    chownSync(join(folder, name), 12_345, 12_345);
    chmodSync(join(folder, name), 0o640);
  }
  expect((await box.sync("record --type Sale")).code).toBe(0);
  expect((await box.sync("status")).stdout).toMatch(/pending +2/);
  expect(modeOf(box.buffer)).toBe("640");
  expect(statSync(box.buffer).uid).toBe(12_345);
});

describe("a planted name", () => {
  const plant = (kind: "link" | "pipe", path: string, victim: string) =>
    kind === "link" ? symlinkSync(victim, path) : execFileSync("mkfifo", [path]);

  test.each(["link", "pipe"] as const)(
    "that is a %s is neither written to nor waited for by a salvage and by compact",
    async (kind) => {
      using box = shop();
      const victim = box.folder.file("victim");
      writeFileSync(victim, "precious", { mode: 0o644 });
      await box.sync("record --type Sale");
      writeFileSync(box.buffer, readFileSync(box.buffer).fill(0xab, 4096, 2 * 4096));
      for (const suffix of ["-suspect", "-compacting"]) {
        plant(kind, box.buffer + suffix, victim);
      }
      // Salvages first, since it is suspected of damage.
      const { stderr, code } = await box.sync("compact");
      expect(stderr).toContain("the buffer was damaged");
      expect(code).toBe(0);
      expect([readFileSync(victim, "utf8"), modeOf(victim)]).toEqual(["precious", "644"]);
    },
  );

  test.each(["link", "pipe"] as const)(
    "that is a %s is neither written to nor waited for by export and by import",
    async (kind) => {
      using box = shop();
      const victim = box.folder.file("victim");
      writeFileSync(victim, "precious", { mode: 0o644 });
      await box.sync("record --type Sale");
      const file = box.folder.file("out.ndjson");
      const moved = box.folder.file("moved.db");
      plant(kind, `${file}.partial`, victim);
      plant(kind, `${moved}-importing`, victim);
      expect((await box.sync(`export ${file}`)).code).toBe(0);
      expect((await box.sync(`import ${file} --buffer ${moved}`)).code).toBe(0);
      expect([readFileSync(victim, "utf8"), modeOf(victim)]).toEqual(["precious", "644"]);
    },
  );

  test.each(["link", "pipe"] as const)(
    "that is a %s in the place of a salvage's intention is an error, and not followed",
    async (kind) => {
      using box = shop();
      const victim = box.folder.file("victim");
      await box.sync("record --type Sale");
      const intention = { at: 1, owner: "store-01", setAside: box.folder.file("elsewhere") };
      writeFileSync(victim, `${JSON.stringify(intention)}\n`);
      plant(kind, `${box.buffer}-salvaging`, victim);
      const { code, stderr } = await box.sync("status");
      expect(stderr).toMatch(/^brewctl: FAILED_PRECONDITION: .*-salvaging is not a file/);
      expect(code).toBe(73);
      expect(existsSync(intention.setAside)).toBe(false);
    },
  );

  test.each(["link", "pipe"] as const)(
    "that is a %s in the place of a lock is refused, and nothing else is locked",
    async (kind) => {
      using box = shop();
      const victim = box.folder.file("victim");
      writeFileSync(victim, "precious");
      await box.sync("record --type Sale");
      rmSync(`${box.buffer}-drainer`);
      plant(kind, `${box.buffer}-drainer`, victim);
      const { code, stderr } = await box.sync("flush --addr 127.0.0.1:1");
      expect(stderr).toMatch(/^brewctl: FAILED_PRECONDITION: .*-drainer is not a file/);
      expect(code).toBe(73);
      expect(modeOf(victim)).toBe("644");
    },
  );

  test("that is a link to nothing in the place of a buffer makes no file there", async () => {
    using box = shop();
    const target = box.folder.file("target");
    const link = box.folder.file("link.db");
    symlinkSync(target, link);
    const { code, stderr } = await box.sync(`record --type Sale --buffer ${link}`);
    expect(stderr).toContain(`${link} is a link to a file that is not there`);
    expect(code).toBe(73);
    expect(existsSync(target)).toBe(false);
  });

  test("that is a link of our own is followed to the file that it means", async () => {
    using box = shop();
    await box.sync("record --type Sale");
    const target = box.folder.file("target.ndjson");
    writeFileSync(target, "an older one");
    const link = box.folder.file("latest.ndjson");
    symlinkSync(target, link);
    expect((await box.sync(`export --force ${link}`)).code).toBe(0);
    expect(lstatSync(link).isSymbolicLink()).toBe(true);
    expect(readFileSync(target, "utf8")).toContain('"end"');
  });

  test.runIf(isRoot)("that is a link of another user is refused", async () => {
    using box = shop();
    await box.sync("record --type Sale");
    const target = box.folder.file("target.ndjson");
    writeFileSync(target, "an older one");
    const link = box.folder.file("latest.ndjson");
    symlinkSync(target, link);
    execFileSync("chown", ["-h", "12345", link]);
    const { code, stderr } = await box.sync(`export --force ${link}`);
    expect(stderr).toMatch(/latest\.ndjson cannot be written: .*a link that another user has made/);
    expect(code).toBe(71);
    expect(readFileSync(target, "utf8")).toBe("an older one");
  });
});
