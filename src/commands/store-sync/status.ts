/** `brewctl store-sync status`: what this store's buffer holds, and what a person should look at. */

import { Command } from "commander";
import { Inbox } from "../../bridge/inbox.ts";
import { type Drainer, drainerOf } from "../../bridge/link-note.ts";
import { formatBrief } from "../../duration.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { alarmsOf, type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";
import { leftExit } from "./link-talk.ts";

export interface StatusFlags extends LocalFlags {
  readonly check?: boolean;
}

export const command = withLocalFlags(
  new Command("status")
    .description("what the buffer holds; no network needed")
    .option("--check", "exit 5 if anything is pending, parked or wrong"),
);

export const examples = `\
  brewctl store-sync status
  brewctl store-sync status -o ndjson | jq .pending
  brewctl store-sync status --check -q || echo "not all is in the cloud"`;

export async function run(flags: StatusFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock } = context;
  const outbox = openBuffer(flags, context);
  try {
    const { pending, acked, parked, oldestUnacked } = outbox.counts();
    const commands = new Inbox(outbox.database, { now: () => clock.now() }).counts();
    const wrong = alarmsOf(outbox);
    const pruned = outbox.pruned().reduce((sum, { count }) => sum + count, 0);
    const bytes = outbox.bytes();
    const drainer = drainerOf(outbox);
    if (flags.output === "ndjson") {
      await terminal.print(
        JSON.stringify({
          storeId: outbox.storeId,
          buffer: outbox.path,
          ...{ pending, parked, acked, oldestUnacked: oldestUnacked ?? null },
          pruned,
          commandsReceived: commands.received,
          commandsApplied: commands.applied,
          commandsParked: commands.parked,
          ...{ bytes, epoch: outbox.epoch(), wrong },
          drainer: drainer === undefined ? null : { pid: drainer.pid, ...drainer.note },
        }),
      );
    } else if (!(flags.check && flags.quiet)) {
      // A monitor mails whatever is printed; with --check -q it wants the exit code alone.
      const { red, yellow } = terminal.out;
      const age =
        oldestUnacked === undefined
          ? ""
          : `, the oldest of ${formatBrief(Math.max(0, clock.now() - oldestUnacked))} ago`;
      const lines = [
        ["store", plain(outbox.storeId)],
        ["buffer", `${outbox.path} (${Math.ceil(bytes / 1024)} KiB)`],
        ["bridge", plain(describeDrainer(drainer, clock.now()))],
        ["pending", pending > 0 ? yellow(`${pending}${age}`) : "0"],
        ["parked", parked > 0 ? red(`${parked}: see store-sync events --state parked`) : "0"],
        ["acked", `${acked}, kept for a week`],
        ["pruned", `${pruned}`],
        [
          "commands",
          [
            `${commands.applied} applied`,
            commands.received > 0 ? yellow(`${commands.received} waiting`) : "",
            commands.parked > 0
              ? red(`${commands.parked} parked: see store-sync commands --state parked`)
              : "",
          ]
            .filter(Boolean)
            .join(", "),
        ],
        ["epoch", outbox.epoch()],
        ...wrong.map((what) => ["WRONG", red(plain(what))]),
      ];
      for (const [name = "", value] of lines) {
        await terminal.print(`${name.padEnd(9)} ${value}`);
      }
    }
    const isWell = pending + parked + commands.parked + wrong.length === 0;
    return flags.check && !isWell ? leftExit : 0;
  } finally {
    outbox.close();
  }
}

/** Who brings this buffer's events to the cloud, and whether the cloud is there. */
function describeDrainer(drainer: Drainer | undefined, now: number): string {
  if (drainer === undefined) {
    return "none runs; start one with: brewctl store-sync run";
  }
  const { pid, note } = drainer;
  if (note === undefined) {
    return `process ${pid} has the buffer, and says nothing of its link`;
  }
  const { cloud, link, since, why } = note;
  const duration = formatBrief(Math.max(0, now - since));
  const reason = why === "" ? "" : `: ${why}`;
  return `process ${pid}; its link to ${cloud} has been ${link} for ${duration}${reason}`;
}
