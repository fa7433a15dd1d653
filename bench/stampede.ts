/**
 * (f) A stampede: after an outage 200 stores come back at once, each with an outbox on the disk, a
 * backlog of 500 events and a connection of its own. Beside as many streams of bare grpc-js with the
 * same events, to a server that stores nothing.
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Outbox } from "../src/bridge/outbox.ts";
import { systemClock as clock } from "../src/clock.ts";
import { Ledger } from "../src/engine/ledger.ts";
import { bridgeByHand } from "./bridge-by-hand.ts";
import { type Figure, figure, inTurn } from "./measure.ts";
import { startServerProcess } from "./processes.ts";
import { drain, filled, type Shape, tillIds, wireEvent } from "./store-events.ts";

const stores = 200;
const count = 500;
const rounds = 5;
const warmUp = 1;

export async function stampede(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    return [...(await stampedeOf("flush", folder)), ...(await stampedeOf("channel", folder))];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function stampedeOf(shape: Shape, folder: string): Promise<Figure[]> {
  const ledgerFolder = join(folder, `ledger-${shape}`);
  using bareServer = await startServerProcess("bridge-by-hand");
  using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: ledgerFolder });
  let outboxes: Outbox[] = [];
  let round = 0;
  const outboxFolder = join(folder, "outboxes");

  const times = await inTurn(
    {
      bare: () => Promise.all(Array.from({ length: stores }, () => bare(shape, bareServer.port))),
      durable: () =>
        Promise.all(outboxes.map((outbox) => drain(outbox, { shape, count, port: cloud.port }))),
    },
    {
      ...{ rounds, warmUp },
      before() {
        mkdirSync(outboxFolder);
        outboxes = Array.from({ length: stores }, (_, i) => {
          const storeId = `store-${round}-${i}`;
          const options = { storeId, count, idOf: tillIds(storeId) };
          return filled(join(outboxFolder, `${storeId}.db`), options);
        });
        round += 1;
      },
      after() {
        for (const outbox of outboxes) {
          outbox.close();
        }
        rmSync(outboxFolder, { recursive: true });
      },
    },
  );
  const { peakMb } = await cloud.usage();
  await cloud.stop();
  checkLedger(ledgerFolder);

  const name = `stampede/${shape}`;
  // A channel marks in the middle of it, and 200 stores do not share a disk elsewhere.
  const target = shape === "flush" ? { atMost: 1.5 } : undefined;
  const ratios = times.map((round) => round.durable / round.bare);
  const rates = times.map((round) => (stores * count * 1000) / round.durable);
  return [
    figure(name, `time of ${stores} stores at once, durable : bare`, "×", ratios, target),
    figure(`${name}/rate`, "events per second, durable", "/s", rates),
    figure(`${name}/memory`, "the most that the cloud held", "MB", [peakMb], { atMost: 300 }),
  ];
}

/** A store that stores nothing. */
async function bare(shape: Shape, port: number): Promise<void> {
  const client = bridgeByHand(port);
  const answered = await client[shape === "channel" ? "channel" : "upload"](count, wireEvent);
  client.close();
  if (answered !== count) {
    throw new Error(`bare: ${answered} of ${count} events were answered`);
  }
}

/** Throws unless each event of each store is there once. */
function checkLedger(folder: string): void {
  const ledger = new Ledger({ folder, now: () => clock.now() });
  try {
    const expected = (rounds + warmUp) * stores * count;
    if (ledger.size() !== expected) {
      throw new Error(`the ledger has ${ledger.size()} events instead of ${expected}`);
    }
    for (let round = 0; round < rounds + warmUp; round += 1) {
      for (let i = 0; i < stores; i += 1) {
        const [epoch, ...others] = ledger.gaps(`store-${round}-${i}`);
        if (epoch?.missing !== 0 || epoch.highest !== count || others.length > 0) {
          throw new Error(`store-${round}-${i}: ${JSON.stringify([epoch, ...others])}`);
        }
      }
    }
  } finally {
    ledger.close();
  }
}
