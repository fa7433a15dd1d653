/** Dialling: a connection, and waiting until a server answers on it. */

import type { DescService } from "@bufbuild/protobuf";
import {
  type ChannelOptions,
  connectivityState,
  credentials,
  Client as GrpcClient,
} from "@grpc/grpc-js";
import { type Address, formatAddress, isLocal } from "../address.ts";
import { sleepUntil, systemClock } from "../clock.ts";
import { StatusError } from "../errors.ts";
import { type AnswerBounds, answerCheck } from "./bounds.ts";
import { type CallOptions, type Client, startCall } from "./call.ts";
import { ClientPool } from "./client-pool.ts";
import { Liveness, PathTimes } from "./liveness.ts";
import { clientOptions, connectTimeoutMs, livenessSilenceMs, watchfulOptions } from "./options.ts";
import { type HttpProxy, proxyFor, proxyOptions } from "./proxy.ts";

export type { AnswerHeaders, CallOptions, Client } from "./call.ts";

/** How long an attempt without an answer is kept beside later ones, in times of one attempt. */
const lateAttempts = 6;

/** Between two attempts while waiting for a server, in milliseconds: soon at first, then this. */
const maxPauseMs = 1_000;

/** How long grpc-js may take to say why a connection was refused, in milliseconds; it says it at once. */
const whyPatienceMs = 100;

/** What grpc-js says of a call that the server has ended with HTTP/2's ENHANCE_YOUR_CALM. */
const calmDetails = "Bandwidth exhausted or memory limit exceeded";

/** The longest silence before a ping, in milliseconds: what a client of any server may send. */
const maxKeepaliveMs = clientOptions["grpc.keepalive_time_ms"];

export interface ReadyOptions {
  readonly signal: AbortSignal;
  /** Keep trying for so many milliseconds; without it, one attempt decides. */
  readonly waitMs?: number | undefined;
  /** As in `CallOptions`. */
  readonly deadline?: number | undefined;
}

/**
 * One connection of its own, and more while more than a hundred calls run at a time. Nothing is dialled
 * before `ready` or the first call.
 */
export interface Connection {
  /**
   * Resolves when the server has answered as a gRPC server does. Rejects with UNAVAILABLE and a
   * hint when there is none, with DEADLINE_EXCEEDED after the deadline, with the signal's reason.
   */
  ready(options: ReadyOptions): Promise<void>;
  /**
   * Makes calls of a service. An answer out of `bounds` ends its call with DATA_LOSS. Only tests, and
   * descriptors that are not in src/gen, leave them out; test/architecture.test.ts sees to that.
   */
  client<S extends DescService>(
    service: S,
    options?: { readonly bounds?: AnswerBounds<S> },
  ): Client<S>;
  /** The last round trip of a watchful connection, in milliseconds; 0 before one was measured. */
  readonly roundTripMs: number;
  /** Lets go of the connection. Running calls are not cancelled; use their signals. */
  close(): void;
}

export interface DialOptions {
  /** How long one attempt to connect may take, in milliseconds. */
  readonly attemptMs?: number;
  /**
   * Notices within seconds a connection that died without a word. Servers of others may close a
   * connection whose client pings so often; then it pings half as often, as they demand.
   */
  readonly isWatchful?: boolean;
  /** How long after one answer a watchful connection sends its next ping, in milliseconds; 5,000 by default. */
  readonly keepaliveMs?: number;
}

/** A client that connects or is connected, with the further ones that its calls need. */
interface Dialled {
  readonly grpcClient: GrpcClient;
  readonly pool: ClientPool;
  /** When its last attempt began, by the monotonic clock. */
  begunAt: number;
}

export function dial(
  address: Address,
  { attemptMs = connectTimeoutMs, isWatchful = false, ...settings }: DialOptions = {},
): Connection {
  const options: ChannelOptions = { ...clientOptions, ...(isWatchful ? watchfulOptions : {}) };
  let { keepaliveMs = livenessSilenceMs } = settings;
  const path = new PathTimes();
  const liveness = new Liveness({ path, silenceMs: () => keepaliveMs });
  const proxy = proxyOf(address);
  const open = () => connect(address, { proxy, options });
  const dialled = (): Dialled => {
    const grpcClient = open();
    return { grpcClient, pool: new ClientPool(grpcClient, open), begunAt: 0 };
  };
  let current = dialled();
  /**
   * Attempts that had no answer in time. On a path with long round trips the answer comes later, so they
   * are kept for a while beside the next attempt.
   */
  let late: Dialled[] = [];
  const closeLate = (isOver: (attempt: Dialled) => boolean) => {
    for (const { pool } of late.filter(isOver)) {
      pool.close();
    }
    late = late.filter((attempt) => !isOver(attempt));
  };
  /**
   * Returns the `explain` of a call that starts now. A server that is pinged too often ends the
   * connection with ENHANCE_YOUR_CALM, which grpc-js tells as exhausted bandwidth. Then pings must be
   * half as often from the next connection on, as gRPC's proposal A8 demands.
   */
  const explainer = () => {
    const keptMs = keepaliveMs;
    return (error: StatusError): StatusError => {
      if (!isWatchful || error.code !== "RESOURCE_EXHAUSTED" || error.message !== calmDetails) {
        return error;
      }
      // All calls of the connection end together, and the interval is doubled once.
      keepaliveMs = Math.max(keepaliveMs, Math.min(keptMs * 2, maxKeepaliveMs));
      return new StatusError(
        "UNAVAILABLE",
        `the server allows fewer pings; checking the link every ${keepaliveMs / 1000} s from now on`,
        { cause: error },
      );
    };
  };
  return {
    async ready({ signal, waitMs, deadline = Number.POSITIVE_INFINITY }) {
      const giveUpAt = systemClock.monotonic() + (waitMs ?? 0);
      let why = "no answer; the host does not respond, or does not speak gRPC";
      for (let attempts = 1; ; attempts += 1) {
        const now = systemClock.monotonic();
        closeLate(({ begunAt }) => now - begunAt > lateAttempts * attemptMs);
        const wasReady = stateOf(current, { dials: false }) === connectivityState.READY;
        current.begunAt = now;
        const outcome = await attemptAny(current, late, {
          until: Math.min(
            deadline,
            systemClock.monotonic() + attemptMs,
            waitMs === undefined ? Number.POSITIVE_INFINITY : giveUpAt,
          ),
          signal,
        });
        if (typeof outcome === "object") {
          if (outcome !== current) {
            late = late.filter((attempt) => attempt !== outcome);
            current.pool.close();
            current = outcome;
          }
          closeLate(() => true);
          if (!wasReady) {
            path.measured(systemClock.monotonic() - current.begunAt);
          }
          return;
        }
        if (systemClock.monotonic() >= deadline) {
          throw new StatusError(
            "DEADLINE_EXCEEDED",
            `no connection to ${formatAddress(address)} before the deadline`,
          );
        }
        if (outcome === "refused") {
          why = await whyRefused(current.grpcClient);
          // grpc-js backs off now, and would dial nobody if it were asked again.
          current.pool.close();
        } else {
          late.push(current);
        }
        current = dialled();
        const leftMs = giveUpAt - systemClock.monotonic();
        if (leftMs <= 0) {
          throw unavailable(address, { why, waitMs, proxy });
        }
        await systemClock.sleep(Math.min(leftMs, attempts * 100, maxPauseMs), { signal });
      }
    },
    client<S extends DescService>(
      service: S,
      { bounds }: { readonly bounds?: AnswerBounds<S> } = {},
    ): Client<S> {
      const calls = service.methods.map((method) => {
        const check = bounds && answerCheck(method, bounds as AnswerBounds<DescService>);
        return [
          method.localName,
          (request: object, options: CallOptions) =>
            startCall(current.pool, method, request, options, {
              check,
              explain: explainer(),
              liveness: isWatchful ? liveness : undefined,
            }),
        ];
      });
      return Object.fromEntries(calls);
    },
    get roundTripMs() {
      return path.roundTripMs;
    },
    close() {
      closeLate(() => true);
      current.pool.close();
    },
  };
}

/** A proxy from the environment is never meant for a server on this machine. */
function proxyOf(address: Address): HttpProxy | undefined {
  return address.kind === "unix" || isLocal(address)
    ? undefined
    : proxyFor(address.host, process.env);
}

function connect(
  address: Address,
  { proxy, options }: { readonly proxy: HttpProxy | undefined; readonly options: ChannelOptions },
): GrpcClient {
  const target = formatAddress(
    address.kind === "tcp" && address.host === "" ? { ...address, host: "localhost" } : address,
  );
  return new GrpcClient(proxy?.address ?? target, credentials.createInsecure(), {
    ...proxyOptions(proxy, target),
    ...options,
  });
}

/**
 * One attempt to connect, beside late ones that may still succeed. Returns the one that is ready; only
 * the newest decides that there is no connection.
 */
async function attemptAny(
  newest: Dialled,
  late: readonly Dialled[],
  { until, signal }: { until: number; signal: AbortSignal },
): Promise<Dialled | "refused" | "silent"> {
  const over = new AbortController();
  const options = { until, signal: AbortSignal.any([signal, over.signal]) };
  const decided = attempt(newest, options);
  try {
    return await Promise.race([
      decided,
      ...late.map(async (other) => {
        const outcome = await attempt(other, options);
        return typeof outcome === "object" ? outcome : decided;
      }),
    ]);
  } finally {
    over.abort(new StatusError("CANCELLED", "the attempt is decided"));
  }
}

function stateOf({ grpcClient }: Dialled, { dials }: { readonly dials: boolean }) {
  return grpcClient.getChannel().getConnectivityState(dials);
}

/**
 * Makes one attempt to connect. Resolves with `silent` when nothing is decided at `until`, an instant of
 * the monotonic clock. grpc-js would take an instant of the wall clock, which may be set meanwhile.
 */
async function attempt(
  dialled: Dialled,
  { until, signal }: { until: number; signal: AbortSignal },
): Promise<Dialled | "refused" | "silent"> {
  const channel = dialled.grpcClient.getChannel();
  const over = new AbortController();
  const timeUp = sleepUntil(systemClock, until, {
    signal: AbortSignal.any([signal, over.signal]),
  }).then(() => "silent" as const);
  timeUp.catch(() => {});
  const decided = async () => {
    for (;;) {
      const state = stateOf(dialled, { dials: true });
      if (state === connectivityState.READY) {
        return dialled;
      }
      if (state === connectivityState.TRANSIENT_FAILURE) {
        return "refused";
      }
      await new Promise<void>((resolve) => {
        // It never calls back with an error, since there is no deadline.
        channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, () => resolve());
      });
      over.signal.throwIfAborted();
    }
  };
  signal.throwIfAborted();
  try {
    return await Promise.race([decided(), timeUp]);
  } finally {
    over.abort();
  }
}

/**
 * grpc-js tells what is wrong with a channel only to a call: one without a method, which fails
 * without leaving this machine.
 */
function whyRefused(grpcClient: GrpcClient): Promise<string> {
  return new Promise((resolve) => {
    const none = (bytes: Buffer) => bytes;
    const over = new AbortController();
    const call = grpcClient.makeUnaryRequest("/", none, none, Buffer.alloc(0), (error) => {
      over.abort();
      resolve(error?.details ?? "the connection was lost");
    });
    systemClock.sleep(whyPatienceMs, over).then(
      () => call.cancel(),
      () => {},
    );
  });
}

function unavailable(
  address: Address,
  {
    why,
    waitMs,
    proxy,
  }: {
    readonly why: string;
    readonly waitMs: number | undefined;
    readonly proxy: HttpProxy | undefined;
  },
): StatusError {
  const where = formatAddress(address);
  const patience = waitMs === undefined ? "" : ` after waiting ${waitMs / 1000} s`;
  if (proxy !== undefined) {
    return unavailableThrough(proxy, `${where}${patience}`, why);
  }
  if (/ECONNREFUSED|ENOENT/.test(why)) {
    const isDefault = address.kind === "tcp" && address.port === 50052;
    return new StatusError("UNAVAILABLE", `no server at ${where}${patience}`, {
      hint: isLocal(address)
        ? `start one with: brewctl serve${isDefault ? "" : ` --addr ${where}`}`
        : "check --addr and BREWCTL_ADDR",
    });
  }
  if (/protocol error/i.test(why)) {
    return new StatusError("UNAVAILABLE", `no gRPC server at ${where}${patience}`, {
      hint: "something answers there, but it does not speak gRPC without TLS",
    });
  }
  if (/resolution failed/i.test(why)) {
    return new StatusError("UNAVAILABLE", `no such host: ${where}${patience}`, {
      hint: "check --addr and BREWCTL_ADDR",
    });
  }
  return new StatusError("UNAVAILABLE", `cannot reach ${where}${patience}: ${shortened(why)}`);
}

/** The server itself was never called, so nothing is said of it. */
function unavailableThrough(
  { address, variable }: HttpProxy,
  where: string,
  why: string,
): StatusError {
  const reason = /resolution failed/i.test(why)
    ? "no such host"
    : /protocol error/i.test(why)
      ? "what answers there does not speak gRPC without TLS"
      : /undefined/.test(why)
        ? // Of a proxy that refuses, and of one that is not there, grpc-js says no more than that.
          "no connection"
        : shortened(why);
  return new StatusError(
    "UNAVAILABLE",
    `cannot reach ${where} through the proxy ${address} of ${variable}: ${reason}`,
    { hint: `check ${variable}, or name the server in no_proxy if it can be reached without` },
  );
}

/** Leaves of what grpc-js says only the part that tells something. */
function shortened(why: string): string {
  return why.replace(/^No connection established. Last error: | ?Resolution note: ?$/g, "");
}
