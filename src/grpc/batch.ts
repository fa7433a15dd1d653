/**
 * Messages on their way out of a call. What is written within one turn of the event loop, or while
 * earlier bytes wait for the connection, leaves together: one frame of HTTP/2 where it fits, and one
 * system call. A message that comes alone leaves at the end of its turn.
 */

import { nextTick } from "node:process";
import type { Writable } from "node:stream";
import { Bell } from "../bell.ts";
import { framedBytes } from "./frames.ts";
import { together } from "./grpc-js-internals.ts";
import type { Outgoing } from "./stream.ts";

/**
 * A sender waits while so many bytes of its call wait for the connection. As much is on its way while
 * the next gather, so a call holds at most twice this and one message more.
 */
export const maxGatheredBytes = 64 * 1024;

/** The same in messages: thousands of tiny ones would keep the event loop busy for long. */
export const maxGatheredMessages = 512;

/**
 * Puts messages on the wire, whose lengths add up to `totalBytes`. `done` is called when the connection
 * has taken them, and never if it is lost before that.
 */
export type Transmit = (messages: readonly Buffer[], totalBytes: number, done: () => void) => void;

export interface BatchOptions {
  readonly transmit: Transmit;
  /** Is told how many bytes more wait, or how many less. */
  readonly charge?: (bytes: number) => void;
}

export class Batch implements Outgoing {
  readonly #transmit: Transmit;
  readonly #charge: (bytes: number) => void;
  #gathered: Buffer[] = [];
  #gatheredBytes = 0;
  #inFlight = 0;
  #isScheduled = false;
  /** Rings when bytes have left: the gathered ones, or those on their way. */
  readonly #changed = new Bell();

  constructor({ transmit, charge = () => {} }: BatchOptions) {
    this.#transmit = transmit;
    this.#charge = charge;
  }

  get waiting(): number {
    return this.#gathered.length + this.#inFlight;
  }

  write(message: Buffer): boolean {
    this.#gathered.push(message);
    this.#gatheredBytes += message.length;
    this.#charge(framedBytes(message));
    if (!this.#isScheduled && this.#inFlight === 0) {
      this.#isScheduled = true;
      // After the promises of this turn, which may write more.
      nextTick(() => {
        this.#isScheduled = false;
        this.flush();
      });
    }
    return this.#hasRoom();
  }

  room({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    return this.#until(() => this.#hasRoom(), { signal });
  }

  /** Resolves when the connection has taken all that was written, or when the signal aborts. */
  sent({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    this.flush();
    return this.#until(() => this.waiting === 0, { signal });
  }

  async #until(isSo: () => boolean, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    while (!isSo() && !signal.aborted) {
      // It rejects only when the signal aborts, which the loop looks at itself.
      await this.#changed.next({ signal }).catch(() => {});
    }
  }

  /** Hands all that has gathered to the connection, whether it takes it now or keeps it. */
  flush(): void {
    const messages = this.#gathered;
    if (messages.length === 0) {
      return;
    }
    const totalBytes = this.#gatheredBytes;
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#inFlight += messages.length;
    this.#transmit(messages, totalBytes, () => {
      this.#inFlight -= messages.length;
      this.#charge(-messages.reduce((sum, message) => sum + framedBytes(message), 0));
      if (this.#inFlight === 0) {
        this.flush();
        this.#changed.ring();
      }
    });
    this.#changed.ring();
  }

  #hasRoom(): boolean {
    return this.#gatheredBytes < maxGatheredBytes && this.#gathered.length < maxGatheredMessages;
  }
}

/** Puts messages on the wire of a grpc-js call. */
export function transmitOn(call: Writable): Transmit {
  return (messages, totalBytes, done) => {
    call.write(together(messages, totalBytes), (error) => {
      // What ends the stream ends the call, and is told there.
      if (error === null || error === undefined) {
        done();
      }
    });
  };
}
