/**
 * One store, one cloud, and SIGKILL at seeded moments: of the store's programs, of the cloud, of both.
 * What the store has said that it recorded is in the ledger in the end, once, and nothing else is but
 * what was offered.
 *
 * Half of the runs are of the commands that a person starts, `record` and `flush` or `channel`; half
 * of the daemon `run` with tills at its port, which is also stopped and killed while it stops. A run is
 * a function of its seed, but for what the machine does meanwhile.
 */

import { deepEqual, equal, ok } from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { brewctl, type Running, start } from "../support/brewctl.ts";
import { type Dice, dice } from "../support/dice.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { never } from "../support/start-server.ts";
import { type TempFolder, tempFolder } from "../support/temp.ts";
import { ledgerWatch, startCloud, startDaemon } from "./processes.ts";
import { revenant } from "./revenant.ts";
import { openTill } from "./till.ts";

export const victims = ["store", "cloud", "both"] as const;
export type Victim = (typeof victims)[number];

export const ways = ["commands", "daemon"] as const;
export type Way = (typeof ways)[number];

export interface CampaignResult {
  readonly seed: number;
  readonly way: Way;
  readonly victim: Victim;
  /** Processes that were killed or stopped while they were at work. */
  readonly kills: number;
  readonly events: number;
}

/** Throws an error with `seed`, and as its cause what was lost, doubled or invented. */
export async function campaign(
  seed: number,
  fixed: { readonly way?: Way; readonly victim?: Victim } = {},
): Promise<CampaignResult> {
  const chance = dice(seed);
  const chosen = { way: chance.pick(ways), victim: chance.pick(victims) };
  const { way, victim } = { ...chosen, ...fixed };
  using folder = tempFolder("kill-");
  const run = way === "daemon" ? withDaemon : withCommands;
  try {
    return { seed, way, victim, ...(await run({ victim, folder, chance })) };
  } catch (cause) {
    throw Object.assign(new Error(`seed ${seed} (${way}, ${victim} killed)`, { cause }), { seed });
  }
}

interface RunOptions {
  readonly victim: Victim;
  readonly folder: TempFolder;
  readonly chance: Dice;
}

type Tally = Pick<CampaignResult, "kills" | "events">;

async function withCommands({ victim, folder, chance }: RunOptions): Promise<Tally> {
  const { below, isHeads } = chance;
  const path = folder.file("s");
  const dataDir = folder.file("cloud");
  const store = ["--store", "store-01", "--buffer", folder.file("buffer.db")];
  const link = [...store, "--addr", `unix:${path}`];
  const hitsStore = victim !== "cloud";
  const hitsCloud = victim !== "store";
  const offered: string[] = [];
  const recorded: string[] = [];
  const cut: Running[] = [];
  await using cloud = await revenant(() => startCloud(path, dataDir));

  const offer = (prefix: string, count: number): Running => {
    const ids = idsOf(prefix, count);
    offered.push(...ids);
    return record(ids, store);
  };
  /** Kills a till after it has printed so many lines, or lets it live. */
  const endOf = async (till: Running, lines: number | undefined) => {
    if (lines !== undefined) {
      await printed(till, lines);
      till.child.kill("SIGKILL");
      cut.push(till);
    }
    recorded.push(...saidRecorded(await till.ended));
  };

  // A backlog; its till may be killed in the middle.
  const early = 400 + below(800);
  await using till = offer("early", early);
  await endOf(till, hitsStore && isHeads() ? below(early) : undefined);

  // It drains while another till goes on, and the victims are killed on the way.
  await using drain = start(["store-sync", ...wayToDrain(isHeads()), ...link]);
  const moment = Promise.race([taken(path, 1 + below(recorded.length)), drain.ended]);
  const late = 50 + below(100);
  await using second = offer("late", late);
  await Promise.all([
    endOf(second, hitsStore && isHeads() ? below(late) : undefined),
    moment.then(async () => {
      // Up to a few milliseconds more, so that it is not always just after a commit.
      await sleep(below(8));
      if (hitsStore) {
        drain.child.kill("SIGKILL");
        cut.push(drain);
      }
      if (hitsCloud) {
        await cloud.kill();
      }
      await drain.ended;
    }),
  ]);
  if (!hitsStore) {
    // It was connected, so it has outlived the cloud; 5: the till went on when it had just ended.
    ok([0, 5].includes(drain.child.exitCode ?? -1), `it ended with ${drain.child.exitCode}`);
  }

  // Everybody is well again, and a fresh event passes with all that was left.
  await using fresh = offer("fresh", 1);
  equal((await fresh.ended).code, 0);
  recorded.push("fresh-1");
  const last = [...wayToDrain(isHeads()), ...link, "--deadline", "20s"];
  const { code, stderr } = await brewctl(["store-sync", ...last]);
  equal(code, 0, stderr);
  equal((await brewctl(["store-sync", "status", "--check", ...store])).code, 0);
  await cloud.end(isHeads() ? "SIGKILL" : "SIGTERM");
  expectExactly(readLedger(dataDir), { offered, recorded });
  const killed = cut.filter(({ child }) => child.signalCode === "SIGKILL");
  return { kills: cloud.kills + killed.length, events: recorded.length };
}

async function withDaemon({ victim, folder, chance }: RunOptions): Promise<Tally> {
  const { below, isHeads, pick } = chance;
  const path = folder.file("s");
  const dataDir = folder.file("cloud");
  const storeId = "store-01";
  const buffer = folder.file("buffer.db");
  await using cloud = await revenant(() => startCloud(path, dataDir));
  await using daemon = await startDaemon({
    ...{ storeId, buffer, addr: `unix:${path}` },
    socket: folder.file("t"),
  });

  const events = 100 + below(300);
  let answers = 0;
  const waiting = new Set<() => void>();
  const till = (name: string, way: "stream" | "unary", count: number) =>
    openTill({
      ...{ name, way, events: count },
      address: () => (isHeads() ? daemon.tcp : daemon.unix),
      dice: dice(below(2 ** 31)),
      pauseMs: 3,
      onAnswer() {
        answers += 1;
        for (const look of waiting) {
          look();
        }
      },
    });
  const tills = [till("busy", "stream", events), till("slow", "unary", events / 4)];
  const allClosed = Promise.all(tills.map((till) => till.closed));
  // A daemon or a cloud that ends by itself would let the tills try for ever.
  const closed = Promise.race([allClosed, daemon.failed, cloud.failed]);
  closed.catch(() => {});
  const answered = (count: number) =>
    new Promise<void>((resolve) => {
      const look = () => {
        if (answers >= count) {
          waiting.delete(look);
          resolve();
        }
      };
      waiting.add(look);
      look();
    });

  // Another process records too, beside the daemon.
  const beside = idsOf("beside", 50 + below(100));
  const other = record(beside, ["--store", storeId, "--buffer", buffer]);
  const moments = Array.from({ length: 1 + below(3) }, () => below(events)).sort((a, b) => a - b);
  for (const moment of moments) {
    await Promise.race([answered(moment), closed]);
    await sleep(below(8));
    const hits = victim === "both" ? pick(["store", "cloud", "both"] as const) : victim;
    const ends: Promise<void>[] = [];
    if (hits !== "cloud") {
      // A daemon that is stopped may be killed before it has ended.
      const isStopped = isHeads();
      ends.push(daemon.kill({ signal: isStopped ? "SIGTERM" : "SIGKILL", downMs: below(100) }));
      if (isStopped && isHeads()) {
        await sleep(below(30));
        daemon.running.child.kill("SIGKILL");
      }
    }
    if (hits !== "store") {
      ends.push(cloud.kill({ downMs: below(100) }));
    }
    await Promise.all(ends);
  }
  await closed;
  const recorded = [
    ...saidRecorded(await other.ended),
    ...tills.flatMap(({ answered }) => [...answered.keys()]),
  ];
  const offered = [...beside, ...tills.flatMap(({ offered }) => [...offered])];
  equal(recorded.length, offered.length);

  // Everybody is well again, and a fresh event passes with all that was left.
  const fresh = till("fresh", "unary", 1);
  await fresh.closed;
  offered.push(...fresh.offered);
  using ledger = ledgerWatch(dataDir);
  // If they do not come, what follows says which are lost.
  await ledger.until(offered.length, { signal: AbortSignal.timeout(60_000) }).catch(() => {});
  const { code, stderr } = await daemon.end("SIGTERM");
  deepEqual(
    { code, left: lastLine(stderr) },
    {
      code: 0,
      left: "store-bridge stopped pending=0 parked=0",
    },
  );
  await cloud.end("SIGKILL");
  expectExactly(readLedger(dataDir), { offered });
  return { kills: cloud.kills + daemon.kills, events: offered.length };
}

function record(ids: readonly string[], store: readonly string[]): Running {
  const input = ids.map((id) => `${JSON.stringify(eventOf(id))}\n`).join("");
  return start(["store-sync", "record", "--input", "-", ...store], { input });
}

/** Resolves when it has printed so many lines, or has ended. */
async function printed(running: Running, lines: number): Promise<void> {
  let seen = 0;
  const enough = new Promise<void>((resolve) => {
    running.child.stdout?.on("data", (text: string) => {
      seen += text.split("\n").length - 1;
      if (seen >= lines) {
        resolve();
      }
    });
  });
  await Promise.race([enough, running.ended]);
}

/** Resolves when so many events are in the cloud's ledger, or it has died. */
async function taken(path: string, count: number): Promise<void> {
  const connection = dial({ kind: "unix", path });
  try {
    let seen = 0;
    const office = connection.client(HeadOffice);
    for await (const _ of office.listEvents({ follow: true }, { signal: never })) {
      seen += 1;
      if (seen >= count) {
        return;
      }
    }
  } catch {
    // It has died.
  } finally {
    connection.close();
  }
}

const wayToDrain = (isFlush: boolean) => (isFlush ? ["flush"] : ["channel", "--until-drained"]);

/** A process that was killed may have written half a line: that was not said. */
const saidRecorded = ({ stdout }: { stdout: string }) =>
  Array.from(stdout.matchAll(/^recorded .* id=(\S+) seq=\d+.*\n/gm), ([, id = ""]) => id);

const lastLine = (text: string) => text.trimEnd().split("\n").at(-1);

/** Runs them a few at a time. Rejects with the first one that fails. */
export async function campaigns(
  runs: readonly Parameters<typeof campaign>[],
  { onResult = () => {} }: { readonly onResult?: (result: CampaignResult) => void } = {},
): Promise<CampaignResult[]> {
  const left = [...runs];
  const results: CampaignResult[] = [];
  const worker = async () => {
    for (let next = left.shift(); next !== undefined; next = left.shift()) {
      const result = await campaign(...next).catch((error) => {
        left.length = 0;
        throw error;
      });
      results.push(result);
      onResult(result);
    }
  };
  // One that fails does not leave the others' processes behind.
  const ends = await Promise.allSettled(Array.from({ length: parallel }, worker));
  for (const end of ends) {
    if (end.status === "rejected") {
      throw end.reason;
    }
  }
  return results;
}

/** At a time: each run has up to four processes. */
const parallel = 3;
