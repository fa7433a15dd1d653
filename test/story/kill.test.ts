/**
 * SIGKILL at any moment, of the store's programs, of the cloud or of both: what a store has said
 * that it recorded is in the ledger in the end, once, and nothing else is but what was offered.
 *
 * The moments are seeded: a run that fails names its seed, and BREWCTL_KILL_SEED has it again.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { HeadOffice } from "../../src/gen/sync/v1/head_office_pb.ts";
import { dial } from "../../src/grpc/dial.ts";
import { brewctl, type Running, start } from "../support/brewctl.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
import { never } from "../support/start-server.ts";
import { tempFolder } from "../support/temp.ts";

const seed = Number(process.env["BREWCTL_KILL_SEED"] ?? Date.now() % 1_000_000);

/** At a time: each run has up to three processes. */
const parallel = 3;

type Victim = "store" | "cloud" | "both";

/** Mulberry32: small, and good enough to choose moments. */
function dice(from: number) {
  let state = from;
  const roll = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    /** From 0 up to, not including, n. */
    below: (n: number) => Math.floor(roll() * n),
    isHeads: () => roll() < 0.5,
  };
}

async function startCloud(addr: string, dataDir: string): Promise<Running> {
  const cloud = start(["serve", "--addr", addr, "--data-dir", dataDir]);
  await cloud.output(/^streaming-server started /m);
  return cloud;
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

async function runOnce(runSeed: number, victim: Victim): Promise<void> {
  const { below, isHeads } = dice(runSeed);
  using folder = tempFolder("kill-");
  const path = folder.file("s");
  const addr = `unix:${path}`;
  const dataDir = folder.file("cloud");
  const store = ["--store", "store-01", "--buffer", folder.file("buffer.db")];
  const link = [...store, "--addr", addr];
  const hitsStore = victim !== "cloud";
  const hitsCloud = victim !== "store";
  const offered: string[] = [];
  const recorded: string[] = [];
  let cloud = await startCloud(addr, dataDir);

  const offer = (prefix: string, count: number): Running => {
    const ids = idsOf(prefix, count);
    offered.push(...ids);
    const input = ids.map((id) => `${JSON.stringify(eventOf(id))}\n`).join("");
    return start(["store-sync", "record", "--input", "-", ...store], { input });
  };
  /** Kills a till after it has printed so many lines, or lets it live. */
  const endOf = async (till: Running, lines: number | undefined) => {
    if (lines !== undefined) {
      await printed(till, lines);
      till.child.kill("SIGKILL");
    }
    recorded.push(...saidRecorded(await till.ended));
  };

  try {
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
        }
        if (hitsCloud) {
          cloud.child.kill("SIGKILL");
          await cloud.ended;
          cloud = await startCloud(addr, dataDir);
        }
        await drain.ended;
      }),
    ]);
    if (!hitsStore) {
      // It was connected, so it has outlived the cloud.
      expect(drain.child).toMatchObject({ exitCode: 0 });
    }

    // Everybody is well again, and a fresh event passes with all that was left.
    await using fresh = offer("fresh", 1);
    expect(await fresh.ended).toMatchObject({ code: 0 });
    recorded.push("fresh-1");
    const last = [...wayToDrain(isHeads()), ...link, "--deadline", "20s"];
    const drained = await brewctl(["store-sync", ...last]);
    expect({ code: drained.code, stderr: drained.stderr }).toMatchObject({ code: 0 });
    expect((await brewctl(["store-sync", "status", "--check", ...store])).code).toBe(0);
    cloud.child.kill(isHeads() ? "SIGKILL" : "SIGTERM");
    await cloud.ended;
    expectExactly(readLedger(dataDir), { offered, recorded });
  } catch (error) {
    throw new Error(`run ${runSeed} (${victim}), BREWCTL_KILL_SEED=${seed}`, { cause: error });
  } finally {
    cloud.child.kill("SIGKILL");
    await cloud.ended;
  }
}

describe(`BREWCTL_KILL_SEED=${seed}`, () => {
  test.each<[Victim, number, number]>([
    ["store", 20, 0],
    ["cloud", 16, 100],
    ["both", 16, 200],
  ])(
    "%s killed in each of %i runs: nothing recorded is lost, doubled or changed",
    async (victim, runs, offset) => {
      const left = Array.from({ length: runs }, (_, i) => seed * 1000 + offset + i);
      const worker = async () => {
        for (let next = left.shift(); next !== undefined; next = left.shift()) {
          await runOnce(next, victim).catch((error) => {
            left.length = 0;
            throw error;
          });
        }
      };
      // One that fails does not leave the others' processes behind.
      const ends = await Promise.allSettled(Array.from({ length: parallel }, worker));
      for (const end of ends) {
        if (end.status === "rejected") {
          throw end.reason;
        }
      }
    },
    120_000,
  );
});
