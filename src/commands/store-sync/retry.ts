/** `brewctl store-sync retry`: parked events go back to the pending ones. */

import { randomUUID } from "node:crypto";
import { Command } from "commander";
import { UsageError } from "../../errors.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export interface RetryFlags extends LocalFlags {
  readonly all?: boolean;
  readonly newId?: boolean;
}

export const command = withLocalFlags(
  new Command("retry")
    .description("make parked events pending again; the next flush or channel sends them")
    .argument("[ids...]", "the events, by their ids")
    .option("--all", "all parked events")
    .option("--new-id", "as events of their own, under new ids: the way out of a conflict"),
);

export const examples = `\
  brewctl store-sync retry till-1-0042
  brewctl store-sync retry --all
  brewctl store-sync retry till-1-0042 --new-id    the cloud has another event of this id`;

export const notes = `\
Which events are parked, and why: brewctl store-sync events --state parked`;

export async function run(
  { all = false, newId = false, output, ...flags }: RetryFlags,
  context: CommandContext,
  ids: readonly string[],
): Promise<Exit> {
  if (all === ids.length > 0) {
    throw new UsageError("which events? Name their ids, or say --all", {
      hint: "see: brewctl store-sync events --state parked",
    });
  }
  const { terminal } = context;
  const outbox = openBuffer(flags, context);
  try {
    const pending = outbox.retry(
      all ? "all" : [...new Set(ids)],
      newId ? () => `evt-${randomUUID()}` : undefined,
    );
    for (const eventId of pending) {
      await terminal.print(
        output === "ndjson"
          ? plain(JSON.stringify({ eventId }))
          : `pending again: ${plain(eventId)}`,
      );
    }
    terminal.say(`${pending.length} ${pending.length === 1 ? "event" : "events"} to be sent again`);
    return 0;
  } finally {
    outbox.close();
  }
}
