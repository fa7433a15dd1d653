/**
 * `brewctl store-sync replay`: what the cloud had acknowledged, and is still kept here, goes to it
 * again: for a cloud that has lost its disk. What it still has is a duplicate there and harmless.
 */

import { Command } from "commander";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export const command = withLocalFlags(
  new Command("replay").description(
    "make acknowledged events pending again, for a cloud that has lost them",
  ),
);

export const examples = `\
  brewctl store-sync replay
  brewctl store-sync replay && brewctl store-sync flush`;

export const notes = `\
Acknowledged events are kept for a week. What the cloud still has counts as a duplicate there.`;

export async function run(flags: LocalFlags, context: CommandContext): Promise<Exit> {
  const outbox = openBuffer(flags, context);
  try {
    let events = 0;
    for (const some of outbox.replaying()) {
      events += some;
      // Whoever drains or records has its turn.
      await context.clock.sleep(1, { signal: context.interrupted });
    }
    await context.terminal.print(
      flags.output === "ndjson"
        ? JSON.stringify({ events })
        : `${events} ${events === 1 ? "event" : "events"} to be sent again`,
    );
    return 0;
  } catch (error) {
    if (error instanceof Stop) {
      return error.exit;
    }
    throw error;
  } finally {
    outbox.close();
  }
}
