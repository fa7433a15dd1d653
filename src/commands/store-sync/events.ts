/** `brewctl store-sync events`: what this store's buffer holds, event by event, in order. */

import { Command, Option } from "commander";
import { corruptHere, type EventState, eventStates, type Recorded } from "../../bridge/outbox.ts";
import { isCorrupt } from "../../event-checksum.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { integer, maxInt32 } from "../flags.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";
import { eventJson } from "./event-line.ts";

export interface EventsFlags extends LocalFlags {
  readonly state?: EventState;
  readonly limit?: number;
}

export const command = withLocalFlags(
  new Command("events")
    .description("the events of the buffer, in the order of recording; no network needed")
    .addOption(new Option("--state <state>", "only those").choices(eventStates))
    .option("--limit <n>", "at most n events", integer(1)),
);

export const examples = `\
  brewctl store-sync events
  brewctl store-sync events --state parked         with the reason of each
  brewctl store-sync events -o ndjson | jq -r 'select(.type == "Sale") | .payload'`;

/** Read at a time: a longer look would keep SQLite's log from being shortened. */
const pageSize = 200;

export async function run(flags: EventsFlags, context: CommandContext): Promise<Exit> {
  const { terminal, interrupted } = context;
  const { output, state, limit = maxInt32 } = flags;
  const outbox = openBuffer(flags, context);
  try {
    let after = 0;
    let left = limit;
    for (;;) {
      const chosen = state === undefined ? {} : { state };
      const page = outbox.events({ ...chosen, after, limit: Math.min(left, pageSize) });
      for (const event of page) {
        if (terminal.outputLost.aborted || interrupted.aborted) {
          return interrupted.aborted ? interrupted.reason.exit : 0;
        }
        await terminal.print(output === "ndjson" ? eventJson(event, outbox.storeId) : text(event));
      }
      left -= page.length;
      const last = page.at(-1);
      if (last === undefined || left === 0) {
        if (left === limit && output === "text") {
          terminal.say(`no ${state === undefined ? "" : `${state} `}events`);
        }
        return 0;
      }
      after = last.position;
    }
  } finally {
    outbox.close();
  }
}

function text(event: Recorded): string {
  const { seq, state, type, eventId, timestamp, attempts, reason } = event;
  const why = reason === "" ? "" : ` — ${plain(reason)} (${attempts} refused)`;
  const corrupt = isCorrupt(event) && reason !== corruptHere ? ` — ${corruptHere}` : "";
  return `#${seq} ${state.padEnd(7)} [${plain(type)}] ${plain(eventId)} at ${new Date(timestamp).toISOString()}${why}${corrupt}`;
}
