/**
 * Telling a client that has sent all from one that has gone. See
 * docs/decisions/believing-a-half-close.md.
 *
 * When a client on Node cancels a call, Node half-closes the stream first and resets it a moment
 * later, in a frame of its own: for that moment the two endings look the same. So we ask: a PING
 * goes out, and what the client had decided before it could read the PING is here before its answer.
 */

import type { Http2Session, ServerHttp2Stream } from "node:http2";
import { setImmediate as nextTurn } from "node:timers/promises";
import { systemClock } from "../clock.ts";
import { roundTrip } from "./round-trip.ts";

/** The longest wait for the answer, in milliseconds; a peer that gives none is believed then. */
const maxPingMs = 1_000;

/** The wait, in milliseconds, where no PING can be sent. */
const unaskedWaitMs = 25;

/**
 * To be called when a request stream has ended. Resolves when that was the client's half-close,
 * rejects with the signal's reason when it was its end.
 */
export async function halfClosed(
  stream: ServerHttp2Stream,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const isAnswered = await ping(stream.session, { signal });
  if (!isAnswered) {
    await systemClock.sleep(unaskedWaitMs, { signal });
  }
  // The reset may stand right behind the answer.
  await nextTurn();
  signal.throwIfAborted();
}

/** Resolves with true when the peer had the PING, or had its time to; with false if there was none. */
async function ping(
  session: Http2Session | undefined,
  { signal }: { readonly signal: AbortSignal },
): Promise<boolean> {
  if (session === undefined || session.destroyed || signal.aborted) {
    return false;
  }
  const over = new AbortController();
  const waited = systemClock
    .sleep(maxPingMs, { signal: AbortSignal.any([signal, over.signal]) })
    .then(
      () => true,
      () => false,
    );
  const isAnswered = await Promise.race([roundTrip(session), waited]);
  over.abort();
  return isAnswered;
}

/**
 * Returns whether the client ended a call that grpc-js reports as cancelled. grpc-js reports calls too
 * that it has ended itself, with a status of its own, such as for a message that is too large.
 */
export function isClientGone(stream: ServerHttp2Stream): boolean {
  return stream.aborted;
}
