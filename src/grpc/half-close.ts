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

/** The longest wait for the answer, in milliseconds; a peer that gives none is believed then. */
const maxPingMs = 1_000;

/**
 * Of our PINGs under way on one connection. Node allows ten in all, and grpc-js takes a keepalive
 * that finds no room for the death of the connection, so some are left to it.
 */
const maxPings = 5;

/** The wait, in milliseconds, where no PING can be sent. */
const unaskedWaitMs = 25;

const pingsUnderWay = new WeakMap<Http2Session, number>();

/**
 * To be called when a request stream has ended. Resolves when that was the client's half-close,
 * rejects with the signal's reason when it was its end.
 */
export async function halfClosed(call: object, { signal }: { signal: AbortSignal }): Promise<void> {
  const isAnswered = await ping(streamOf(call)?.session, signal);
  if (!isAnswered) {
    await systemClock.sleep(unaskedWaitMs, { signal });
  }
  // The reset may stand right behind the answer.
  await nextTurn();
  signal.throwIfAborted();
}

/** Whether the peer had the PING, or had its time to. */
async function ping(session: Http2Session | undefined, signal: AbortSignal): Promise<boolean> {
  if (session === undefined || session.destroyed || signal.aborted) {
    return false;
  }
  const underWay = pingsUnderWay.get(session) ?? 0;
  if (underWay >= maxPings) {
    return false;
  }
  pingsUnderWay.set(session, underWay + 1);
  const over = new AbortController();
  const answered = new Promise<boolean>((resolve) => {
    session.ping((error) => {
      pingsUnderWay.set(session, (pingsUnderWay.get(session) ?? 1) - 1);
      resolve(error === null);
    });
  });
  const waited = systemClock
    .sleep(maxPingMs, { signal: AbortSignal.any([signal, over.signal]) })
    .then(
      () => true,
      () => false,
    );
  const isAnswered = await Promise.race([answered, waited]);
  over.abort();
  return isAnswered;
}

/**
 * Whether the client ended a call that grpc-js reports as cancelled. It reports those too that it
 * has ended itself, with a status of its own, such as for a message that is too large.
 */
export function isClientGone(call: object): boolean {
  return streamOf(call)?.aborted ?? true;
}

/**
 * grpc-js keeps the HTTP/2 stream of a call to itself. If a later release keeps it elsewhere, we do
 * without, and the test of this file says so.
 */
export function streamOf(call: object): ServerHttp2Stream | undefined {
  return (call as { call?: { stream?: ServerHttp2Stream } }).call?.stream;
}
