/**
 * The two directions of a stream, once for both sides: `receive` turns what a call emits into an
 * async iterable, `send` writes an async iterable to a call. Iteration, backpressure and the end
 * of a stream are decided here and nowhere else.
 *
 * Why not `for await (const m of call)`: leaving that loop early destroys both halves of a duplex
 * call, so the last answers and the status never leave (github.com/grpc/grpc-node/issues/1839).
 */

import type { Readable } from "node:stream";
import type { WatchCall } from "./call-events.ts";

export interface ReceiveOptions<T> {
  /** Bytes of one message to the message; what it throws ends the loop. */
  readonly decode: (bytes: Buffer) => T;
  /**
   * Called once when no more messages come. Resolves when the peer meant that, rejects with what
   * has happened otherwise.
   */
  readonly ended: () => Promise<void>;
  /** Called once when the consumer leaves the loop before its end. */
  readonly left?: () => void;
  /** Is told of each message that is taken. */
  readonly watch?: WatchCall | undefined;
  readonly signal: AbortSignal;
}

/** Where the messages of a call come from. */
export interface Incoming {
  /** Takes the next message that has come; undefined if none has. */
  read(): Buffer | undefined;
  /** How many messages have come and were not taken. */
  readonly waiting: number;
  /** Whether all messages were taken and no more will come. */
  readonly isAtEnd: boolean;
  /** Calls `wake` when a message has come or the end has. Returns what stops that. */
  listen(wake: () => void): () => void;
}

/**
 * The messages of a call in order, for one consumer. When the signal aborts, the pending and all
 * later reads reject with its reason, and messages not yet taken are dropped.
 */
export function receive<T>(
  incoming: Incoming,
  { decode, ended, left, watch, signal }: ReceiveOptions<T>,
): AsyncIterableIterator<T, void> {
  let isDone = false;
  let wake: (() => void) | undefined;

  const onChange = () => wake?.();
  const unlisten = incoming.listen(onChange);
  signal.addEventListener("abort", onChange);

  const finish = () => {
    isDone = true;
    unlisten();
    signal.removeEventListener("abort", onChange);
  };

  const take = (): IteratorResult<T, void> | undefined => {
    const bytes = incoming.read();
    if (bytes === undefined) {
      return undefined;
    }
    watch?.({ kind: "received", bytes: bytes.length, waiting: incoming.waiting + 1 });
    return { done: false, value: decode(bytes) };
  };

  const wait = async (): Promise<IteratorResult<T, void>> => {
    for (;;) {
      if (isDone) {
        return { done: true, value: undefined };
      }
      if (signal.aborted) {
        finish();
        throw signal.reason;
      }
      const taken = take();
      if (taken !== undefined) {
        return taken;
      }
      if (incoming.isAtEnd) {
        finish();
        await ended();
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      wake = undefined;
    }
  };

  /** What is there is handed on without an async function, which would cost a few percent. */
  const next = (): Promise<IteratorResult<T, void>> => {
    if (isDone || signal.aborted) {
      return wait();
    }
    try {
      const taken = take();
      return taken === undefined ? wait() : Promise.resolve(taken);
    } catch (error) {
      return Promise.reject(error);
    }
  };

  return {
    next,
    return: async () => {
      if (!isDone) {
        finish();
        left?.();
      }
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/**
 * The messages of a client's call. Reading starts at once, and not with the first `read`: grpc-js does
 * not flow-control answers that nobody reads, and a server could fill our memory. After that about 16
 * messages wait here, the high-water mark of a Node object stream.
 */
export function answersOf(call: Readable): Incoming {
  let isAtEnd = false;
  return {
    read: () => call.read() ?? undefined,
    get waiting() {
      return call.readableLength;
    },
    get isAtEnd() {
      return isAtEnd;
    },
    listen(wake) {
      const onEnd = () => {
        isAtEnd = true;
        wake();
      };
      // A client's call emits its failure as an error, after which "end" may not come.
      call.on("readable", wake).on("end", onEnd).on("error", onEnd).on("close", onEnd);
      call.read(0);
      return () => {
        call.off("readable", wake).off("end", onEnd).off("close", onEnd);
      };
    },
  };
}

/** Where messages go. */
export interface Outgoing {
  /** Takes a message. False: it takes no more for now, and the sender should wait for `room`. */
  write(message: Buffer): boolean;
  /** How many messages were taken and are not on the wire yet. */
  readonly waiting: number;
  /** Resolves when more is taken, or when the signal aborts since the call is over. */
  room(options: { readonly signal: AbortSignal }): Promise<void>;
}

export interface SendOptions<T> {
  readonly encode: (message: T) => Buffer;
  /** Is told of each message that is written, and of the waits. */
  readonly watch?: WatchCall | undefined;
  readonly signal: AbortSignal;
}

/**
 * Hands each message on, waiting whenever no more is taken. Does not half-close.
 *
 * Resolves when the source has ended, rejects with what it throws. After the signal has aborted
 * nothing is written, and the source, which is not interrupted, is closed at the next message it
 * has. It is closed in every case: its `finally` runs.
 */
export async function send<T>(
  outgoing: Outgoing,
  messages: AsyncIterable<T>,
  { encode, watch, signal }: SendOptions<T>,
): Promise<void> {
  for await (const message of messages) {
    if (signal.aborted) {
      return;
    }
    const bytes = encode(message);
    const takesMore = outgoing.write(bytes);
    watch?.({ kind: "sent", bytes: bytes.length, waiting: outgoing.waiting });
    if (!takesMore) {
      watch?.({ kind: "blocked" });
      await outgoing.room({ signal });
      watch?.({ kind: "unblocked" });
    }
  }
}
