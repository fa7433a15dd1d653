/**
 * A nats-server on loopback, for as long as a benchmark needs it: a pinned release where Go is
 * installed, else Debian's package, which is years older.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { canRunGo } from "./peer-programs.ts";
import { installed, root, start } from "./processes.ts";

const release = "v2.15.2";

/** Go builds it once; it stays there until the dependencies are installed again. */
const built = join(root, "node_modules/.cache/nats", release, "nats-server");

export interface NatsServer extends Disposable {
  /** Such as `nats://127.0.0.1:4222`. */
  readonly url: string;
}

/** A nats-server that can be started. */
export interface NatsProgram {
  readonly file: string;
  /** Such as `v2.9.10`. */
  readonly version: string;
}

/** Installs it if it is not there. Throws if it cannot be had. */
export function natsProgram(): NatsProgram {
  if (canRunGo()) {
    buildRelease();
    return { file: built, version: release };
  }
  const version = installed("nats-server") ? versionOf("nats-server") : undefined;
  if (version === undefined) {
    throw new Error("Debian's package nats-server cannot be installed");
  }
  return { file: "nats-server", version };
}

function buildRelease(): void {
  if (!existsSync(built)) {
    console.error(`nats-server ${release} is being built; it takes some minutes, once`);
    const args = ["scripts/go", "install", `github.com/nats-io/nats-server/v2@${release}`];
    const env = { ...process.env, GOBIN: dirname(built) };
    execFileSync("sh", args, { cwd: root, env, stdio: ["ignore", "ignore", "inherit"] });
  }
}

function versionOf(file: string): string | undefined {
  const { status, stdout } = spawnSync(file, ["--version"], { encoding: "utf8" });
  return status === 0 ? /v\d+\.\d+\.\d+/.exec(stdout)?.[0] : undefined;
}

/** Whether it has the option to sync each message before its answer; since 2.10. */
export function canSyncAlways({ file }: NatsProgram, folder: string): boolean {
  const config = configOf(folder, "sync_interval: always");
  return spawnSync(file, ["-c", config, "-t"], { stdio: "ignore" }).status === 0;
}

/** Starts one with JetStream in an empty folder. `extra` goes into the jetstream block. */
export async function startNats(
  { file }: NatsProgram,
  folder: string,
  extra = "",
): Promise<NatsServer> {
  const server = start(file, ["-c", configOf(folder, extra), "--ports_file_dir", folder], {
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
