/**
 * Logs what one call was refused: the first few refusals each in a line, and the others as one count
 * at the end, so that a client that sends a million bad records does not fill the log.
 */

import type { LogFields, Logger } from "../log.ts";

/** The most refusals of one call that have a line each. */
export const maxRefusalsLogged = 10;

export class RefusalLog {
  readonly #log: Logger;
  #refusals = 0;

  constructor({ log }: { readonly log: Logger }) {
    this.#log = log;
  }

  refused(message: string, fields: LogFields): void {
    this.#refusals += 1;
    if (this.#refusals <= maxRefusalsLogged) {
      this.#log.warn(message, fields);
    }
  }

  /** To be called at the end of the call. */
  end(fields: LogFields = {}): void {
    const more = this.#refusals - maxRefusalsLogged;
    if (more > 0) {
      this.#log.warn("more events refused", { ...fields, more });
    }
  }
}
