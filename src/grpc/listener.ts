/** Where a server listens: TCP addresses and unix sockets, and what stands in the way of one. */

import { lookup } from "node:dns/promises";
import { readFileSync } from "node:fs";
import { stat, unlink } from "node:fs/promises";
import {
  type AddressInfo,
  connect,
  createServer,
  type ListenOptions,
  type Server,
  type Socket,
} from "node:net";
import { dirname } from "node:path";
import { type Address, formatAddress } from "../address.ts";
import { messageOf, UsageError } from "../errors.ts";
import { bindWithMode } from "./socket-mode.ts";

/**
 * How many connections the system keeps until this process accepts them; it may allow fewer. Without
 * it Node asks for 511, and a client that finds the queue full during a flood of connections waits
 * until TCP tries again, a second later and then three.
 */
export const maxConnectionsToAccept = 4096;

export interface Listener {
  /** The port, also when any free one was asked for; undefined on a unix socket. */
  readonly port: number | undefined;
  /** Takes no more connections. Those that are there stay. */
  close(): void;
}

export interface ListenerOptions {
  /** The mode of a unix socket's file. */
  readonly socketMode: number;
  readonly onConnection: (socket: Socket) => void;
  /** Is told of a connection that could not be accepted, such as for want of a file descriptor. */
  readonly onError: (error: Error) => void;
}

/**
 * Listens on every address that the host stands for, so that no other server answers on one of them.
 * Throws `UsageError`, naming the address and what to do, if it cannot.
 */
export async function openListener(
  address: Address,
  { socketMode, onConnection, onError }: ListenerOptions,
): Promise<Listener> {
  const servers: Server[] = [];
  const close = () => {
    for (const server of servers) {
      server.close();
    }
  };
  const bind = async (
    options: ListenOptions,
    need: "optional" | "needed",
  ): Promise<number | undefined> => {
    const server = createServer(onConnection);
    try {
      const listening = () =>
        new Promise<void>((resolve, reject) => {
          server.once("error", reject);
          server.listen({ backlog: maxConnectionsToAccept, ...options }, resolve);
        });
      await (options.path === undefined ? listening() : bindWithMode(socketMode, listening));
    } catch (error) {
      if (need === "optional" && isOneOf(error, ["EADDRNOTAVAIL", "EAFNOSUPPORT"])) {
        return undefined;
      }
      throw explained(error, address);
    }
    server.removeAllListeners("error").on("error", onError);
    servers.push(server);
    const bound = server.address() as AddressInfo | string;
    return typeof bound === "string" ? 0 : bound.port;
  };
  try {
    return { port: await bindAll(address, bind), close };
  } catch (error) {
    close();
    throw error;
  }
}

type Bind = (options: ListenOptions, need: "optional" | "needed") => Promise<number | undefined>;

/** The port. An address that the machine does not have may be missing, but not all of them. */
async function bindAll(address: Address, bind: Bind): Promise<number | undefined> {
  if (address.kind === "unix") {
    await removeStaleSocket(address.path);
    await bind({ path: address.path }, "needed");
    return undefined;
  }
  if (address.host === "") {
    // `::` takes IPv4 too; a machine without IPv6 has only the other.
    const port = await bind({ host: "::", port: address.port }, "optional");
    return port ?? bind({ host: "0.0.0.0", port: address.port }, "needed");
  }
  const hosts = await lookup(address.host, { all: true, order: "ipv4first" }).catch((error) => {
    throw new UsageError(`cannot listen on ${formatAddress(address)}: no such host`, {
      hint: "use :PORT for all interfaces or localhost:PORT for this machine alone",
      cause: error,
    });
  });
  // A hosts file may list ::1 where there is no IPv6.
  let port: number | undefined;
  for (const [i, { address: host }] of hosts.entries()) {
    const isLastChance = port === undefined && i === hosts.length - 1;
    const bound = await bind(
      { host, port: port ?? address.port },
      isLastChance ? "needed" : "optional",
    );
    port ??= bound;
  }
  return port;
}

function isOneOf(error: unknown, codes: readonly string[]): boolean {
  return codes.includes((error as NodeJS.ErrnoException).code ?? "");
}

function explained(error: unknown, asked: Address): UsageError {
  const address = formatAddress(asked);
  if (isOneOf(error, ["EADDRINUSE"])) {
    return new UsageError(`cannot listen on ${address}: it is already in use`, {
      hint:
        asked.kind === "unix"
          ? "stop the other server, or choose another path with --addr"
          : "stop the other server, or choose another port with --addr, such as --addr localhost:0 for any free one",
      cause: error,
    });
  }
  const why = isOneOf(error, ["EACCES", "EPERM"])
    ? "permission denied"
    : isOneOf(error, ["EADDRNOTAVAIL"])
      ? "this machine has no such address"
      : isOneOf(error, ["ENOENT"])
        ? "no such folder"
        : messageOf(error);
  return new UsageError(`cannot listen on ${address}: ${why}`, { cause: error });
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

/** How many files this process may have open; undefined where the system does not say. */
export function maxOpenFiles(): number | undefined {
  try {
    const limits = readFileSync("/proc/self/limits", "utf8");
    const soft = /^Max open files\s+(\d+)/m.exec(limits)?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    // There is no such file on other systems than Linux.
    return undefined;
  }
}
