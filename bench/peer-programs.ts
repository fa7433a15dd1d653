/** The programs in Go of bench/peers, where there is a Go toolchain to build them. */

import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { brewctl, root, start } from "./processes.ts";

/** Whether scripts/go finds a go command. */
export function canRunGo(): boolean {
  return spawnSync("sh", ["scripts/go", "version"], { cwd: root }).status === 0;
}

/** Builds bench/peers as this file. */
export function buildPeers(file: string): void {
  execFileSync("sh", ["scripts/build-peers", file], {
    cwd: root,
    stdio: ["ignore", "ignore", "inherit"],
  });
}

/** A server of the lesson in a process of its own, without any tick or echo delay. */
export interface PeerServer extends Disposable {
  readonly port: number;
  readonly pid: number;
}

export function servePeers(file: string): Promise<PeerServer> {
  return listening(file, ["serve", "-tick", "0", "-echo-delay", "0"]);
}

export function serveBrewctl(): Promise<PeerServer> {
  return listening(brewctl, ["serve", "--addr", "127.0.0.1:0", "--tick", "0", "--echo-delay", "0"]);
}

/** Starts a server, whose first line on standard error names its port; the rest is dropped. */
async function listening(file: string, args: readonly string[]): Promise<PeerServer> {
  const child = start(file, args, { stdio: ["ignore", "ignore", "pipe"] });
  if (child.stderr === null || child.pid === undefined) {
    throw new Error(`${file} did not start`);
  }
  const lines = createInterface({ input: child.stderr });
  const ended = once(child, "exit").then(() => {
    throw new Error(`${file} ${args.join(" ")} ended before it listened`);
  });
  const [line] = (await Promise.race([once(lines, "line"), ended])) as [string];
  ended.catch(() => {});
  // brewctl names the address that was asked for, with port 0, and then the port.
  const port = Number(/ port=(\d+)/.exec(line)?.[1] ?? /addr=\S+:(\d+)/.exec(line)?.[1]);
  return { port, pid: child.pid, [Symbol.dispose]: () => child[Symbol.dispose]() };
}

/** What a run of the load client says; see the struct `result` in bench/peers/load.go. */
export interface LoadResult {
  readonly messages: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
}

export type Load = readonly ["subscribe" | "upload" | "chat", ...flags: string[]];

/** Runs the load client once; throws if a message was missing or out of order. */
export async function runLoad(
  file: string,
  { port }: PeerServer,
  [shape, ...flags]: Load,
): Promise<LoadResult> {
  using child = start(file, ["load", shape, "-addr", `127.0.0.1:${port}`, ...flags]);
  let output = "";
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) {
    throw new Error(`the load client ended with ${code}: ${shape} ${flags.join(" ")}`);
  }
  return JSON.parse(output);
}
