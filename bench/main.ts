/**
 * `make bench`: what our code costs, side by side with what else there is, in one run.
 *
 *     make bench                        all of it, some minutes
 *     make bench ARGS="glue start-up"   parts of it
 *     make bench ARGS="-o ndjson"       a line a figure
 *
 * Ratios hold on any machine; the absolute figures are this one's. Nothing here is asserted: what
 * falls short of its target is marked.
 */

import { backlog } from "./backlog.ts";
import { bridge } from "./bridge.ts";
import { glue } from "./glue.ts";
import { jetstream } from "./jetstream.ts";
import { type Figure, isReached } from "./measure.ts";
import { memory } from "./memory.ts";
import { peers } from "./peers.ts";
import { stampede } from "./stampede.ts";
import { startUp } from "./start-up.ts";
import { subscribers } from "./subscribers.ts";
import { tills } from "./tills.ts";

const parts: Readonly<Record<string, () => Promise<Figure[]>>> = {
  glue,
  "start-up": startUp,
  memory,
  subscribers,
  peers,
  bridge,
  stampede,
  backlog,
  tills,
  jetstream,
};

const args = process.argv.slice(2);
const outputAt = args.findIndex((arg) => arg === "-o" || arg === "--output");
const output = outputAt < 0 ? "text" : args.splice(outputAt, 2)[1];
const unknown = args.find((arg) => !Object.hasOwn(parts, arg));
if (unknown !== undefined || (output !== "text" && output !== "ndjson")) {
  console.error(`usage: make bench ARGS="[${Object.keys(parts).join(" ")}] [-o text|ndjson]"`);
  process.exit(2);
}

const names = args.length > 0 ? args : Object.keys(parts);
if (output === "text") {
  console.log(`${"".padEnd(64)}   median      25%      75%   target`);
}
for (const name of names) {
  for (const figure of (await parts[name]?.()) ?? []) {
    console.log(output === "ndjson" ? JSON.stringify(figure) : row(figure));
  }
}

function row(figure: Figure): string {
  const { bench, what, unit, median, low, high, target } = figure;
  const numbers = [median, low, high].map((value) => format(value).padStart(9)).join("");
  const goal =
    target === undefined
      ? ""
      : `${"atLeast" in target ? `≥ ${target.atLeast}` : `≤ ${target.atMost}`}${isReached(figure) ? "" : "  missed"}`;
  return `${`${bench}: ${what}, ${unit}`.padEnd(64)}${numbers}   ${goal}`.trimEnd();
}

function format(value: number): string {
  return Math.abs(value) >= 1000 ? Math.round(value).toString() : value.toPrecision(3);
}
