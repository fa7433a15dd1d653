/**
 * A client's calls: the four call shapes as promises and async iterables, typed from the descriptor.
 *
 * An iterable that ends means that the server ended the call with OK; every other ending throws.
 */

import { setMaxListeners } from "node:events";
import type {
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import {
  type ClientDuplexStream,
  Metadata,
  type ServiceError,
  type StatusObject,
  status as wireStatus,
} from "@grpc/grpc-js";
import { sleepUntil, systemClock } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import { Batch, transmitOn } from "./batch.ts";
import type { Check } from "./bounds.ts";
import type { WatchCall } from "./call-events.ts";
import type { Clients } from "./client-pool.ts";
import { decode, encode, wireMethod } from "./definition.ts";
import { leaveWithoutHalfClose } from "./grpc-js-internals.ts";
import type { Liveness } from "./liveness.ts";
import { deadlineSlackMs } from "./options.ts";
import { fromWireStatus, readWireStatus } from "./status.ts";
import { answersOf, receive, send } from "./stream.ts";

export interface CallOptions {
  /** Cancels the call; whoever waits for it then gets the signal's reason. */
  readonly signal: AbortSignal;
  /**
   * When the call must be over, as `systemClock.monotonic()` counts, so that setting the machine's clock
   * neither shortens nor lengthens the call. It then ends with DEADLINE_EXCEEDED.
   */
  readonly deadline?: number | undefined;
  readonly metadata?: Readonly<Record<string, string>>;
  /** Is given the headers of the answer, when they come. What it throws ends the call. */
  readonly onHeaders?: ((headers: AnswerHeaders) => void) | undefined;
  /** Is called when our half-close, and so all requests, have been written to the connection. */
  readonly onSent?: (() => void) | undefined;
  /** Is told what goes on in the call. */
  readonly watch?: WatchCall | undefined;
}

/** A name has no, one or several values; those of `-bin` names are bytes. */
export interface AnswerHeaders {
  get(name: string): readonly (string | Buffer)[];
}

/**
 * How a method is called, by its shape.
 *
 * A loop over answers ends with the server's OK and throws `StatusError` for any other status, or
 * the signal's reason; leaving it early cancels the call. Requests are asked for one at a time, as
 * fast as the wire takes them, and the end of the source is the half-close. What the source throws
 * cancels the call and is what its caller gets. A call that ends first stops asking, but does not
 * interrupt a source that waits: that is up to the source's own signal.
 */
export type Call<M extends DescMethod> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageInitShape<I>, options: CallOptions) => Promise<MessageShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageInitShape<I>, options: CallOptions) => AsyncIterable<MessageShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (
            requests: AsyncIterable<MessageInitShape<I>>,
            options: CallOptions,
          ) => Promise<MessageShape<O>>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (
              requests: AsyncIterable<MessageInitShape<I>>,
              options: CallOptions,
            ) => AsyncIterable<MessageShape<O>>
          : never;

/** The methods of a service. */
export type Client<S extends DescService> = {
  readonly [K in keyof S["method"]]: Call<S["method"][K]>;
};

/** What a connection adds to its calls. */
export interface CallRules {
  /** The bounds of the answers. */
  readonly check?: Check | undefined;
  /** Returns the error that the caller gets for a status that is not OK. */
  readonly explain?: (error: StatusError) => StatusError;
  /** Notices when the call's connection is dead. */
  readonly liveness?: Liveness | undefined;
}

/** The longest timer that Node has, in milliseconds: 24.8 days. A later deadline is as good as none. */
const maxTimerMs = 2 ** 31 - 1;

/** The header tells a number of at most eight digits and a unit. */
function timeoutHeader(ms: number): string {
  const whole = Math.max(0, Math.ceil(ms));
  return whole < 1e8 ? `${whole}m` : `${Math.ceil(whole / 1_000)}S`;
}

/**
 * Starts a call. On the wire the four shapes are one: requests, half-close, answers, status. So
 * every call is made as a bidirectional one, and a single request or answer is a stream of one.
 */
export function startCall(
  clients: Clients,
  method: DescMethod,
  request: object,
  { signal, deadline, metadata = {}, onHeaders, onSent, watch }: CallOptions,
  { check, explain = (error) => error, liveness }: CallRules = {},
): AsyncIterable<object> | Promise<object> {
  signal.throwIfAborted();
  // Any number of calls may share a signal.
  setMaxListeners(0, signal);
  const encodeRequest = (message: object) => encode(method.input, message);
  const streamsRequests =
    method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
  // Before the call is made: a request that does not encode must not leave one behind.
  const single = streamsRequests ? undefined : encodeRequest(request);
  const { path, requestSerialize, responseDeserialize } = wireMethod(method);
  const latest = deadline ?? Number.POSITIVE_INFINITY;
  const leftMs = latest - systemClock.monotonic();
  const hasTimer = leftMs <= maxTimerMs;
  const timeout: Record<string, string> = hasTimer ? { "grpc-timeout": timeoutHeader(leftMs) } : {};
  const { grpcClient, release } = clients.take();
  const call: ClientDuplexStream<Buffer, Buffer> = grpcClient.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    Metadata.fromHttp2Headers({ ...metadata, ...timeout }),
  );
  watch?.({ kind: "requested", path, deadline });

  const over = new AbortController();
  let isCancelled = false;
  const cancelCall = () => {
    if (!isCancelled && !over.signal.aborted) {
      isCancelled = true;
      watch?.({ kind: "cancelled" });
      leaveWithoutHalfClose(call);
      call.cancel();
    }
  };
  if (hasTimer) {
    // grpc-js is told nothing of the deadline: it would half-close the stream before it resets it.
    sleepUntil(systemClock, latest, over).then(
      () => {
        leaveWithoutHalfClose(call);
        call.call?.cancelWithStatus(wireStatus.DEADLINE_EXCEEDED, "deadline exceeded");
      },
      () => {},
    );
  }
  // Why we cancelled, if we did: that, and not the CANCELLED it leads to, is what the caller gets.
  let ours: { readonly error: unknown } | undefined;
  const cancel = (error: unknown) => {
    // A source may fail when the server has long ended the call; the server's status stands.
    if (!over.signal.aborted) {
      ours ??= { error };
      cancelCall();
    }
  };
  const onAbort = () => cancel(signal.reason);
  signal.addEventListener("abort", onAbort);

  const status = new Promise<StatusObject>((resolve) => {
    call.on("status", (given: StatusObject) => {
      signal.removeEventListener("abort", onAbort);
      over.abort();
      release();
      watch?.({ kind: "ended", ...readWireStatus(given) });
      resolve(given);
    });
  });
  call.on("metadata", (headers: Metadata) => {
    watch?.({ kind: "accepted" });
    try {
      onHeaders?.(headers);
    } catch (error) {
      cancel(error);
    }
  });
  if (onSent !== undefined) {
    call.once("finish", onSent);
  }
  liveness?.watch(call, over).catch(cancel);
  // The status says the same and more.
  call.on("error", (_: ServiceError) => {});

  const halfClose = () => {
    if (!over.signal.aborted) {
      watch?.({ kind: "half-closed" });
    }
    call.end();
  };
  const refuse = (error: StatusError): never => {
    cancel(error);
    throw error;
  };
  const decodeAnswer = (bytes: Buffer) => {
    let answer: object;
    try {
      answer = decode(method.output, bytes);
    } catch (error) {
      return refuse(new StatusError("INTERNAL", `the server sent a ${messageOf(error)}`));
    }
    const fault = check?.(answer);
    return fault === undefined ? answer : refuse(outOfBounds(method, fault));
  };
  const answers = receive(answersOf(call), {
    decode: decodeAnswer,
    async ended() {
      const given = await status;
      if (ours !== undefined) {
        throw ours.error;
      }
      if (
        given.code === wireStatus.CANCELLED &&
        systemClock.monotonic() >= latest - deadlineSlackMs
      ) {
        // The server's timer was faster, and its reset says only that it has cancelled.
        throw new StatusError("DEADLINE_EXCEEDED", "deadline exceeded");
      }
      if (given.code !== 0) {
        throw explain(fromWireStatus(given));
      }
    },
    left: cancelCall,
    watch,
    signal,
  });
  if (single === undefined) {
    const requests = request as AsyncIterable<object>;
    const batch = new Batch({ transmit: transmitOn(call) });
    send(batch, requests, { encode: encodeRequest, watch, signal: over.signal }).then(() => {
      batch.flush();
      halfClose();
    }, cancel);
  } else {
    call.write(single);
    watch?.({ kind: "sent", bytes: single.length, waiting: call.writableLength });
    halfClose();
  }
  return method.methodKind === "unary" || method.methodKind === "client_streaming"
    ? only(answers, method)
    : answers;
}

/**
 * The status of a call whose server sent what no server of the contract sends. DATA_LOSS, since what
 * the server meant cannot be recovered from it: the caller has done nothing wrong, which
 * FAILED_PRECONDITION would say, and INTERNAL would be taken for a bug of ours.
 */
function outOfBounds({ name }: DescMethod, fault: string): StatusError {
  return new StatusError(
    "DATA_LOSS",
    `the server sent ${name} an answer that is out of bounds: ${fault}`,
    { hint: "the answer was not used; is that server of the same contract?" },
  );
}

/** The one answer of a call that has one. */
async function only(answers: AsyncIterable<object>, method: DescMethod): Promise<object> {
  let answer: object | undefined;
  for await (const next of answers) {
    if (answer !== undefined) {
      throw new StatusError("INTERNAL", `the server gave two answers to ${method.name}`);
    }
    answer = next;
  }
  if (answer === undefined) {
    throw new StatusError("INTERNAL", `the server gave no answer to ${method.name}`);
  }
  return answer;
}
