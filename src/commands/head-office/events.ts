/**
 * `brewctl head-office events`: what the cloud's ledger has taken, in the order in which it did.
 *
 * rpc: sync.v1.HeadOffice/ListEvents (proto/sync/v1/head_office.proto)
 * handler: `listEvents` in server/head-office.ts
 */

import { Command } from "commander";
import {
  HeadOffice,
  type ListEventsResponse,
  ListEventsResponseSchema,
} from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, integer, nonEmpty, withClientFlags } from "../flags.ts";
import { ndjson, printable } from "../output.ts";
import { ask } from "./ask.ts";

export interface EventsFlags extends ClientFlags {
  readonly store?: string;
  readonly after: number;
  readonly follow?: boolean;
  readonly limit?: number;
}

export const command = withClientFlags(
  new Command("events")
    .description("the events that the cloud has taken, in that order")
    .option("--store <id>", "only those of this store", nonEmpty)
    .option(
      "--after <position>",
      "only those behind this position",
      integer(0, Number.MAX_SAFE_INTEGER),
      0,
    )
    .option("--follow", "go on with those still to come")
    .option("--limit <n>", "stop after n events", integer(1)),
);

export const examples = `\
  brewctl head-office events
  brewctl head-office events --store store-01 -o ndjson | jq -r .payload
  brewctl head-office events --follow --after 1200`;

export async function run(flags: EventsFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const { store: storeId = "", follow = false, limit, output } = flags;
  return ask(HeadOffice, flags, context, async (client, call) => {
    const request = { storeId, after: BigInt(flags.after), follow };
    let shown = 0;
    for await (const event of client.listEvents(request, call)) {
      await terminal.print(
        output === "ndjson"
          ? ndjson(ListEventsResponseSchema, event)
          : printable(() => text(event)),
      );
      shown += 1;
      if (shown === limit) {
        break;
      }
    }
    return 0;
  });
}

function text({ position, storeId, type, eventId, timestamp, seq }: ListEventsResponse): string {
  const at = new Date(Number(timestamp)).toISOString();
  return `${position} [${plain(storeId)}] ${plain(type)} ${plain(eventId)} at ${at}${seq > 0n ? ` seq=${seq}` : ""}`;
}
