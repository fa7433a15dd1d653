/** Signals: how a person or a service manager asks the process to end. */

export type StopSignal = "SIGINT" | "SIGTERM";

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
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
