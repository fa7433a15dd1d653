/**
 * Dialling: a connection, and the four call shapes of a service as promises and async iterables.
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
  connectivityState,
  credentials,
  Client as GrpcClient,
  logVerbosity,
  Metadata,
  type ServiceError,
  type StatusObject,
  setLogVerbosity,
} from "@grpc/grpc-js";
import { type Address, formatAddress, isLocal } from "../address.ts";
import { type Clock, systemClock } from "../clock.ts";
import { messageOf, StatusError } from "../errors.ts";
import { decode, encode, wireMethod } from "./definition.ts";
import { clientOptions, connectTimeoutMs, loopbackOptions } from "./options.ts";
import { fromWireStatus } from "./status.ts";
import { receive, send } from "./stream.ts";

if (process.env["GRPC_VERBOSITY"] === undefined) {
  setLogVerbosity(logVerbosity.NONE);
}

export interface CallOptions {
  /** Cancels the call; whoever waits for it then gets the signal's reason. */
  readonly signal: AbortSignal;
  /** When the call must be over, in Unix milliseconds; then it ends with DEADLINE_EXCEEDED. */
  readonly deadline?: number | undefined;
  readonly metadata?: Readonly<Record<string, string>>;
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

export interface ReadyOptions {
  readonly signal: AbortSignal;
  /** Keep trying for so many milliseconds; without it, one attempt decides. */
  readonly waitMs?: number | undefined;
  /** As in `CallOptions`. */
  readonly deadline?: number | undefined;
}

/** One connection of its own; nothing is dialled before `ready` or the first call. */
export interface Connection {
  /**
   * Resolves when the server has answered as a gRPC server does. Rejects with UNAVAILABLE and a
   * hint when there is none, with DEADLINE_EXCEEDED after the deadline, with the signal's reason.
   */
  ready(options: ReadyOptions): Promise<void>;
  client<S extends DescService>(service: S): Client<S>;
  /** Lets go of the connection. Running calls are not cancelled; use their signals. */
  close(): void;
}

export function dial(
  address: Address,
  { clock }: { clock: Clock } = { clock: systemClock },
): Connection {
  let grpcClient = connect(address);
  return {
    async ready({ signal, waitMs, deadline }) {
      const giveUpAt = clock.now() + (waitMs ?? connectTimeoutMs);
      const until = Math.min(giveUpAt, deadline ?? Number.POSITIVE_INFINITY);
      for (;;) {
        const attemptUntil = Math.min(clock.now() + connectTimeoutMs, until);
        const outcome = await attempt(grpcClient, attemptUntil, {
          signal,
          keepTrying: waitMs !== undefined,
        });
        if (outcome === "ready") {
          return;
        }
        if (outcome === "silent" && clock.now() < until) {
          // Nothing will ever come of this connection (see `connectTimeoutMs`): dial anew.
          grpcClient.close();
          grpcClient = connect(address);
          continue;
        }
        if (deadline !== undefined && clock.now() >= deadline) {
          throw new StatusError(
            "DEADLINE_EXCEEDED",
            `no connection to ${formatAddress(address)} before the deadline`,
          );
        }
        throw unavailable(address, await whyUnavailable(grpcClient, outcome), waitMs);
      }
    },
    client<S extends DescService>(service: S): Client<S> {
      const calls = service.methods.map((method) => [
        method.localName,
        (request: object, options: CallOptions) => startCall(grpcClient, method, request, options),
      ]);
      return Object.fromEntries(calls);
    },
    close: () => grpcClient.close(),
  };
}

function connect(address: Address): GrpcClient {
  const target = formatAddress(
    address.kind === "tcp" && address.host === "" ? { ...address, host: "localhost" } : address,
  );
  return new GrpcClient(target, credentials.createInsecure(), {
    ...clientOptions,
    ...(isLocal(address) ? loopbackOptions : {}),
  });
}

/**
 * Waits for the connection: `silent` when nothing was decided by `until`. With `keepTrying` a
 * refused attempt is not the end: grpc-js makes the next one after its backoff.
 */
async function attempt(
  grpcClient: GrpcClient,
  until: number,
  { signal, keepTrying }: { signal: AbortSignal; keepTrying: boolean },
): Promise<"ready" | "refused" | "silent"> {
  const channel = grpcClient.getChannel();
  let wasRefused = false;
  for (;;) {
    signal.throwIfAborted();
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) {
      return "ready";
    }
    if (state === connectivityState.TRANSIENT_FAILURE) {
      wasRefused = true;
      if (!keepTrying) {
        return "refused";
      }
    }
    const hasChanged = await new Promise<boolean>((resolve, reject) => {
      const onAbort = () => reject(signal.reason);
      signal.addEventListener("abort", onAbort, { once: true });
      channel.watchConnectivityState(state, until, (error) => {
        signal.removeEventListener("abort", onAbort);
        resolve(error === undefined);
      });
    });
    if (!hasChanged) {
      return wasRefused ? "refused" : "silent";
    }
  }
}

/**
 * grpc-js tells what is wrong with a channel only to a call: one without a method, which fails
 * without leaving this machine.
 */
function whyUnavailable(grpcClient: GrpcClient, outcome: "refused" | "silent"): Promise<string> {
  if (outcome === "silent") {
    return Promise.resolve("it accepts the connection but does not answer as a gRPC server");
  }
  return new Promise((resolve) => {
    const none = (bytes: Buffer) => bytes;
    grpcClient.makeUnaryRequest("/", none, none, Buffer.alloc(0), (error) =>
      resolve(error?.details ?? "the connection was lost"),
    );
  });
}

function unavailable(address: Address, why: string, waitMs: number | undefined): StatusError {
  const where = formatAddress(address);
  const patience = waitMs === undefined ? "" : ` after waiting ${waitMs / 1000} s`;
  if (/ECONNREFUSED|ENOENT/.test(why)) {
    const isDefault = address.kind === "tcp" && address.port === 50052;
    return new StatusError("UNAVAILABLE", `no server at ${where}${patience}`, {
      hint: `start one with: brewctl serve${isDefault ? "" : ` --addr ${where}`}`,
    });
  }
  if (/resolution failed/i.test(why)) {
    return new StatusError("UNAVAILABLE", `no such host: ${where}${patience}`, {
      hint: "check --addr and BREWCTL_ADDR",
    });
  }
  return new StatusError("UNAVAILABLE", `cannot reach ${where}${patience}: ${why}`);
}

/**
 * Starts a call. On the wire the four shapes are one: requests, half-close, answers, status. So
 * every call is made as a bidirectional one, and a single request or answer is a stream of one.
 */
function startCall(
  grpcClient: GrpcClient,
  method: DescMethod,
  request: object,
  { signal, deadline, metadata = {} }: CallOptions,
): AsyncIterable<object> | Promise<object> {
  signal.throwIfAborted();
  // Any number of calls may share a signal.
  setMaxListeners(0, signal);
  const { path, requestSerialize, responseDeserialize } = wireMethod(method);
  const call: ClientDuplexStream<Buffer, Buffer> = grpcClient.makeBidiStreamRequest(
    path,
    requestSerialize,
    responseDeserialize,
    Metadata.fromHttp2Headers({ ...metadata }),
    deadline === undefined ? {} : { deadline },
  );

  // Why we cancelled, if we did: that, and not the CANCELLED it leads to, is what the caller gets.
  let ours: { readonly error: unknown } | undefined;
  const cancel = (error: unknown) => {
    ours ??= { error };
    call.cancel();
  };
  const onAbort = () => cancel(signal.reason);
  signal.addEventListener("abort", onAbort);

  const over = new AbortController();
  const status = new Promise<StatusObject>((resolve) => {
    call.on("status", (given: StatusObject) => {
      signal.removeEventListener("abort", onAbort);
      over.abort();
      resolve(given);
    });
  });
  // The status says the same and more.
  call.on("error", (_: ServiceError) => {});

  const decodeAnswer = (bytes: Buffer) => {
    try {
      return decode(method.output, bytes);
    } catch (error) {
      const malformed = new StatusError("INTERNAL", `the server sent a ${messageOf(error)}`);
      cancel(malformed);
      throw malformed;
    }
  };
  const answers = receive(call, {
    decode: decodeAnswer,
    async ended() {
      const given = await status;
      if (ours !== undefined) {
        throw ours.error;
      }
      if (given.code !== 0) {
        throw fromWireStatus(given);
      }
    },
    left: () => call.cancel(),
    signal,
  });
  const encodeRequest = (message: object) => encode(method.input, message);
  if (method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming") {
    send(call, request as AsyncIterable<object>, {
      encode: encodeRequest,
      signal: over.signal,
    }).then(() => call.end(), cancel);
  } else {
    call.end(encodeRequest(request));
  }
  return method.methodKind === "unary" || method.methodKind === "client_streaming"
    ? only(answers, method)
    : answers;
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
