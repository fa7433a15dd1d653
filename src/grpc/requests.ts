/**
 * The requests of a server's call, as they come off the wire. They wait here for the handler, and when
 * enough of them do, the HTTP/2 stream is paused: its flow-control window fills, and the client's
 * `write()` answers false. This is where backpressure towards a client begins.
 *
 * grpc-js would do the same with one message at a time, and pause and resume the stream for each.
 */

import { framedBytes } from "./frames.ts";
import type { Incoming } from "./stream.ts";

/** The stream is paused while so many bytes wait for the handler, and resumed at half of that. */
export const maxWaitingRequestBytes = 64 * 1024;

export interface RequestsOptions {
  readonly pause: () => void;
  readonly resume: () => void;
  /** Is told how many bytes more wait, or how many less. */
  readonly charge: (bytes: number) => void;
}

export class Requests implements Incoming {
  readonly #options: RequestsOptions;
  #messages: Buffer[] = [];
  /** The place of the next message to be taken. To shift an array costs more the longer it is. */
  #next = 0;
  #bytes = 0;
  #isPaused = false;
  #hasEnded = false;
  #wake = () => {};

  constructor(options: RequestsOptions) {
    this.#options = options;
  }

  /** Takes messages that have come. Their bytes were charged already. */
  push(messages: readonly Buffer[]): void {
    for (const message of messages) {
      this.#messages.push(message);
      this.#bytes += framedBytes(message);
    }
    if (this.#bytes >= maxWaitingRequestBytes && !this.#isPaused) {
      this.#isPaused = true;
      this.#options.pause();
    }
    if (messages.length > 0) {
      this.#wake();
    }
  }

  /** The client has sent END_STREAM, or was cut off. */
  end(): void {
    this.#hasEnded = true;
    this.#wake();
  }

  /** Lets go of what was not taken. */
  discard(): void {
    this.#messages = [];
    this.#next = 0;
    this.#bytes = 0;
  }

  get waiting(): number {
    return this.#messages.length - this.#next;
  }

  get isAtEnd(): boolean {
    return this.#hasEnded && this.waiting === 0;
  }

  read(): Buffer | undefined {
    const message = this.#messages[this.#next];
    if (message === undefined) {
      return undefined;
    }
    this.#next += 1;
    if (this.#next === this.#messages.length) {
      this.#messages = [];
      this.#next = 0;
    }
    const bytes = framedBytes(message);
    this.#bytes -= bytes;
    this.#options.charge(-bytes);
    if (this.#isPaused && this.#bytes <= maxWaitingRequestBytes / 2) {
      this.#isPaused = false;
      this.#options.resume();
    }
    return message;
  }

  listen(wake: () => void): () => void {
    this.#wake = wake;
    return () => {
      this.#wake = () => {};
    };
  }
}
