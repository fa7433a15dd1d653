/**
 * (e) What durability costs: the store bridge beside bare grpc-js that stores nothing, with the same
 * events. Ours reads each from the outbox on one disk, commits it to the ledger on another (the same,
 * here) with an fsync before its answer, and marks it in the outbox with another.
 */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { channel } from "../src/bridge/channel.ts";
import { flush } from "../src/bridge/flush.ts";
import { Outbox } from "../src/bridge/outbox.ts";
import { systemClock as clock, systemRandom as random } from "../src/clock.ts";
import { uplinkTo } from "../src/commands/store-sync/uplink.ts";
import { StoreEventSchema } from "../src/gen/sync/v1/sync_engine_pb.ts";
import { bridgeByHand } from "./bridge-by-hand.ts";
import { type Figure, figure, inTurn } from "./measure.ts";
import { startServerProcess } from "./processes.ts";

/** Half a second a round, more or less. */
const count = 20_000;
const rounds = 12;
const warmUp = 2;

const atMs = Date.UTC(2026, 0, 2, 3, 4, 5);
const payload = JSON.stringify({ receipt: 4711, total: 299, items: [{ sku: "ITEM-42", n: 1 }] });
const newEvent = (eventId: string) => ({ eventId, type: "Sale", payload, timestamp: atMs });
const wireEvent = (i: number) =>
  create(StoreEventSchema, {
    ...{ eventId: `bare-event-${i}`, storeId: "store-01", type: "Sale", payload },
    ...{ timestamp: BigInt(atMs), seq: BigInt(i + 1), epoch: "0123456789abcdef" },
  });

export async function bridge(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    using bareServer = await startServerProcess("bridge-by-hand");
    using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "cloud") });
    const bare = bridgeByHand(bareServer.port);
    const figures: Figure[] = [];
    for (const shape of ["channel", "flush"] as const) {
      const outboxes = Array.from({ length: rounds + warmUp }, (_, round) =>
        filled(join(folder, `${shape}-${round}.db`), `${shape}-${round}`),
      );
      const complete = (answered: number) => {
        if (answered !== count) {
          throw new Error(`${shape}: ${answered} of ${count} events were answered`);
        }
      };
      const times = await inTurn(
        {
          bare: async () =>
            complete(await bare[shape === "channel" ? "channel" : "upload"](count, wireEvent)),
          durable: async () => complete(await drain(shape, outboxes, cloud.port)),
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

function filled(path: string, name: string): Outbox {
  const outbox = new Outbox({ path, storeId: `store-${name}`, now: () => clock.now() });
  for (let i = 0; i < count; i += 1000) {
    outbox.append(Array.from({ length: 1000 }, (_, k) => newEvent(`${name}-event-${i + k}`)));
  }
  return outbox;
}

/** Drains the next outbox, and returns how many of its events were acknowledged. */
async function drain(
  shape: "channel" | "flush",
  outboxes: Outbox[],
  port: number,
): Promise<number> {
  const outbox = outboxes.pop();
  if (outbox === undefined) {
    throw new Error("no outbox is left");
  }
  const { signal } = new AbortController();
  const address = { kind: "tcp", host: "127.0.0.1", port } as const;
  const { storeId } = outbox;
  const uplink = uplinkTo(address, { storeId, epoch: () => outbox.epoch(), clock });
  const common = { outbox, uplink, clock, random, signal, onState() {}, onAlarm() {} };
  if (shape === "channel") {
    await channel({ ...common, stop: signal, untilDrained: true, onAnswer() {} });
  } else {
    await flush({ ...common, onSending: () => undefined, onSummary() {} });
  }
  uplink.close();
  const { acked } = outbox.counts();
  outbox.close();
  return acked;
}
