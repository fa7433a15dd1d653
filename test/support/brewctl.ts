/** The real program as a child process, through its launcher. */

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { reap } from "./reaper.ts";

export const root = fileURLToPath(new URL("../..", import.meta.url));
export const launcher = `${root}bin/brewctl`;

/** Nothing of the developer's own settings, and the compile cache beside the dependencies. */
export function cleanEnv(extra: Record<string, string> = {}): Record<string, string> {
  return {
    PATH: process.env["PATH"] ?? "",
    XDG_CACHE_HOME: `${root}node_modules/.cache`,
    ...extra,
  };
}

export interface Ended {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Running extends AsyncDisposable {
  readonly child: ChildProcess;
  /** What it has written so far. */
  readonly stdout: string;
  readonly stderr: string;
  /** Resolves with the first match in what it writes to either; rejects if it ends without. */
  output(pattern: RegExp): Promise<RegExpExecArray>;
  readonly ended: Promise<Ended>;
}

export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly cwd?: string;
  /** A program with its arguments that is to start it, such as strace. */
  readonly under?: readonly string[];
  /** Written to its standard input, which is then closed; without it, stdin is /dev/null. */
  readonly input?: string | Uint8Array;
  /** Leaves standard input open for the test to write to. */
  readonly openStdin?: boolean;
}

/** Starts `brewctl` with these arguments. Killed at the end of the scope if it still runs. */
export function start(args: readonly string[], options: RunOptions = {}): Running {
  const [program = launcher, ...programArgs] = [...(options.under ?? []), launcher, ...args];
  return startProgram(program, programArgs, options);
}

/** As `start`, of any program. */
export function startProgram(
  program: string,
  args: readonly string[],
  { env, cwd = root, input, openStdin = false }: Omit<RunOptions, "under"> = {},
): Running {
  const hasStdin = openStdin || input !== undefined;
  const child = spawn(program, args, {
    cwd,
    env: cleanEnv(env),
    stdio: [hasStdin ? "pipe" : "ignore", "pipe", "pipe"],
  });
  if (input !== undefined) {
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
  }
  const written = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) {
    child[name]?.setEncoding("utf8").on("data", (text: string) => {
      written[name] += text;
    });
  }
  reap(child);
  const ended = once(child, "close").then(([code, signal]) => ({ code, signal, ...written }));
  return {
    child,
    get stdout() {
      return written.stdout;
    },
    get stderr() {
      return written.stderr;
    },
    ended,
    output(pattern) {
      return new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(written.stderr) ?? pattern.exec(written.stdout);
          if (match !== null) {
            child.stdout?.off("data", look);
            child.stderr?.off("data", look);
            resolve(match);
          }
          return match !== null;
        };
        child.stdout?.on("data", look);
        child.stderr?.on("data", look);
        if (!look()) {
          ended.then(
            () =>
              look() || reject(new Error(`ended without ${pattern}: ${JSON.stringify(written)}`)),
          );
        }
      });
    },
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

/** Runs `brewctl` to its end. */
export async function brewctl(args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  await using running = start(args, options);
  return await running.ended;
}

export interface Served extends Running {
  /** To be dialled. */
  readonly addr: string;
}

/** `brewctl serve` on a free port of loopback, ready to be called. */
export async function serve(
  args: readonly string[] = [],
  options: RunOptions = {},
): Promise<Served> {
  const running = start(["serve", "--addr", "127.0.0.1:0", ...args], options);
  const [, port] = await running.output(/port"?[=:](\d+)/);
  return Object.assign(Object.create(null, Object.getOwnPropertyDescriptors(running)), {
    addr: `127.0.0.1:${port}`,
  }) as Served;
}
