/** The cloud's side of the store bridge as a server in this process. */

import { type Clock, systemClock } from "../../src/clock.ts";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { SyncEngine } from "../../src/gen/sync/v1/sync_engine_pb.ts";
import type { Client } from "../../src/grpc/dial.ts";
import { type FaultOptions, noFaults } from "../../src/server/faults.ts";
import { startServer } from "../../src/server/index.ts";
import { inMemory } from "../../src/sqlite.ts";
import { loopback, type TestServer, testServer } from "./start-server.ts";
import { testLog } from "./test-log.ts";

export interface CloudOptions {
  /** Of the ledger; without it, the ledger is forgotten. */
  readonly dataDir?: string;
  readonly opensLedger?: boolean;
  readonly faults?: Partial<FaultOptions>;
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Where the last one listened, for a server that comes back. */
  readonly port?: number;
}

export interface TestCloud extends TestServer {
  readonly client: Client<typeof SyncEngine>;
  readonly office: Client<typeof HeadOffice>;
}

export async function serveCloud({
  dataDir = inMemory,
  opensLedger = false,
  faults = {},
  clock = systemClock,
  random = Math.random,
  port = 0,
}: CloudOptions = {}): Promise<TestCloud> {
  const log = testLog();
  const lesson = { tickMs: 1, echoDelayMs: 1, uploadDelayMs: 0 };
  const bridge = { dataDir, opensLedger, faults: { ...noFaults, ...faults } };
  const options = { address: loopback(port), ...lesson, ...bridge, clock, random, log };
  const started = testServer(await startServer(options), log);
  const connection = started.dial();
  return Object.assign(started, {
    client: connection.client(SyncEngine),
    office: connection.client(HeadOffice),
  });
}
