/**
 * Standard output and standard error as streams that never block the process, and that are flushed
 * before it ends.
 *
 * Node writes to pipes without blocking, but to terminals with blocking writes. A terminal that is not
 * read, because somebody pressed Ctrl+S or stopped the multiplexer, then stops the event loop with the
 * first write that its few kilobytes of buffer cannot hold, and a server answers no call any more. With
 * non-blocking writes the stream buffers what the terminal does not take, as it does for a pipe, and its
 * writers see that from `writableLength` and `drain`.
 */

import { closeSync, constants, openSync, realpathSync } from "node:fs";
import { systemClock } from "../clock.ts";

/** A stream on a file descriptor, as Node makes one for standard output and standard error. */
export type OutputStream = NodeJS.WriteStream & { readonly fd: number };

/**
 * Makes the writes of a terminal's stream non-blocking. It changes nothing for other files, and nothing
 * for a terminal that this process may not open: that one is shared with the parent process, and so is
 * its mode.
 */
export function stopBlocking(stream: OutputStream): void {
  if (stream.isTTY && hasTerminalHandle(stream) && isReopened(stream.fd)) {
    stream._handle.setBlocking(false);
  }
}

/**
 * Resolves when all that was written to `stream` has left this process. Resolves after `withinMs`
 * milliseconds at the latest when that is given: a reader that has stopped must not keep a process that
 * was told to end.
 */
export async function flushed(
  stream: OutputStream,
  { withinMs }: { readonly withinMs: number | undefined },
): Promise<void> {
  const enough = new AbortController();
  const waits = [new Promise<void>((resolve) => stream.write("", () => resolve()))];
  if (withinMs !== undefined) {
    waits.push(systemClock.sleep(withinMs, enough).catch(() => {}));
  }
  await Promise.race(waits);
  enough.abort();
}

interface TerminalHandle {
  /** The part of Node's own `tty.WriteStream` that has no public counterpart; in Node since version 0.11. */
  readonly _handle: { setBlocking(isBlocking: boolean): number };
}

function hasTerminalHandle(stream: object): stream is TerminalHandle {
  const handle: unknown = "_handle" in stream ? stream._handle : undefined;
  return typeof handle === "object" && handle !== null && "setBlocking" in handle;
}

/**
 * Whether libuv has opened the terminal again for this process, which it does by path. Where it cannot,
 * it writes in a loop until the terminal has taken everything, and must be left to block instead.
 */
function isReopened(fd: number): boolean {
  try {
    closeSync(openSync(realpathSync(`/dev/fd/${fd}`), constants.O_WRONLY | constants.O_NOCTTY));
    return true;
  } catch {
    return false;
  }
}
