/**
 * The server of by-hand.ts with one addition that grpc-js's documentation does not show: what has
 * gathered in a stream's buffer leaves with one system call. It is the fastest server we know how to
 * write on grpc-js, and a second thing to compare our glue with.
 *
 * A stream of grpc-js sends one message, waits until it has been written to the socket, and sends the
 * next, so each message costs a `writev` and a turn of the event loop. Node hands all that waits to
 * `_writev` if a stream has one. This one passes the messages on in a single turn, and the HTTP/2
 * stream below, which gathers as well, writes them together.
 */

import type { Writable } from "node:stream";
import { serveByHand } from "./by-hand.ts";

/** Returns the port. */
export function serveByHandBatched(): Promise<number> {
  return serveByHand(sendTogether);
}

function sendTogether(call: Writable): void {
  call._writev = (chunks, done) => {
    // The messages are written in order, so that the last one's callback speaks for all.
    const last = chunks.pop();
    for (const { chunk, encoding } of chunks) {
      call._write(chunk, encoding, () => {});
    }
    call._write(last?.chunk, last?.encoding ?? "utf8", done);
  };
}
