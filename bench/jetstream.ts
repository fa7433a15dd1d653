/**
 * (h) The same job done by NATS JetStream: 100,000 events of 200 bytes, each with an id by which a
 * repetition is noticed, published until the server has answered for every one, beside ours from an
 * outbox into a ledger.
 *
 * Not the same promise: see docs/performance.md for what each has on the disk when it answers.
 */

import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import type { Outbox } from "../src/bridge/outbox.ts";
import {
  type Publish,
  publishByClient,
  publishByHand,
  publishInBatches,
} from "./jetstream-publishers.ts";
import { type Figure, figure, inTurn } from "./measure.ts";
import {
  canSyncAlways,
  type NatsProgram,
  type NatsServer,
  natsProgram,
  startNats,
} from "./nats-server.ts";
import { startServerProcess } from "./processes.ts";
import { drain, filled, type Shape, tillIds } from "./store-events.ts";

const total = 100_000;
const rounds = 3;
const warmUp = 1;
/** Publishers that come together, and their share of the events. */
const publishers = 200;

/** Messages without an answer, to choose from. */
const windowsToTry = [500, 1_000, 2_000, 4_000];
/** For that choice. */
const trial = 20_000;

/** How many events each of them gets where both sync: about a second's worth and more. */
const syncedTotal = 5_000;
const batchedTotal = 10_000;
const ourSyncedTotal = 40_000;

export async function jetstream(): Promise<Figure[]> {
  let program: NatsProgram;
  try {
    program = natsProgram();
  } catch (error) {
    console.error(`jetstream: left out, since there is no nats-server here: ${error}`);
    return [];
  }
  const { version } = program;
  const folder = mkdtempSync(join(tmpdir(), "brewctl-bench-"));
  try {
    using nats = await startNats(program, join(folder, "nats"));
    const common = { nats, folder, version };
    const windows = {
      byHand: await bestWindow(nats, publishByHand),
      client: await bestWindow(nats, publishByClient),
    };
    return [
      ...(await sideBySide({ ...common, windows, shape: "flush", count: 1 })),
      ...(await sideBySide({ ...common, windows, shape: "channel", count: 1 })),
      ...(await sideBySide({ ...common, windows, shape: "flush", count: publishers })),
      ...(await bothSynced({ program, folder, window: windows.byHand })),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface SyncedContest {
  readonly program: NatsProgram;
  readonly folder: string;
  readonly window: number;
}

/**
 * Our channel beside a JetStream that syncs before it answers, as ours does: each message, or each
 * atomic batch of as many messages as our bundles have events.
 */
async function bothSynced({ program, folder, window }: SyncedContest): Promise<Figure[]> {
  const { version } = program;
  if (!canSyncAlways(program, join(folder, "always"))) {
    console.error(`jetstream: nats-server ${version} has no sync_interval: always; left out`);
    return [];
  }
  using synced = await startNats(program, join(folder, "always"), "sync_interval: always");
  using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, "synced") });
  const outboxes = Array.from({ length: rounds + warmUp }, (_, round) => {
    const storeId = `store-synced-${round}`;
    const options = { storeId, count: ourSyncedTotal, idOf: tillIds(storeId) };
    return filled(join(folder, `${storeId}.db`), options);
  });
  const theirs = { single: [] as number[], batched: [] as number[] };
  const rateOf = async (publish: Publish, each: number) =>
    (each * 1000) / (await publishAll(synced, publish, { window, count: 1, each }));
  const times = await inTurn(
    {
      async single() {
        theirs.single.push(await rateOf(publishByHand, syncedTotal));
      },
      async batched() {
        theirs.batched.push(await rateOf(publishInBatches, batchedTotal));
      },
      async ours() {
        const outbox = outboxes.pop();
        if (outbox === undefined) {
          throw new Error("no outbox is left");
        }
        await drain(outbox, { shape: "channel", count: ourSyncedTotal, port: cloud.port });
        outbox.close();
      },
    },
    { rounds, warmUp },
  );
  await cloud.stop();
  const ours = times.map((round) => (ourSyncedTotal * 1000) / round.ours);
  const single = theirs.single.slice(warmUp);
  const batched = theirs.batched.slice(warmUp);
  const against = (rates: readonly number[]) =>
    ours.map((rate, i) => rate / (rates[i] ?? Number.NaN));
  const name = "jetstream/always";
  const what = "events per second, both synced";
  return [
    figure(name, `${what}, our channel : JetStream`, "×", against(single), { atLeast: 11.5 }),
    figure(`${name}/batched`, `${what}, our channel : its batches`, "×", against(batched)),
    figure(`${name}/ours`, `${what}, our channel`, "/s", ours),
    figure(`${name}/theirs`, `${what}, JetStream ${version}`, "/s", single),
    figure(`${name}/theirs/batched`, `${what}, JetStream ${version}, batches`, "/s", batched),
  ];
}

async function bestWindow(nats: NatsServer, publish: Publish): Promise<number> {
  let best = { window: 0, ms: Number.POSITIVE_INFINITY };
  // Twice, so that none is judged by a cold start.
  for (const window of [...windowsToTry, ...windowsToTry]) {
    const ms = await publishAll(nats, publish, { window, count: 1, each: trial });
    best = ms < best.ms ? { window, ms } : best;
  }
  return best.window;
}

interface Contest {
  readonly nats: NatsServer;
  readonly version: string;
  readonly windows: { readonly byHand: number; readonly client: number };
  readonly folder: string;
  readonly shape: Shape;
  /** Of stores, and of publishers; each on a connection of its own. */
  readonly count: number;
}

async function sideBySide(contest: Contest): Promise<Figure[]> {
  const { nats, version, windows, folder, shape, count } = contest;
  const each = total / count;
  const name = `jetstream/${count === 1 ? shape : "stores"}`;
  const outboxFolder = join(folder, "outboxes");
  using cloud = await startServerProcess("cloud", { BENCH_DATA_DIR: join(folder, name) });
  let outboxes: Outbox[] = [];
  let round = 0;
  /** Of the publishing alone: without the time in which a stream is made and removed. */
  const byHand: number[] = [];
  const byClient: number[] = [];
  const times = await inTurn(
    {
      async byHand() {
        byHand.push(await publishAll(nats, publishByHand, { window: windows.byHand, count, each }));
      },
      async client() {
        byClient.push(
          await publishAll(nats, publishByClient, { window: windows.client, count, each }),
        );
      },
      ours: () =>
        Promise.all(
          outboxes.map((outbox) => drain(outbox, { shape, count: each, port: cloud.port })),
        ),
    },
    {
      ...{ rounds, warmUp },
      before() {
        mkdirSync(outboxFolder);
        outboxes = Array.from({ length: count }, (_, i) => {
          const storeId = `store-${round}-${i}`;
          const options = { storeId, count: each, idOf: tillIds(storeId) };
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
  await cloud.stop();
  const who = count === 1 ? "" : ` of ${count} at once`;
  const ours = times.map((round) => round.ours);
  const against = (theirs: readonly number[]) =>
    ours.map((ms, i) => (theirs[i + warmUp] ?? Number.NaN) / ms);
  const rates = (ms: readonly number[]) => ms.map((one) => (total * 1000) / one);
  const what = `events per second${who}`;
  return [
    figure(name, `${what}, ours : JetStream`, "×", against(byHand), { atLeast: 1 }),
    figure(`${name}/client`, `${what}, ours : its client's publish()`, "×", against(byClient), {
      atLeast: 1,
    }),
    figure(`${name}/ours`, `${what}, ours, synced`, "/s", rates(ours)),
    figure(
      `${name}/theirs`,
      `${what}, JetStream ${version}, not synced`,
      "/s",
      rates(byHand.slice(warmUp)),
    ),
  ];
}

let streams = 0;

/** Publishes into a new stream, and removes it. Returns how long the publishing took. */
async function publishAll(
  { url }: NatsServer,
  publish: Publish,
  { window, count, each }: { window: number; count: number; each: number },
): Promise<number> {
  streams += 1;
  const subject = `sales-${streams}`;
  const admin = await connect({ servers: url });
  const manager = await jetstreamManager(admin);
  const batches = publish === publishInBatches ? { allow_atomic: true } : {};
  await manager.streams.add({ name: subject, subjects: [subject], storage: "file", ...batches });
  const startedAt = performance.now();
  await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      // As drain does, which connects too.
      const connection = await connect({ servers: url });
      const idOf = tillIds(`${subject}-${i}`);
      await publish(connection, { subject, window, count: each, idOf });
      await connection.close();
    }),
  );
  const ms = performance.now() - startedAt;
  const { state } = await manager.streams.info(subject);
  if (state.messages !== count * each) {
    throw new Error(`JetStream has ${state.messages} of ${count * each} messages`);
  }
  await manager.streams.delete(subject);
  await admin.close();
  return ms;
}
