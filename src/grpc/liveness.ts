/**
 * Notices a connection that died without a word: a router that lost its state, a cable that was pulled.
 *
 * A silence proves nothing, so every few seconds a PING is sent. Neither does a PING without an answer:
 * it queues after everything that was sent before it, and on a slow line that takes many seconds. So a
 * connection is taken for dead only when no byte has moved for as long as the peer may need: the round
 * trips that were measured, and the time that the bytes on their way take on the slowest line we expect.
 *
 * grpc-js has a keepalive with a fixed timeout, which closes slow and far connections while they work.
 * A connection that is watched here does without it.
 */

import type { Http2Session } from "node:http2";
import { systemClock } from "../clock.ts";
import { clientTransportOf, unsentBytes } from "./grpc-js-internals.ts";
import { livenessTimeoutMs, maxLivenessTimeoutMs } from "./options.ts";
import { roundTrip } from "./round-trip.ts";

/** The timeout in measured round trips. Round trips on a line in use vary, and one lost packet doubles them. */
const roundTripsToWait = 3;

/** The slowest line on which bytes are given the time they need, in bytes per millisecond: 32 kbit/s. */
const slowestBytesPerMs = 4;

/** The most that is on its way to a peer with the default flow-control window, in bytes. */
const defaultWindow = 64 * 1024;

/** How often the counters of a connection are compared at most, in milliseconds. */
const maxLookMs = 250;

/**
 * What is known of the path to a peer. It outlives the connections, so that the second one on a far
 * path is not given up for what the first one has shown.
 */
export class PathTimes {
  #roundTripMs = 0;

  /** The last measured round trip in milliseconds; after a longer one it falls slowly. */
  get roundTripMs(): number {
    return this.#roundTripMs;
  }

  /** How long a peer that was asked may be silent, in milliseconds. */
  get timeoutMs(): number {
    const wantedMs = this.#roundTripMs * roundTripsToWait;
    return Math.min(maxLivenessTimeoutMs, Math.max(livenessTimeoutMs, wantedMs));
  }

  /** Takes a round trip that was measured, in milliseconds. */
  measured(ms: number): void {
    this.#roundTripMs = Math.max(ms, (this.#roundTripMs + ms) / 2);
  }

  /** Doubles the timeout after a connection was given up: the path may be slower than it looked. */
  lost(): void {
    this.#roundTripMs = (2 * this.timeoutMs) / roundTripsToWait;
  }
}

export interface LivenessOptions {
  readonly path: PathTimes;
  /** Returns how long after one answer the next PING is sent, in milliseconds. It is asked with each call. */
  readonly silenceMs: () => number;
}

/** Watches the connections of a client for as long as calls are open on them. */
export class Liveness {
  readonly #options: LivenessOptions;
  readonly #calls = new WeakMap<Http2Session, number>();

  constructor(options: LivenessOptions) {
    this.#options = options;
  }

  /**
   * Watches the connection of a call until the signal says that the call is over. The calls of a dead
   * connection end with UNAVAILABLE.
   */
  async watch(call: object, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    const silenceMs = this.#options.silenceMs();
    const lookMs = Math.min(maxLookMs, silenceMs / 4);
    try {
      let transport = clientTransportOf(call);
      while (transport === undefined) {
        // grpc-js has not given the call to a connection yet.
        await systemClock.sleep(lookMs, { signal });
        transport = clientTransportOf(call);
      }
      const { session } = transport;
      const open = this.#calls.get(session) ?? 0;
      this.#calls.set(session, open + 1);
      signal.addEventListener(
        "abort",
        () => this.#calls.set(session, (this.#calls.get(session) ?? 1) - 1),
        { once: true },
      );
      if (open === 0 && !(await this.#watchSession(session, { silenceMs, lookMs }))) {
        this.#options.path.lost();
        transport.disconnect();
      }
    } catch (error) {
      if (!signal.aborted) {
        throw error;
      }
    }
  }

  /** Resolves with true when the session has no more calls or has ended, with false when it is dead. */
  async #watchSession(
    session: Http2Session,
    { silenceMs, lookMs }: { readonly silenceMs: number; readonly lookMs: number },
  ): Promise<boolean> {
    const { path } = this.#options;
    const counters = new Counters(session);
    /** Counts from the last answer to a PING. */
    let unaskedMs = 0;
    /** Resets when bytes move in either direction, and when a PING is sent. */
    let stillMs = 0;
    /** The PING under way, and how many bytes may have to arrive before it does. */
    let ping: { isAnswered: boolean; readonly bytesBefore: number } | undefined;
    let lookedAt = systemClock.monotonic();
    while ((this.#calls.get(session) ?? 0) > 0 && !session.destroyed) {
      await systemClock.sleep(lookMs, { signal: never });
      const now = systemClock.monotonic();
      // A process that was stopped or had no processor has heard nothing, and that says nothing.
      const passedMs = Math.min(now - lookedAt, 2 * lookMs);
      lookedAt = now;
      const moved = counters.look();
      unaskedMs += passedMs;
      stillMs = moved ? 0 : stillMs + passedMs;
      if (ping?.isAnswered === true) {
        ping = undefined;
        unaskedMs = 0;
      }
      if (ping === undefined && unaskedMs >= silenceMs) {
        const sent = { isAnswered: false, bytesBefore: counters.outstanding };
        const { written } = counters;
        ping = sent;
        stillMs = 0;
        roundTrip(session).then((isAlive) => {
          sent.isAnswered = true;
          if (isAlive) {
            counters.arrived(written);
            path.measured(systemClock.monotonic() - now);
          }
        });
      }
      if (ping !== undefined && stillMs > path.timeoutMs + ping.bytesBefore / slowestBytesPerMs) {
        return false;
      }
    }
    return true;
  }
}

const never = new AbortController().signal;

/** Tells whether bytes have moved since the last look, and how many may still be on their way. */
class Counters {
  readonly #session: Http2Session;
  #received = 0;
  #written = 0;
  #taken = 0;
  #unsent = 0;
  /** What was written before the last PING that has its answer: all of that has arrived. */
  #arrived = 0;

  constructor(session: Http2Session) {
    this.#session = session;
    this.look();
  }

  /** How many bytes were written so far. */
  get written(): number {
    return this.#written;
  }

  /** Notes that the peer has received the first so many bytes. */
  arrived(bytes: number): void {
    this.#arrived = bytes;
  }

  /** At most so many bytes are on their way. */
  get outstanding(): number {
    return Math.min(defaultWindow, this.#written - this.#arrived);
  }

  /** Returns whether bytes have moved in either direction since the last look. */
  look(): boolean {
    if (this.#session.destroyed) {
      return false;
    }
    const { bytesRead, bytesWritten } = this.#session.socket;
    const unsent = unsentBytes(this.#session);
    const received = bytesRead > this.#received;
    // What goes into an empty socket buffer has gone nowhere. A full one takes more only when the peer
    // has received some of it.
    const taken = this.#unsent > 0 && bytesWritten - unsent > this.#taken;
    this.#received = bytesRead;
    this.#written = bytesWritten;
    this.#unsent = unsent;
    this.#taken = bytesWritten - unsent;
    return received || taken;
  }
}
