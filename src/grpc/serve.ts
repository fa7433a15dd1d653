/** A server: what it serves, what it lets peers take, and how it stops. */

import type { Socket } from "node:net";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import type { Address } from "../address.ts";
import { systemClock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { Connections } from "./connections.ts";
import { wireService } from "./definition.ts";
import { widenIfFar } from "./far-peer.ts";
import { FrameDecoder, framedBytes } from "./frames.ts";
import { type InnerCall, onEachCall } from "./grpc-js-internals.ts";
import type { Implementation } from "./handlers.ts";
import { defaultLimits, type ServerLimits } from "./limits.ts";
import { maxOpenFiles, openListener } from "./listener.ts";
import type { OpenStream } from "./open-stream.ts";
import { maxMessageBytes, serverOptions } from "./options.ts";
import { Refusals } from "./refusals.ts";
import { RunningCalls } from "./running-calls.ts";

export type { CallContext, Handlers, Implementation } from "./handlers.ts";
export { implement } from "./handlers.ts";

export interface ListenOptions {
  readonly address: Address;
  /** The mode of a unix socket's file; `defaultSocketMode` if left out. */
  readonly socketMode?: number | undefined;
  readonly implementations: readonly Implementation[];
  readonly log: Logger;
  /** Those that differ from the defaults. */
  readonly limits?: Partial<ServerLimits>;
}

/** The user who runs the server and that user's group may connect to its unix socket. */
export const defaultSocketMode = 0o660;

export interface StopOptions {
  /** How long running calls may go on, in milliseconds. */
  readonly graceMs: number;
  /** Ends the grace early. */
  readonly force: AbortSignal;
}

export interface RunningServer {
  /** The port, also when any free one was asked for; undefined on a unix socket. */
  readonly port: number | undefined;
  /**
   * Takes no more calls. Calls that stream their answers end at once with UNAVAILABLE "server
   * shutting down"; calls with one answer may finish within the grace and end the same way after
   * it. What is left a second later, such as a stream whose client has stopped reading, is cut off,
   * which its client sees as CANCELLED. Resolves when every call has its status or was cut off.
   */
  stop(options: StopOptions): Promise<void>;
}

/**
 * How long the last statuses may take to reach their clients, and connections without a call to
 * close, in milliseconds.
 */
const lastWordsMs = 1_000;

/** The statuses of calls that are cut off get this long to leave, and then their resets, in milliseconds. */
const cutOffMs = 50;

const never = new AbortController().signal;

/** Files that the process needs for other things than connections: ledgers, logs, pipes. */
const filesOfOurs = 64;

/**
 * Below this limit of open files the log says how many peers can connect. It is a quarter of the 1,024
 * that most systems allow: with less, the tills of one large store may not all get in.
 */
const fewOpenFiles = 256;

/** How much of all connections one peer may have. */
const largestShare = 3 / 4;

/** Throws `UsageError`, naming the address and what to do, if it cannot listen there. */
export async function listen(options: ListenOptions): Promise<RunningServer> {
  const { address, implementations, log, socketMode = defaultSocketMode } = options;
  const openFiles = maxOpenFiles();
  const limits = withinOpenFiles({ ...defaultLimits, ...options.limits }, openFiles);
  if (openFiles !== undefined && openFiles < fewOpenFiles) {
    log.warn("the process may have few files open, so few peers can connect", {
      open_files: openFiles,
      connections: limits.maxConnections,
      of_one_peer: limits.maxConnectionsPerPeer,
      hint: "raise the limit: ulimit -n, or LimitNOFILE= of a systemd unit",
    });
  }
  const calls = new RunningCalls(options);
  const refusals = new Refusals({ log });
  const connections = new Connections({ limits, refusals, clock: systemClock });
  const server = new Server({
    ...serverOptions,
    "grpc.max_concurrent_streams": limits.maxStreamsPerConnection,
    "grpc.max_connection_idle_ms": limits.idleTimeoutMs,
    interceptors: [onEachCall((call) => admit(call, { connections, limits, refusals }))],
  });
  for (const { service, typeName, handlers, checks } of implementations) {
    server.addService(
      wireService(service, typeName),
      Object.fromEntries(
        service.methods.map((method) => {
          const handler = handlers[method.localName];
          if (handler === undefined) {
            throw new TypeError(`${service.typeName} has no handler for ${method.name}`);
          }
          return [method.localName, calls.handle(method, handler, checks[method.localName])];
        }),
      ),
    );
  }

  // We listen ourselves and hand each connection on, since grpc-js tells nobody of connections and has
  // no limits for them.
  const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
  const listener = await openListener(address, {
    socketMode,
    onConnection(socket: Socket) {
      if (connections.accept(socket)) {
        injector.injectConnection(socket);
      }
    },
    onError: (error) =>
      refusals.note("connection not accepted", { limit: "open files", why: error.message }),
  });
  const over = new AbortController();
  const swept = connections.sweep({ signal: over.signal });

  return {
    port: listener.port,
    async stop({ graceMs, force }) {
      const shuttingDown = new StatusError("UNAVAILABLE", "server shutting down");
      listener.close();
      calls.stop("streaming", shuttingDown);
      // Connections close when their last call has its status; what tells us that is not the callback,
      // which does not wait for connections that were handed to it.
      server.tryShutdown(() => {});
      await isWithin(calls.idle(), graceMs, { signal: force });
      calls.stop("all", shuttingDown);
      const quiet = Promise.all([calls.idle(), connections.closed()]);
      if (
        !(await isWithin(quiet, lastWordsMs, { signal: force })) &&
        // The statuses leave even if the stop is forced: a reset that overtakes one says CANCELLED instead.
        !(await isWithin(quiet, cutOffMs, { signal: never }))
      ) {
        // What is left of calls is reset, and then the sockets go, whatever their peers do.
        injector.drain(0);
        await systemClock.sleep(cutOffMs, { signal: never });
      }
      connections.destroy();
      over.abort();
      await swept;
    },
  };
}

/** Leaves a call to its handler, or ends it if there is no room for it. Nothing of it was read yet. */
function admit(
  call: InnerCall,
  {
    connections,
    limits,
    refusals,
  }: {
    readonly connections: Connections;
    readonly limits: ServerLimits;
    readonly refusals: Refusals;
  },
): void {
  const stream = connections.open(call.socket, {
    end: (why) => call.fail(why),
    reset: (options) => call.reset(options),
    disconnect: () => call.disconnect(),
  });
  if (stream instanceof StatusError) {
    if (call.http2.destroyed) {
      return;
    }
    call.fail(stream);
    // Nothing but the status was written, and HTTP/2 sends that first.
    call.http2.close();
    return;
  }
  call.http2.once("close", () => connections.close(stream));
  const refuse = (why: StatusError) => {
    call.fail(why);
    stream.ended();
  };
  if (call.deadline <= systemClock.monotonic()) {
    refuse(new StatusError("DEADLINE_EXCEEDED", "the deadline had passed when the call came"));
    return;
  }
  const headerBytes = sizeOf(call.metadata.toJSON());
  if (headerBytes > limits.maxHeaderBytes) {
    const why = `the metadata has ${headerBytes} bytes; at most ${limits.maxHeaderBytes} are allowed`;
    refusals.note("call refused", { limit: "maxHeaderBytes", why });
    refuse(new StatusError("RESOURCE_EXHAUSTED", why));
    return;
  }
  widenIfFar(call.http2.session, stream.firstCallMs);
  call.openStream = stream;
  call.decodeWith(countedDecoder(stream));
}

/**
 * A decoder that counts what waits in memory. It has a scope of its own, so that nothing else which
 * belongs to a call keeps it, and the message that it holds, alive.
 */
function countedDecoder(stream: OpenStream): (bytes: Buffer) => Buffer[] {
  const decoder = new FrameDecoder({ maxMessageBytes });
  return (bytes) => {
    stream.countFrame();
    const before = decoder.heldBytes;
    const messages = decoder.push(bytes);
    const whole = messages.reduce((sum, message) => sum + framedBytes(message), 0);
    // A message in pieces counts with the memory that it was given, which may be twice what has come.
    stream.charge(whole + decoder.heldBytes - before);
    return stream.isOpen ? messages : [];
  };
}

/** HTTP/2 counts 32 bytes for each pair beside its name and value (RFC 9113, section 6.5.2). */
function sizeOf(headers: Readonly<Record<string, readonly (string | Buffer)[]>>): number {
  return Object.entries(headers).reduce(
    (sum, [name, values]) =>
      values.reduce((size, value) => size + name.length + value.length + 32, sum),
    0,
  );
}

function withinOpenFiles(limits: ServerLimits, openFiles = Number.POSITIVE_INFINITY): ServerLimits {
  const room = openFiles - filesOfOurs;
  const maxConnections = Math.max(1, Math.min(limits.maxConnections, room));
  // One peer never has all places.
  const ofPeer = Math.ceil(maxConnections * largestShare);
  return {
    ...limits,
    maxConnections,
    maxConnectionsPerPeer: Math.min(limits.maxConnectionsPerPeer, ofPeer),
  };
}

/** Whether the promise resolves within so many milliseconds, and before the signal aborts. */
async function isWithin(
  promise: Promise<unknown>,
  ms: number,
  { signal }: { signal: AbortSignal },
): Promise<boolean> {
  const over = new AbortController();
  const timeout = systemClock.sleep(ms, { signal: AbortSignal.any([signal, over.signal]) });
  const isFirst = await Promise.race([
    promise.then(() => true),
    timeout.then(
      () => false,
      () => false,
    ),
  ]);
  over.abort();
  return isFirst;
}
