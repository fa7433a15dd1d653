/** The real program on a terminal of its own, as a person at the keyboard has it. */

import { type IPty, spawn } from "@lydell/node-pty";
import { cleanEnv, launcher, root } from "./brewctl.ts";
import { reapProcess } from "./reaper.ts";

export interface OnTerminal extends AsyncDisposable {
  readonly pty: IPty;
  /** Everything the terminal was sent so far, escape sequences included. */
  readonly screen: string;
  /** Resolves with the first match on the screen; rejects if the program ends without. */
  output(pattern: RegExp): Promise<RegExpExecArray>;
  type(keys: string): void;
  /** Signal 0 means that it ended by itself. */
  readonly ended: Promise<{ readonly exitCode: number; readonly signal: number }>;
}

export const ctrlC = "\x03";
export const ctrlD = "\x04";
/** What pauses a terminal's output, and what resumes it. */
export const ctrlS = "\x13";
export const ctrlQ = "\x11";

/** Runs `brewctl` itself. */
export function onTerminal(args: readonly string[], env: Record<string, string> = {}): OnTerminal {
  return spawnOnTerminal(launcher, args, env);
}

/** Runs a shell script on the terminal; `brewctl` is the real program. */
export function shellOnTerminal(script: string, env: Record<string, string> = {}): OnTerminal {
  const setUp = `brewctl() { "${launcher}" "$@"; }`;
  return spawnOnTerminal("sh", ["-c", `${setUp}\n${script}`], env);
}

function spawnOnTerminal(
  file: string,
  args: readonly string[],
  env: Record<string, string>,
): OnTerminal {
  const pty = spawn(file, [...args], {
    // Becomes TERM.
    name: env["TERM"] ?? "xterm-256color",
    cols: 200,
    rows: 50,
    cwd: root,
    env: cleanEnv(env),
  });
  const hasGone = reapProcess(pty.pid);
  let screen = "";
  let hasEnded = false;
  const lookers = new Set<() => void>();
  const lookAll = () => {
    for (const look of lookers) {
      look();
    }
  };
  pty.onData((text) => {
    screen += text;
    lookAll();
  });
  const ended = new Promise<{ exitCode: number; signal: number }>((resolve) => {
    pty.onExit(({ exitCode, signal = 0 }) => {
      hasEnded = true;
      hasGone();
      resolve({ exitCode, signal });
      lookAll();
    });
  });
  return {
    pty,
    get screen() {
      return screen;
    },
    ended,
    type: (keys) => pty.write(keys),
    output: (pattern) =>
      new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(screen);
          if (match === null && !hasEnded) {
            return;
          }
          lookers.delete(look);
          if (match === null) {
            reject(new Error(`ended without ${pattern}: ${JSON.stringify(screen)}`));
          } else {
            resolve(match);
          }
        };
        lookers.add(look);
        look();
      }),
    async [Symbol.asyncDispose]() {
      if (!hasEnded) {
        pty.kill("SIGKILL");
        await ended;
      }
    },
  };
}
