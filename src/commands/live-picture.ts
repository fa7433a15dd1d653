/**
 * A picture at the bottom of the terminal that is drawn anew while it changes. Lines that are
 * printed meanwhile come above it, in the same frame, so that nothing flickers.
 */

import { stripVTControlCharacters } from "node:util";
import type { Clock } from "../clock.ts";
import { Stop } from "../shutdown.ts";

/** Between two frames, in milliseconds. */
const frameMs = 80;

/** Lines that wait for the next frame; with more, it comes at once. */
const maxLinesAbove = 1_000;

/** Terminals that know these show a frame when it is complete; others ignore them. */
const beginFrame = "\x1b[?2026h";
const endFrame = "\x1b[?2026l";

export interface Screen {
  readonly columns: number;
  readonly rows: number;
}

export interface LivePictureOptions {
  /** Lines of at most so many columns. */
  readonly draw: (screen: Screen) => readonly string[];
  readonly write: (text: string) => void;
  /** Whether the terminal has not taken the frames before yet; then no further frame is drawn for it. */
  readonly isBehind: () => boolean;
  /** As it is now; a person may change it at any time. */
  readonly screen: () => Screen;
  readonly clock: Clock;
}

export class LivePicture {
  readonly #options: LivePictureOptions;
  readonly #over = new AbortController();
  #drawn: readonly string[] = [];
  #above: string[] = [];

  constructor(options: LivePictureOptions) {
    this.#options = options;
    this.#run().catch(() => {});
  }

  /** Prints a line above the picture, with the next frame. */
  print(line: string): void {
    this.#above.push(line);
    if (this.#above.length > maxLinesAbove) {
      this.#frame();
    }
  }

  /** Draws it for the last time, and leaves it there. */
  end(): void {
    this.#over.abort(new Stop("over"));
    this.#frame();
  }

  async #run(): Promise<void> {
    for (;;) {
      await this.#options.clock.sleep(frameMs, this.#over);
      if (!this.#options.isBehind()) {
        this.#frame();
      }
    }
  }

  #frame(): void {
    const { draw, write, screen } = this.#options;
    const now = screen();
    const lines = draw(now);
    const up = this.#drawn.reduce((rows, line) => rows + rowsOf(line, now), 0);
    const isTooTall = lines.length >= now.rows && !this.#over.signal.aborted;
    const shown = isTooTall ? [] : lines;
    // Over the old picture line by line, and what is left of it goes; all of it goes first where
    // lines come above it or had been wrapped, or a terminal would join lines that are not one.
    const isAnew = this.#above.length > 0 || up > this.#drawn.length;
    const frame = [
      up > 0 ? `\x1b[${up}A\r${isAnew ? "\x1b[J" : ""}` : "",
      ...[...this.#above, ...shown].map((line) => `${line}\x1b[K\n`),
      "\x1b[J",
    ];
    write(`${beginFrame}${frame.join("")}${endFrame}`);
    this.#drawn = shown;
    this.#above = [];
  }
}

/** Terminals wrap lines that have become too long when their window was made narrower. */
function rowsOf(line: string, { columns }: Screen): number {
  return Math.max(1, Math.ceil(stripVTControlCharacters(line).length / columns));
}
