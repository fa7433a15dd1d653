/** bench/peers: a server and a client on grpc-go, which know nothing of brewctl but its contract. */

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { type Ended, type Running, root, type Served, startProgram } from "./brewctl.ts";

/** Builds the program as this file. Needs Go; the first build on a machine takes a minute or more. */
export async function buildPeers(file: string): Promise<void> {
  // With the environment of the developer: it says where Go keeps its caches.
  await promisify(execFile)("sh", ["scripts/build-peers", file], { cwd: root });
}

/** Starts its server on a free port of loopback. It logs to standard error, ready to be called. */
export async function servePeer(peers: string, args: readonly string[] = []): Promise<Served> {
  const running = startProgram(peers, ["serve", ...args]);
  const [, addr] = await running.output(/msg="peer started" addr=(\S+)/);
  return Object.assign(Object.create(null, Object.getOwnPropertyDescriptors(running)), {
    addr,
  }) as Served;
}

/** What its client prints at the end, when every message has come, in order. */
export interface PeerResult {
  readonly messages: number;
  readonly accepted: number;
  readonly rejected: number;
  readonly totalCents: number;
}

/** Starts its client. */
export function startPeer(
  peers: string,
  shape: "subscribe" | "upload" | "chat",
  args: readonly string[],
): Running {
  return startProgram(peers, ["load", shape, ...args]);
}

/** Runs its client to its end; throws unless it ends well. */
export async function runPeer(...args: Parameters<typeof startPeer>): Promise<PeerResult> {
  await using running = startPeer(...args);
  const { code, stdout, stderr }: Ended = await running.ended;
  if (code !== 0) {
    throw new Error(`the client ended with ${code}: ${stderr}`);
  }
  return JSON.parse(stdout);
}
