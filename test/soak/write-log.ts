/** What a process asked of its files, in order, as strace tells it: the material of a power cut. */

import { readFileSync } from "node:fs";

/** A file or a folder is named by its path when the call was made; `file` numbers what was opened. */
export type FileOperation =
  | { readonly kind: "create"; readonly path: string; readonly file: number }
  | {
      readonly kind: "write";
      readonly file: number;
      readonly offset: number;
      readonly data: Buffer;
    }
  | { readonly kind: "truncate"; readonly file: number; readonly size: number }
  | { readonly kind: "sync"; readonly file: number | undefined }
  | { readonly kind: "mkdir"; readonly path: string }
  | { readonly kind: "unlink"; readonly path: string }
  | { readonly kind: "rename"; readonly path: string; readonly to: string }
  /** The process has told the world something on its standard output. */
  | { readonly kind: "said"; readonly text: string };

/** The calls that change files. SQLite makes all of them on the main thread. */
const calls = [
  ...["open", "openat", "close", "write", "pwrite64", "ftruncate", "fsync", "fdatasync"],
  ...["mkdir", "mkdirat", "unlink", "unlinkat", "rename", "renameat", "renameat2"],
];

/** How to start a program so that what its main thread does to files is in this file. */
export function logWrites(file: string): string[] {
  const options = ["-D", "-xx", "-s", "10000000", "-e", `trace=${calls.join()}`, "-o", file];
  return ["strace", ...options];
}

interface OpenFile {
  readonly file: number;
  position: number;
}

/** Reads such a file, keeping what was done within `folder`. `before` are the files that were there. */
export function readWrites(
  log: string,
  { folder, before = [] }: { readonly folder: string; readonly before?: readonly string[] },
): FileOperation[] {
  const operations: FileOperation[] = [];
  const byPath = new Map(before.map((path, file) => [path, file]));
  const open = new Map<number, OpenFile | "folder">();
  let next = before.length;
  const isOurs = (path: string) => path === folder || path.startsWith(`${folder}/`);

  for (const line of readFileSync(log, "latin1").split("\n")) {
    const [, name = "", args = "", result = "-1"] = /^(\w+)\((.*)\) += (-?\d+)/.exec(line) ?? [];
    if (Number(result) < 0) {
      continue;
    }
    const [text = Buffer.alloc(0), second] = Array.from(
      args.matchAll(/"([^"]*)"/g),
      ([, hex = ""]) => Buffer.from(hex.replaceAll("\\x", ""), "hex"),
    );
    const path = String(text);
    const descriptor = Number(/^\d+/.exec(args)?.[0] ?? -1);
    const number = Number(/(\d+)$/.exec(args)?.[1] ?? 0);
    if (name === "open" || name === "openat") {
      if (!isOurs(path)) {
        continue;
      }
      if (args.includes("O_DIRECTORY")) {
        open.set(Number(result), "folder");
        continue;
      }
      let file = byPath.get(path);
      if (file === undefined && args.includes("O_CREAT")) {
        file = next++;
        byPath.set(path, file);
        operations.push({ kind: "create", path, file });
      }
      if (file === undefined) {
        // A folder that was opened without saying so.
        open.set(Number(result), "folder");
        continue;
      }
      if (args.includes("O_TRUNC")) {
        operations.push({ kind: "truncate", file, size: 0 });
      }
      open.set(Number(result), { file, position: 0 });
    } else if (name === "close") {
      open.delete(descriptor);
    } else if (name === "write" && descriptor === 1) {
      operations.push({ kind: "said", text: path });
    } else if (name.startsWith("mkdir")) {
      if (isOurs(path)) {
        operations.push({ kind: "mkdir", path });
      }
    } else if (name.startsWith("unlink")) {
      if (byPath.delete(path)) {
        operations.push({ kind: "unlink", path });
      }
    } else if (name.startsWith("rename")) {
      const file = byPath.get(path);
      if (file !== undefined) {
        byPath.delete(path);
        byPath.set(String(second), file);
        operations.push({ kind: "rename", path, to: String(second) });
      }
    } else {
      const opened = open.get(descriptor);
      if (opened === undefined) {
        continue;
      }
      if (name === "fsync" || name === "fdatasync") {
        operations.push({ kind: "sync", file: opened === "folder" ? undefined : opened.file });
      } else if (opened !== "folder") {
        const { file } = opened;
        if (name === "ftruncate") {
          operations.push({ kind: "truncate", file, size: number });
        } else if (name === "pwrite64") {
          operations.push({ kind: "write", file, offset: number, data: text });
        } else if (name === "write") {
          operations.push({ kind: "write", file, offset: opened.position, data: text });
          opened.position += text.length;
        }
      }
    }
  }
  return operations;
}
