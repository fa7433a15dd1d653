/** The programs of a soak, as they come and go. */

import { DatabaseSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import { type Address, parseAddress } from "../../src/address.ts";
import { type Running, start, startProgram } from "../support/brewctl.ts";
import type { FleetOptions } from "./fleet.ts";
import { type Revenant, revenant } from "./revenant.ts";

/** `brewctl serve` on a unix socket: a cloud that comes back must find its address free. */
export function startCloud(path: string, dataDir: string): Promise<Running> {
  return ready(["serve", "--addr", `unix:${path}`, "--data-dir", dataDir], /^streaming-server /m);
}

export interface DaemonOptions {
  readonly storeId: string;
  readonly buffer: string;
  /** Of the cloud, or of the wire to it. */
  readonly addr: string;
  /** A socket for tills, beside a port. */
  readonly socket: string;
  /** More of `run`'s. */
  readonly flags?: readonly string[];
}

export interface Daemon extends Revenant {
  readonly tcp: Address;
  readonly unix: Address;
}

/** `brewctl store-sync run`, with a port and a socket for tills. */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { storeId, buffer, addr, socket, flags = [] } = options;
  let tcp: Address | undefined;
  const daemon = await revenant(async () => {
    const running = start([
      ...["store-sync", "run", "--store", storeId, "--buffer", buffer, "--addr", addr],
      ...["--listen", "127.0.0.1:0", "--listen", `unix:${socket}`, ...flags],
    ]);
    const [, at = ""] = await running.output(/^store-bridge started .*listen=([^,\s]+)/m);
    tcp = parseAddress(at);
    return running;
  });
  return Object.defineProperties(daemon as Daemon, {
    tcp: { get: () => tcp },
    unix: { value: parseAddress(`unix:${socket}`) },
  });
}

/** fleet.ts in a process of its own. */
export async function startFleet(options: FleetOptions): Promise<Running> {
  const fleet = startProgram(process.execPath, [
    ...["--disable-warning=ExperimentalWarning", "test/soak/fleet.ts"],
    JSON.stringify(options),
  ]);
  await fleet.output(/^ready$/m);
  return fleet;
}

async function ready(args: readonly string[], pattern: RegExp): Promise<Running> {
  const running = start(args);
  await running.output(pattern);
  return running;
}

/** How many events are in a cloud's ledger, as another process may ask; 0 before it is there. */
export function ledgerWatch(dataDir: string) {
  let database: DatabaseSync | undefined;
  const size = () => {
    try {
      database ??= new DatabaseSync(`${dataDir}/ledger.db`, { readOnly: true, timeout: 5_000 });
      return Number(database.prepare("SELECT count(*) AS n FROM events").get()?.["n"]);
    } catch {
      return 0;
    }
  };
  return {
    size,
    /** Resolves when there are so many. Rejects with the signal's reason. */
    async until(count: number, { signal }: { signal: AbortSignal }): Promise<void> {
      while (size() < count) {
        await sleep(10, undefined, { signal });
      }
    },
    [Symbol.dispose]: () => database?.close(),
  };
}
