/** (c) Memory of both sides: over a million uploaded records, and beside a reader that stops reading. */

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { type Figure, figure } from "./measure.ts";
import { brewctl, residentMb, start, startServerProcess } from "./processes.ts";

const records = 1_000_000;
const stoppedMs = 60_000;
const sampleMs = 250;

export async function memory(): Promise<Figure[]> {
  return [...(await upload()), ...(await stoppedReader())];
}

async function upload(): Promise<Figure[]> {
  using server = await startServerProcess("lesson");
  const addr = `127.0.0.1:${server.port}`;
  using client = start(brewctl, [
    "upload",
    "--addr",
    addr,
    "--count",
    String(records),
    "--pause",
    "0",
    "-o",
    "ndjson",
    "-q",
  ]);
  let summary = "";
  client.stdout?.on("data", (text) => {
    summary += text;
  });
  const samples = await sample(
    { client: client.pid ?? 0, server: server.pid },
    once(client, "close"),
  );
  if (!summary.includes(`"received":${records}`)) {
    throw new Error(`the upload did not arrive: ${summary}`);
  }
  // In the first quarter heaps find their size.
  const warm = samples.slice(Math.floor(samples.length / 4));
  return (["client", "server"] as const).map((side) =>
    growth(
      `memory/upload/${side}`,
      `growth of the ${side} over ${records} records, after warm-up`,
      warm.map((one) => one[side]),
    ),
  );
}

async function stoppedReader(): Promise<Figure[]> {
  using server = await startServerProcess("lesson");
  const addr = `127.0.0.1:${server.port}`;
  using client = start(brewctl, [
    "subscribe",
    "--addr",
    addr,
    "--limit",
    "0",
    "-o",
    "ndjson",
    "-q",
  ]);
  // Reads for a moment, so that all is running, and then no more.
  client.stdout?.resume();
  await sleep(3_000);
  client.stdout?.pause();
  await sleep(1_000);
  const samples = await sample({ client: client.pid ?? 0, server: server.pid }, sleep(stoppedMs));
  return (["client", "server"] as const).map((side) =>
    growth(
      `memory/stopped/${side}`,
      `growth of the ${side} in a minute beside a reader that stopped`,
      samples.map((one) => one[side]),
    ),
  );
}

/** One value: the highest above where it began. */
function growth(bench: string, what: string, values: readonly number[]): Figure {
  const highest = Math.max(...values) - (values[0] ?? Number.NaN);
  return figure(bench, what, "MB", [highest], { atMost: 30 });
}

async function sample<Side extends string>(
  pids: Readonly<Record<Side, number>>,
  until: Promise<unknown>,
): Promise<Record<Side, number>[]> {
  const samples: Record<Side, number>[] = [];
  let isOver = false;
  until.then(() => {
    isOver = true;
  });
  while (!isOver) {
    const now = {} as Record<Side, number>;
    for (const side of Object.keys(pids) as Side[]) {
      const mb = residentMb(pids[side]);
      if (mb === undefined || mb === 0) {
        return samples;
      }
      now[side] = mb;
    }
    samples.push(now);
    await sleep(sampleMs);
  }
  return samples;
}
