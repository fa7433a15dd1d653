/** The mark of a buffer that another box has taken over: from then on it is for looking at. */

import { StatusError } from "../errors.ts";
import type { Database } from "../sqlite.ts";

/** Where a buffer has gone on, when another box took over. */
export interface HandedOver {
  /** Unix milliseconds. */
  readonly at: number;
  readonly host: string;
  /** The path of the buffer there. */
  readonly to: string;
  /** The one that was minted there. */
  readonly epoch: string;
}

/** Where the buffer was handed over to; undefined if it is in use here. */
export function handedOver(database: Database): HandedOver | undefined {
  const text = String(
    database.prepare("SELECT handed_over FROM outbox").get()?.["handed_over"] ?? "",
  );
  return text === "" ? undefined : JSON.parse(text);
}

/** Throws FAILED_PRECONDITION if it was handed over: two boxes must not be one store by accident. */
export function insistOnOurs(database: Database): void {
  const gone = handedOver(database);
  if (gone !== undefined) {
    throw new StatusError(
      "FAILED_PRECONDITION",
      `${database.path} was handed over: ${tellHandedOver(gone)}`,
      { hint: "nothing was changed; this file is for looking at, the store goes on there" },
    );
  }
}

export function tellHandedOver({ at, host, to }: HandedOver): string {
  return `since ${new Date(at).toISOString()} the store's buffer is ${to} on ${host}`;
}
