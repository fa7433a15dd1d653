/** What we tell grpc-js, once, each with its reason. */

import { type ChannelOptions, logVerbosity, setLogVerbosity } from "@grpc/grpc-js";

// grpc-js prints what it also throws; GRPC_VERBOSITY, its own switch, still works.
if (process.env["GRPC_VERBOSITY"] === undefined) {
  setLogVerbosity(logVerbosity.NONE);
}

/**
 * The largest message either side takes, in bytes. gRPC's own default, so that a foreign client
 * meets the limit it expects. grpc-js names both sizes in the RESOURCE_EXHAUSTED it answers with.
 */
export const maxMessageBytes = 4 * 1024 * 1024;

/**
 * How long a connection that TCP has accepted may take to become a gRPC connection. grpc-js has no
 * such limit of its own (github.com/grpc/grpc-node/issues/2785): without one, a peer that accepts
 * and stays silent keeps the channel CONNECTING for ever. Keepalive does not help: it starts later.
 */
export const connectTimeoutMs = 5_000;

/**
 * How many calls run on one connection at a time. It is what our server takes, and most others: HTTP/2
 * recommends that it be no less (RFC 9113, section 6.5.2).
 */
export const maxCallsPerConnection = 100;

export const clientOptions = {
  // As in `serverOptions`.
  "grpc.enable_channelz": 0,
  // A connection that died without a word is noticed after six minutes of silence. Not sooner: gRPC
  // servers in other languages close a connection whose client pings more often than every five.
  "grpc.keepalive_time_ms": 360_000,
  "grpc.keepalive_timeout_ms": 20_000,
  "grpc.max_receive_message_length": maxMessageBytes,
  // Each dial gets its own connection: closing one never touches another, and long streams do not
  // use up the concurrent streams of a connection that others share.
  "grpc.use_local_subchannel_pool": 1,
  // Nobody publishes a service config for our server in DNS, and to ask for one at every connection
  // costs a query.
  "grpc.service_config_disable_resolution": 1,
  // Retries end with the first message anyway, but their buffer does not: grpc-js takes up to 1 MiB
  // of a stream's messages into it without any backpressure and copies the list of them at every
  // write, so 120,000 small records took 24 s longer (measured). A size of 0 means that a write
  // waits for the wire.
  "grpc.enable_retries": 0,
  "grpc.per_rpc_retry_buffer_size": 0,
} satisfies ChannelOptions;

/** How long after its last answer the peer of a watched connection is asked for the next one, in milliseconds. */
export const livenessSilenceMs = 5_000;

/**
 * How long a peer that was asked may say nothing, in milliseconds, as long as nothing is known of the
 * path. With the wait before it, a connection that died without a word is noticed within eight seconds.
 * liveness.ts says when it takes longer.
 */
export const livenessTimeoutMs = 3_000;

/** The longest such time on a path with long round trips, in milliseconds. */
export const maxLivenessTimeoutMs = 30_000;

/** A connection that liveness.ts watches: grpc-js sends no keepalive of its own. */
export const watchfulOptions = { "grpc.keepalive_time_ms": -1 } satisfies ChannelOptions;

export const serverOptions = {
  // Nobody asks for grpc-js's own statistics here, and they cost every message two looks at the clock.
  "grpc.enable_channelz": 0,
  "grpc.max_receive_message_length": maxMessageBytes,
  // A client that vanished without a FIN is noticed after 60 s of silence and 20 s without an
  // answer to the ping; until then its stream would hold memory.
  "grpc.keepalive_time_ms": 60_000,
  "grpc.keepalive_timeout_ms": 20_000,
} satisfies ChannelOptions;

/**
 * A client counts its deadline from when it made the call, we from when it arrived, so its reset
 * comes a little before our own timer. One that comes so close to the deadline, in milliseconds, is
 * put down to the deadline.
 */
export const deadlineSlackMs = 100;
