/** How the process is asked to end, and how it does. */

/** What ends a command, with what a shell would say of a process that dies of it. */
const stopSignals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;

export type StopSignal = keyof typeof stopSignals;

const stopSignalNames: readonly StopSignal[] = ["SIGHUP", "SIGINT", "SIGTERM"];

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

/** The variable in which the launcher names the signals that were ignored when it was started. */
const ignoredVariable = "BREWCTL_IGNORED_SIGNALS";

/**
 * Goes on ignoring the signals that were ignored when the process was started, for as long as it runs.
 * Node has made them deadly again by now, so the launcher has written down which they were. Without the
 * launcher none is ignored.
 */
export function keepIgnoredSignals(env: NodeJS.ProcessEnv): void {
  const ignored = (env[ignoredVariable] ?? "").split(" ");
  // It is true of this process alone.
  delete env[ignoredVariable];
  for (const signal of stopSignalNames) {
    if (ignored.includes(signal)) {
      process.on(signal, () => {});
      ignoredSignals.add(signal);
    }
  }
}

const ignoredSignals = new Set<StopSignal>();

/**
 * Calls `onFirst` with the first SIGHUP, SIGINT or SIGTERM and `onSecond` with the next; signals that
 * were ignored at the start stay so. Without `onSecond`, the second signal ends the process at once. The
 * function it returns stops listening.
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
  const listened = stopSignalNames.filter((signal) => !ignoredSignals.has(signal));
  for (const signal of listened) {
    process.on(signal, listener);
  }
  return () => {
    for (const signal of listened) {
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
  process.exitCode = stopSignals[signal];
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
}
