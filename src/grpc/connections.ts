/**
 * The connections of a server and what each peer takes of it: sockets, calls, and bytes that wait in
 * memory. What goes beyond a limit is refused here, before any work is done for it, and costs nobody
 * else anything:
 *
 * - A connection too many takes the place of one that has made no call yet: the oldest one of the peer
 *   that has most connections. If every connection is in use, the new one is closed.
 * - A call too many is answered with RESOURCE_EXHAUSTED. A connection that opens more in one turn of the
 *   event loop than it may have at a time, twice over, resets them itself as fast, and is closed.
 * - When too many bytes wait, the call that holds most of them ends with RESOURCE_EXHAUSTED: of the
 *   same connection if that is over its limit, else of the connection that holds most of all.
 */

import type { Socket } from "node:net";
import type { Clock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { stopReading } from "./grpc-js-internals.ts";
import type { ServerLimits } from "./limits.ts";
import {
  Connection,
  connectionOf,
  markSocket,
  type Peer,
  Stream,
  type StreamControls,
  type StreamCounts,
} from "./open-stream.ts";
import { peerAddress } from "./peer-address.ts";
import { type Refusals, sweepEveryMs } from "./refusals.ts";

/** How long a peer may take to read the status of a call that has ended, in milliseconds. */
const lastStatusMs = 1_000;

/**
 * The most DATA frames of a connection that are handled in one turn of the event loop; some ten
 * milliseconds' worth. libuv reads up to 2 MiB of a socket in a turn, and in tiny frames that is work
 * for a second, in which nobody else is served.
 */
export const maxFramesPerTurn = 1_024;

export interface ConnectionsOptions {
  readonly limits: ServerLimits;
  readonly refusals: Refusals;
  readonly clock: Clock;
}

export class Connections implements StreamCounts {
  readonly #limits: ServerLimits;
  readonly #refusals: Refusals;
  readonly #clock: Clock;
  readonly #bySocket = new Map<Socket, Connection>();
  /** Those that have made no call yet, the oldest first. */
  readonly #silent = new Set<Connection>();
  readonly #peers = new Map<string, Peer>();
  #streams = 0;
  #waitingBytes = 0;
  #onEmpty = () => {};

  constructor({ limits, refusals, clock }: ConnectionsOptions) {
    this.#limits = limits;
    this.#refusals = refusals;
    this.#clock = clock;
  }

  /** Counts an accepted socket until it closes. Returns false if there is no room, and closes it then. */
  accept(socket: Socket): boolean {
    const address = peerAddress(socket.remoteAddress);
    const peer = address === undefined ? undefined : this.#peer(address);
    if (!this.#hasRoom(peer)) {
      socket.destroy();
      return false;
    }
    if (peer !== undefined) {
      peer.connections += 1;
      this.#peers.set(peer.address, peer);
    }
    const connection = new Connection(socket, peer, this.#clock.monotonic());
    this.#bySocket.set(socket, connection);
    markSocket(socket, connection);
    this.#silent.add(connection);
    peer?.silent.add(connection);
    socket.once("close", () => this.#forget(connection));
    return true;
  }

  /** Counts a call until its `close`. A StatusError says why there is no room for it. */
  open(socket: object | undefined, controls: StreamControls): Stream | StatusError {
    const connection = connectionOf(socket);
    if (connection === undefined) {
      return new StatusError("UNAVAILABLE", "the connection is closed");
    }
    const { peer } = connection;
    const isFirst = this.#silent.delete(connection);
    peer?.silent.delete(connection);
    const { maxStreams, maxStreamsPerPeer, maxStreamsPerConnection } = this.#limits;
    this.#countInTurn(connection, "opened");
    // libuv reads at most 64 KiB of a client that waits for answers, which are its calls of one turn.
    if (connection.opened > 2 * maxStreamsPerConnection) {
      this.#refusals.note("connection closed: it opens calls and resets them", {
        limit: "maxStreamsPerConnection",
        at_most: maxStreamsPerConnection,
        peer: peer?.address,
      });
      controls.disconnect();
      return new StatusError("UNAVAILABLE", "the connection is closed");
    }
    if (peer !== undefined && peer.streams >= maxStreamsPerPeer) {
      return this.#refuse(
        `${peer.streams} calls of ${peer.address} are open; at most ${maxStreamsPerPeer} of one peer are allowed`,
        "maxStreamsPerPeer",
      );
    }
    if (this.#streams >= maxStreams) {
      return this.#refuse(
        `${this.#streams} calls are open; at most ${maxStreams} are allowed`,
        "maxStreams",
      );
    }
    const stream = new Stream(this, connection, controls);
    if (isFirst) {
      stream.firstCallMs = this.#clock.monotonic() - connection.acceptedAt;
    }
    connection.streams.add(stream);
    this.#streams += 1;
    if (peer !== undefined) {
      peer.streams += 1;
    }
    return stream;
  }

  close(stream: Stream): void {
    if (!stream.connection.streams.delete(stream)) {
      return;
    }
    this.#release(stream);
    this.#streams -= 1;
    if (stream.connection.peer !== undefined) {
      stream.connection.peer.streams -= 1;
    }
  }

  #release(stream: Stream): void {
    this.charge(stream, -stream.waitingBytes);
    stream.isOpen = false;
  }

  now(): number {
    return this.#clock.monotonic();
  }

  /**
   * Closes connections that have not made their first call in time, and streams whose calls have ended
   * and whose peers neither read the status nor stop sending. Lets the log have the counts of what was
   * refused. Goes on until the signal aborts.
   */
  async sweep({ signal }: { readonly signal: AbortSignal }): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(sweepEveryMs, { signal });
        const now = this.now();
        for (const { streams } of this.#bySocket.values()) {
          for (const stream of streams) {
            if (stream.endedAt !== undefined && now - stream.endedAt > lastStatusMs) {
              stream.reset();
            }
          }
        }
        const before = now - this.#limits.firstCallTimeoutMs;
        for (const connection of this.#silent) {
          if (connection.acceptedAt > before) {
            break;
          }
          this.#refusals.note("connection closed: no call in time", {
            limit: "firstCallTimeoutMs",
            peer: connection.peer?.address,
          });
          connection.socket.destroy();
        }
        this.#refusals.report();
      }
    } catch (error) {
      if (!signal.aborted) {
        throw error;
      }
    }
  }

  /** Resolves when no connection is left. */
  closed(): Promise<void> {
    return new Promise((resolve) => {
      this.#onEmpty = resolve;
      this.#checkEmpty();
    });
  }

  #checkEmpty(): void {
    if (this.#bySocket.size === 0) {
      this.#onEmpty();
    }
  }

  /** Cuts off what is still connected. */
  destroy(): void {
    for (const socket of this.#bySocket.keys()) {
      socket.destroy();
    }
  }

  #peer(address: string): Peer {
    return this.#peers.get(address) ?? { address, connections: 0, streams: 0, silent: new Set() };
  }

  #hasRoom(peer: Peer | undefined): boolean {
    const { maxConnections, maxConnectionsPerPeer } = this.#limits;
    const isOver =
      peer !== undefined && peer.connections >= maxConnectionsPerPeer
        ? "maxConnectionsPerPeer"
        : this.#bySocket.size >= maxConnections
          ? "maxConnections"
          : undefined;
    if (isOver === undefined) {
      return true;
    }
    const silent = first(
      isOver === "maxConnectionsPerPeer"
        ? peer?.silent
        : (this.#mostConnected()?.silent ?? this.#silent),
    );
    this.#refusals.note(
      silent === undefined ? "connection refused" : "connection without a call closed for another",
      { limit: isOver, at_most: this.#limits[isOver], peer: (silent?.peer ?? peer)?.address },
    );
    if (silent === undefined) {
      return false;
    }
    // Its descriptor is free only later, but what counts here is free now.
    this.#forget(silent);
    silent.socket.destroy();
    return true;
  }

  /** The peer that has most connections, of those that have one which made no call yet. */
  #mostConnected(): Peer | undefined {
    let most: Peer | undefined;
    for (const peer of this.#peers.values()) {
      if (peer.silent.size > 0 && peer.connections > (most?.connections ?? 0)) {
        most = peer;
      }
    }
    return most;
  }

  #forget(connection: Connection): void {
    if (!this.#bySocket.delete(connection.socket)) {
      return;
    }
    const { peer } = connection;
    this.#silent.delete(connection);
    peer?.silent.delete(connection);
    for (const stream of connection.streams) {
      this.close(stream);
    }
    if (peer !== undefined) {
      peer.connections -= 1;
      if (peer.connections === 0) {
        this.#peers.delete(peer.address);
      }
    }
    this.#checkEmpty();
  }

  #refuse(message: string, limit: keyof ServerLimits): StatusError {
    this.#refusals.note("call refused", { limit, why: message });
    return new StatusError("RESOURCE_EXHAUSTED", message);
  }

  /** Counts a DATA frame. When there are many in one turn, the rest waits for the next turn. */
  countFrame(connection: Connection): void {
    this.#countInTurn(connection, "frames");
    if (connection.frames === maxFramesPerTurn) {
      const startReading = stopReading(connection.socket);
      this.#clock.sleep(0, { signal: never }).then(startReading);
    }
  }

  #countInTurn(connection: Connection, what: "frames" | "opened"): void {
    if (connection.frames + connection.opened === 0) {
      this.#clock.sleep(0, { signal: never }).then(() => {
        connection.frames = 0;
        connection.opened = 0;
      });
    }
    connection[what] += 1;
  }

  /** Counts bytes that wait, and ends calls until they are within the limits. */
  charge(stream: Stream, bytes: number): void {
    const { connection } = stream;
    stream.waitingBytes += bytes;
    connection.waitingBytes += bytes;
    this.#waitingBytes += bytes;
    if (bytes <= 0) {
      return;
    }
    const { maxWaitingBytes, maxWaitingBytesPerConnection } = this.#limits;
    while (connection.waitingBytes > maxWaitingBytesPerConnection) {
      this.#endLargest(
        connection,
        "maxWaitingBytesPerConnection",
        `${connection.waitingBytes} bytes of this connection wait to be read; at most ${maxWaitingBytesPerConnection} are allowed`,
      );
    }
    while (this.#waitingBytes > maxWaitingBytes) {
      this.#endLargest(
        largest(this.#bySocket.values()) ?? connection,
        "maxWaitingBytes",
        `${this.#waitingBytes} bytes of all connections wait to be read; at most ${maxWaitingBytes} are allowed, and this connection has most of them`,
      );
    }
  }

  /** Ends the call of the connection that holds most, and so frees what it holds. */
  #endLargest(connection: Connection, limit: keyof ServerLimits, message: string): void {
    const stream = largest(connection.streams);
    if (stream === undefined) {
      throw new Error("bytes wait for a connection without calls");
    }
    const why = this.#refuse(message, limit);
    this.#release(stream);
    stream.refuse(why);
  }
}

const never = new AbortController().signal;

function first<T>(all: Iterable<T> = []): T | undefined {
  for (const one of all) {
    return one;
  }
  return undefined;
}

function largest<T extends { readonly waitingBytes: number }>(all: Iterable<T>): T | undefined {
  let found: T | undefined;
  for (const one of all) {
    if (found === undefined || one.waitingBytes > found.waitingBytes) {
      found = one;
    }
  }
  return found;
}
