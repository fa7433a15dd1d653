/** A server: where it listens, and how it stops. */

import { lookup } from "node:dns/promises";
import { stat, unlink } from "node:fs/promises";
import { connect } from "node:net";
import { dirname } from "node:path";
import { Server, ServerCredentials } from "@grpc/grpc-js";
import { type Address, formatAddress } from "../address.ts";
import { systemClock } from "../clock.ts";
import { messageOf, StatusError, UsageError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { wireService } from "./definition.ts";
import type { Implementation } from "./handlers.ts";
import { serverOptions } from "./options.ts";
import { RunningCalls } from "./running-calls.ts";

export type { CallContext, Handlers, Implementation } from "./handlers.ts";
export { implement } from "./handlers.ts";

export interface ListenOptions {
  readonly address: Address;
  readonly implementations: readonly Implementation[];
  readonly log: Logger;
}

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

/** Throws `UsageError`, naming the address and what to do, if it cannot listen there. */
export async function listen(options: ListenOptions): Promise<RunningServer> {
  const { address, implementations } = options;
  const calls = new RunningCalls(options);
  const server = new Server(serverOptions);
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

  let port: number | undefined;
  try {
    port = await bind(server, address);
  } catch (error) {
    server.forceShutdown();
    throw error;
  }

  return {
    port,
    async stop({ graceMs, force }) {
      const shuttingDown = new StatusError("UNAVAILABLE", "server shutting down");
      calls.stop("streaming", shuttingDown);
      const closed = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      await isWithin(calls.idle(), graceMs, { signal: force });
      calls.stop("all", shuttingDown);
      const quiet = Promise.all([calls.idle(), closed]);
      if (!(await isWithin(quiet, lastWordsMs, { signal: force }))) {
        server.forceShutdown();
      }
    },
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

/** Binds every address that the host stands for, so that no other server answers on one of them. */
async function bind(server: Server, address: Address): Promise<number | undefined> {
  if (address.kind === "unix") {
    await removeStaleSocket(address.path);
    await bindOne(server, formatAddress(address), address);
    return undefined;
  }
  if (address.host === "") {
    // `::` takes IPv4 too; a machine without IPv6 has only the other.
    const port = await bindOne(server, `[::]:${address.port}`, address, "optional");
    return port ?? bindOne(server, `0.0.0.0:${address.port}`, address);
  }
  const hosts = await lookup(address.host, { all: true, order: "ipv4first" }).catch((error) => {
    throw new UsageError(`cannot listen on ${formatAddress(address)}: no such host`, {
      hint: "use :PORT for all interfaces or localhost:PORT for this machine alone",
      cause: error,
    });
  });
  let { port } = address;
  let isBound = false;
  for (const [i, { address: ip }] of hosts.entries()) {
    const isLast = i === hosts.length - 1;
    const target = formatAddress({ kind: "tcp", host: ip, port });
    const bound = await bindOne(
      server,
      target,
      address,
      isBound || !isLast ? "optional" : "needed",
    );
    port = bound ?? port;
    isBound ||= bound !== undefined;
  }
  return port;
}

/**
 * The port, or undefined if it is optional and the machine has no such interface (a hosts file may
 * list ::1 where there is no IPv6).
 */
async function bindOne(
  server: Server,
  target: string,
  asked: Address,
  need: "optional" | "needed" = "needed",
): Promise<number | undefined> {
  try {
    return await new Promise<number>((resolve, reject) => {
      server.bindAsync(target, ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
  } catch (error) {
    const message = messageOf(error);
    const has = (code: string) => message.includes(code);
    if (need === "optional" && (has("EADDRNOTAVAIL") || has("EAFNOSUPPORT"))) {
      return undefined;
    }
    const address = formatAddress(asked);
    if (has("EADDRINUSE")) {
      throw new UsageError(`cannot listen on ${address}: it is already in use`, {
        hint:
          asked.kind === "unix"
            ? "stop the other server, or choose another path with --addr"
            : "stop the other server, or choose another port with --addr, such as --addr localhost:0 for any free one",
        cause: error,
      });
    }
    const why =
      has("EACCES") || has("EPERM")
        ? "permission denied"
        : has("EADDRNOTAVAIL")
          ? "this machine has no such address"
          : has("ENOENT")
            ? "no such folder"
            : message;
    throw new UsageError(`cannot listen on ${address}: ${why}`, { cause: error });
  }
}

/** A server that was killed leaves its socket file behind, and nothing could be bound there again. */
async function removeStaleSocket(path: string): Promise<void> {
  // Asked to bind there, the system says EACCES, which would send the reader the wrong way.
  await stat(dirname(path)).catch((error) => {
    throw new UsageError(`cannot listen on unix:${path}: no such folder`, { cause: error });
  });
  const found = await stat(path).catch(() => undefined);
  if (found === undefined) {
    return;
  }
  if (!found.isSocket()) {
    throw new UsageError(`cannot listen on unix:${path}: a file that is no socket is in the way`);
  }
  const isAlive = await new Promise<boolean>((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    // Only these say that nobody is there; a busy server, or another user's, fails otherwise.
    socket.once("error", ({ code }: NodeJS.ErrnoException) =>
      resolve(code !== "ECONNREFUSED" && code !== "ENOENT"),
    );
  });
  if (!isAlive) {
    await unlink(path);
  }
}
