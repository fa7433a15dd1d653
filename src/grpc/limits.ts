/** What one server lets its peers take, each limit with its unit and its reason. See docs/limits.md. */

import { maxCallsPerConnection } from "./options.ts";

/**
 * A peer is a remote address: all connections from it count together. Of an IPv6 address the first 64
 * bits count, since a host is given that many to choose from. A unix socket has no address, and who
 * may open it is up to the file system, so its connections count towards the server's totals alone.
 */
export interface ServerLimits {
  /** Connections of all peers together. Fewer where the process may have fewer files open. */
  readonly maxConnections: number;
  readonly maxConnectionsPerPeer: number;
  /** Calls of one connection at a time. A client learns it when it connects, and waits or dials again. */
  readonly maxStreamsPerConnection: number;
  /** Calls of all connections of one peer at a time. */
  readonly maxStreamsPerPeer: number;
  /** Calls of all peers at a time. */
  readonly maxStreams: number;
  /** Bytes of one connection that wait in memory: to be read by a handler, or to be taken by the peer. */
  readonly maxWaitingBytesPerConnection: number;
  /** The same of all connections together. */
  readonly maxWaitingBytes: number;
  /** How long a new connection may take until its first call, in milliseconds. */
  readonly firstCallTimeoutMs: number;
  /** How long a connection is kept without a call, in milliseconds. */
  readonly idleTimeoutMs: number;
  /** The headers of a call, counted as HTTP/2 does: names and values, and 32 bytes for each pair. */
  readonly maxHeaderBytes: number;
}

const MiB = 1024 * 1024;

export const defaultLimits: ServerLimits = {
  maxConnections: 4_096,
  maxConnectionsPerPeer: 1_024,
  // An idle call costs about 50 kB here, whatever it is waiting for.
  maxStreamsPerConnection: maxCallsPerConnection,
  maxStreamsPerPeer: 2_000,
  maxStreams: 8_000,
  // Sixteen messages of the largest size.
  maxWaitingBytesPerConnection: 64 * MiB,
  maxWaitingBytes: 256 * MiB,
  firstCallTimeoutMs: 20_000,
  idleTimeoutMs: 600_000,
  // gRPC suggests 8 KiB; that is also what other implementations take.
  maxHeaderBytes: 8 * 1024,
};
