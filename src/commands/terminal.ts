/**
 * Standard output and standard error. Data goes to the one, talk to the other, and the two are
 * looked at apart: either may be a terminal, a file, a pipe, or a pipe whose reader has gone.
 */

import { once } from "node:events";
import { fstatSync } from "node:fs";
import type { WriteStream } from "node:tty";
import { Chalk, type ChalkInstance, supportsColor, supportsColorStderr } from "chalk";
import ora from "ora";
import { type Clock, systemClock } from "../clock.ts";
import { formatElapsed } from "../duration.ts";

export interface TerminalFlags {
  /** No talk: neither notes nor progress nor the verdict. Errors are still said. */
  readonly quiet?: boolean | undefined;
  /** False for --no-color. */
  readonly color?: boolean | undefined;
  /** False for --no-progress. */
  readonly progress?: boolean | undefined;
}

/** A sign of life while something takes long. */
export interface Progress {
  /** What is going on now. Cheap to call often. */
  update(text: string): void;
  /** Clears it away. */
  stop(): void;
}

export interface Terminal {
  /** Colours for data. */
  readonly out: ChalkInstance;
  /** Colours for talk. */
  readonly err: ChalkInstance;
  /**
   * Aborts when nobody takes our data any more: with a `Stop` when the reader has gone, as `head`
   * does, with a `UsageError` when it cannot be written, as on a full disk.
   */
  readonly outputLost: AbortSignal;
  /** Whether a person sees the data as it comes. */
  readonly showsData: boolean;
  /** A line of data, written at once. Waits while the reader is slow, but not after Ctrl+C. */
  print(line: string): Promise<void>;
  /** A line of talk. */
  say(line: string): void;
  /** A line that even --quiet does not silence. */
  complain(line: string): void;
  /** A spinner on a terminal, a line every few seconds elsewhere, nothing if that is not wanted. */
  progress(text: string): Progress;
}

/** Between two lines of progress where there is no spinner, in milliseconds. */
const progressLineMs = 5_000;

export interface TerminalOptions {
  readonly stdout: NodeJS.WriteStream & { readonly fd: number };
  readonly stderr: NodeJS.WriteStream;
  readonly env: NodeJS.ProcessEnv;
  readonly outputLost: AbortSignal;
  readonly interrupted: AbortSignal;
  readonly clock?: Clock;
}

export function openTerminal(
  { quiet = false, color = true, progress = true }: TerminalFlags,
  { stdout, stderr, env, outputLost, interrupted, clock = systemClock }: TerminalOptions,
): Terminal {
  const noLongerWaits = AbortSignal.any([outputLost, interrupted]);
  // chalk knows FORCE_COLOR, CI and TERM, but not NO_COLOR (https://no-color.org).
  const wantsColor = color && !env["NO_COLOR"] && env["TERM"] !== "dumb";
  const chalkFor = (support: typeof supportsColor) =>
    new Chalk({ level: wantsColor && support !== false ? support.level : 0 });

  const wantsProgress = progress && !quiet && !env["CI"];
  const isTerminal = (stream: NodeJS.WriteStream) => Boolean((stream as WriteStream).isTTY);

  return {
    out: chalkFor(supportsColor),
    err: chalkFor(supportsColorStderr),
    outputLost,
    showsData: isTerminal(stdout),
    async print(line) {
      if (!outputLost.aborted && !stdout.write(`${line}\n`)) {
        await once(stdout, "drain", { signal: noLongerWaits }).catch(() => {});
      }
    },
    say(line) {
      if (!quiet) {
        stderr.write(`${line}\n`);
      }
    },
    complain(line) {
      stderr.write(`${line}\n`);
    },
    progress(text) {
      if (!wantsProgress) {
        return { update: () => {}, stop: () => {} };
      }
      // Into a pipe: its reader may write to the same terminal, and the two would mix.
      if (!isTerminal(stderr) || env["TERM"] === "dumb" || isPipe(stdout)) {
        return linesOfProgress(stderr, clock);
      }
      // discardStdin would put the terminal into raw mode, and Ctrl+C would do nothing. A hidden
      // cursor would stay hidden after a second Ctrl+C.
      const spinner = ora({ text, stream: stderr, discardStdin: false, hideCursor: false }).start();
      return {
        update(next) {
          spinner.text = next;
        },
        stop: () => {
          spinner.stop();
        },
      };
    },
  };
}

function isPipe(stream: TerminalOptions["stdout"]): boolean {
  try {
    const found = fstatSync(stream.fd);
    return found.isFIFO() || found.isSocket();
  } catch {
    // Closed: nobody reads it.
    return false;
  }
}

function linesOfProgress(stderr: NodeJS.WriteStream, clock: Clock): Progress {
  let saidAt = clock.monotonic();
  return {
    update(text) {
      if (clock.monotonic() - saidAt >= progressLineMs) {
        saidAt = clock.monotonic();
        stderr.write(`${text}\n`);
      }
    },
    stop() {},
  };
}

/** `1200 of 20000 · 240/s · ETA 78.33 s`; without a total only what is known. */
export function describeProgress(done: number, elapsedMs: number, total?: number): string {
  const perSecond = elapsedMs > 0 ? (done * 1000) / elapsedMs : 0;
  const parts = [
    total === undefined ? `${done}` : `${done} of ${total}`,
    `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)}/s`,
  ];
  if (total !== undefined && perSecond > 0) {
    parts.push(`ETA ${formatElapsed(((total - done) / perSecond) * 1000)}`);
  }
  return parts.join(" · ");
}
