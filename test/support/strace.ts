/** The system calls of a real run, as strace tells them: what else could see a missing fsync? */

import { readFileSync } from "node:fs";

export interface SystemCall {
  readonly name: string;
  /** What its first argument is: a file's path, `UNIX-STREAM:[…]`, `TCP:[…]`. */
  readonly target: string;
  /** What it was to write, a character a byte. */
  readonly data: string;
  readonly result: number;
  /** Lines of the trace: the call was under way from the one to the other. */
  readonly began: number;
  readonly ended: number;
}

/** How to start a program so that its writes and syncs, and those of its threads, are in this file. */
export function strace(file: string): string[] {
  const calls = "write,writev,pwrite64,pwritev,sendmsg,sendto,fsync,fdatasync,io_uring_enter";
  // -D: the child is the program itself, which gets our signals; strace lets go of our pipes when all
  // is written. All strings are in hex, of whatever length, and with each descriptor is what it is.
  return ["strace", "-D", "-f", "-yy", "-xx", "-s", "1000000", "-e", `trace=${calls}`, "-o", file];
}

/** Reads what `strace` wrote, in the order in which the calls began. */
export function readTrace(file: string): SystemCall[] {
  const calls: SystemCall[] = [];
  /** By thread: calls during which another thread made one. */
  const unfinished = new Map<string, { text: string; began: number }>();
  for (const [line, content] of readFileSync(file, "latin1").split("\n").entries()) {
    const [, thread = "", said = ""] = /^(\d+) +(.*)$/.exec(content) ?? [];
    const start = /^(.*) <unfinished \.\.\.>$/.exec(said)?.[1];
    if (start !== undefined) {
      unfinished.set(thread, { text: start, began: line });
      continue;
    }
    const rest = /^<\.\.\. \w+ resumed>(.*)$/.exec(said)?.[1];
    const before = rest === undefined ? undefined : unfinished.get(thread);
    const text = before === undefined ? said : before.text + rest;
    const match = /^(\w+)\(\d+<(.*?)>([,)].*) = (-?\d+)/.exec(text);
    if (match !== null) {
      const [, name = "", target = "", args = "", result] = match;
      const data = [...args.matchAll(/"([^"]*)"/g)].map(([, hex = ""]) => unhex(hex)).join("");
      const began = before?.began ?? line;
      calls.push({ name, target: unhex(target), data, result: Number(result), began, ended: line });
    }
  }
  return calls.sort((a, b) => a.began - b.began);
}

/** The writes to a file of which, when `call` began, it was not certain that they are on the disk. */
export function notYetSynced(
  calls: readonly SystemCall[],
  file: string,
  call: SystemCall,
): SystemCall[] {
  const sync = syncsOf(calls, file).findLast(({ ended }) => ended < call.began);
  return writesOf(calls, file).filter(
    ({ began, ended }) => began < call.began && (sync === undefined || ended > sync.began),
  );
}

export function writesOf(calls: readonly SystemCall[], file: string): SystemCall[] {
  return calls.filter(({ target, data }) => target === file && data !== "");
}

/** Those that succeeded. */
export function syncsOf(calls: readonly SystemCall[], path: string): SystemCall[] {
  return calls.filter(
    ({ name, target, result }) => /^f(data)?sync$/.test(name) && target === path && result === 0,
  );
}

function unhex(text: string): string {
  return text.replace(/\\x(..)/g, (_, byte: string) => String.fromCharCode(parseInt(byte, 16)));
}
