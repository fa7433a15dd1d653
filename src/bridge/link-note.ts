/**
 * What a bridge says of its link, in a small file beside the buffer, for anyone at the store who asks.
 *
 * The file may outlive its writer, which can be killed. So it counts only while a process holds the
 * drainer's lock, which the kernel takes back, and if it names that process. Each drainer begins by
 * removing what the one before has left.
 */

import { existsSync, rmSync } from "node:fs";
import { messageOf } from "../errors.ts";
import { readPrivateFile, replaceFile } from "../private-file.ts";
import { isReadOnlyHere } from "../read-only-disk.ts";
import { takeLock } from "../sqlite.ts";
import { lockPath } from "./buffer-file.ts";
import type { LinkState } from "./link.ts";
import type { Outbox } from "./outbox.ts";

export interface LinkNote {
  readonly pid: number;
  /** The address of the cloud. */
  readonly cloud: string;
  readonly link: "connecting" | "connected" | "offline";
  /** Since when that is so, in Unix milliseconds. */
  readonly since: number;
  /** Why, if it is offline; else empty. */
  readonly why: string;
}

/** The process that drains a buffer, with its note if it has one. */
export interface Drainer {
  readonly pid: number;
  readonly note: LinkNote | undefined;
}

export interface LinkNotesOptions {
  /** The path of the buffer. */
  readonly path: string;
  readonly cloud: string;
  readonly now: () => number;
  /** Is told once why the note cannot be written. Then there is none, rather than one that is wrong. */
  readonly onFailure: (why: string) => void;
}

const notePath = (path: string) => `${path}-link`;

export class LinkNotes {
  readonly #options: LinkNotesOptions;
  #last: LinkNote | undefined;
  #hasFailed = false;

  constructor(options: LinkNotesOptions) {
    this.#options = options;
  }

  /** Notes a state if it says anything new: not each attempt to connect, nor how far the drain is. */
  note(state: LinkState): void {
    const link = linkOf(state, this.#last?.link);
    const why = state.kind === "offline" ? state.why : "";
    if (link === undefined || (link === this.#last?.link && why === this.#last.why)) {
      return;
    }
    const { path, cloud, now, onFailure } = this.#options;
    const since = link === this.#last?.link ? this.#last.since : now();
    this.#last = { pid: process.pid, cloud, link, since, why };
    try {
      replaceFile(notePath(path), JSON.stringify(this.#last));
    } catch (error) {
      removeLinkNote(path);
      if (!this.#hasFailed) {
        this.#hasFailed = true;
        onFailure(messageOf(error));
      }
    }
  }
}

/** An attempt that follows a loss leaves the link offline. */
function linkOf(
  { kind }: LinkState,
  last: LinkNote["link"] | undefined,
): LinkNote["link"] | undefined {
  switch (kind) {
    case "connecting":
      return last === undefined ? "connecting" : undefined;
    case "recovered":
      return undefined;
    case "replaying":
    case "live":
    case "draining":
      return "connected";
    case "offline":
      return "offline";
  }
}

/** Removes the note of the last drainer, if it has left one. */
export function removeLinkNote(path: string): void {
  rmSync(notePath(path), { force: true });
}

/** Returns who drains this buffer now; undefined if nobody does. Throws what taking a lock throws. */
export function drainerOf(outbox: Outbox): Drainer | undefined {
  // Nobody drains a buffer that nobody can write to.
  if (!existsSync(lockPath(outbox.path)) || isReadOnlyHere(outbox.path)) {
    return undefined;
  }
  const lock = takeLock(lockPath(outbox.path));
  if (lock !== undefined) {
    lock.release();
    return undefined;
  }
  const row = outbox.database.prepare("SELECT drainer_pid FROM outbox").get();
  const pid = Number(row?.["drainer_pid"]);
  const note = readNote(outbox.path);
  return { pid, note: note?.pid === pid ? note : undefined };
}

function readNote(path: string): LinkNote | undefined {
  if (!existsSync(notePath(path))) {
    return undefined;
  }
  try {
    const note: Partial<LinkNote> = JSON.parse(readPrivateFile(notePath(path)));
    const { pid = 0, cloud = "", link = "connecting", since = 0, why = "" } = note;
    return { pid, cloud, link, since, why };
  } catch (error) {
    if (error instanceof SyntaxError) {
      // No drainer has written it.
      return undefined;
    }
    throw error;
  }
}
