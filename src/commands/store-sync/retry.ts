/** `brewctl store-sync retry`: parked events or commands get another chance. */

import { Command, Option } from "commander";
import { Inbox } from "../../bridge/inbox.ts";
import { UsageError } from "../../errors.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";
import { newIds } from "./new-id.ts";

export interface RetryFlags extends LocalFlags {
  readonly all?: boolean;
  readonly newId?: boolean;
  readonly commands?: boolean;
}

export const command = withLocalFlags(
  new Command("retry")
    .description("make parked events pending again; the next flush or channel sends them")
    .argument("[ids...]", "the events, or commands, by their ids")
    .option("--all", "all that are parked")
    .addOption(
      new Option("--commands", "parked commands instead: they wait to be applied again").conflicts(
        "newId",
      ),
    )
    .option("--new-id", "as events of their own, under new ids: the way out of a conflict"),
);

export const examples = `\
  brewctl store-sync retry till-1-0042
  brewctl store-sync retry --all
  brewctl store-sync retry till-1-0042 --new-id    the cloud has another event of this id
  brewctl store-sync retry --commands cmd-0017     once it can be applied`;

export const notes = `\
Which events are parked, and why: brewctl store-sync events --state parked
The same for commands: brewctl store-sync commands --state parked`;

export async function run(
  { all = false, newId = false, commands = false, output, ...flags }: RetryFlags,
  context: CommandContext,
  ids: readonly string[],
): Promise<Exit> {
  const what = commands ? "commands" : "events";
  if (all === ids.length > 0) {
    throw new UsageError(`which ${what}? Name their ids, or say --all`, {
      hint: `see: brewctl store-sync ${what} --state parked`,
    });
  }
  const { terminal, clock } = context;
  const outbox = openBuffer(flags, context);
  try {
    const chosen = all ? "all" : [...new Set(ids)];
    const again = commands
      ? new Inbox(outbox.database, { now: () => clock.now() }).retry(chosen)
      : outbox.retry(chosen, newId ? newIds(() => clock.now()) : undefined);
    for (const id of again) {
      await terminal.print(
        output === "ndjson"
          ? plain(JSON.stringify(commands ? { commandId: id } : { eventId: id }))
          : `${commands ? "waits again" : "pending again"}: ${plain(id)}`,
      );
    }
    const things = again.length === 1 ? what.slice(0, -1) : what;
    terminal.say(`${again.length} ${things} to be ${commands ? "applied" : "sent"} again`);
    return 0;
  } finally {
    outbox.close();
  }
}
