/** A nats-server of Debian's package, on loopback, for as long as a benchmark needs it. */

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { installed, start } from "./processes.ts";

export interface NatsServer extends Disposable {
  /** Such as `nats://127.0.0.1:4222`. */
  readonly url: string;
}

/** Such as `v2.9.10`; installs it if it is not there. Throws if it cannot be had. */
export function natsVersion(): string {
  const version = installed("nats-server") ? versionOf() : undefined;
  if (version === undefined) {
    throw new Error("Debian's package nats-server cannot be installed");
  }
  return version;
}

function versionOf(): string | undefined {
  const { status, stdout } = spawnSync("nats-server", ["--version"], { encoding: "utf8" });
  return status === 0 ? /v\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined;
}

/** Whether it has the option to sync each message before its answer; since 2.10. */
export function canSyncAlways(folder: string): boolean {
  const config = configOf(folder, "sync_interval: always");
  return spawnSync("nats-server", ["-c", config, "-t"], { stdio: "ignore" }).status === 0;
}

/** Starts one with JetStream in an empty folder. `extra` goes into the jetstream block. */
export async function startNats(folder: string, extra = ""): Promise<NatsServer> {
  const server = start("nats-server", ["-c", configOf(folder, extra), "--ports_file_dir", folder], {
    stdio: "ignore",
  });
  for (let i = 0; i < 100; i += 1) {
    const name = readdirSync(folder).find((file) => file.endsWith(".ports"));
    const url = name && urlIn(readFileSync(join(folder, name), "utf8"));
    if (url !== undefined && url !== "") {
      return { url, [Symbol.dispose]: () => server[Symbol.dispose]() };
    }
    await sleep(100);
  }
  server[Symbol.dispose]();
  const log = join(folder, "log");
  throw new Error(`nats-server did not start: ${existsSync(log) ? readFileSync(log, "utf8") : ""}`);
}

/** Undefined while the file is being written. */
function urlIn(ports: string): string | undefined {
  return /nats:\/\/[^"]+/.exec(ports)?.[0];
}

function configOf(folder: string, extra: string): string {
  mkdirSync(folder, { recursive: true });
  const config = join(folder, "nats.conf");
  writeFileSync(
    config,
    `listen: "127.0.0.1:-1"
log_file: "${join(folder, "log")}"
jetstream { store_dir: "${join(folder, "js")}", ${extra} }
`,
  );
  return config;
}
