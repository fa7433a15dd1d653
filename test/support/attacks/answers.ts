/** What a server answers to an attack, counted by kind. */

import { type StatusCode, statusCodes } from "../../../src/errors.ts";

export interface Answer {
  /** A status such as `RESOURCE_EXHAUSTED`, or how else it ended, such as `RST_STREAM 7`. */
  readonly kind: string;
  /** The status message; empty if there is none. */
  readonly message: string;
}

/** The kind of a call that had no answer when the attack was over. */
export const unanswered = "no answer";

export const statusNames = Object.fromEntries(
  Object.entries(statusCodes).map(([name, number]) => [number, name]),
) as Readonly<Record<number, StatusCode>>;

/** How many answers of each kind came, with the first message of each kind as an example. */
export class Answers {
  readonly counts: Record<string, number> = {};
  readonly messages: Record<string, string> = {};

  add({ kind, message }: Answer): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    if (message !== "") {
      this.messages[kind] ??= message;
    }
  }

  of(kind: string): number {
    return this.counts[kind] ?? 0;
  }

  get total(): number {
    return Object.values(this.counts).reduce((sum, count) => sum + count, 0);
  }
}
