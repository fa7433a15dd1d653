/** The brewctl server: builds the services, listens, and stops in the right order. */

import { setImmediate as nextTurn } from "node:timers/promises";
import type { Address } from "../address.ts";
import type { Clock, Random } from "../clock.ts";
import type { ServerLimits } from "../grpc/limits.ts";
import { type Implementation, listen, type RunningServer } from "../grpc/serve.ts";
import type { Logger } from "../log.ts";
import { Cloud } from "./cloud.ts";
import { type FaultOptions, Faults } from "./faults.ts";
import { headOffice } from "./head-office.ts";
import { health } from "./health.ts";
import { Questions } from "./questions.ts";
import { reflection } from "./reflection.ts";
import { streaming } from "./streaming.ts";
import { syncEngine } from "./sync-engine.ts";

export interface ServerOptions {
  readonly address: Address;
  /** As in `ListenOptions`. */
  readonly socketMode?: number;
  /** See `StreamingOptions`. */
  readonly tickMs: number;
  /** See `StreamingOptions`. */
  readonly echoDelayMs: number;
  /** See `StreamingOptions`. */
  readonly uploadDelayMs: number;
  /** The folder of the store bridge's ledger; `:memory:` for one that is to be forgotten. */
  readonly dataDir: string;
  /** Opens the ledger now, and not at the first call that needs it. */
  readonly opensLedger: boolean;
  readonly faults: FaultOptions;
  /** What peers may take, where it differs from the defaults. */
  readonly limits?: Partial<ServerLimits>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface BrewServer extends RunningServer {
  /** Rejects when the server can store nothing any more, and should be stopped and started again. */
  readonly failed: Promise<never>;
}

/**
 * Throws `UsageError` if it cannot listen on the address, and `StatusError` if the ledger is to be
 * opened and cannot be.
 */
export async function startServer(options: ServerOptions): Promise<BrewServer> {
  const { address, socketMode, dataDir, opensLedger, log, limits = {} } = options;
  const cloud = new Cloud({ ...options, folder: dataDir });
  const faults = new Faults(options.faults, options);
  const questions = new Questions();
  if (opensLedger) {
    cloud.open();
  }
  const services = [
    streaming(options),
    syncEngine({ ...options, cloud, questions, faults }),
    headOffice({ ...options, cloud, questions }),
  ];
  const { implementations, stopServing } = withOperations(services);
  const serving = { address, socketMode, implementations, log, limits };
  const server = await listen(serving).catch((error) => {
    cloud.close();
    throw error;
  });
  return {
    port: server.port,
    failed: cloud.failed,
    async stop(options) {
      stopServing();
      // Whoever watches the health hears of it before the watch itself is ended.
      await nextTurn();
      await server.stop(options);
      cloud.close();
    },
  };
}

/** The services with health and reflection of them. */
export function withOperations(services: readonly Implementation[]) {
  const { implementation, stopServing } = health({
    serviceNames: services.map(({ service }) => service.typeName),
  });
  const all = [...services, implementation];
  all.push(...reflection({ services: all.map(({ service }) => service) }));
  return { implementations: all, stopServing };
}
