/**
 * `brewctl store-sync acknowledge`: a person has taken note of what a salvage has lost, so that it is
 * no alarm any more.
 *
 * room: bridge/salvage-mark.ts
 */

import { Command } from "commander";
import { openLosses, tellLoss } from "../../bridge/salvage-mark.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export const command = withLocalFlags(
  new Command("acknowledge").description("take note of the events that a salvage has lost"),
);

export const examples = `\
  brewctl store-sync status                        which events are lost?
  brewctl store-sync acknowledge`;

export const notes = `\
When a damaged buffer is salvaged, some events may be lost. Their numbers are an alarm in status, in the
bridge's log and at head office, and head-office reconcile does not certify the rest, until this command
says that somebody has seen to it. The cloud may have some of the lost events:
brewctl head-office events --store ID. The damaged file is kept; this command does not touch it.`;

export async function run(flags: LocalFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const outbox = openBuffer(flags, context);
  try {
    const salvaged = outbox.acknowledgeSalvage();
    const losses = openLosses(salvaged);
    if (flags.output === "ndjson") {
      const at = salvaged === undefined ? null : new Date(salvaged.at).toISOString();
      await terminal.print(JSON.stringify({ storeId: outbox.storeId, salvagedAt: at, losses }));
      return 0;
    }
    if (salvaged === undefined) {
      await terminal.print("there is no salvage to acknowledge");
    } else if (losses.length === 0) {
      await terminal.print(
        `acknowledged: ${salvaged.events} events were salvaged and none is lost`,
      );
    }
    for (const loss of losses) {
      await terminal.print(`acknowledged: ${tellLoss(loss)}`);
    }
    return 0;
  } finally {
    outbox.close();
  }
}
