/**
 * Ends what a test has started when its worker is gone. A test that runs into its time limit does not
 * get to its clean-up, and vitest ends a worker by SIGTERM, then SIGKILL, so an exit handler in the
 * worker never runs.
 *
 * Therefore each worker has a shell beside it that reads what the worker started from a pipe. The kernel
 * closes the pipe when the worker ends, however it ends; then the shell kills and removes what is left.
 */

import { type ChildProcess, spawn } from "node:child_process";

/**
 * Lines are `+ PID` for a process group, `- PID` when it has ended, and `d PATH` for a folder. The shell
 * is in a session of its own, so that a Ctrl+C at the terminal does not end it before its work is done.
 */
const script = `
  pids=' ' folders=
  while read -r verb what; do
    case $verb in
      +) pids="$pids$what " ;;
      -) case $pids in *" $what "*) pids="\${pids%% $what *} \${pids#* $what }" ;; esac ;;
      d) folders="$folders$what
" ;;
    esac
  done
  for pid in $pids; do
    kill -s KILL -- "-$pid" 2>/dev/null || kill -s KILL "$pid" 2>/dev/null
  done
  printf %s "$folders" | while read -r folder; do
    # Once more for what a dying process has just written.
    rm -rf -- "$folder" || rm -rf -- "$folder"
  done
`;

let reaper: ChildProcess | undefined;

function tell(line: string): void {
  if (reaper === undefined) {
    reaper = spawn("/bin/sh", ["-c", script], {
      detached: true,
      stdio: ["pipe", "ignore", "ignore"],
      env: { PATH: process.env["PATH"] ?? "" },
    });
    // The worker may end while the shell still reads.
    reaper.unref();
    reaper.stdin?.on("error", () => {});
    (reaper.stdin as { unref?(): void } | null)?.unref?.();
  }
  // Written at once: a pipe that has room takes it within the call.
  reaper.stdin?.write(`${line}\n`);
}

/**
 * Kills the process, with its group if it leads one, when this worker ends before it. The function that
 * is returned must be called when the process has ended, since its id may then become another's.
 */
export function reapProcess(pid: number): () => void {
  tell(`+ ${pid}`);
  return () => tell(`- ${pid}`);
}

/** As `reapProcess`, of a child of this worker. */
export function reap(child: ChildProcess): void {
  if (child.pid !== undefined) {
    child.once("exit", reapProcess(child.pid));
  }
}

/** Removes the folder, if it is still there, when this worker ends. */
export function removeAtEnd(folder: string): void {
  tell(`d ${folder}`);
}
