/**
 * All that we reach of grpc-js and Node beyond their documented interfaces. Nothing else in this
 * repository does; test/grpc/grpc-js-internals.test.ts says when a release keeps these things elsewhere.
 *
 * What for, and why no documented way will do:
 *
 * - Messages that have gathered leave in one write. grpc-js writes the next only when the connection has
 *   taken the one before, which costs a system call for every message and wakes the peer as often.
 * - Incoming bytes pass our own decoder, which bounds what a message in pieces takes of memory and
 *   refuses compressed ones. grpc-js has no options for either.
 * - A connection's state is found from a call, to count and bound what waits for it, and to tell a slow
 *   connection from a dead one.
 * - A cancelled call leaves the wire as RST_STREAM alone. Node half-closes a stream before it resets
 *   it, and a server that reads the half-close first takes a cancelled upload for a complete one.
 */

import { constants, type Http2Session, type Http2Stream, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import type {
  Metadata,
  ServerInterceptingCall,
  ServerInterceptor,
  StatusObject,
} from "@grpc/grpc-js";
import { StreamDecoder } from "@grpc/grpc-js/build/src/stream-decoder.js";
import { systemClock } from "../clock.ts";
import type { StatusError } from "../errors.ts";
import { FrameDecoder, framed, headerBytes } from "./frames.ts";
import type { OpenStream } from "./open-stream.ts";
import { maxMessageBytes } from "./options.ts";
import { Requests } from "./requests.ts";
import { toWireStatus } from "./status.ts";

/** What we use of grpc-js's BaseServerInterceptingCall, the innermost object of a server's call. */
interface BaseCall {
  readonly stream: ServerHttp2Stream;
  readonly metadata: Metadata;
  readonly readQueue: { type: "READABLE"; compressedMessage: null; parsedMessage: Buffer }[];
  getDeadline(): Date | number;
  checkCancelled(): boolean;
  maybeSendMetadata(): void;
  maybePushNextMessage(): void;
  handleDataFrame(bytes: Buffer): void;
  handleEndEvent(): void;
  sendStatus(status: Partial<StatusObject>): void;
}

/**
 * Several messages as one that grpc-js writes at once, on either side of a call. grpc-js puts a header
 * before a message and copies the message behind it. This one holds the frames of all messages, and
 * copies them over the header as well.
 */
export function together(messages: readonly Buffer[], totalBytes: number): Buffer {
  const [first] = messages;
  if (first !== undefined && messages.length === 1) {
    return first;
  }
  const frames = framed(messages, totalBytes);
  const copy = (target: Uint8Array) => frames.copy(target);
  return Object.assign(frames.subarray(headerBytes), { copy });
}

const innerCalls = new WeakMap<object, InnerCall>();

/** A call of the server before and below any handler. */
export class InnerCall {
  /** What the call takes of its connection; set when the call was admitted. */
  openStream: OpenStream | undefined;
  /** When the client will have given up, as `systemClock.monotonic()` counts; Infinity if it did not say. */
  readonly deadline: number;
  #requests: Requests | undefined;
  readonly #base: BaseCall;

  /** To be called as soon as the call has come, since its deadline is a time of the wall clock until then. */
  constructor(base: BaseCall) {
    this.#base = base;
    const leftMs = Number(base.getDeadline()) - systemClock.now();
    this.deadline = systemClock.monotonic() + leftMs;
  }

  /** The HTTP/2 stream of the call. */
  get http2(): ServerHttp2Stream {
    return this.#base.stream;
  }

  /** Stands for the socket of the connection; undefined if that is closed. */
  get socket(): object | undefined {
    const { session } = this.http2;
    return session === undefined || session.destroyed ? undefined : session.socket;
  }

  /** The headers that the client sent, without those that are gRPC's own. */
  get metadata(): Metadata {
    return this.#base.metadata;
  }

  /** Hands all incoming bytes to `decode` instead of grpc-js's decoder. What it throws ends the call. */
  decodeWith(decode: (bytes: Buffer) => Buffer[]): void {
    const base = this.#base;
    base.handleDataFrame = (bytes) => {
      // A call that has ended still drains what its peer had sent.
      if (base.checkCancelled()) {
        return;
      }
      try {
        this.#deliver(decode(bytes));
      } catch (error) {
        base.sendStatus(toWireStatus(error));
        this.discardInput();
        // The stream is reset a little later if its peer goes on sending. Not now: Node may forget it while
        // nghttp2 still asks for its trailers, and then sends empty frames without end.
        this.openStream?.ended();
      }
    };
  }

  /** Gives a single request to grpc-js, which calls the handler with it at the client's half-close. */
  #deliver = (messages: readonly Buffer[]): void => {
    const base = this.#base;
    for (const parsedMessage of messages) {
      base.stream.pause();
      base.readQueue.push({ type: "READABLE", compressedMessage: null, parsedMessage });
    }
    base.maybePushNextMessage();
  };

  /** Gives all further requests to a handler that reads a stream of them. grpc-js sees none of them. */
  requests(charge: (bytes: number) => void): Requests {
    const base = this.#base;
    const requests = new Requests({
      pause: () => base.stream.pause(),
      resume: () => base.stream.resume(),
      charge,
    });
    this.#deliver = (messages) => requests.push(messages);
    base.handleEndEvent = () => requests.end();
    this.#requests = requests;
    base.stream.resume();
    return requests;
  }

  /** Closes the connection at once, with all its calls. */
  disconnect(): void {
    this.http2.session?.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
  }

  /** Ends the call with a status, before or while a handler runs. */
  fail(why: StatusError): void {
    this.#base.sendStatus(toWireStatus(why));
    this.discardInput();
  }

  /** Lets go of what has come and was not read. What comes from now on is drained and dropped. */
  discardInput(): void {
    this.#base.readQueue.length = 0;
    this.#base.handleDataFrame = () => {};
    this.#requests?.discard();
    // Paused, it would keep what is still to come, and the connection's window with it.
    this.#base.stream.resume();
  }

  /**
   * Closes the HTTP/2 stream of a call that has ended, for a peer that still sends. What the peer has
   * not read keeps it open; but if the call `isRefused`, that is lost, and the status with it.
   */
  reset({ isRefused }: { readonly isRefused: boolean }): void {
    const { http2 } = this;
    if (http2.writableFinished) {
      http2.close(constants.NGHTTP2_NO_ERROR);
    } else if (isRefused) {
      http2.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
    }
  }
}

/**
 * Is called for each call of a method that is served, before any of its messages is read. A call that
 * is failed here reaches no handler.
 */
export function onEachCall(admit: (call: InnerCall) => void): ServerInterceptor {
  return (_, call) => {
    const base = call as unknown as BaseCall;
    refuseBrokenTimeout(base);
    const inner = new InnerCall(base);
    innerCalls.set(base, inner);
    admit(inner);
    // An interceptor is meant to wrap the call. A wrapper would cost each message two more calls and
    // would have nothing to do.
    return call as ServerInterceptingCall;
  };
}

/** grpc-js answers a grpc-timeout that it cannot read with INTERNAL, which says that it is our fault. */
function refuseBrokenTimeout(base: BaseCall): void {
  const sendStatus = base.sendStatus.bind(base);
  base.sendStatus = (status) => {
    const isOurs = !status.details?.startsWith("Invalid grpc-timeout");
    sendStatus(
      isOurs
        ? status
        : {
            ...status,
            code: 3,
            details: "grpc-timeout is not a number of up to 8 digits and a unit",
          },
    );
  };
}

/** The inner call of the one that grpc-js hands to a handler. */
export function innerCallOf(call: object): InnerCall {
  const inner = innerCalls.get((call as { readonly call: object }).call);
  if (inner === undefined) {
    throw new TypeError("grpc-js keeps the inner call elsewhere");
  }
  return inner;
}

/** What we use of the handle below a socket, which libuv reads. */
interface Handle {
  readStop(): void;
  readStart(): void;
  readonly writeQueueSize?: number;
}

/**
 * Stops reading a socket that an HTTP/2 session has taken over, also in the middle of a turn of the
 * event loop. Returns what starts it again. `socket.pause()` would not do: the session reads the handle.
 */
export function stopReading(socket: Socket): () => void {
  const handle = () => (socket as { readonly _handle?: Handle | null })._handle;
  handle()?.readStop();
  return () => handle()?.readStart();
}

/** How many bytes libuv still holds for the kernel, whose buffer of the connection is full. */
export function unsentBytes(session: Http2Session): number {
  const { _handle } = session.socket as { readonly _handle?: Handle | null };
  return _handle?.writeQueueSize ?? 0;
}

/** What a layer of a client's call has of the next one, down to the transport's own call. */
interface ClientLayer {
  readonly call?: ClientLayer;
  readonly child?: ClientLayer | null;
  readonly underlyingCalls?: readonly ClientLayer[];
  readonly http2Stream?: Http2Stream;
  readonly transport?: {
    readonly session: Http2Session;
    handleDisconnect(): void;
  };
}

/** The layers of grpc-js 1.14: interceptors, name resolution, retries, load balancing, transport. */
const maxClientLayers = 8;

/** The transport's own object of a client's call; undefined before it was made. */
export function transportCallOf(call: object): ClientLayer | undefined {
  let layer: ClientLayer | null | undefined = call as ClientLayer;
  for (let depth = 0; layer && depth < maxClientLayers; depth++) {
    if (layer.http2Stream !== undefined) {
      return layer;
    }
    layer = layer.underlyingCalls?.at(-1)?.call ?? layer.call ?? layer.child;
  }
  return undefined;
}

/** The HTTP/2 stream of a client's call; undefined before it was made. */
export function clientStreamOf(call: object): Http2Stream | undefined {
  return transportCallOf(call)?.http2Stream;
}

/** The connection of a client's call. */
export interface ClientTransport {
  readonly session: Http2Session;
  /** Closes the connection. Its calls end with UNAVAILABLE, as when the peer had closed it. */
  disconnect(): void;
}

/** The connection of a client's call; undefined before the call was given one. */
export function clientTransportOf(call: object): ClientTransport | undefined {
  const transport = transportCallOf(call)?.transport;
  return transport === undefined
    ? undefined
    : { session: transport.session, disconnect: () => transport.handleDisconnect() };
}

const answerDecoders = new WeakMap<StreamDecoder, FrameDecoder>();

/** For the answers that a client reads, from whatever server: see `FrameDecoder`. */
StreamDecoder.prototype.write = function (this: StreamDecoder, bytes: Buffer): Buffer[] {
  let decoder = answerDecoders.get(this);
  if (decoder === undefined) {
    decoder = new FrameDecoder({ maxMessageBytes, keepsHeaders: true });
    answerDecoders.set(this, decoder);
  }
  return decoder.push(bytes);
};

/**
 * To be called right before a client's call is cancelled. Node ends a stream that it closes, and
 * would send END_STREAM before the RST_STREAM: a half-close, to a server that reads no further.
 */
export function leaveWithoutHalfClose(call: object): void {
  const stream = clientStreamOf(call);
  if (stream !== undefined) {
    stream.end = () => stream;
  }
}
