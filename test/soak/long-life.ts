/**
 * A daemon under constant load for long: tills record as fast as it answers, the cloud acknowledges,
 * what is acknowledged is soon removed, and other processes read and record the same buffer all the
 * time. After a while nothing grows any more: not its memory, its open files, SQLite's log or the file.
 */

import { equal, ok } from "node:assert/strict";
import { statSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { BridgeApi } from "../../src/gen/sync/v1/bridge_api_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { brewctl } from "../support/brewctl.ts";
import { dice } from "../support/dice.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { openFiles, residentBytes } from "../support/process-figures.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";
import { startCloud, startDaemon } from "./processes.ts";
import { openTill, type Till } from "./till.ts";

export interface LongLifeOptions {
  readonly seed: number;
  /** That tills record. */
  readonly events: number;
  readonly say?: (line: string) => void;
}

/** The daemon's, at one moment; in bytes. */
interface Sample {
  readonly recorded: number;
  readonly memory: number;
  readonly files: number;
  readonly log: number;
  readonly buffer: number;
  readonly pending: number;
}

/**
 * Of the tills together, in events a second: far more than a shop has, and less than is removed at most,
 * which is a hundred in 20 ms and what these take.
 */
const rate = 2_000;

/** Events; then the tills wait, on a machine that is too slow for that. */
const maxPending = 4_000;

/** Of one day: what is removed is summed up by day, and a day is what a shop's events have in common. */
const saleOf = (id: string) => {
  const event = eventOf(id);
  return { ...event, timestamp: Date.UTC(2026, 0, 2) + ((event.timestamp / 1000) % 86_400_000) };
};

const sizeOf = (path: string) => statSync(path, { throwIfNoEntry: false })?.size ?? 0;

/**
 * Throws an `AssertionError` if anything grew, or was lost, doubled or invented. Returns what was seen
 * after the warm-up.
 */
export async function longLife({
  seed,
  events,
  say = () => {},
}: LongLifeOptions): Promise<readonly Sample[]> {
  const chance = dice(seed);
  using folder = tempFolder("long-life-");
  const path = folder.file("s");
  const dataDir = folder.file("cloud");
  const storeId = "store-01";
  const buffer = folder.file("buffer.db");
  const store = ["--store", storeId, "--buffer", buffer];
  await using cloud = await startCloud(path, dataDir);
  await using daemon = await startDaemon({
    ...{ storeId, buffer, addr: `unix:${path}`, socket: folder.file("t") },
    flags: ["--keep", "1s"],
  });
  await using stack = new AsyncDisposableStack();
  const connection = stack.adopt(dial(daemon.unix), (connection) => connection.close());
  const api = connection.client(BridgeApi);
  const pending = async () => Number((await api.bridgeStatus({}, { signal: never })).pending);

  let backlog = 0;
  // A till that was held up does not catch up: that would be more than the rate.
  let credit = 0;
  let creditedAt = performance.now();
  const mayGoOn = () => {
    const now = performance.now();
    credit = Math.min(credit + ((now - creditedAt) / 1000) * rate, rate / 20);
    creditedAt = now;
    if (credit < 1 || backlog >= maxPending) {
      return sleep(5);
    }
    credit -= 1;
    return undefined;
  };
  const tills: readonly Till[] = (["stream", "stream", "unary"] as const).map((way, i) =>
    openTill({
      ...{ name: `till-${i + 1}`, way, dice: chance, content: saleOf },
      address: () => (i === 0 ? daemon.tcp : daemon.unix),
      // An event that was removed is a new one to the store, and a duplicate only to the cloud.
      oneIn: Number.POSITIVE_INFINITY,
      mayGoOn,
    }),
  );
  const answered = () => tills.reduce((sum, { answered }) => sum + answered.size, 0);
  const isOver = () => answered() >= events;

  const beside: string[] = [];
  const others = async () => {
    for (let i = 1; !isOver(); i++) {
      const ids = idsOf(`beside-${i}`, 20);
      beside.push(...ids);
      const input = ids.map((id) => `${JSON.stringify(saleOf(id))}\n`).join("");
      const ends = await Promise.all([
        brewctl(["store-sync", "events", "-o", "ndjson", ...store]),
        brewctl(["store-sync", "record", "--input", "-", ...store], { input }),
      ]);
      for (const { code, stderr } of ends) {
        equal(code, 0, stderr);
      }
    }
  };
  const samples: Sample[] = [];
  const sampling = async () => {
    const { pid } = daemon.running.child;
    while (!isOver()) {
      backlog = await pending();
      const sample = {
        ...{ recorded: answered(), pending: backlog },
        memory: (await residentBytes(pid)) ?? 0,
        files: (await openFiles(pid)) ?? 0,
        log: sizeOf(`${buffer}-wal`),
        buffer: sizeOf(buffer),
      };
      samples.push(sample);
      if (samples.length % samplesToSay === 0) {
        say(describe(sample));
      }
      await sleep(sampleMs);
    }
  };
  const failed = Promise.race([Promise.all(tills.map(({ closed }) => closed)), daemon.failed]);
  await Promise.race([Promise.all([others(), sampling()]), failed]);
  await Promise.all(tills.map((till) => till.close()));
  while ((await pending()) > 0) {
    await sleep(sampleMs);
  }
  equal((await daemon.end("SIGTERM")).code, 0);
  cloud.child.kill("SIGKILL");
  await cloud.ended;
  const offered = [...beside, ...tills.flatMap(({ offered }) => [...offered])];
  expectExactly(readLedger(dataDir), { offered, content: saleOf });
  ok(beside.length >= 100, "the others had no time");
  return isFlat(samples);
}

/** Between two samples, in milliseconds. */
const sampleMs = 100;
const samplesToSay = 50;

const megabytes = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(1)} MB`;

function describe({ recorded, memory, files, log, buffer, pending }: Sample): string {
  const sizes = `memory ${megabytes(memory)}, ${files} files, log ${megabytes(log)}`;
  return `${recorded} recorded, ${pending} pending: ${sizes}, buffer ${megabytes(buffer)}`;
}

/**
 * The first third warms up: code is compiled, the heap finds its size, and the first events become old
 * enough to be removed. Of what comes then, the second half may not be above the first by more than
 * what the heap and the file breathe.
 */
function isFlat(samples: readonly Sample[]): readonly Sample[] {
  const settled = samples.slice(Math.ceil(samples.length / 3));
  const middle = Math.floor(settled.length / 2);
  const most = (of: keyof Sample, from: readonly Sample[]) => Math.max(...from.map((s) => s[of]));
  const grown = (of: keyof Sample) =>
    most(of, settled.slice(middle)) - most(of, settled.slice(0, middle));
  ok(settled.length > 20, `only ${settled.length} samples`);
  ok(grown("memory") < maxGrowth.memory, `memory grew by ${megabytes(grown("memory"))}`);
  ok(grown("files") < maxGrowth.files, `${grown("files")} more files are open`);
  ok(grown("buffer") < maxGrowth.buffer, `the buffer grew by ${megabytes(grown("buffer"))}`);
  ok(most("log", settled) < maxLog, `SQLite's log is ${megabytes(most("log", settled))}`);
  return settled;
}

const maxGrowth = {
  // Several times what is seen, and less than a few bytes an event would take.
  memory: 32 * 1024 * 1024,
  // A till or an asker that comes and goes.
  files: 4,
  // As large as a backlog of `maxPending`, twice.
  buffer: 4 * 1024 * 1024,
};

/** What SQLite's log may be after a checkpoint was held up by a reader; it makes one each 4 MB. */
const maxLog = 16 * 1024 * 1024;
