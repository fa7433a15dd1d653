/** The brewctl server: builds the services, listens, and stops in the right order. */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Address } from "../address.ts";
import type { Clock, Random } from "../clock.ts";
import { listen, type RunningServer } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { health } from "./health.ts";
import { reflection } from "./reflection.ts";
import { streaming } from "./streaming.ts";

export interface ServerOptions {
  readonly address: Address;
  /** See `StreamingOptions`. */
  readonly tickMs: number;
  /** See `StreamingOptions`. */
  readonly echoDelayMs: number;
  /** See `StreamingOptions`. */
  readonly uploadDelayMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** Throws `UsageError` if it cannot listen on the address. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { address, log } = options;
  const services = [streaming(options)];
  const { implementation, stopServing } = health({
    serviceNames: services.map(({ service }) => service.typeName),
  });
  services.push(implementation);
  services.push(...reflection({ services: services.map(({ service }) => service) }));

  const server = await listen({ address, implementations: services, log });
  return {
    port: server.port,
    async stop(options) {
      stopServing();
      // Whoever watches the health hears of it before the watch itself is ended.
      await nextTurn();
      await server.stop(options);
    },
  };
}
