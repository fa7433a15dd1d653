/** Tells the log what a server refuses: the first of a kind at once, and then how many there were. */

import type { LogFields, Logger } from "../log.ts";

/** How often what was counted is told, in sweeps. */
const sweepsToReport = 60;

/** The time between two sweeps over the connections, in milliseconds. */
export const sweepEveryMs = 1_000;

/** Kinds that are told apart; an attacker must not fill our memory by inventing them. */
const maxKinds = 64;

/**
 * A peer that floods a server must not flood its log, or fill its disk. So the first refusal of a kind is
 * logged with its details, and those that follow within a minute are counted and told in one line.
 */
export class Refusals {
  readonly #log: Logger;
  readonly #counts = new Map<string, { fields: LogFields; more: number }>();
  #sweeps = 0;

  constructor({ log }: { readonly log: Logger }) {
    this.#log = log;
  }

  /** `fields.limit` names the limit, and makes the kind together with the message. */
  note(message: string, fields: LogFields & { readonly limit: string }): void {
    const kind = `${message}: ${fields.limit}`;
    const known = this.#counts.get(kind);
    if (known !== undefined) {
      known.more += 1;
    } else if (this.#counts.size < maxKinds) {
      this.#counts.set(kind, { fields: { limit: fields.limit }, more: 0 });
      this.#log.warn(message, fields);
    }
  }

  /** To be called once a sweep. */
  report(): void {
    this.#sweeps += 1;
    if (this.#sweeps % sweepsToReport !== 0) {
      return;
    }
    for (const [kind, { fields, more }] of this.#counts) {
      if (more > 0) {
        this.#log.warn(`${kind.split(": ")[0]}, more of them`, { ...fields, count: more });
      }
    }
    this.#counts.clear();
  }
}
