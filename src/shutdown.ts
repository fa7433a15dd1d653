/** How the process is asked to end, and how it does. */

export type StopSignal = "SIGINT" | "SIGTERM";

/** How the process ends: with an exit code, or by the signal it was sent. */
export type Exit = number | StopSignal;

/**
 * The reason of an `AbortSignal` that ends a command because somebody wants it to, be it by a flag,
 * by Ctrl+C or by closing the pipe. Not a failure.
 */
export class Stop extends Error {
  override readonly name = "Stop";
  readonly exit: Exit;

  /** `reason` goes into the verdict line. */
  constructor(reason: string, exit: Exit = 0) {
    super(reason);
    this.exit = exit;
  }
}

const stopSignals: readonly StopSignal[] = ["SIGINT", "SIGTERM"];

/**
 * Calls `onFirst` with the first SIGINT or SIGTERM and `onSecond` with the next. Without
 * `onSecond`, the second signal ends the process at once. The function it returns stops listening.
 */
export function onStopSignals(
  onFirst: (signal: StopSignal) => void,
  onSecond: (signal: StopSignal) => void = dieBy,
): () => void {
  let isFirst = true;
  const listener = (signal: StopSignal) => {
    if (isFirst) {
      isFirst = false;
      onFirst(signal);
    } else {
      onSecond(signal);
    }
  };
  for (const signal of stopSignals) {
    process.on(signal, listener);
  }
  return () => {
    for (const signal of stopSignals) {
      process.off(signal, listener);
    }
  };
}

/**
 * Ends the process by the signal itself and not by an exit code that looks like it: only so does a
 * shell know that its loop or script should end too.
 */
export function dieBy(signal: StopSignal): void {
  // The first process of a container cannot kill itself; it ends with what a shell would say.
  process.exitCode = signal === "SIGINT" ? 130 : 143;
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
