/** Disks that are full, out of inodes or read-only, as small file systems of their own, which root can mount. */

import { execFileSync } from "node:child_process";
import {
  closeSync,
  mkdirSync,
  openSync,
  rmSync,
  statfsSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { brewctl, type RunOptions, serve, start } from "../support/brewctl.ts";
import { tempFolder } from "../support/temp.ts";

const MiB = 1024 * 1024;

/** A file system in memory, unmounted at the end of the scope. */
function disk(options: string) {
  const folder = tempFolder();
  const path = folder.file("disk");
  mkdirSync(path);
  execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path]);
  return {
    path,
    buffer: join(path, "store/buffer.db"),
    file: (name: string) => join(path, name),
    remount: (how: string) => execFileSync("mount", ["-o", `remount,${how}`, path]),
    [Symbol.dispose]() {
      execFileSync("umount", [path]);
      folder[Symbol.dispose]();
    },
  };
}

/** Writes until not a byte is left. */
function fill(path: string): void {
  const fd = openSync(join(path, "filler"), "w");
  try {
    for (let size = MiB; size >= 1; ) {
      try {
        writeSync(fd, Buffer.alloc(size));
      } catch {
        size = Math.floor(size / 2);
      }
    }
  } finally {
    closeSync(fd);
  }
  expect(statfsSync(path).bavail).toBe(0);
}

const sync = (line: string, buffer: string, options: RunOptions = {}) =>
  brewctl(["store-sync", ...line.split(" "), "--store", "store-01", "--buffer", buffer], options);

test("with 0 bytes free a bridge starts, tells its status, refuses tills in words and drains", async () => {
  using full = disk("size=64m");
  await using cloud = await serve(["--memory"]);
  expect(await sync("record --type Sale -q", full.buffer)).toMatchObject({ code: 0 });
  fill(full.path);
  expect(await sync("status", full.buffer)).toMatchObject({ code: 0 });

  const run = ["store-sync", "run", "--store", "store-01", "--buffer", full.buffer];
  const socket = `unix:${join(full.path, "../tills")}`;
  await using bridge = start([...run, "--listen", socket, "--addr", cloud.addr]);
  await bridge.output(/no other process can open it/);
  const till = await brewctl(["store-sync", "record", "--bridge", socket, "--type", "Sale"]);
  expect(till.code).toBe(72);
  expect(till.stderr).toContain("is full");
  const shown = ["head-office", "events", "--addr", cloud.addr, "--follow", "--limit", "1"];
  expect((await brewctl(shown)).stdout).toContain("Sale");
  bridge.child.kill("SIGTERM");
  expect(await bridge.ended).toMatchObject({ code: 0 });

  rmSync(full.file("filler"));
  expect(await sync(`flush --addr ${cloud.addr}`, full.buffer)).toMatchObject({ code: 0 });
  expect((await sync("status", full.buffer)).stdout).toMatch(/pending +0/);
});

test("with 0 bytes free a cloud starts, shows its ledger and says that it can store nothing", async () => {
  using full = disk("size=64m");
  using folder = tempFolder();
  const buffer = folder.file("buffer.db");
  const options = ["--data-dir", full.file("cloud")];
  const shown = (addr: string) => brewctl(["head-office", "events", "--addr", addr]);
  await sync("record --type Sale -q", buffer);
  {
    await using cloud = await serve(options);
    expect(await sync(`flush --addr ${cloud.addr}`, buffer)).toMatchObject({ code: 0 });
    cloud.child.kill("SIGTERM");
    await cloud.ended;
  }
  fill(full.path);
  await using cloud = await serve(options);
  expect(cloud.stderr).toContain("the ledger's disk is full");
  expect((await shown(cloud.addr)).stdout).toContain("Sale");

  rmSync(full.file("filler"));
  await sync("record --type Refund -q", buffer);
  expect(await sync(`flush --addr ${cloud.addr}`, buffer)).toMatchObject({ code: 0 });
  expect((await shown(cloud.addr)).stdout).toContain("Refund");
});

test("a disk without inodes is said to be out of them, with the exit code of a full one", async () => {
  using full = disk("size=64m,nr_inodes=16");
  await sync("record --type Sale -q", full.buffer);
  expect(() => {
    for (let i = 0; i < 16; i++) {
      writeFileSync(full.file(`file-${i}`), "");
    }
  }).toThrow("ENOSPC");
  for (const buffer of [full.buffer, full.file("new.db")]) {
    const { code, stderr } = await sync("record --type Sale", buffer);
    expect(stderr).toContain("the disk has no inodes left");
    expect(code).toBe(72);
  }
});

test("on a read-only file system a buffer that was closed well is read, and a sale is refused in words", async () => {
  using frozen = disk("size=64m");
  using folder = tempFolder();
  await sync("record --type Sale -q", frozen.buffer);
  frozen.remount("ro");
  expect((await sync("status", frozen.buffer)).stdout).toMatch(/pending +1/);
  expect((await sync("verify", frozen.buffer)).code).toBe(0);
  expect((await sync("events", frozen.buffer)).stdout).toContain("Sale");
  expect(await sync(`export ${folder.file("out.ndjson")}`, frozen.buffer)).toMatchObject({
    code: 0,
  });
  for (const line of ["record --type Sale", "flush --addr 127.0.0.1:1", "compact"]) {
    const { code, stderr } = await sync(line, frozen.buffer);
    expect(stderr, line).toContain("the file system is read-only");
    expect(code, line).toBe(71);
  }
  frozen.remount("rw");
  expect(await sync("record --type Sale -q", frozen.buffer)).toMatchObject({ code: 0 });
});

test("on a read-only file system the log of a process that was killed is read too", async () => {
  using frozen = disk("size=64m");
  const run = ["store-sync", "run", "--store", "store-01", "--buffer", frozen.buffer];
  const socket = `unix:${join(frozen.path, "../tills")}`;
  {
    await using bridge = start([...run, "--listen", socket, "--addr", "127.0.0.1:1"]);
    await bridge.output(/started/);
    const till = ["store-sync", "record", "--bridge", socket, "--type", "Sale", "-q"];
    expect(await brewctl(till)).toMatchObject({ code: 0 });
  }
  frozen.remount("ro");
  expect((await sync("status", frozen.buffer)).stdout).toMatch(/pending +1/);
  expect((await sync("verify", frozen.buffer)).code).toBe(0);
});

test("through a read-only mount of a disk that others write to, a buffer is not taken for unchanging", async () => {
  using shared = disk("size=64m");
  using folder = tempFolder();
  await sync("record --type Sale -q", shared.buffer);
  const view = folder.file("view");
  mkdirSync(view);
  execFileSync("mount", ["--bind", "-o", "ro", shared.path, view]);
  try {
    const { code, stderr } = await sync("status", join(view, "store/buffer.db"));
    expect(stderr).toContain("the file system is read-only");
    expect(code).toBe(71);
  } finally {
    execFileSync("umount", [view]);
  }
});

test("a damaged buffer on a disk without room for its salvage is a full disk, and is salvaged when there is room", async () => {
  using full = disk("size=64m");
  await sync("record --type Sale -q", full.buffer);
  truncateSync(full.buffer);
  fill(full.path);
  const { code, stderr } = await sync("status", full.buffer);
  expect(stderr).toContain("the disk is full");
  expect(code).toBe(72);
  rmSync(full.file("filler"));
  expect((await sync("status", full.buffer)).stdout).toContain("the buffer was damaged");
});
