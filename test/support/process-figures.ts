/** What the system says of a process. */

import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** The resident memory of a process in bytes; undefined once it is gone. */
export async function residentBytes(pid: number | undefined): Promise<number | undefined> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  const kilobytes = Number(/^VmRSS:\s*(\d+) kB$/m.exec(status)?.[1] ?? (await fromPs(pid)));
  return kilobytes > 0 ? kilobytes * 1024 : undefined;
}

/** Where there is no /proc. */
async function fromPs(pid: number | undefined): Promise<string | undefined> {
  const args = ["-o", "rss=", "-p", String(pid)];
  return (await promisify(execFile)("ps", args).catch(() => undefined))?.stdout;
}

/** How many files, sockets and the like it has open; undefined where there is no /proc. */
export async function openFiles(pid: number | undefined): Promise<number | undefined> {
  return (await readdir(`/proc/${pid}/fd`).catch(() => undefined))?.length;
}
