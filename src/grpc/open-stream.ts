/** A connection and a call of it, as far as they take up room in a server. */

import type { Socket } from "node:net";
import type { StatusError } from "../errors.ts";

/** All connections from one remote address. */
export interface Peer {
  readonly address: string;
  connections: number;
  streams: number;
  /** Its connections that have made no call yet, the oldest first. */
  readonly silent: Set<Connection>;
}

/** A call, as far as it takes up room. */
export interface OpenStream {
  /** False when the call was ended for what it held: it should hold nothing more. */
  readonly isOpen: boolean;
  /** Is to be called for each DATA frame. */
  countFrame(): void;
  /** Counts bytes that wait because of this call; negative when they wait no longer. */
  charge(bytes: number): void;
  /** Takes over how the call is ended when it holds too much. */
  onRefused(end: (why: StatusError) => void): void;
  /** Is to be called when the call has been given its status. */
  ended(): void;
}

/** Where a call's bytes and frames are counted. */
export interface StreamCounts {
  now(): number;
  countFrame(connection: Connection): void;
  charge(stream: Stream, bytes: number): void;
}

/** What can be done to a call from here. */
export interface StreamControls {
  /** Ends the call with a status, and lets go of what it holds. */
  readonly end: (why: StatusError) => void;
  /**
   * Closes the HTTP/2 stream of a call that has ended although the peer may still send. One that has
   * not read all of its answers keeps its time to, unless `isRefused`.
   */
  readonly reset: (options: { readonly isRefused: boolean }) => void;
  /** Closes the connection with all its calls, and takes nothing more of what it has sent. */
  readonly disconnect: () => void;
}

export class Connection {
  readonly socket: Socket;
  readonly peer: Peer | undefined;
  readonly acceptedAt: number;
  readonly streams = new Set<Stream>();
  waitingBytes = 0;
  /** What was handled in this turn of the event loop: DATA frames, and calls that it opened. */
  frames = 0;
  opened = 0;

  constructor(socket: Socket, peer: Peer | undefined, acceptedAt: number) {
    this.socket = socket;
    this.peer = peer;
    this.acceptedAt = acceptedAt;
  }
}

/**
 * How a connection is found from a socket. A map would not do: Node hands out a proxy of an HTTP/2
 * session's socket, which reads the properties of the socket and is another object.
 */
const connectionKey = Symbol("connection");

interface Marked {
  [connectionKey]?: Connection;
}

/** The connection of a socket, or of Node's proxy of one; undefined if it was never marked. */
export function connectionOf(socket: object | undefined): Connection | undefined {
  return (socket as Marked | undefined)?.[connectionKey];
}

export function markSocket(socket: Socket, connection: Connection): void {
  (socket as Marked)[connectionKey] = connection;
}

export class Stream implements OpenStream {
  readonly connection: Connection;
  /** How long the connection took to make this call, if it is its first one, in milliseconds; else 0. */
  firstCallMs = 0;
  waitingBytes = 0;
  isOpen = true;
  /** When the call was given its status, by the monotonic clock. */
  endedAt: number | undefined;
  readonly #counts: StreamCounts;
  readonly #reset: StreamControls["reset"];
  #isRefused = false;
  #end: (why: StatusError) => void;

  constructor(counts: StreamCounts, connection: Connection, { end, reset }: StreamControls) {
    this.#counts = counts;
    this.connection = connection;
    this.#end = end;
    this.#reset = reset;
  }

  countFrame(): void {
    this.#counts.countFrame(this.connection);
  }

  charge(bytes: number): void {
    if (this.isOpen) {
      this.#counts.charge(this, bytes);
    }
  }

  onRefused(end: (why: StatusError) => void): void {
    this.#end = end;
  }

  ended(): void {
    this.endedAt ??= this.#counts.now();
  }

  refuse(why: StatusError): void {
    this.#isRefused = true;
    this.#end(why);
    this.ended();
  }

  reset(): void {
    this.#reset({ isRefused: this.#isRefused });
  }
}
