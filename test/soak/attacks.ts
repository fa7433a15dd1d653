/**
 * Every attack of test/support/attacks against a real server, one by one and then all together, round
 * after round. Beside them well-behaved clients want to be served as if nothing happened, and the
 * server's memory and its event loop are watched.
 *
 * The attackers run in processes of their own, with a low priority: they stand for machines elsewhere,
 * and must not take the processor from the server and the good clients.
 */

import { spawnSync } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { attacks as allAttacks, bridgeAttacks } from "../support/attacks/index.ts";
import { type Running, startProgram } from "../support/brewctl.ts";
import type { Figures } from "../support/probe-client.ts";
import { residentBytes } from "../support/process-figures.ts";
import { tempFolder } from "../support/temp.ts";
import {
  describeRow,
  describeTimes,
  megabyte,
  megabytes,
  missesOf,
  type Row,
} from "./attack-row.ts";
import { type GoodTimes, type Kind, openSubject, type Subject } from "./attacked.ts";

export interface AttacksOptions {
  /** Only this attack, or `together`; without it, each of them and then all together. */
  readonly name?: string | undefined;
  readonly rounds: number;
  readonly say: (line: string) => void;
}

/** The name that stands for all attacks at the same time. */
export const together = "together";

/** How much more heap and external memory a server may keep after a round, in bytes. */
const maxKeptBytes = 50 * megabyte;

/** How much the resident memory after a round may differ from that after the first one, in bytes. */
const maxGrowthBytes = 64 * megabyte;

/** How long one attack is watched, in milliseconds, if it does not get everything sent before. */
const watchedMs = 50_000;

/** How long everything that was sent stays in place before the last good clients come, in milliseconds. */
const takesInMs = 2_000;

/** How long an attacker that was stopped may take to say what it was answered, in milliseconds. */
const lastWordsMs = 5_000;

/** How long the server may take to let go of what the attackers left, in milliseconds. */
const settlesMs = 10_000;

/** How long the server may take to come back to its probe after an attack, in milliseconds. */
const comesBackMs = 15_000;

/** Throws an error that lists every bound that was missed. */
export async function attacks({ name, rounds, say }: AttacksOptions): Promise<void> {
  using folder = tempFolder("attacks-");
  const chosen = name === undefined || name === together ? Object.keys(allAttacks) : [name];
  const misses: string[] = [];
  const kindsOf = (names: readonly string[]) => [...new Set(names.map(kindOf))];
  const subjects = new Map<Kind, Subject>();
  // The bridge's cloud is the one that is attacked, too.
  for (const kind of kindsOf(chosen).includes("bridge")
    ? (["cloud", "bridge"] as const)
    : (["cloud"] as const)) {
    subjects.set(kind, await openSubject(kind, folder, subjects.get("cloud")?.port));
  }
  await using stack = new AsyncDisposableStack();
  stack.defer(async () => {
    for (const subject of [...subjects.values()].reverse()) {
      await subject.end();
    }
  });
  const subjectOf = (kind: Kind): Subject => {
    const subject = subjects.get(kind);
    if (subject === undefined) {
      throw new Error(`there is no ${kind} to attack`);
    }
    return subject;
  };

  const start = new Map<Kind, Figures>();
  const quiet = new Map<Kind, GoodTimes>();
  for (const [kind, subject] of subjects) {
    await subject.good();
    quiet.set(kind, await subject.good());
    start.set(kind, await subject.ask(comesBackMs));
    say(`${kind} at rest: ${describeTimes(quiet.get(kind) ?? {})}`);
  }
  say("attack | good clients | peak memory | longest turn, delay | what the server answered");
  const firstRss = new Map<Kind, number>();
  for (let round = 1; round <= rounds; round++) {
    say(`round ${round}`);
    for (const attack of name === together ? [] : chosen) {
      const row = await attacked([attack], subjectOf(kindOf(attack)));
      say(describeRow(row));
      misses.push(...missesOf(row, quiet.get(kindOf(attack)) ?? {}));
    }
    if (chosen.length > 1) {
      const all = chosen.filter((attack) => kindOf(attack) === "cloud");
      const row = await attacked(all, subjectOf("cloud"));
      say(describeRow(row));
      misses.push(...missesOf(row, quiet.get("cloud") ?? {}));
    }
    for (const [kind, subject] of subjects) {
      const now = await settled(subject, keptOf(start.get(kind)));
      const kept = keptOf(now) - keptOf(start.get(kind));
      const before = firstRss.get(kind) ?? now.rss;
      firstRss.set(kind, before);
      say(`${kind} after round ${round}: ${megabytes(kept)} kept, ${megabytes(now.rss)} resident`);
      if (kept > maxKeptBytes) {
        misses.push(`${kind} keeps ${megabytes(kept)} after round ${round}`);
      }
      if (now.rss - before > maxGrowthBytes) {
        misses.push(`${kind} grew to ${megabytes(now.rss)} by round ${round}`);
      }
    }
  }
  if (misses.length > 0) {
    throw new Error(`${misses.length} bounds were missed:\n${misses.join("\n")}`);
  }
}

/** The figures of a server when it has let go of what the attackers left, or after a while. */
async function settled(subject: Subject, start: number): Promise<Figures> {
  const until = performance.now() + settlesMs;
  for (;;) {
    const now = await subject.ask(comesBackMs);
    if (keptOf(now) - start <= maxKeptBytes || performance.now() > until) {
      return now;
    }
    await sleep(500);
  }
}

/** Attacks once, by all of these attackers at once, while good clients come and go. */
async function attacked(names: readonly string[], subject: Subject): Promise<Row> {
  const readsLog = !names.includes("empty-events");
  if (!readsLog) {
    subject.running.child.stderr?.pause();
  }
  const isOver = new AbortController();
  const peak = peakBytes(subject.running.child.pid, isOver.signal);
  const attackers = names.map((name) => attacker(name, subject.port));
  const sent = Promise.all(
    attackers.map((running) =>
      running.output(/^sent$/m).then(
        () => {},
        () => {},
      ),
    ),
  );
  let sentAt = Number.POSITIVE_INFINITY;
  sent.then(() => {
    sentAt = performance.now();
  });
  const until = performance.now() + watchedMs;
  let good: GoodTimes = {};
  for (let isLast = false; !isLast; ) {
    // The last pass begins when everything was sent, and the server has had time to take it in.
    isLast = performance.now() > Math.min(sentAt + takesInMs, until);
    good = slowest(good, await subject.good());
  }
  const answers = await Promise.all(attackers.map(answersOf));
  isOver.abort();
  subject.running.child.stderr?.resume();
  const figures = await subject.ask(comesBackMs).catch(() => undefined);
  if (figures === undefined) {
    await subject.replace();
  }
  return { names, good, peakBytes: await peak, figures, answers: answers.join("; ") };
}

/**
 * An attacker is somebody else's machine. Here it must share ours, so it gets what the server leaves of
 * the first core, where the system can say so.
 */
const onOneCore =
  spawnSync("taskset", ["-c", "0", "true"]).status === 0 ? ["taskset", "-c", "0"] : [];

function attacker(name: string, port: number): Running {
  const [program = "nice", ...args] = [
    ...[...onOneCore, "nice", "-n", "19", process.execPath],
    ...["--disable-warning=ExperimentalWarning", "test/soak/attacker.ts", name, String(port)],
  ];
  return startProgram(program, args);
}

/** Stops an attacker and reads what it was answered. */
async function answersOf(running: Running): Promise<string> {
  running.child.kill("SIGTERM");
  const deadline = setTimeout(() => running.child.kill("SIGKILL"), lastWordsMs);
  const { stdout, stderr } = await running.ended;
  clearTimeout(deadline);
  const line = /^\{.*\}$/m.exec(stdout)?.[0];
  if (line === undefined) {
    return stderr === "" ? "the attacker was not done" : stderr.trim();
  }
  const { counts, messages } = JSON.parse(line) as {
    readonly counts: Readonly<Record<string, number>>;
    readonly messages: Readonly<Record<string, string>>;
  };
  return Object.entries(counts)
    .map(([kind, count]) => {
      const message = messages[kind];
      const said = message === undefined || kind === "OK" ? "" : ` (${message.slice(0, 100)})`;
      return `${count} × ${kind}${said}`;
    })
    .join(", ");
}

/** The most resident memory that a process has until the signal aborts, looked at every 50 ms. */
async function peakBytes(pid: number | undefined, signal: AbortSignal): Promise<number> {
  let peak = 0;
  while (!signal.aborted) {
    peak = Math.max(peak, (await residentBytes(pid)) ?? 0);
    await sleep(50);
  }
  return peak;
}

const kindOf = (name: string): Kind => (Object.hasOwn(bridgeAttacks, name) ? "bridge" : "cloud");

const keptOf = (figures: Figures | undefined) =>
  (figures?.heapUsed ?? 0) + (figures?.external ?? 0);

function slowest(one: GoodTimes, other: GoodTimes): GoodTimes {
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])] as (keyof GoodTimes)[];
  return Object.fromEntries(keys.map((key) => [key, Math.max(one[key] ?? 0, other[key] ?? 0)]));
}
