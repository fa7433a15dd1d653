/** (d) Many subscribers at tick 0, each on a connection of its own: how fast, and what a message costs. */

import { setTimeout as sleep } from "node:timers/promises";
import { StreamingService } from "../src/gen/orders/v1/streaming_pb.ts";
import { dial } from "../src/grpc/dial.ts";
import { type Figure, figure } from "./measure.ts";
import { startServerProcess } from "./processes.ts";

const roundMs = 2_000;
const rounds = 5;

export async function subscribers(): Promise<Figure[]> {
  using server = await startServerProcess("lesson");
  const figures: Figure[] = [];
  for (const count of [1, 10, 100]) {
    const over = new AbortController();
    const { signal } = over;
    let received = 0;
    const connections = Array.from({ length: count }, () =>
      dial({ kind: "tcp", host: "127.0.0.1", port: server.port }),
    );
    const reading = connections.map(async (connection) => {
      for await (const _ of connection.client(StreamingService).subscribe({}, { signal })) {
        received += 1;
      }
    });
    await sleep(roundMs);
    const rates: number[] = [];
    const costs: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      const before = { received, ...(await server.usage()), at: performance.now() };
      await sleep(roundMs);
      const { cpuMs } = await server.usage();
      const messages = received - before.received;
      rates.push((messages * 1000) / (performance.now() - before.at));
      costs.push(((cpuMs - before.cpuMs) * 1000) / messages);
    }
    over.abort();
    await Promise.allSettled(reading);
    for (const connection of connections) {
      connection.close();
    }
    figures.push(
      figure(`subscribers/${count}/rate`, `messages per second, ${count} subscribers`, "/s", rates),
      figure(
        `subscribers/${count}/cpu`,
        `the server's processor time a message, ${count} subscribers`,
        "µs",
        costs,
      ),
    );
  }
  return figures;
}
