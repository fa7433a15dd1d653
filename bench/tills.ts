/**
 * (i) Tills at a store's bridge, the real daemon with a cloud behind it: how long a till waits until its
 * event is on the disk, with 1, 10 and 100 of them, each on a connection of its own and with its next
 * event when it has heard of the last; and how many fsyncs an event takes, tills, marks and all.
 */

import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { Health } from "../src/gen/grpc/health/v1/health_pb.ts";
import { BridgeApi } from "../src/gen/sync/v1/bridge_api_pb.ts";
import { type Connection, dial } from "../src/grpc/dial.ts";
import { type Figure, figure } from "./measure.ts";
import { brewctl, installed, start, startServerProcess } from "./processes.ts";
import { salePayload, tillIds } from "./store-events.ts";

const counts = [1, 10, 100];
const rounds = 5;
const roundMs = 2_000;
/** Until code is warm. */
const warmUpMs = 2_000;
/** Under strace, which makes each sync slower. */
const tracedMs = 5_000;

const { signal } = new AbortController();

export async function tills(): Promise<Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    const figures: Figure[] = [];
    for (const count of counts) {
      figures.push(...(await latencies(count, join(folder, `${count}`))));
    }
    if (installed("strace")) {
      for (const count of counts) {
        figures.push(await fsyncs(count, join(folder, `traced-${count}`)));
      }
    } else {
      console.error("tills: there is no strace here, so nobody counts the fsyncs");
    }
    return figures;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function latencies(count: number, folder: string): Promise<Figure[]> {
  using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "cloud") });
  using bridge = await startBridge(folder, cloud.port);
  const shop = await open(bridge.port, count);
  const alone = await open(bridge.port, 1);
  await shop.record(warmUpMs);
  const measured: Record<"half" | "most" | "rate" | "alone" | "bare" | "call", number[]> = {
    ...{ half: [], most: [], rate: [], alone: [], bare: [], call: [] },
  };
  for (let round = 0; round < rounds; round += 1) {
    if (count > 1) {
      // In the same round, since the disk and the machine are not the same a minute later.
      measured.alone.push(quantiles(await alone.record(roundMs)).p50);
    }
    const waits = await shop.record(roundMs);
    const { p50, p99 } = quantiles(waits);
    measured.half.push(p50);
    measured.most.push(p99);
    measured.rate.push((waits.length * 1000) / roundMs);
    if (count === 1) {
      measured.bare.push(commitMs(join(folder, "bare.db")));
      measured.call.push(await shop.call());
    }
  }
  shop.close();
  alone.close();
  const name = `tills/${count}`;
  const who = count === 1 ? "one till" : `${count} tills`;
  const figures = [
    figure(`${name}/p50`, `until an event is recorded, ${who}, median`, "ms", measured.half),
    figure(`${name}/p99`, `until an event is recorded, ${who}, 99 of 100`, "ms", measured.most),
    figure(`${name}/rate`, `events recorded per second, ${who}`, "/s", measured.rate),
  ];
  if (count > 1) {
    figures.push(
      figure(
        `${name}/alone`,
        `${who} : one of them alone, median`,
        "×",
        measured.half.map((ms, i) => ms / (measured.alone[i] ?? Number.NaN)),
        // Two commits, the one that is under way and its own, and the other nine requests.
        count === 10 ? { atMost: 2.5 } : undefined,
      ),
    );
  }
  if (count === 1) {
    const of = (part: (i: number) => number) => measured.half.map((ms, i) => ms / part(i));
    const { bare, call } = measured;
    figures.push(
      figure(`${name}/commit`, "a commit of SQLite alone", "ms", bare),
      figure(`${name}/call`, "a call to the same bridge that records nothing", "ms", call),
      figure(
        `${name}/bare`,
        "one till : a commit alone",
        "×",
        of((i) => bare[i] ?? Number.NaN),
      ),
      figure(
        `${name}/parts`,
        "one till : such a call + such a commit",
        "×",
        of((i) => (bare[i] ?? Number.NaN) + (call[i] ?? Number.NaN)),
        // If it waited even a few milliseconds for other tills, this would be ten and more.
        { atMost: 3 },
      ),
    );
  }
  return figures;
}

/** Of the store's daemon, all that it syncs from its start to its end, an event that it recorded. */
async function fsyncs(count: number, folder: string): Promise<Figure> {
  using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "cloud") });
  mkdirSync(folder);
  const trace = join(folder, "trace");
  let events = 0;
  {
    using bridge = await startBridge(folder, cloud.port, [
      ...["strace", "-D", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", trace],
    ]);
    const shop = await open(bridge.port, count);
    events = (await shop.record(tracedMs)).length;
    shop.close();
    await bridge.stop();
  }
  const calls = await tracedCalls(trace);
  const who = count === 1 ? "one till" : `${count} tills`;
  return figure(
    `tills/${count}/fsyncs`,
    `fsyncs an event, ${who}`,
    "",
    [calls / events],
    count === 100 ? { atMost: 0.15 } : undefined,
  );
}

/** What strace counted; it writes when the program has ended. */
async function tracedCalls(path: string): Promise<number> {
  for (let i = 0; i < 100; i += 1) {
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    // % time, seconds, usecs/call, calls, errors if any, and the name.
    const rows = [
      ...text.matchAll(/^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(?:fsync|fdatasync)$/gm),
    ];
    if (text.includes("total")) {
      return rows.reduce((sum, [, calls]) => sum + Number(calls), 0);
    }
    await sleep(50);
  }
  throw new Error(`strace has written nothing to ${path}`);
}

interface BridgeProcess extends Disposable {
  readonly port: number;
  /** Resolves when it has ended. */
  stop(): Promise<void>;
}

async function startBridge(
  folder: string,
  cloudPort: number,
  under: readonly string[] = [],
): Promise<BridgeProcess> {
  const [program = brewctl, ...args] = [...under, brewctl];
  const bridge = start(
    program,
    [
      ...args,
      ...["store-sync", "run", "--store", "store-01", "--buffer", join(folder, "buffer.db")],
      ...["--addr", `127.0.0.1:${cloudPort}`, "--listen", "127.0.0.1:0"],
    ],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  const ended = once(bridge, "exit");
  let said = "";
  const port = await new Promise<number>((resolve, reject) => {
    bridge.stderr?.on("data", (text) => {
      said += text;
      const found = /listen=127\.0\.0\.1:(\d+)/.exec(said)?.[1];
      if (found !== undefined) {
        said = "";
        resolve(Number(found));
      }
    });
    ended.then(() => reject(new Error(`the bridge did not start: ${said}`)));
  });
  return {
    port,
    async stop() {
      bridge.kill("SIGTERM");
      await ended;
    },
    [Symbol.dispose]: () => bridge[Symbol.dispose](),
  };
}

let shops = 0;

/** So many tills, each on a connection of its own. */
async function open(port: number, count: number) {
  shops += 1;
  const connections: Connection[] = Array.from({ length: count }, () =>
    dial({ kind: "tcp", host: "127.0.0.1", port }),
  );
  await Promise.all(connections.map((connection) => connection.ready({ signal })));
  const all = connections.map((connection, i) => {
    const client = connection.client(BridgeApi);
    const idOf = tillIds(`till-${shops}-${i}`);
    let sold = 0;
    return async () => {
      await client.recordEvent(
        { eventId: idOf(sold), type: "Sale", payload: salePayload },
        { signal },
      );
      sold += 1;
    };
  });
  return {
    /** Lets all tills sell for a time; returns how long each sale waited, in milliseconds. */
    async record(forMs: number): Promise<number[]> {
      const waits: number[] = [];
      const until = performance.now() + forMs;
      await Promise.all(
        all.map(async (sell) => {
          for (let at = performance.now(); at < until; ) {
            await sell();
            const now = performance.now();
            waits.push(now - at);
            at = now;
          }
        }),
      );
      return waits;
    },
    /** The median of a call that records nothing, in milliseconds. */
    async call(): Promise<number> {
      const health = connections[0]?.client(Health);
      return quantiles(await timed(() => health?.check({}, { signal }))).p50;
    },
    close() {
      for (const connection of connections) {
        connection.close();
      }
    },
  };
}

/** The median of a commit of one such event, in milliseconds. */
function commitMs(path: string): number {
  const sqlite = new DatabaseSync(path);
  sqlite.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  sqlite.exec("CREATE TABLE IF NOT EXISTS events (payload TEXT)");
  const insert = sqlite.prepare("INSERT INTO events VALUES (?)");
  const waits = Array.from({ length: timedCount }, () => {
    const at = performance.now();
    insert.run(salePayload);
    return performance.now() - at;
  });
  sqlite.close();
  return quantiles(waits).p50;
}

const timedCount = 500;

async function timed(work: () => unknown): Promise<number[]> {
  const waits: number[] = [];
  for (let i = 0; i < timedCount; i += 1) {
    const at = performance.now();
    await work();
    waits.push(performance.now() - at);
  }
  return waits;
}

function quantiles(values: readonly number[]): { p50: number; p99: number } {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))] ?? Number.NaN;
  return { p50: at(0.5), p99: at(0.99) };
}
