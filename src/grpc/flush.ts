/**
 * Tells when a peer has received what was written to a call.
 *
 * A write that has returned says nothing: the bytes may wait in our memory, in the kernel, or on the
 * way to a process that is stopped and killed. So when the socket has taken them, a PING goes out. The
 * bytes of a connection arrive in order, so the peer that answers the PING has received them. (With a
 * proxy in between, that peer is the proxy.)
 */

import type { Http2Session } from "node:http2";
import { Bell } from "../bell.ts";
import { streamOf } from "./half-close.ts";

/** The messages of one call that the socket has not taken yet. */
export class Unwritten {
  #count = 0;
  readonly #written = new Bell();

  /** Counts a message in. The function that is returned counts it out, when the socket has taken it. */
  add(): () => void {
    this.#count += 1;
    return () => {
      this.#count -= 1;
      this.#written.ring();
    };
  }

  /** Resolves when the peer has received all messages so far; rejects with the signal's reason. */
  async flushed(call: object, { signal }: { readonly signal: AbortSignal }): Promise<void> {
    for (;;) {
      const written = this.#written.next({ signal });
      if (this.#count === 0) {
        break;
      }
      await written;
    }
    signal.throwIfAborted();
    const session = streamOf(call)?.session;
    if (session !== undefined) {
      await pinged(session, { signal });
    }
  }
}

/** A PING under way, and the one that follows for those who have written since it left. */
interface RoundTrip {
  readonly answered: Promise<void>;
  next?: Promise<void>;
}

/** At most one PING of ours is under way on a connection: Node allows ten, and others need some. */
const roundTrips = new WeakMap<Http2Session, RoundTrip>();

function roundTrip(session: Http2Session): Promise<void> {
  const underWay = roundTrips.get(session);
  if (underWay === undefined) {
    return begin(session);
  }
  underWay.next ??= underWay.answered.then(() => begin(session));
  return underWay.next;
}

function begin(session: Http2Session): Promise<void> {
  const answered = new Promise<void>((resolve, reject) => {
    session.ping((error) => (error === null ? resolve() : reject(error)));
  });
  const trip: RoundTrip = { answered };
  roundTrips.set(session, trip);
  const end = () => {
    if (trip.next === undefined) {
      roundTrips.delete(session);
    }
  };
  answered.then(end, end);
  return answered;
}

/** A PING that is not answered means that the connection is over, and so the signal is about to abort. */
function pinged(
  session: Http2Session,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (session.destroyed) {
      return;
    }
    roundTrip(session).then(
      () => {
        signal.removeEventListener("abort", onAbort);
        resolve();
      },
      () => {},
    );
  });
}
