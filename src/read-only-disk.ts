/** Whether a file system can be written to: by this process, or by anybody at all. */

import { accessSync, constants, readFileSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";

/** Whether the file system that a path is on is mounted read-only, as this process sees it. */
export function isReadOnlyHere(path: string): boolean {
  try {
    accessSync(dirname(resolve(path)), constants.W_OK);
    return false;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EROFS";
  }
}

/**
 * Whether nobody can write to the file system that a path is on. A read-only mount is not enough, since
 * the same file system may be mounted elsewhere to be written to; the file system itself must be
 * read-only. Linux tells that in /proc/self/mountinfo (proc_pid_mountinfo(5)); false where it cannot be
 * told.
 */
export function isReadOnlyForAll(path: string): boolean {
  const { dev } = statSync(dirname(resolve(path)));
  const device = `${(dev >> 8) & 0xfff}:${(dev & 0xff) | ((dev >> 12) & 0xfff00)}`;
  let mounts: string;
  try {
    mounts = readFileSync("/proc/self/mountinfo", "utf8");
  } catch {
    return false;
  }
  const superOptions = mounts
    .split("\n")
    .filter((line) => line.split(" ")[2] === device)
    // After a lone dash come the type, the source and the options of the file system itself.
    .map((line) => line.split(" - ")[1]?.split(" ")[2]?.split(",") ?? []);
  return superOptions.length > 0 && superOptions.every((options) => options.includes("ro"));
}
