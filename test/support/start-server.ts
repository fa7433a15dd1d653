/** Real servers for tests: this process, a free port of loopback, stopped at the end of the scope. */

import type { Address } from "../../src/address.ts";
import { type Clock, systemClock } from "../../src/clock.ts";
import { StreamingService } from "../../src/gen/orders/v1/streaming_pb.ts";
import { type Client, type Connection, dial } from "../../src/grpc/dial.ts";
import type { ServerLimits } from "../../src/grpc/limits.ts";
import { type Implementation, listen, type RunningServer } from "../../src/grpc/serve.ts";
import { noFaults } from "../../src/server/faults.ts";
import { startServer } from "../../src/server/index.ts";
import { inMemory } from "../../src/sqlite.ts";
import { type TestLog, testLog } from "./test-log.ts";

/** For calls that nothing but their own end stops. */
export const never = new AbortController().signal;

export const loopback = (port: number): Address => ({ kind: "tcp", host: "127.0.0.1", port });

export interface TestServer extends AsyncDisposable {
  readonly server: RunningServer;
  readonly port: number;
  readonly address: Address;
  readonly log: TestLog;
  /** A connection to the server, or to whatever stands in front of it. */
  dial(port?: number): Connection;
}

export function testServer(server: RunningServer, log: TestLog): TestServer {
  const port = server.port ?? 0;
  const connections: Connection[] = [];
  return {
    server,
    port,
    address: loopback(port),
    log,
    dial(at = port) {
      const connection = dial(loopback(at));
      connections.push(connection);
      return connection;
    },
    async [Symbol.asyncDispose]() {
      for (const connection of connections) {
        connection.close();
      }
      await server.stop({ graceMs: 0, force: AbortSignal.abort() });
    },
  };
}

/** A server with handlers of the test's own. */
export async function serveImplementations(
  ...implementations: Implementation[]
): Promise<TestServer> {
  const log = testLog();
  const options = { address: loopback(0), implementations, log };
  return testServer(await listen(options), log);
}

export interface LessonOptions {
  readonly tickMs?: number;
  readonly echoDelayMs?: number;
  readonly uploadDelayMs?: number;
  readonly clock?: Clock;
  readonly limits?: Partial<ServerLimits>;
}

/** The lesson's server, and a client of it. */
export async function serveLesson({
  tickMs = 1,
  echoDelayMs = 1,
  uploadDelayMs = 0,
  clock = systemClock,
  limits = {},
}: LessonOptions = {}): Promise<TestServer & { client: Client<typeof StreamingService> }> {
  const log = testLog();
  const random = () => 0.5;
  const bridge = { dataDir: inMemory, opensLedger: false, faults: noFaults };
  const lesson = { tickMs, echoDelayMs, uploadDelayMs, limits };
  const options = { address: loopback(0), ...lesson, ...bridge, clock, random, log };
  const started = testServer(await startServer(options), log);
  return Object.assign(started, { client: started.dial().client(StreamingService) });
}
