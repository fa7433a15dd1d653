/**
 * One attack in a process of its own, so that its work is not counted as the server's: `node
 * attacker.ts NAME PORT`. It prints `sent` when everything has been sent, stays until SIGTERM or until
 * a minute is over, and prints what the server answered as one line of JSON.
 */

import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { attacks } from "../support/attacks/index.ts";

/** An attack is bounded: nothing stays longer than this, in milliseconds. */
const maxMs = 60_000;

/** How long an attack that was stopped may take to sum up its answers, in milliseconds. */
const lastAnswersMs = 2_000;

const [name = "", port] = process.argv.slice(2);
const attack = attacks[name];
if (attack === undefined) {
  throw new Error(
    `there is no attack ${name}; expected one of: ${Object.keys(attacks).join(", ")}`,
  );
}
const told = new AbortController();
process.once("SIGTERM", () => told.abort());
const signal = AbortSignal.any([told.signal, AbortSignal.timeout(maxMs)]);
// An attack whose connections were all closed waits for nothing that would keep this process alive.
setInterval(() => {}, 1_000);
const gaveUp = once(signal, "abort")
  .then(() => sleep(lastAnswersMs))
  .then(() => ({ counts: { "no answer": 1 }, messages: {} }));
const { counts, messages } = await Promise.race([
  attack({ port: Number(port) }, { signal, onSent: () => process.stdout.write("sent\n") }),
  gaveUp,
]);
process.stdout.write(`${JSON.stringify({ counts, messages })}\n`, () => process.exit(0));
