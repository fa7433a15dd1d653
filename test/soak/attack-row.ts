/** What was seen during an attack: its row of the table, and the bounds that were missed. */

import type { Figures } from "../support/probe-client.ts";
import type { GoodTimes } from "./attacked.ts";

export const megabyte = 1024 * 1024;

/**
 * What the good clients may take, in seconds, on a machine whose quiet baseline is `quiet` or less. All
 * attacks together take all of a processor, and then a new connection waits behind the thousand of the
 * attack by connections: libuv accepts one in each turn of the event loop.
 */
const goodLimits = {
  subscribe: { limit: 1.5, together: 5, quiet: 0.7 },
  events: { limit: 1, together: 5, quiet: 0.3 },
} as const;

/**
 * The most processor time that one turn of the server's event loop may take, in milliseconds: for so
 * long nobody else is served. In a turn each connection has a bounded share, and all attacks together
 * have hundreds of connections.
 */
const maxTurnMs = { alone: 100, together: 250 };

/** The most resident memory that a server under attack may have, in bytes. */
const maxPeakBytes = 600 * megabyte;

export interface Row {
  readonly names: readonly string[];
  readonly good: GoodTimes;
  readonly peakBytes: number;
  /** Undefined if the event loop did not come back. */
  readonly figures: Figures | undefined;
  readonly answers: string;
}

/** The bounds that were missed; `quiet` are the good clients' times without an attack. */
export function missesOf({ names, good, peakBytes, figures }: Row, quiet: GoodTimes): string[] {
  const what = nameOf(names);
  const isAlone = names.length === 1;
  const slow = (["subscribe", "events"] as const).flatMap((client) => {
    const { limit, together, quiet: usual } = goodLimits[client];
    const took = good[client] ?? 0;
    // A machine that is slow at rest is slow under attack by the same factor.
    const allowed = (isAlone ? limit : together) * Math.max(1, (quiet[client] ?? usual) / usual);
    return took <= allowed
      ? []
      : [
          `${what}: ${client} took ${took.toFixed(1)} s; at most ${allowed.toFixed(1)} s are allowed`,
        ];
  });
  return [
    ...slow,
    ...(peakBytes <= maxPeakBytes ? [] : [`${what}: ${megabytes(peakBytes)} of memory`]),
    ...(figures === undefined ? [`${what}: the server stopped answering`] : []),
    ...((figures?.longestTurnMs ?? 0) <= maxTurnMs[isAlone ? "alone" : "together"]
      ? []
      : [`${what}: a turn of ${Math.round(figures?.longestTurnMs ?? 0)} ms`]),
  ];
}

export function describeRow({ names, good, peakBytes, figures, answers }: Row): string {
  const loop =
    figures === undefined
      ? "never came back"
      : `${Math.round(figures.longestTurnMs)} ms, ${Math.round(figures.longestDelayMs)} ms`;
  return [nameOf(names), describeTimes(good), megabytes(peakBytes), loop, answers].join(" | ");
}

const nameOf = (names: readonly string[]) => (names.length === 1 ? names.join() : "all together");

export const megabytes = (bytes: number) => `${Math.round(bytes / megabyte)} MB`;

export function describeTimes(good: GoodTimes): string {
  return Object.entries(good)
    .map(([client, seconds]) =>
      Number.isFinite(seconds) ? `${client} ${seconds.toFixed(2)} s` : `${client} not served`,
    )
    .join(", ");
}
