/**
 * A wire fuzzer: random calls (fuzz-case.ts) to a real cloud and a real bridge, a batch at a time. After
 * each batch the processes live, a good call is answered in time, no call was answered with INTERNAL or
 * UNKNOWN, and no log has a fault in it.
 *
 * Every case has a seed of its own. A case that finds something is made as small as it can be, and
 * printed with the seed that makes the same case again.
 */

import type { Answer } from "../support/attacks/answers.ts";
import { type FuzzCase, fuzzCase } from "./fuzz-case.ts";
import { FuzzedServers } from "./fuzzed-servers.ts";

export interface FuzzOptions {
  readonly seed: number;
  /** How many cases; without it, as many as there is time for. */
  readonly runs?: number | undefined;
  readonly seconds: number;
  readonly say: (line: string) => void;
}

/** How many cases run at once. */
const batchSize = 100;

/** How many calls may be made to find a smaller case that shows the same. */
const maxShrinks = 150;

/** Then there is enough to mend. */
const maxFindings = 20;

interface Finding {
  readonly what: string;
  /** The case that shows it alone; undefined if it takes several. */
  readonly fuzzed: FuzzCase | undefined;
  /** The first seed, and the number of cases from there on, that show it on new servers. */
  readonly again: readonly [seed: number, runs: number];
}

/** Throws an error that lists what was found. */
export async function fuzz({ seed, runs, seconds, say }: FuzzOptions): Promise<void> {
  await using servers = new FuzzedServers();
  await servers.start();
  const findings = new Map<string, string>();
  const note = ({ what, fuzzed, again }: Finding) => {
    const signature = what.replace(/\d+/g, "N").slice(0, 120);
    if (!findings.has(signature)) {
      const text = describe({ what, fuzzed, again });
      findings.set(signature, text);
      say(text);
    }
  };
  const until = performance.now() + seconds * 1_000;
  const max = runs ?? Number.POSITIVE_INFINITY;
  let done = 0;
  let startedAt = 0;
  while (done < max && performance.now() < until && findings.size < maxFindings) {
    const size = Math.min(batchSize, max - done);
    const batch = Array.from({ length: size }, (_, i) => fuzzCase(seed + done + i));
    const answers = await Promise.all(batch.map((fuzzed) => servers.call(fuzzed)));
    done += size;
    const trouble = await servers.trouble();
    const answered = batch.filter((_, i) => isFault(answers[i]));
    if (trouble === undefined && answered.length === 0) {
      continue;
    }
    say(`${done} cases from seed ${seed} on: ${trouble ?? "an answer"}; looking for the case`);
    // A case that does the same to new servers is a finding of its own.
    const [first] = answered;
    const alone = await culprit(first === undefined ? batch : [first], servers);
    if (alone !== undefined) {
      const { what, fuzzed } = alone;
      note({ what, fuzzed: await shrunk(fuzzed, what, servers), again: [fuzzed.seed, 1] });
    } else {
      const answer = answers.find(isFault);
      const what = answer === undefined ? (trouble ?? "") : textOf(answer);
      note({ what, fuzzed: undefined, again: [seed + startedAt, done - startedAt] });
    }
    await servers.start();
    startedAt = done;
  }
  say(`${done} cases from seed ${seed} on, ${findings.size} findings`);
  if (findings.size > 0) {
    throw new Error([...findings.values()].join("\n\n"));
  }
}

/** The case of a batch that does the same to new servers, alone; undefined if it takes several. */
async function culprit(
  batch: readonly FuzzCase[],
  servers: FuzzedServers,
): Promise<{ readonly what: string; readonly fuzzed: FuzzCase } | undefined> {
  await servers.start();
  const answers = await Promise.all(batch.map((fuzzed) => servers.call(fuzzed)));
  for (const [i, fuzzed] of batch.entries()) {
    const answer = answers[i];
    if (isFault(answer)) {
      return { what: textOf(answer), fuzzed };
    }
  }
  const what = await servers.trouble();
  const [only] = batch;
  if (what === undefined || only === undefined) {
    return undefined;
  }
  if (batch.length === 1) {
    return { what, fuzzed: only };
  }
  const half = Math.ceil(batch.length / 2);
  return (
    (await culprit(batch.slice(0, half), servers)) ?? (await culprit(batch.slice(half), servers))
  );
}

const textOf = ({ kind, message }: Answer) => `${kind}: ${message}`;

function isFault(answer: Answer | undefined): answer is Answer {
  if (answer === undefined) {
    return false;
  }
  return answer.kind === "INTERNAL" || answer.kind === "UNKNOWN";
}

/** The smallest case found that is answered in the same way. What is not an answer stays as it is. */
async function shrunk(fuzzed: FuzzCase, what: string, servers: FuzzedServers): Promise<FuzzCase> {
  const kind = /^(INTERNAL|UNKNOWN)/.exec(what)?.[0];
  if (kind === undefined) {
    return fuzzed;
  }
  let least = fuzzed;
  let left = maxShrinks;
  const tries = async (smaller: FuzzCase): Promise<boolean> => {
    left -= 1;
    const answer = await servers.call(smaller);
    const isSame = answer.kind === kind && isFault(answer);
    if (isSame) {
      least = smaller;
    }
    return isSame;
  };
  await tries({ ...least, headers: {} });
  await tries({ ...least, splitEvery: 0, end: "half-close" });
  await tries({ ...least, flag: 0, lengthError: 0 });
  for (let i = 0; i < least.messages.length && left > 0; ) {
    const messages = least.messages.filter((_, at) => at !== i);
    i += (await tries({ ...least, messages })) ? 0 : 1;
  }
  for (let i = 0; i < least.messages.length; i++) {
    for (let size = Math.ceil((least.messages[i]?.length ?? 0) / 2); size > 0 && left > 0; ) {
      let isSmaller = false;
      for (let at = 0; at < (least.messages[i]?.length ?? 0) && left > 0; at += size) {
        const before = least.messages[i] ?? Buffer.alloc(0);
        const after = Buffer.concat([before.subarray(0, at), before.subarray(at + size)]);
        const messages = least.messages.map((message, j) => (i === j ? after : message));
        isSmaller = (await tries({ ...least, messages })) || isSmaller;
      }
      size = isSmaller ? Math.min(size, least.messages[i]?.length ?? 0) : Math.floor(size / 2);
    }
  }
  return least;
}

function describe({ what, fuzzed, again: [first, runs] }: Finding): string {
  const replay = `  again: make fuzz ARGS="--seed ${first} --runs ${runs}"`;
  if (fuzzed === undefined) {
    return `by several cases together: ${what}\n${replay}`;
  }
  const { at, path, headers, messages, flag, lengthError, splitEvery, end } = fuzzed;
  const shape = JSON.stringify({ headers, flag, lengthError, splitEvery, end });
  const bytes = messages.map((message) => message.toString("hex").slice(0, 400));
  return [
    `${at} ${path}: ${what}`,
    `  ${shape.slice(0, 400)}`,
    ...bytes.slice(0, 20).map((hex) => `  ${hex === "" ? "(empty message)" : hex}`),
    replay,
  ].join("\n");
}
