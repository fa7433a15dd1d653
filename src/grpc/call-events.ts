/** What goes on in a client's call, for whoever draws, counts or explains it. */

import type { StatusCode } from "../errors.ts";

/**
 * An event of a call, told at the moment it happens: `requested` first; `half-closed` and `cancelled`
 * at most once each, and not behind `ended`, the status, which is told once. Only messages that had
 * come before the status may be taken, and told, after it.
 */
export type CallEvent =
  /** The request's headers were handed to the connection. */
  | { readonly kind: "requested"; readonly path: string; readonly deadline: number | undefined }
  /** A message was written; `waiting` of them, this one included, are in our buffer now. */
  | { readonly kind: "sent"; readonly bytes: number; readonly waiting: number }
  /** `write()` answered false: the connection takes no more for now, and we wait. */
  | { readonly kind: "blocked" }
  /** Our buffer has drained, or never will because the call is over. */
  | { readonly kind: "unblocked" }
  /** We have nothing more to send. */
  | { readonly kind: "half-closed" }
  /** We end the call: nothing that is under way arrives any more, in either direction. */
  | { readonly kind: "cancelled" }
  /** The answer's headers came. */
  | { readonly kind: "accepted" }
  /** A message was taken; `waiting` of them, this one included, had come. */
  | { readonly kind: "received"; readonly bytes: number; readonly waiting: number }
  /** The status: the server's, or grpc-js's own where none came. */
  | { readonly kind: "ended"; readonly code: StatusCode; readonly message: string };

/** Must not throw, and must be quick: it is called for each message. */
export type WatchCall = (event: CallEvent) => void;
