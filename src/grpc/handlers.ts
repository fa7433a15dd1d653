/**
 * What a handler is: a plain async function or generator, typed from the service's descriptor.
 *
 * It never sees grpc-js. It reads its request (or loops over its requests), returns or yields plain
 * objects, refuses by throwing `StatusError`, and watches one signal.
 */

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
import { type Check, type RequestBounds, requestCheck } from "./bounds.ts";

/** What a handler knows of its call beside the request. */
export interface CallContext {
  /**
   * Aborts when the call is over before the handler is; nothing can be sent any more. The reason
   * is a `StatusError` whose message says why: `client gone`, `deadline exceeded`, `server shutting
   * down`, `request refused` (too large, or in a broken encoding), or what is malformed about it.
   */
  readonly signal: AbortSignal;
  /** The request's headers. A name may have several values; those of `-bin` names are bytes. */
  readonly metadata: { get(name: string): readonly (string | Buffer)[] };
  /** Sends the answer's headers now, before the first message; else they go with it. Once a call. */
  sendHeaders(headers: Readonly<Record<string, string>>): void;
  /**
   * Resolves when the client's HTTP/2 layer has received everything that was written to the call so
   * far. Rejects with the signal's reason when the call is over before that.
   */
  flushed(): Promise<void>;
  /** `address:port` of the client, or `unknown` on a unix socket. */
  readonly peer: string;
}

/**
 * The handler of a method, by its shape. A loop over requests ends when the client has half-closed
 * and throws the signal's reason when it has gone: "the loop ended" means that the client meant it.
 */
export type Handler<M extends DescMethod> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, context: CallContext) => Promise<MessageInitShape<O>>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, context: CallContext) => AsyncIterable<MessageInitShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (
            requests: AsyncIterable<MessageShape<I>>,
            context: CallContext,
          ) => Promise<MessageInitShape<O>>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (
              requests: AsyncIterable<MessageShape<I>>,
              context: CallContext,
            ) => AsyncIterable<MessageInitShape<O>>
          : never;

/** A handler for each method; a missing, unknown or ill-typed one does not compile. */
export type Handlers<S extends DescService> = {
  readonly [K in keyof S["method"]]: Handler<S["method"][K]>;
};

/** A service with its handlers, as `listen` takes it. Made by `implement` alone. */
export interface Implementation {
  readonly service: DescService;
  /** The name in the rpcs' paths. */
  readonly typeName: string;
  readonly handlers: Readonly<Record<string, UntypedHandler>>;
  /** The check of each method's requests; undefined for those that the handler checks itself. */
  readonly checks: Readonly<Record<string, Check | undefined>>;
}

/**
 * A handler of any shape, for the code that calls it. Whether `request` is a message or a loop, and
 * which of the two the handler returns, is the descriptor's `methodKind`.
 */
export type UntypedHandler = (
  request: unknown,
  context: CallContext,
) => Promise<object> | AsyncIterable<object>;

export interface ImplementOptions<S extends DescService> {
  /** The bounds of every request; a message outside of them never reaches its handler. */
  readonly bounds: RequestBounds<S>;
  /** Serves the same methods under another name, such as a protocol's older package. */
  readonly typeName?: string;
}

/** Pairs a service with its handlers and the bounds of its requests, for `listen`. */
export function implement<S extends DescService>(
  service: S,
  handlers: Handlers<S>,
  { bounds, typeName = service.typeName }: ImplementOptions<S>,
): Implementation {
  return {
    service,
    typeName,
    handlers: handlers as Implementation["handlers"],
    checks: Object.fromEntries(
      service.methods.map((method) => [method.localName, requestCheck(method, bounds)]),
    ),
  };
}
