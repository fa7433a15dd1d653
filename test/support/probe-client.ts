/** Asks a server that was started with the probe (probe.ts) for its figures. */

import { connect } from "node:net";
import { text } from "node:stream/consumers";
import { root } from "./brewctl.ts";

export interface Figures {
  /** Bytes of memory after a garbage collection. */
  readonly rss: number;
  readonly heapUsed: number;
  readonly external: number;
  /** The longest time that the event loop kept a timer waiting since the last question. */
  readonly longestDelayMs: number;
  /** The most processor time that a turn of the event loop has used since then. */
  readonly longestTurnMs: number;
}

/** The environment that loads the probe into a process; `path` is for its socket. */
export function probeEnv(path: string): Record<string, string> {
  return { BREWCTL_PROBE: path, NODE_OPTIONS: `--import ${root}test/support/probe.ts` };
}

/** Rejects when the signal aborts, such as when the server's event loop does not come back. */
export async function askProbe(
  path: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<Figures> {
  const socket = connect({ path, signal });
  return JSON.parse(await text(socket)) as Figures;
}
