/**
 * Many stores' bridges in one process, each with a buffer and a wire of its own: 200 daemons would be
 * too many for a small machine. Started by stampede.ts, which may kill it at any time.
 *
 *     node test/soak/fleet.ts '{"stores": [{"storeId", "buffer", "port"}], "seed", "haste"}'
 *
 * Prints `ready` when all of them run, and a line of JSON, `{"reconnects", "duplicates"}`, whenever
 * there were some more of these.
 */

import { Bridge, type BridgeNews } from "../../src/bridge/bridge.ts";
import { Inbox } from "../../src/bridge/inbox.ts";
import { Outbox, retentionMs } from "../../src/bridge/outbox.ts";
import { systemClock } from "../../src/clock.ts";
import { uplinkTo } from "../../src/commands/store-sync/uplink.ts";
import { dice } from "../support/dice.ts";

export interface FleetOptions {
  readonly stores: readonly {
    readonly storeId: string;
    readonly buffer: string;
    /** Of loopback: the store's wire to the cloud. */
    readonly port: number;
  }[];
  readonly seed: number;
  /** What the waits between two attempts are multiplied with: 1 as in a shop. */
  readonly haste: number;
}

/** What has happened since the last such line. */
export interface FleetTally {
  reconnects: number;
  duplicates: number;
}

const clock = systemClock;
const { stores, seed, haste }: FleetOptions = JSON.parse(process.argv[2] ?? "");
const { roll } = dice(seed);

let tally: FleetTally | undefined;
const count = (what: keyof FleetTally) => {
  if (tally === undefined) {
    tally = { reconnects: 0, duplicates: 0 };
    setImmediate(() => {
      process.stdout.write(`${JSON.stringify(tally)}\n`);
      tally = undefined;
    });
  }
  tally[what] += 1;
};

function tell(news: BridgeNews): void {
  if (news.kind === "link" && news.state.kind === "recovered") {
    count("reconnects");
  } else if (news.kind === "answer" && news.answer.kind === "duplicate") {
    count("duplicates");
  } else if (news.kind === "failed") {
    // Whatever is killed or cut, this and an alarm may not happen.
    throw news.error;
  } else if (news.kind === "alarm") {
    throw new Error(news.why);
  }
}

for (const { storeId, buffer, port } of stores) {
  const outbox = new Outbox({ path: buffer, storeId, now: () => clock.now() });
  outbox.drain();
  const inbox = new Inbox(outbox.database, { now: () => clock.now() });
  const cloud = { kind: "tcp", host: "127.0.0.1", port } as const;
  const uplink = { storeId, epoch: () => outbox.epoch(), clock };
  const bridge = new Bridge({
    ...{ outbox, inbox, clock, tell },
    events: uplinkTo(cloud, uplink),
    control: uplinkTo(cloud, uplink),
    random: () => roll() * haste,
    maxAttempts: 5,
    keepMs: retentionMs,
    alarms: () => [],
  });
  bridge.failed.catch((error) => {
    throw error;
  });
}
process.stdout.write("ready\n");
