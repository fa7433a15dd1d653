/**
 * `make soak`: nothing is lost, doubled or invented, whatever is killed, cut or swallowed, and a daemon
 * that runs for long stays as large as it is.
 *
 *     make soak                                      all of it, about an hour
 *     make soak ARGS="stampede --stores 50"          one part, smaller
 *     make soak ARGS="campaigns --seed 42 --runs 1"  one run again
 *     make soak ARGS="long-life --events 100000"
 *     make soak ARGS="attacks --attack idle-tills --rounds 1"
 *     make soak ARGS="power-cuts --runs 1000"
 *     make soak ARGS="links --link far"
 *     make fuzz ARGS="--seed 42 --runs 1"            one call of the fuzzer again
 *
 * The parts: stampede.ts, campaign.ts, long-life.ts, attacks.ts, power-cuts.ts, fuzz.ts, links.ts. What goes wrong is chosen by
 * the seed, which is printed first. Ends with 1 when anything was not as it should be, and says how to
 * have it again.
 */

import { inspect, parseArgs } from "node:util";
import { attacks as allAttacks } from "../support/attacks/index.ts";
import { attacks, together } from "./attacks.ts";
import { campaigns } from "./campaign.ts";
import { fuzz } from "./fuzz.ts";
import { drainOver, linkRuns } from "./links.ts";
import { longLife } from "./long-life.ts";
import { cutKinds, powerCuts } from "./power-cuts.ts";
import { stampede, stampedeOf } from "./stampede.ts";

const parts = {
  stampede: runStampede,
  campaigns: runCampaigns,
  "long-life": runLongLife,
  attacks: runAttacks,
  "power-cuts": runPowerCuts,
  fuzz: runFuzz,
  links: runLinks,
};
type Part = keyof typeof parts;
const isPart = (name: string): name is Part => Object.hasOwn(parts, name);

const numbers = ["seed", "stores", "events", "runs", "rounds", "seconds"] as const;
type Name = (typeof numbers)[number];

const { names, given, attack, link } = readArgs();
const seed = given.seed ?? Math.floor(Math.random() * 1_000_000);
const megabytes = (bytes: number) => `${Math.round(bytes / 1024 / 1024)} MB`;

// Whoever stops it leaves neither processes nor folders: those see to that when this one exits.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => process.exit(130));
}

for (const name of names) {
  console.log(`── ${name}, seed ${seed}`);
  try {
    await parts[name]();
  } catch (error) {
    console.error(inspect(error));
    console.error(`${name} FAILED; again: make soak ARGS="${replay(name, error)}"`);
    process.exit(1);
  }
}

async function runStampede(): Promise<void> {
  const { stores = 200, events = 500 } = given;
  const result = await stampede({ ...stampedeOf({ seed, stores, events }), say: console.log });
  const { seconds, peakMemory, kills, reconnects, duplicates } = result;
  console.log(
    [
      `${result.events} events, each once, in ${seconds.toFixed(1)} s`,
      `the cloud's memory at most ${megabytes(peakMemory)}`,
      `${kills} kills, ${reconnects} reconnects, ${duplicates} duplicates`,
      `tills lost their bridges ${result.tillsLost} times and repeated ${result.tillsRepeated} events`,
    ].join("\n"),
  );
}

async function runCampaigns(): Promise<void> {
  const { runs = 300 } = given;
  let done = 0;
  const results = await campaigns(
    Array.from({ length: runs }, (_, i) => [seed + i]),
    {
      onResult({ seed, way, victim, kills, events }) {
        done += 1;
        const what = `${way}, ${victim} killed: ${kills} kills, ${events} events, each once`;
        console.log(`${String(done).padStart(5)}/${runs} seed ${seed}: ${what}`);
      },
    },
  );
  const sum = (of: "kills" | "events") => results.reduce((sum, result) => sum + result[of], 0);
  console.log(`${runs} runs, ${sum("kills")} kills, ${sum("events")} events, each once`);
  if (runs >= 20 && sum("kills") < runs) {
    throw new Error(`too tame: ${sum("kills")} kills in ${runs} runs`);
  }
}

async function runLongLife(): Promise<void> {
  const { events = 1_000_000 } = given;
  const settled = await longLife({ seed, events, say: console.log });
  const range = (of: "memory" | "log" | "buffer") => {
    const sizes = settled.map((sample) => sample[of]);
    return `${of} ${megabytes(Math.min(...sizes))} to ${megabytes(Math.max(...sizes))}`;
  };
  console.log(`after the warm-up: ${range("memory")}, ${range("log")}, ${range("buffer")}`);
}

async function runAttacks(): Promise<void> {
  await attacks({ name: attack, rounds: given.rounds ?? 3, say: console.log });
}

async function runPowerCuts(): Promise<void> {
  const { runs = 10_000 } = given;
  for (const kind of cutKinds) {
    const each = { kind, seed, runs: Math.ceil(runs / cutKinds.length), batches: 60 };
    const result = await powerCuts(each);
    const { cuts, operations, promised, lost, broken, example } = result;
    console.log(
      `${kind}: ${cuts} cuts in ${operations} operations, ${promised} events promised, ${lost} lost, ${broken} files did not open`,
    );
    if (example !== undefined) {
      throw new Error(example);
    }
    const control = await powerCuts({ ...each, runs: 50, ignoresSyncs: true });
    console.log(`${kind}, a disk that ignores syncs: ${control.lost} of ${control.promised} lost`);
    if (control.lost === 0) {
      throw new Error("too tame: a disk that ignores syncs loses nothing");
    }
  }
}

async function runFuzz(): Promise<void> {
  const { runs, seconds = 300 } = given;
  await fuzz({ seed, runs, seconds, say: console.log });
}

async function runLinks(): Promise<void> {
  for (const run of linkRuns.filter(({ name }) => link === undefined || name === link)) {
    const { name, seconds, idealSeconds, limitSeconds, sentTimes, losses } = await drainOver(run);
    const ideal = idealSeconds > 0 ? `, ideal ${idealSeconds.toFixed(1)} s` : "";
    console.log(
      `${name}: ${seconds.toFixed(1)} s of ${limitSeconds.toFixed(0)} s${ideal}, ${sentTimes.toFixed(2)} times the payloads sent, ${losses} losses`,
    );
  }
}

/** The arguments that have the same again. */
function replay(name: Part, error: unknown): string {
  const { seed: failed = seed } = error as { readonly seed?: number };
  const sizes = (["stores", "events"] as const).flatMap((size) =>
    given[size] === undefined ? [] : [`--${size} ${given[size]}`],
  );
  const runs = name === "campaigns" ? ["--runs 1"] : [];
  const attackIfOne = attack === undefined ? [] : [`--attack ${attack}`];
  return [name, `--seed ${failed}`, ...sizes, ...runs, ...attackIfOne].join(" ");
}

function readArgs(): {
  names: readonly Part[];
  given: Partial<Record<Name, number>>;
  attack: string | undefined;
  link: string | undefined;
} {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: Object.fromEntries(
        [...numbers, "attack", "link"].map((name) => [name, { type: "string" as const }]),
      ),
    });
    const given: Partial<Record<Name, number>> = {};
    for (const name of numbers) {
      const text = values[name];
      if (text !== undefined) {
        given[name] = Number(text);
        if (!Number.isSafeInteger(given[name]) || given[name] < 1) {
          throw new Error(`--${name} ${text}: expected a whole number from 1 on`);
        }
      }
    }
    const names = positionals.filter(isPart);
    const unknown = positionals.find((name) => !isPart(name));
    if (unknown !== undefined) {
      throw new Error(`no part ${unknown}`);
    }
    const { attack, link } = values;
    if (link !== undefined && linkRuns.every(({ name }) => name !== link)) {
      throw new Error(`no link ${link}; there are: ${linkRuns.map(({ name }) => name).join(", ")}`);
    }
    if (attack !== undefined && attack !== together && !Object.hasOwn(allAttacks, attack)) {
      throw new Error(`no attack ${attack}; there are: ${Object.keys(allAttacks).join(", ")}`);
    }
    return {
      names: names.length > 0 ? names : (Object.keys(parts) as Part[]),
      given,
      attack,
      link,
    };
  } catch (error) {
    console.error((error as Error).message);
    const options = [
      ...numbers.map((name) => `[--${name} N]`),
      "[--attack NAME] [--link NAME]",
    ].join(" ");
    console.error(`usage: make soak ARGS="[${Object.keys(parts).join(" ")}] ${options}"`);
    process.exit(2);
  }
}
