/**
 * Asks a peer for a sign that it has received what was sent so far. The bytes of a connection arrive in
 * order, so the peer that answers an HTTP/2 PING has received all that was written before it. Behind a
 * proxy it is the proxy that answers.
 */

import type { Http2Session } from "node:http2";

/** A PING that is on its way, and the one that is sent when its answer is here. */
interface Round {
  readonly answered: Promise<boolean>;
  next: Promise<boolean> | undefined;
}

const rounds = new WeakMap<Http2Session, Round>();

/**
 * Resolves with true when the peer has answered a PING that was sent after this call, and with false
 * when the session ended first.
 *
 * One PING serves all who wait together. Node allows ten under way on a connection, and grpc-js takes a
 * keepalive that finds no room for the death of the connection, so there is only ever one of ours.
 */
export function roundTrip(session: Http2Session): Promise<boolean> {
  const round = rounds.get(session);
  if (round === undefined) {
    return begin(session);
  }
  round.next ??= round.answered.then(() => begin(session));
  return round.next;
}

function begin(session: Http2Session): Promise<boolean> {
  const answered = new Promise<boolean>((resolve) => {
    if (session.destroyed) {
      resolve(false);
    } else {
      session.ping((error) => resolve(error === null));
    }
  });
  const round: Round = { answered, next: undefined };
  rounds.set(session, round);
  answered.then(() => {
    if (round.next === undefined) {
      rounds.delete(session);
    }
  });
  return answered;
}
