/**
 * Seeing a call: `--timeline` draws it, `--stats` measures it, `--explain` tells it. All three are
 * talk, on standard error. Here are the flags; index.ts, which does it, is loaded if one is given.
 */

import { access, constants, lstat, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { Command } from "commander";
import { messageOf, UsageError } from "../../errors.ts";

export interface ObserveFlags {
  /** True for a picture on the terminal, else the file for it. */
  readonly timeline?: true | string;
  readonly force?: boolean;
  readonly stats?: boolean;
  readonly explain?: boolean;
}

export function withObserveFlags(command: Command): Command {
  return command
    .option(
      "--timeline [file.svg]",
      "draw sent and received against time, on the terminal or into a file",
    )
    .option("--force", "write over the file of --timeline")
    .option("--stats", "tell rate, percentiles, in flight and backpressure at the end")
    .option("--explain", "a sentence for each event of HTTP/2 and gRPC");
}

/** For the help of the commands that have these flags. */
export const observeNotes = `\
In the picture of --timeline, ● is a message, a digit so many of them, + more than nine; ┤ is our
half-close, ✗ our cancel, ■ the end of the call. Below: how many messages were in flight (sent and not
answered) or waiting (in our buffer), and how much of the time backpressure had us blocked.`;

/** Throws `UsageError` if the picture's file could not be written. */
export async function checkObserveFlags({ timeline, force }: ObserveFlags): Promise<void> {
  if (typeof timeline !== "string") {
    if (force === true) {
      throw new UsageError("--force goes with a file: --timeline chat.svg --force");
    }
    return;
  }
  const refuse = (why: string, hint?: string) =>
    new UsageError(`--timeline ${timeline}: ${why}`, hint === undefined ? {} : { hint });
  if (!/[^/]\.svg$/i.test(timeline)) {
    throw refuse("expected a file that ends in .svg", "or --timeline alone, for the terminal");
  }
  const folder = dirname(timeline);
  // A link that leads nowhere is in the way as well, unless we may write over it.
  const found = await (force === true ? stat : lstat)(timeline).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") {
        return undefined;
      }
      throw refuse(error.code === "ENOTDIR" ? `${folder} is no folder` : messageOf(error));
    },
  );
  if (found !== undefined && !found.isFile() && !found.isSymbolicLink()) {
    throw refuse(`expected a file, not a ${found.isDirectory() ? "folder" : "device or a pipe"}`);
  }
  if (found !== undefined && force !== true) {
    throw refuse("there is a file already", "write over it with --force");
  }
  try {
    await access(found === undefined ? folder : timeline, constants.W_OK);
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw refuse(isMissing ? `there is no folder ${folder}` : messageOf(error));
  }
}

export function wantsToSee({ timeline, stats, explain }: ObserveFlags): boolean {
  return timeline !== undefined || stats === true || explain === true;
}
