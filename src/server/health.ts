/**
 * grpc.health.v1.Health (proto/grpc/health/v1/health.proto), for Kubernetes probes, load balancers
 * and `buf curl`: SERVING from the start, NOT_SERVING for everything as the first act of a stop.
 */

import { StatusError } from "../errors.ts";
import {
  Health,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../gen/grpc/health/v1/health_pb.ts";
import { type Handlers, type Implementation, implement } from "../grpc/serve.ts";
import { healthBounds } from "./bounds.ts";

export interface HealthOptions {
  /** Full names of the services whose health is asked for one by one. */
  readonly serviceNames: readonly string[];
}

export interface HealthService {
  readonly implementation: Implementation;
  /** Tells everyone who asks or watches that the server takes no more calls. */
  stopServing(): void;
}

export function health({ serviceNames }: HealthOptions): HealthService {
  // "" is the server as a whole.
  const names = new Set(["", ...serviceNames]);
  let status: ServingStatus = ServingStatus.SERVING;
  const stopping = new AbortController();

  const handlers: Handlers<typeof Health> = {
    async check({ service }) {
      if (!names.has(service)) {
        throw new StatusError("NOT_FOUND", `unknown service ${service}`);
      }
      return { status };
    },

    async list() {
      return { statuses: Object.fromEntries(Array.from(names, (name) => [name, { status }])) };
    },

    async *watch({ service }, { signal }) {
      yield { status: names.has(service) ? status : ServingStatus.SERVICE_UNKNOWN };
      await aborted(AbortSignal.any([stopping.signal, signal]));
      signal.throwIfAborted();
      yield { status: names.has(service) ? status : ServingStatus.SERVICE_UNKNOWN };
      await aborted(signal);
    },
  };

  return {
    implementation: implement(Health, handlers, { bounds: healthBounds }),
    stopServing() {
      status = ServingStatus.NOT_SERVING;
      stopping.abort();
    },
  };
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve();
    } else {
      signal.addEventListener("abort", () => resolve(), { once: true });
    }
  });
}
