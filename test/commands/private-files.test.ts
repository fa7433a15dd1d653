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

test.each(["000", "022", "077"])(
  "with umask %s every file is for its owner alone, whatever happens to the buffer",
  async (umask) => {
    using folder = tempFolder();
    // The folder that the user has chosen stays as it is.
    const chosen = folder.file("srv");
    mkdirSync(chosen, { mode: 0o755 });
    chmodSync(chosen, 0o755);
    const env = { XDG_STATE_HOME: folder.file("state"), BREWCTL_STORE: "store-01" };
    const buffer = join(chosen, "buffer.db");
    const sync = (...args: string[]) =>
      runWith(umask, ["store-sync", ...args, "--buffer", buffer], { env });
    {
      await using cloud = startWith(umask, [
        ...["serve", "--addr", "127.0.0.1:0", "--data-dir", join(chosen, "cloud")],
      ]);
      const [, port = ""] = await cloud.output(/port=(\d+)/);
      const addr = ["--addr", `127.0.0.1:${port}`];
      const socket = folder.file("tills");
      await using daemon = startWith(
        umask,
        [
          ...["store-sync", "run", "--buffer", buffer, ...addr],
          ...["--listen", `unix:${socket}`, "--exec", "true"],
        ],
        { env },
      );
      await daemon.output(/live: everything/);
      await runWith(
        umask,
        ["store-sync", "record", "--bridge", `unix:${socket}`, "--type", "Sale"],
        {
          env,
        },
      );
      const receipt = join(chosen, "receipt.json");
      const reconcile = ["head-office", "reconcile", "--store", "store-01", ...addr];
      await runWith(umask, [...reconcile, "--receipt", receipt], { env });
      expect(modeOf(socket)).toBe("660");
      // While both have their files open, and as they leave them when they are killed.
      for (const child of [undefined, daemon, cloud]) {
        child?.child.kill("SIGKILL");
        await child?.ended;
        expect(openBelow(chosen)).toEqual([]);
      }
    }
    expect(Object.keys(modesBelow(chosen))).toEqual(
      expect.arrayContaining(["buffer.db-wal", "buffer.db-drainer", "buffer.db-applier"]),
    );
    // Damage, and the salvage.
    await sync("export", join(chosen, "out.ndjson"));
    await sync("compact");
    writeFileSync(`${buffer}-suspect`, "", { mode: 0o600 });
    const bytes = readFileSync(buffer);
    writeFileSync(buffer, bytes.fill(0xab, 4096, 2 * 4096));
    await sync("status");
    await runWith(
      umask,
      ["store-sync", "import", join(chosen, "out.ndjson"), "--buffer", join(chosen, "moved.db")],
      { env },
    );
    // In the state folder: there the folders are ours.
    await runWith(umask, ["store-sync", "record", "--type", "Sale"], { env });
    expect(openBelow(chosen)).toEqual([]);
    expect(openBelow(folder.file("state"))).toEqual([]);
    expect(modeOf(folder.file("state"))).toBe("700");
    expect(modeOf(chosen)).toBe("755");
    const names = Object.keys(modesBelow(chosen));
    expect(names.some((name) => name.includes(".damaged-"))).toBe(true);
    expect(names).toEqual(
      expect.arrayContaining([
        ...["moved.db", "out.ndjson", "receipt.json", "cloud/ledger.db", "cloud/ledger.db-server"],
      ]),
    );
    expect(names.filter((name) => name.includes("partial"))).toEqual([]);
  },
);

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
    "that is a %s is neither written to nor waited for by what keeps a buffer",
    async (kind) => {
      using box = shop();
      const victim = box.folder.file("victim");
      writeFileSync(victim, "precious");
      await box.sync("record --type Sale");
      const bytes = readFileSync(box.buffer);
      writeFileSync(box.buffer, bytes.fill(0xab, 4096, 2 * 4096));
      for (const suffix of ["-suspect", "-compacting", "-importing"]) {
        plant(kind, box.buffer + suffix, victim);
      }
      // Salvages, since it is suspected of damage.
      expect((await box.sync("status")).stderr).toContain("the buffer was damaged");
      expect((await box.sync("compact")).code).toBe(0);
      const old = box.folder.file("old.ndjson");
      expect((await box.sync(`export ${old}`)).code).toBe(0);
      plant(kind, `${old}.partial`, victim);
      expect((await box.sync(`export ${old}`)).code).toBe(0);
      plant(kind, `${box.folder.file("moved.db")}-importing`, victim);
      expect((await box.sync(`import ${old} --buffer ${box.folder.file("moved.db")}`)).code).toBe(
        0,
      );
      expect(readFileSync(victim, "utf8")).toBe("precious");
      expect(modeOf(victim)).toBe("644");
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
    expect((await box.sync(`export ${link}`)).code).toBe(0);
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
    const { code, stderr } = await box.sync(`export ${link}`);
    expect(stderr).toMatch(/latest\.ndjson cannot be written: .*a link that another user has made/);
    expect(code).toBe(71);
    expect(readFileSync(target, "utf8")).toBe("an older one");
  });
});
