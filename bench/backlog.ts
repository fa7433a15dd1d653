/**
 * (g) Backlogs of a thousand, a hundred thousand and a million events: what an event costs the store
 * and the cloud, and what the store holds in memory. Neither should know how long the store was away.
 *
 * A thousand events are over before a process is warm, so such backlogs come one after the other, each
 * from an outbox of its own; what the first ones cost does not count.
 */

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Figure, figure } from "./measure.ts";
import { startServerProcess } from "./processes.ts";
import type { Drained, Task } from "./store.ts";
import { filled, randomIds, recordIds, type Shape, tillIds } from "./store-events.ts";

/** So many backlogs of each size, and so many before them that do not count. */
const sizes = [
  { count: 1_000, times: 100, warmUp: 50 },
  { count: 100_000, times: 2, warmUp: 0 },
  { count: 1_000_000, times: 1, warmUp: 0 },
];

const ids = { till: tillIds, record: recordIds, random: () => randomIds } as const;

interface Cost {
  /** Processor time an event, of store and cloud together, in microseconds. */
  readonly cpu: number;
  /** Time an event, in microseconds. */
  readonly wall: number;
  readonly firstMs: number;
}

interface Measured {
  readonly costs: readonly Cost[];
  /** Of the store. */
  readonly peakMb: number;
  readonly cloudMb: number;
}

export async function backlog(): Promise<Figure[]> {
  return [
    ...(await backlogsOf("flush", "till")),
    ...(await backlogsOf("channel", "record")),
    ...(await backlogsOf("channel", "random")),
  ];
}

async function backlogsOf(shape: Shape, idKind: keyof typeof ids): Promise<Figure[]> {
  const name = `backlog/${shape}/${idKind}`;
  const figures: Figure[] = [];
  const measured: Measured[] = [];
  for (const size of sizes) {
    const one = await drainedOf(shape, idKind, size);
    measured.push(one);
    const of = `with ${size.count} pending`;
    const bench = `${name}/${size.count}`;
    figures.push(
      figure(`${bench}/cpu`, `processor time an event, ${of}`, "µs", all(one, "cpu")),
      figure(`${bench}/wall`, `time an event, ${of}`, "µs", all(one, "wall")),
      figure(`${bench}/store`, `the most that the store held, ${of}`, "MB", [one.peakMb]),
      figure(`${bench}/cloud`, `the most that the cloud held, ${of}`, "MB", [one.cloudMb]),
    );
  }
  const [small] = measured;
  const large = measured.at(-1);
  if (small === undefined || large === undefined) {
    throw new Error("no size");
  }
  const cheap = median(all(small, "cpu"));
  figures.push(
    figure(
      name,
      "processor time an event, long : short backlog",
      "×",
      all(large, "cpu").map((cpu) => cpu / cheap),
      { atMost: 1.2 },
    ),
    figure(
      `${name}/memory`,
      "what the store held more, long - short backlog",
      "MB",
      [large.peakMb - small.peakMb],
      { atMost: 40 },
    ),
    figure(
      `${name}/first`,
      "from opening a long one to its first event on the wire",
      "ms",
      all(large, "firstMs"),
      { atMost: 1000 },
    ),
  );
  return figures;
}

async function drainedOf(
  shape: Shape,
  idKind: keyof typeof ids,
  { count, times, warmUp }: (typeof sizes)[number],
): Promise<Measured> {
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "cloud") });
    using store = startStoreProcess();
    const costs: Cost[] = [];
    let peakMb = 0;
    for (let i = -warmUp; i < times; i += 1) {
      const storeId = `store-${i}`;
      const path = join(folder, "store", "buffer.db");
      filled(path, { storeId, count, idOf: ids[idKind](storeId) }).close();
      const before = await cloud.usage();
      const drained = await store.drain({ path, storeId, count, shape, port: cloud.port });
      const after = await cloud.usage();
      rmSync(join(folder, "store"), { recursive: true });
      peakMb = drained.peakMb;
      if (i >= 0) {
        const { cpuMs, wallMs, firstMs } = drained;
        const cpu = ((cpuMs + after.cpuMs - before.cpuMs) * 1000) / count;
        costs.push({ cpu, wall: (wallMs * 1000) / count, firstMs });
      }
    }
    const { peakMb: cloudMb } = await cloud.usage();
    await cloud.stop();
    return { costs, peakMb, cloudMb };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function startStoreProcess() {
  // As bin/brewctl starts one.
  const execArgv = ["--min-semi-space-size=8", "--max-semi-space-size=16"];
  const child = fork(fileURLToPath(new URL("store.ts", import.meta.url)), { execArgv });
  const ended = once(child, "exit").then(() => {
    throw new Error("the store's process has ended");
  });
  ended.catch(() => {});
  return {
    async drain(task: Task): Promise<Drained> {
      const answer = once(child, "message");
      child.send(task);
      const [drained] = (await Promise.race([answer, ended])) as [Drained];
      return drained;
    },
    [Symbol.dispose]: () => void child.kill(),
  };
}

function all({ costs }: Measured, field: keyof Cost): number[] {
  return costs.map((cost) => cost[field]);
}

function median(values: readonly number[]): number {
  return figure("", "", "", values).median;
}
