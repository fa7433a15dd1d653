/**
 * The two directions of a stream, once for both sides: `receive` turns what a call emits into an
 * async iterable, `send` writes an async iterable to a call. Iteration, backpressure and the end
 * of a stream are decided here and nowhere else.
 *
 * Why not `for await (const m of call)`: leaving that loop early destroys both halves of a duplex
 * call, so the last answers and the status never leave (github.com/grpc/grpc-node/issues/1839).
 */

import type { Readable, Writable } from "node:stream";
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

/**
 * The messages of a call in order, for one consumer. When the signal aborts, the pending and all
 * later reads reject with its reason, and messages not yet taken are dropped.
 *
 * Reading starts with this call, not with the first `next`: grpc-js does not flow-control answers
 * that nobody reads, and a server could fill our memory. After that about 16 messages wait here, the
 * high-water mark of a Node object stream.
 */
export function receive<T>(
  call: Readable,
  { decode, ended, left, watch, signal }: ReceiveOptions<T>,
): AsyncIterableIterator<T, void> {
  let isAtEnd = false;
  let isDone = false;
  let wake: (() => void) | undefined;

  const onReadable = () => wake?.();
  const onEnd = () => {
    isAtEnd = true;
    wake?.();
  };
  call.on("readable", onReadable);
  // A client call emits its failure as an error, after which "end" may not come.
  call.on("end", onEnd).on("error", onEnd).on("close", onEnd);
  signal.addEventListener("abort", onEnd);
  call.read(0);

  const finish = () => {
    isDone = true;
    call.off("readable", onReadable).off("end", onEnd).off("close", onEnd);
    signal.removeEventListener("abort", onEnd);
  };

  const take = (): IteratorResult<T, void> | undefined => {
    const bytes: Buffer | null = call.read();
    if (bytes === null) {
      return undefined;
    }
    watch?.({ kind: "received", bytes: bytes.length, waiting: call.readableLength + 1 });
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
      if (isAtEnd) {
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

export interface SendOptions<T> {
  readonly encode: (message: T) => Buffer;
  /** Is called for each message; the function it returns is called when the socket has taken it. */
  readonly onWrite?: (() => () => void) | undefined;
  /** Is told of each message that is written, and of the waits. */
  readonly watch?: WatchCall | undefined;
  readonly signal: AbortSignal;
}

/**
 * Writes each message to the call, waiting whenever the call's buffer is full. Does not half-close.
 *
 * Resolves when the source has ended, rejects with what it throws. After the signal has aborted
 * nothing is written, and the source, which is not interrupted, is closed at the next message it
 * has. It is closed in every case: its `finally` runs.
 */
export async function send<T>(
  call: Writable,
  messages: AsyncIterable<T>,
  { encode, onWrite, watch, signal }: SendOptions<T>,
): Promise<void> {
  for await (const message of messages) {
    if (signal.aborted) {
      return;
    }
    const bytes = encode(message);
    const takesMore = call.write(bytes, onWrite?.());
    watch?.({ kind: "sent", bytes: bytes.length, waiting: call.writableLength });
    if (!takesMore) {
      watch?.({ kind: "blocked" });
      await drained(call, { signal });
      watch?.({ kind: "unblocked" });
    }
  }
}

/**
 * Resolves when the call takes more, or when it never will: "drain" does not come any more once the
 * call was destroyed or has ended, which is when the signal aborts.
 */
function drained(call: Writable, { signal }: { signal: AbortSignal }): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted || call.destroyed) {
      resolve();
      return;
    }
    const done = () => {
      call.off("drain", done).off("close", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    call.on("drain", done).on("close", done);
    signal.addEventListener("abort", done);
  });
}
