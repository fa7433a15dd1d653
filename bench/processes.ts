/** The processes that a benchmark starts, and what they use. */

import {
  type ChildProcess,
  execFileSync,
  fork,
  type SpawnOptions,
  spawn,
} from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Usage } from "./server.ts";

export const root = fileURLToPath(new URL("..", import.meta.url));
export const brewctl = `${root}bin/brewctl`;

export interface ServerProcess extends Disposable {
  readonly port: number;
  readonly pid: number;
  usage(): Promise<Usage>;
  /** Resolves when it has ended. */
  stop(): Promise<void>;
}

export async function startServerProcess(
  kind: "by-hand" | "by-hand-batched" | "with-glue" | "lesson" | "bridge-by-hand" | "cloud",
  env: NodeJS.ProcessEnv = {},
): Promise<ServerProcess> {
  // With the room for young objects that bin/brewctl gives.
  const execArgv = ["--min-semi-space-size=8", "--max-semi-space-size=16"];
  const file = fileURLToPath(new URL("server.ts", import.meta.url));
  const child = fork(file, [kind], { execArgv, env: { ...process.env, ...env } });
  const ended = once(child, "exit").then(() => {
    throw new Error(`the ${kind} server did not start`);
  });
  const [{ port }] = (await Promise.race([once(child, "message"), ended])) as [{ port: number }];
  ended.catch(() => {});
  return {
    port,
    pid: child.pid ?? 0,
    async usage() {
      const answer = once(child, "message");
      child.send("usage");
      const [usage] = (await answer) as [Usage];
      return usage;
    },
    async stop() {
      const exit = once(child, "exit");
      child.disconnect();
      await exit;
    },
    [Symbol.dispose]() {
      if (child.connected) {
        child.disconnect();
      }
    },
  };
}

/** Runs a program to its end; throws if it fails. Its output is dropped. */
export async function run(file: string, args: readonly string[]): Promise<void> {
  const child = spawn(file, args, { cwd: root, stdio: "ignore" });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) {
    throw new Error(`${file} ${args.join(" ")} ended with ${code}`);
  }
}

/** Starts a program; it is killed at the end of the scope if it still runs. */
export function start(
  file: string,
  args: readonly string[],
  options: SpawnOptions = {},
): ChildProcess & Disposable {
  const child = spawn(file, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"], ...options });
  return Object.assign(child, { [Symbol.dispose]: () => void child.kill("SIGKILL") });
}

/** Sees to it that a program is there, from Debian's package of that name; false if it cannot be. */
export function installed(program: string): boolean {
  try {
    execFileSync("sh", ["scripts/install-packages", program], { cwd: root, stdio: "inherit" });
    return true;
  } catch {
    return false;
  }
}

/** What a process holds in memory now, in megabytes; undefined when it has ended. */
export function residentMb(pid: number): number | undefined {
  try {
    return (
      Number(execFileSync("ps", ["-o", "rss=", "-p", String(pid)], { encoding: "utf8" })) / 1024
    );
  } catch {
    return undefined;
  }
}

/**
 * The processor time that a process has used so far, in milliseconds of one processor, in steps of
 * ten. Undefined where there is no /proc.
 */
export function cpuMs(pid: number): number | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The fields after the name, which is in parentheses, from the third on. User and system time are
    // the 14th and the 15th, in hundredths of a second; see proc(5).
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return undefined;
  }
}
