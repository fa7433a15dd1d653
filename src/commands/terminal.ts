/**
 * Standard output and standard error. Data goes to the one, talk to the other, and the two are
 * looked at apart: either may be a terminal, a file, a pipe, or a pipe whose reader has gone.
 */

import { once } from "node:events";
import { fstatSync } from "node:fs";
import type { WriteStream } from "node:tty";
import { Chalk, type ChalkInstance, supportsColor, supportsColorStderr } from "chalk";
import type { Ora } from "ora";
import type { Clock } from "../clock.ts";
import { formatElapsed } from "../duration.ts";
import type { LogBacklog } from "../log.ts";
import { printableLine } from "../plain.ts";
import { LivePicture } from "./live-picture.ts";

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

/** Where a picture is drawn. */
export interface Canvas {
  readonly columns: number;
  readonly rows: number;
  /** Whether it shows more than ASCII. */
  readonly isUnicode: boolean;
}

export interface Picture {
  /** Whether it is drawn while it changes. */
  readonly isLive: boolean;
  /** Draws it for the last time. */
  end(): void;
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
  /** How many columns it has for data; without end where that is no terminal. */
  readonly columns: number;
  /** How many columns it has for talk; infinite where that is not a terminal. */
  readonly talkColumns: number;
  /** Whether a terminal for data shows more than ASCII. */
  readonly isUnicode: boolean;
  /** For how long `print` has waited for a slow reader so far, in milliseconds. */
  readonly blockedMs: number;
  /** The bytes of talk that wait because it is read more slowly than it is written; a log looks at it. */
  readonly talkBacklog: LogBacklog;
  /** Whether talk is read more slowly than it is written, and piles up. */
  readonly isTalkBehind: boolean;
  /** A line of data, written at once. Waits while the reader is slow, but not after Ctrl+C. */
  print(line: string): Promise<void>;
  /** A line of talk. */
  say(line: string): void;
  /** A line that even --quiet does not silence. */
  complain(line: string): void;
  /** Ends the line on which the terminal itself has just written `^C`. */
  endLine(): void;
  /** A spinner on a terminal, a line every few seconds elsewhere, nothing if that is not wanted. */
  progress(text: string): Progress;
  /**
   * Lines of talk that are drawn again and again on a terminal, below what is printed, and once at
   * the end elsewhere, or if they are not to be live. One at a time, and no progress beside it.
   */
  picture(draw: (canvas: Canvas) => readonly string[], options: { isLive: boolean }): Picture;
}

export const noProgress: Progress = { update() {}, stop() {} };

/** What takes less long needs no spinner; in milliseconds. */
const spinnerAfterMs = 100;

/** Between two lines of progress where there is no spinner, in milliseconds. */
const progressLineMs = 5_000;

export interface TerminalOptions {
  readonly stdout: NodeJS.WriteStream & { readonly fd: number };
  readonly stderr: NodeJS.WriteStream & { readonly fd: number };
  readonly env: NodeJS.ProcessEnv;
  readonly outputLost: AbortSignal;
  readonly interrupted: AbortSignal;
  readonly clock: Clock;
}

/** Where there is no terminal to ask. */
const defaultColumns = 80;

export function openTerminal(
  { quiet = false, color = true, progress = true }: TerminalFlags,
  { stdout, stderr, env, outputLost, interrupted, clock }: TerminalOptions,
): Terminal {
  const noLongerWaits = AbortSignal.any([outputLost, interrupted]);
  // chalk knows FORCE_COLOR, CI and TERM, but not NO_COLOR (https://no-color.org).
  const wantsColor = color && !env["NO_COLOR"] && env["TERM"] !== "dumb";
  const chalkFor = (support: typeof supportsColor) =>
    new Chalk({ level: wantsColor && support !== false ? support.level : 0 });

  const wantsProgress = progress && !quiet && !env["CI"];
  const isTerminal = (stream: NodeJS.WriteStream) => Boolean((stream as WriteStream).isTTY);
  // Into a pipe: its reader may write to the same terminal, and the two would mix.
  const canRedraw = isTerminal(stderr) && env["TERM"] !== "dumb" && !isPipe(stdout);
  const isUnicode = knowsUnicode(env);
  const isOneTerminal = isTerminal(stdout) && isSameDevice(stdout.fd, stderr.fd);
  const blocked = stopwatch(clock);
  let live: LivePicture | undefined;
  const talk = (text: string) => {
    const line = printableLine(text);
    if (live === undefined) {
      stderr.write(`${line}\n`);
    } else {
      live.print(line);
    }
  };

  const drained = async (stream: NodeJS.WriteStream) => {
    blocked.start();
    await once(stream, "drain", { signal: noLongerWaits }).catch(() => {});
    blocked.stop();
  };

  return {
    out: chalkFor(supportsColor),
    err: chalkFor(supportsColorStderr),
    outputLost,
    showsData: isTerminal(stdout),
    get columns() {
      return isTerminal(stdout) ? columnsOf(stdout, env) : Number.POSITIVE_INFINITY;
    },
    get talkColumns() {
      return isTerminal(stderr) ? columnsOf(stderr, env) : Number.POSITIVE_INFINITY;
    },
    isUnicode,
    get blockedMs() {
      return blocked.totalMs;
    },
    talkBacklog: {
      get bytes() {
        return stderr.writableLength;
      },
      onceEmpty(report) {
        stderr.once("drain", report);
      },
    },
    get isTalkBehind() {
      return stderr.writableNeedDrain;
    },
    async print(text) {
      const line = printableLine(text);
      if (live !== undefined && isOneTerminal) {
        live.print(line);
        if (stderr.writableNeedDrain) {
          await drained(stderr);
        }
      } else if (!outputLost.aborted && !stdout.write(`${line}\n`)) {
        await drained(stdout);
      }
    },
    say(line) {
      if (!quiet) {
        talk(line);
      }
    },
    complain: talk,
    endLine() {
      // A live picture is drawn over it.
      if (live === undefined) {
        stderr.write("\n");
      }
    },
    progress(text) {
      if (!wantsProgress) {
        return noProgress;
      }
      if (!canRedraw) {
        return linesOfProgress(stderr, clock);
      }
      return spinner(text, { stderr, clock });
    },
    picture(draw, { isLive }) {
      const drawNow = () =>
        draw({ columns: columnsOf(stderr, env), rows: rowsOf(stderr), isUnicode });
      if (!isLive || !canRedraw) {
        return {
          isLive: false,
          end() {
            for (const line of drawNow()) {
              talk(line);
            }
          },
        };
      }
      live = new LivePicture({
        draw: drawNow,
        write: (text) => stderr.write(text),
        isBehind: () => stderr.writableNeedDrain,
        screen: () => ({ columns: columnsOf(stderr, env), rows: rowsOf(stderr) }),
        clock,
      });
      return {
        isLive: true,
        end() {
          live?.end();
          live = undefined;
        },
      };
    },
  };
}

/** The time in which at least one of several waits was going on, in milliseconds. */
function stopwatch(clock: Clock) {
  let waits = 0;
  let since = 0;
  let totalMs = 0;
  return {
    start() {
      if (waits === 0) {
        since = clock.monotonic();
      }
      waits += 1;
    },
    stop() {
      waits -= 1;
      if (waits === 0) {
        totalMs += clock.monotonic() - since;
      }
    },
    get totalMs() {
      return totalMs + (waits > 0 ? clock.monotonic() - since : 0);
    },
  };
}

function isSameDevice(fd: number, other: number): boolean {
  try {
    return fstatSync(fd).rdev === fstatSync(other).rdev;
  } catch {
    return false;
  }
}

/** A terminal that does not know its own width says 0. */
function columnsOf(stream: NodeJS.WriteStream, env: NodeJS.ProcessEnv): number {
  const told = env["COLUMNS"] ?? "";
  return stream.columns || (/^[1-9]\d{0,3}$/.test(told) ? Number(told) : defaultColumns);
}

function rowsOf(stderr: NodeJS.WriteStream): number {
  return stderr.rows || Number.POSITIVE_INFINITY;
}

/** Unless the locale says otherwise; one that says nothing, as in many containers, means nothing. */
function knowsUnicode(env: NodeJS.ProcessEnv): boolean {
  const locale = env["LC_ALL"] || env["LC_CTYPE"] || env["LANG"] || "UTF-8";
  return /utf-?8/i.test(locale) && env["TERM"] !== "linux" && env["TERM"] !== "dumb";
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

/** Drawn only when there is something to wait for: to load it takes longer than many a call. */
function spinner(
  text: string,
  { stderr, clock }: { stderr: NodeJS.WriteStream; clock: Clock },
): Progress {
  const stopped = new AbortController();
  let latest = text;
  let drawn: Ora | undefined;
  const draw = async () => {
    const { default: ora } = await import("ora");
    if (!stopped.signal.aborted) {
      // discardStdin would put the terminal into raw mode, and Ctrl+C would do nothing. A hidden
      // cursor would stay hidden after a second Ctrl+C.
      const options = { text: latest, stream: stderr, discardStdin: false, hideCursor: false };
      drawn = ora(options).start();
    }
  };
  clock.sleep(spinnerAfterMs, stopped).then(draw, () => {});
  return {
    update(next) {
      latest = next;
      if (drawn !== undefined) {
        drawn.text = next;
      }
    },
    stop() {
      stopped.abort();
      drawn?.stop();
    },
  };
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
