/**
 * The streams that tills keep open at a bridge, and who makes room when there are too many: a peer has
 * a share of them, and a stream that has been silent for long gives its place to one that is new. So
 * streams that somebody opens and leaves cannot keep the tills of a store out.
 */

import type { Clock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { peerAddress } from "../grpc/peer-address.ts";

/** The most streams of tills at a time; far more than a store has tills. */
export const maxTillStreams = 2_000;

/** The most of one peer at a time. A unix socket has no address, and no limit but the one above. */
export const maxTillStreamsPerPeer = 1_000;

/** How long a stream must have been silent to give its place to another one, in milliseconds. */
export const tillIdleMs = 600_000;

export interface TillLimits {
  readonly maxStreams: number;
  readonly maxStreamsPerPeer: number;
}

export interface TillStream extends Disposable {
  /** Aborts with a `StatusError` when the stream has given its place to another one. */
  readonly signal: AbortSignal;
  /** Is to be called for each event of the till. */
  heard(): void;
}

interface Open {
  readonly peer: string | undefined;
  readonly over: AbortController;
  heardAt: number;
}

export interface TillStreamsOptions {
  readonly clock: Clock;
  readonly limits?: TillLimits | undefined;
}

const defaultLimits: TillLimits = {
  maxStreams: maxTillStreams,
  maxStreamsPerPeer: maxTillStreamsPerPeer,
};

export class TillStreams {
  readonly #clock: Clock;
  readonly #limits: TillLimits;
  /** The one that was silent for longest comes first. */
  readonly #open = new Set<Open>();

  constructor({ clock, limits = defaultLimits }: TillStreamsOptions) {
    this.#clock = clock;
    this.#limits = limits;
  }

  get size(): number {
    return this.#open.size;
  }

  /** `peer`: as the call has it. Throws RESOURCE_EXHAUSTED if there is no room for another stream. */
  open(peer: string): TillStream {
    const address = peer === "unknown" ? undefined : peerAddress(peer.replace(/:\d+$/, ""));
    const ofPeer = (stream: Open) => stream.peer === address;
    const share = address === undefined ? [] : Array.from(this.#open).filter(ofPeer);
    const { maxStreams, maxStreamsPerPeer } = this.#limits;
    if (share.length >= maxStreamsPerPeer) {
      this.#makeRoom(share, `${share.length} streams of ${address} are open`, maxStreamsPerPeer);
    } else if (this.#open.size >= maxStreams) {
      this.#makeRoom(this.#open, `${this.#open.size} streams are open`, maxStreams);
    }
    const stream: Open = {
      peer: address,
      over: new AbortController(),
      heardAt: this.#clock.monotonic(),
    };
    this.#open.add(stream);
    return {
      signal: stream.over.signal,
      heard: () => {
        stream.heardAt = this.#clock.monotonic();
        // Moves it to the end of the order.
        if (this.#open.delete(stream)) {
          this.#open.add(stream);
        }
      },
      [Symbol.dispose]: () => {
        this.#open.delete(stream);
      },
    };
  }

  #makeRoom(streams: Iterable<Open>, full: string, limit: number): void {
    const [oldest] = streams;
    if (oldest === undefined || this.#clock.monotonic() - oldest.heardAt < tillIdleMs) {
      throw new StatusError(
        "RESOURCE_EXHAUSTED",
        `${full} already; at most ${limit} are allowed at a time`,
      );
    }
    this.#open.delete(oldest);
    oldest.over.abort(
      new StatusError(
        "UNAVAILABLE",
        `silent for ${tillIdleMs / 60_000} minutes, and another till needed the place; connect again`,
      ),
    );
  }
}
