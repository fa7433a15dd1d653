/**
 * A bridge on a disk of its own that gets full: a tmpfs in a mount namespace of the process, which is gone
 * with it. Needs unshare(1), and root or user namespaces.
 */

import { closeSync, mkdirSync, openSync, rmSync, statfsSync, statSync, writeSync } from "node:fs";
import { expect, test } from "vitest";
import { brewctl, start } from "../support/brewctl.ts";
import { closedPort, tempFolder } from "../support/temp.ts";

const mebibyte = 1024 * 1024;

/** The option `under` of a program whose view of the folder is a new disk of this size. */
const onDisk = (folder: string, size: string): string[] => {
  const script = `mount -t tmpfs -o size=${size} tmpfs "$0" && exec "$@"`;
  return ["unshare", "--map-root-user", "--mount", "sh", "-c", script, folder];
};

/** Events as `record --input` reads them. */
const lines = (first: number, count: number): string =>
  Array.from({ length: count }, (_, i) =>
    JSON.stringify({ type: "Sale", eventId: `e${first + i}`, payload: "x".repeat(4000) }),
  ).join("\n");

/** Takes all that is free, as another program may. */
function hog(file: string): void {
  const fd = openSync(file, "w");
  const block = Buffer.alloc(4096);
  try {
    while (writeSync(fd, block) === block.length) {}
  } catch (error) {
    expect(error).toMatchObject({ code: "ENOSPC" });
  } finally {
    closeSync(fd);
  }
}

test("a bridge drains with no byte free, and records again when there is room, without a restart", async () => {
  using folder = tempFolder();
  const disk = folder.file("disk");
  mkdirSync(disk);
  const addr = `127.0.0.1:${await closedPort()}`;
  const buffer = ["--buffer", `${disk}/buffer.db`];
  await using bridge = start(
    [
      ...["store-sync", "run", "--store", "store-01", ...buffer, "--addr", addr],
      ...["--listen", "127.0.0.1:0", "--keep", "1s"],
    ],
    { under: onDisk(disk, "40m") },
  );
  const [, listens] = await bridge.output(/listen=(\S+)/);
  const record = async (first: number, count: number) => {
    const args = ["record", "--bridge", String(listens), "--input", "-", "-q", "-o", "ndjson"];
    const ended = await brewctl(["store-sync", ...args], { input: lines(first, count) });
    return { ...ended, recorded: ended.stdout.match(/"isNew":true|"seq"/g)?.length ?? 0 };
  };
  const seen = `/proc/${bridge.child.pid}/root${disk}`;
  const free = () => {
    const { bavail, bsize } = statfsSync(seen);
    return bavail * bsize;
  };

  const filled = await record(0, 10_000);
  expect(filled).toMatchObject({ code: 2, stderr: expect.stringContaining("buffer.db is full") });
  expect(filled.recorded).toBeGreaterThan(3000);
  hog(`${seen}/hog`);
  expect(free()).toBeLessThan(64 * 1024);

  await using _cloud = start(["serve", "--memory", "--addr", addr]);
  await bridge.output(/live: everything recorded so far is in the cloud/);
  await bridge.output(/acknowledged events removed/);
  expect(free()).toBeLessThan(64 * 1024);
  expect(statSync(`${seen}/buffer.db-wal`).size).toBeLessThan(6 * mebibyte);
  expect((await record(20_000, 1)).stderr).toContain("buffer.db is full");

  rmSync(`${seen}/hog`);
  // As many as the first time, in the free pages of a file that is as large as it was.
  const before = statSync(`${seen}/buffer.db`).size;
  expect(await record(30_000, 2000)).toMatchObject({ code: 0, recorded: 2000 });
  expect(statSync(`${seen}/buffer.db`).size).toBe(before);
}, 60_000);
