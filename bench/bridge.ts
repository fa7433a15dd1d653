/**
 * (e) What durability costs: the store bridge beside bare grpc-js that stores nothing, with the same
 * events. Ours reads each from the outbox on one disk, commits it to the ledger on another (the same,
 * here) with an fsync before its answer, and marks it in the outbox with another. It sends what is there
 * in bundles, so bare grpc-js runs twice: with an event a message, and with the same bundles.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { maxBundle } from "../src/bridge/uplink.ts";
import { bridgeByHand } from "./bridge-by-hand.ts";
import { type Figure, figure, inTurn } from "./measure.ts";
import { startServerProcess } from "./processes.ts";
import { drain, filled, tillIds, wireMessage } from "./store-events.ts";

/** Half a second a round, more or less. */
const count = 20_000;
const rounds = 12;
const warmUp = 2;

export async function bridge(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    using bareServer = await startServerProcess("bridge-by-hand");
    using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "cloud") });
    const bare = bridgeByHand(bareServer.port);
    const figures: Figure[] = [];
    for (const shape of ["channel", "flush"] as const) {
      const outboxes = Array.from({ length: rounds + warmUp }, (_, round) =>
        filled(join(folder, `${shape}-${round}.db`), {
          ...{ storeId: `store-${shape}-${round}`, count, idOf: tillIds(`${shape}-${round}`) },
        }),
      );
      const complete = (answered: number) => {
        if (answered !== count) {
          throw new Error(`${shape}: ${answered} of ${count} events were answered`);
        }
      };
      const send = bare[shape === "channel" ? "channel" : "upload"];
      const times = await inTurn(
        {
          bare: async () => complete(await send(count, wireMessage)),
          bundled: async () => complete(await send(count, wireMessage, { perMessage: maxBundle })),
          async durable() {
            const outbox = outboxes.pop();
            if (outbox === undefined) {
              throw new Error("no outbox is left");
            }
            await drain(outbox, { shape, count, port: cloud.port });
            outbox.close();
          },
        },
        { rounds, warmUp },
      );
      figures.push(
        figure(
          `bridge/${shape}`,
          "events per second, durable : bare",
          "×",
          times.map((round) => round.bare / round.durable),
          { atLeast: shape === "channel" ? 0.8 : 0.7 },
        ),
        figure(
          `bridge/${shape}/bundled`,
          "events per second, durable : bare in bundles",
          "×",
          times.map((round) => round.bundled / round.durable),
        ),
        figure(
          `bridge/${shape}/rate`,
          "events per second, durable",
          "/s",
          times.map((round) => (count * 1000) / round.durable),
        ),
      );
    }
    bare.close();
    return figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
