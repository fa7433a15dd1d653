/**
 * SIGKILL at any moment, of the store's programs, of the cloud or of both: what a store has said
 * that it recorded is in the ledger in the end, once, and nothing else is but what was offered.
 *
 * The moments are seeded: a run that fails names its seed, and BREWCTL_KILL_SEED has it again.
 */

import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { brewctl, type Running, start } from "../support/brewctl.ts";
import { eventOf, expectExactly, idsOf, readLedger } from "../support/oracle.ts";
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

/** Waits until it has printed so many lines, or has ended; then up to so many milliseconds more. */
async function untilLines(running: Running, lines: number, thenMs: number): Promise<void> {
  if (lines > 0) {
    await running.output(new RegExp(`^(?:.*\\n){${lines}}`)).catch(() => {});
  }
  if (thenMs > 0) {
    // The moment itself is the input here; nothing is waited for.
    await sleep(thenMs);
  }
}

/** A process that was killed may have written half a line: that was not said. */
const saidRecorded = ({ stdout }: { stdout: string }) =>
  Array.from(stdout.matchAll(/^recorded .* id=(\S+) seq=\d+.*\n/gm), ([, id = ""]) => id);

async function runOnce(runSeed: number, victim: Victim): Promise<void> {
  const { below, isHeads } = dice(runSeed);
  using folder = tempFolder("kill-");
  const addr = `unix:${folder.file("s")}`;
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
  /** Whether it was let live to its end. */
  const endOf = async (running: Running, kill: { lines: number; ms: number } | undefined) => {
    if (kill !== undefined) {
      await untilLines(running, kill.lines, kill.ms);
      running.child.kill("SIGKILL");
    }
    return await running.ended;
  };
  const moment = (lines: number) => ({ lines: below(lines), ms: isHeads() ? below(12) : 0 });

  try {
    // A backlog; its till may be killed in the middle.
    await using till = offer("early", 20 + below(40));
    recorded.push(
      ...saidRecorded(await endOf(till, hitsStore && isHeads() ? moment(50) : undefined)),
    );

    // It drains, while another till goes on; whoever is the victim is killed on the way.
    const drainBy = isHeads() ? ["flush"] : ["channel", "--until-drained"];
    await using drain = start(["store-sync", ...drainBy, ...link]);
    await using late = offer("late", 10 + below(20));
    const lateEnd = endOf(late, hitsStore && isHeads() ? moment(30) : undefined);
    // A flush of many prints nothing before its end, but it says at once if there is nothing.
    const drainMoment = drainBy[0] === "flush" ? { lines: 0, ms: 60 + below(120) } : moment(60);
    const cloudDies = (async () => {
      if (hitsCloud) {
        await untilLines(drain, drainMoment.lines, drainMoment.ms);
        cloud.child.kill("SIGKILL");
        await cloud.ended;
        cloud = await startCloud(addr, dataDir);
      }
    })();
    if (hitsStore) {
      await endOf(drain, { ...drainMoment, ms: drainMoment.ms + below(20) });
    }
    await cloudDies;
    if (!hitsStore && (await drain.ended).code !== 0) {
      // It had not been connected yet when the cloud died, and a flush then says so and ends.
      expect(drain.stderr).toMatch(/stays? pending|nothing|no server/);
    }
    recorded.push(...saidRecorded(await lateEnd));

    // Everybody is well again, and a fresh event passes with all that was left.
    await using fresh = offer("fresh", 1);
    expect(await fresh.ended).toMatchObject({ code: 0 });
    recorded.push("fresh-1");
    const last = isHeads() ? ["flush"] : ["channel", "--until-drained"];
    const drained = await brewctl(["store-sync", ...last, ...link, "--deadline", "20s"]);
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
  test.each<[Victim, number]>([
    ["store", 20],
    ["cloud", 16],
    ["both", 16],
  ])(
    "%s killed in each of %i runs: nothing recorded is lost, doubled or changed",
    async (victim, runs) => {
      const left = Array.from({ length: runs }, (_, i) => seed * 100 + i);
      const worker = async () => {
        for (let next = left.shift(); next !== undefined; next = left.shift()) {
          await runOnce(next, victim);
        }
      };
      await Promise.all(Array.from({ length: parallel }, worker));
    },
    120_000,
  );
});
