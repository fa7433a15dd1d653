/** What goes wrong between a store and the cloud, on purpose: for lessons. */

import type { Clock, Random } from "../clock.ts";
import { formatDuration } from "../duration.ts";
import { StatusError } from "../errors.ts";

export interface FaultOptions {
  /** The share of events that are refused with "try later", from 0 to 1. */
  readonly nack: number;
  /** Each call of events ends with UNAVAILABLE after so many; 0: never. */
  readonly dropAfter: number;
  /** The share of answers that are lost after the commit, from 0 to 1. */
  readonly loseAck: number;
  /** How long each answer takes, in milliseconds. */
  readonly latencyMs: number;
}

export const noFaults: FaultOptions = { nack: 0, dropAfter: 0, loseAck: 0, latencyMs: 0 };

/** For the log; empty without faults. */
export function describeFaults({ nack, dropAfter, loseAck, latencyMs }: FaultOptions) {
  return [
    nack > 0 ? `--fault-nack ${nack}` : "",
    dropAfter > 0 ? `--fault-drop-after ${dropAfter}` : "",
    loseAck > 0 ? `--fault-lose-ack ${loseAck}` : "",
    latencyMs > 0 ? `--fault-latency ${formatDuration(latencyMs)}` : "",
  ]
    .filter(Boolean)
    .join(" ");
}

/** The faults of a server; `ofCall` for each call. */
export class Faults {
  readonly #options: FaultOptions;
  readonly #clock: Clock;
  readonly #random: Random;

  constructor(options: FaultOptions, { clock, random }: { clock: Clock; random: Random }) {
    this.#options = options;
    this.#clock = clock;
    this.#random = random;
  }

  /** To be called with the number of each event of a call. Throws when the call is to end there. */
  dropsAt(events: number): void {
    const { dropAfter } = this.#options;
    if (dropAfter > 0 && events > dropAfter) {
      throw new StatusError("UNAVAILABLE", `dropped on purpose (--fault-drop-after ${dropAfter})`);
    }
  }

  refuses(): boolean {
    return this.#happens(this.#options.nack);
  }

  losesAnswer(): boolean {
    return this.#happens(this.#options.loseAck);
  }

  /** The answer, when it may leave; rejects with the signal's reason. */
  delayed<T>(answer: Promise<T>, { signal }: { readonly signal: AbortSignal }): Promise<T> {
    const { latencyMs } = this.#options;
    if (latencyMs === 0) {
      return answer;
    }
    const delayed = answer.then(async (given) => {
      await this.#clock.sleep(latencyMs, { signal });
      return given;
    });
    // When the call ends first, nobody waits for it.
    delayed.catch(() => {});
    return delayed;
  }

  #happens(share: number): boolean {
    return share > 0 && this.#random() < share;
  }
}
