/**
 * Runs a handler for each call, answers with what it returns, yields or throws, and knows which
 * calls are running, so that a server can stop without leaving one of them without a status.
 */

import type { DescMethod } from "@bufbuild/protobuf";
import {
  Metadata,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type sendUnaryData,
  type UntypedHandleCall,
} from "@grpc/grpc-js";
import { systemClock } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { Batch, transmitOn } from "./batch.ts";
import type { Check } from "./bounds.ts";
import { decode, encode } from "./definition.ts";
import { type InnerCall, innerCallOf } from "./grpc-js-internals.ts";
import { halfClosed, isClientGone } from "./half-close.ts";
import type { CallContext, UntypedHandler } from "./handlers.ts";
import { deadlineSlackMs } from "./options.ts";
import { roundTrip } from "./round-trip.ts";
import { toWireStatus } from "./status.ts";
import { receive, send } from "./stream.ts";

export class RunningCalls {
  /** Each with the promise that its handler has returned and the handler's `finally` has run. */
  readonly #running = new Map<RunningCall, Promise<void>>();
  readonly #log: Logger;
  #stop: { readonly which: "streaming" | "all"; readonly reason: StatusError } | undefined;

  constructor({ log }: { log: Logger }) {
    this.#log = log;
  }

  /** The grpc-js handler that runs `handler` for each call of `method`. */
  handle(method: DescMethod, handler: UntypedHandler, check: Check | undefined): UntypedHandleCall {
    const logFault = (fault: unknown) =>
      this.#log.error("handler failed", {
        method: `${method.parent.typeName}/${method.name}`,
        stack: fault instanceof Error ? fault.stack : String(fault),
      });
    return (grpcCall: GrpcCall, callback?: sendUnaryData<Buffer>) => {
      const call = new RunningCall(method, grpcCall, callback, check);
      if (this.#stop !== undefined && this.#applies(this.#stop.which, call)) {
        // Its headers came before the server stopped, and its request only now.
        call.abort(this.#stop.reason);
        return;
      }
      const finished = call
        .run(handler)
        .catch(logFault)
        .finally(() => this.#running.delete(call));
      this.#running.set(call, finished);
    };
  }

  /**
   * Ends calls with `reason`, those that run and those still to come: all, or those that stream
   * their answers, since nobody knows how long such a call would go on.
   */
  stop(which: "streaming" | "all", reason: StatusError): void {
    this.#stop = { which, reason };
    for (const call of this.#running.keys()) {
      if (this.#applies(which, call)) {
        call.abort(reason);
      }
    }
  }

  #applies(which: "streaming" | "all", call: RunningCall): boolean {
    return which === "all" || call.streamsAnswers;
  }

  /** Resolves when every call that runs now has finished. */
  async idle(): Promise<void> {
    await Promise.all(this.#running.values());
  }
}

/** A call of any of the four shapes; `request` is there when it has a single one. */
type GrpcCall = ServerDuplexStream<Buffer, Buffer> &
  Partial<Pick<ServerUnaryCall<Buffer, Buffer>, "request">>;

/**
 * One call. The four shapes of an rpc are two times two: one request or a stream of them, one answer
 * (given to grpc-js's callback) or a stream of them.
 *
 * It ends with whatever comes first: the handler's return or error, a malformed request, the
 * client's end or deadline, a stop of the server. grpc-js is told once.
 */
class RunningCall {
  readonly #method: DescMethod;
  readonly #call: GrpcCall;
  readonly #callback: sendUnaryData<Buffer> | undefined;
  readonly #inner: InnerCall;
  readonly #batch: Batch;
  readonly #check: Check | undefined;
  readonly #over = new AbortController();
  #hasEnded = false;

  constructor(
    method: DescMethod,
    call: GrpcCall,
    callback: sendUnaryData<Buffer> | undefined,
    check: Check | undefined,
  ) {
    this.#method = method;
    this.#check = check;
    this.#call = call;
    this.#callback = callback;
    this.#inner = innerCallOf(call);
    const { openStream } = this.#inner;
    this.#batch = new Batch({
      transmit: transmitOn(call),
      charge: (bytes) => openStream?.charge(bytes),
    });
    openStream?.onRefused((why) => this.abort(why));
    // Also emitted after every proper end; then nobody listens any more.
    call.on("cancelled", () => {
      this.#hasEnded = true;
      this.#over.abort(this.#whyCancelled());
    });
  }

  get streamsAnswers(): boolean {
    return this.#callback === undefined;
  }

  /** Ends the call with `reason` at once, whatever the handler does. */
  abort(reason: StatusError): void {
    this.#fail(reason);
    this.#over.abort(reason);
  }

  /** Runs the handler to its end. Rejects with a fault of the handler, when the client has its status. */
  async run(handler: UntypedHandler): Promise<void> {
    const { signal } = this.#over;
    const call = this.#call;
    const callback = this.#callback;
    const encodeAnswer = (answer: object) => encode(this.#method.output, answer);
    try {
      const context: CallContext = {
        signal,
        metadata: call.metadata,
        peer: call.getPeer(),
        flushed: () => this.#flushed(),
        sendHeaders: (headers) => call.sendMetadata(Metadata.fromHttp2Headers({ ...headers })),
      };
      const answers = handler(this.#request(), context);
      if (callback) {
        const answer = encodeAnswer(await (answers as Promise<object>));
        this.#end(() => callback(null, answer));
      } else {
        await send(this.#batch, answers as AsyncIterable<object>, { encode: encodeAnswer, signal });
        this.#end(() => call.end());
      }
    } catch (error) {
      this.#fail(error);
      // A wait that the signal has ended may reject with an AbortError instead of the reason.
      if (!(error instanceof StatusError) && !(signal.aborted && isAbortError(error))) {
        throw error;
      }
    }
  }

  /** Resolves when the peer has received all answers so far; rejects with the signal's reason. */
  async #flushed(): Promise<void> {
    const { signal } = this.#over;
    await this.#batch.sent({ signal });
    const { session } = this.#inner.http2;
    signal.throwIfAborted();
    if (session !== undefined) {
      await unlessAborted(roundTrip(session), { signal });
    }
  }

  #whyCancelled(): StatusError {
    if (this.#inner.deadline <= systemClock.monotonic() + deadlineSlackMs) {
      return new StatusError("DEADLINE_EXCEEDED", "deadline exceeded");
    }
    return isClientGone(this.#inner.http2)
      ? new StatusError("CANCELLED", "client gone")
      : new StatusError("RESOURCE_EXHAUSTED", "request refused");
  }

  #request(): unknown {
    const { methodKind } = this.#method;
    const call = this.#call;
    if (methodKind === "unary" || methodKind === "server_streaming") {
      return this.#decode(call.request ?? Buffer.alloc(0));
    }
    const { signal } = this.#over;
    const requests = this.#inner.requests((bytes) => this.#inner.openStream?.charge(bytes));
    return receive(requests, {
      decode: (bytes) => this.#decode(bytes),
      ended: () => halfClosed(this.#inner.http2, { signal }),
      signal,
    });
  }

  /** Ends the call with INVALID_ARGUMENT for a message that is malformed or out of its bounds. */
  #decode(bytes: Buffer): object {
    try {
      const message = decode(this.#method.input, bytes);
      const fault = this.#check?.(message);
      if (fault === undefined) {
        return message;
      }
      throw new Error(fault);
    } catch (error) {
      const malformed = new StatusError("INVALID_ARGUMENT", messageOf(error), { cause: error });
      this.abort(malformed);
      throw malformed;
    }
  }

  #fail(error: unknown): void {
    const status = toWireStatus(error);
    // `destroy(error)` would send no status at all and leave the client hanging.
    this.#end(() => (this.#callback ? this.#callback(status) : this.#call.emit("error", status)));
  }

  #end(tellGrpc: () => void): void {
    if (!this.#hasEnded) {
      this.#hasEnded = true;
      // What was answered before leaves before the status.
      this.#batch.flush();
      tellGrpc();
      this.#inner.openStream?.ended();
      // Nobody reads any more what the client has sent, and a client may go on sending.
      this.#inner.discardInput();
    }
  }
}

/** Resolves when the promise has, or rejects with the signal's reason if that aborts first. */
async function unlessAborted(
  promise: Promise<unknown>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const over = new AbortController();
  const aborted = new Promise<void>((resolve) => {
    signal.addEventListener("abort", () => resolve(), { once: true, signal: over.signal });
  });
  await Promise.race([promise, aborted]);
  over.abort();
  signal.throwIfAborted();
}

function isAbortError(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
