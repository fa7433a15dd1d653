/**
 * `brewctl head-office commands`: what was queued for stores, and what has become of each.
 *
 * rpc: sync.v1.HeadOffice/ListCommands (proto/sync/v1/head_office.proto)
 * handler: `listCommands` in server/head-office.ts
 */

import type { ChalkInstance } from "chalk";
import { Command, Option } from "commander";
import {
  CommandState,
  type ListCommandsResponse,
  ListCommandsResponseSchema,
} from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, nonEmpty, withClientFlags } from "../flags.ts";
import { ndjson, printable } from "../output.ts";
import { ask } from "./ask.ts";

const states = {
  queued: { wire: CommandState.QUEUED, colour: "yellow" },
  received: { wire: CommandState.RECEIVED, colour: "cyan" },
  applied: { wire: CommandState.APPLIED, colour: "green" },
  parked: { wire: CommandState.PARKED, colour: "red" },
  cancelled: { wire: CommandState.CANCELLED, colour: "dim" },
} as const;

export interface CommandsFlags extends ClientFlags {
  readonly store?: string;
  readonly state?: keyof typeof states;
}

export const command = withClientFlags(
  new Command("commands")
    .description("the commands of stores, and what has become of each")
    .option("--store <id>", "only those of this store", nonEmpty)
    .addOption(
      new Option("--state <state>", "only those in this state").choices(Object.keys(states)),
    ),
);

export const examples = `\
  brewctl head-office commands
  brewctl head-office commands --store store-01 --state queued
  brewctl head-office commands --state parked -o ndjson | jq -r '[.storeId, .commandId, .reason] | @tsv'`;

export const notes = `\
queued    the store has not said that it has it
received  it is on the store's disk
applied   the store is done with it
parked    the store could not apply it, and went on with the next one; of a store that has parked
          more than 20, the last 20 are known, and the ones before count as applied
cancelled it was withdrawn before it was sent; the store never gets it`;

export async function run(flags: CommandsFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const { store: storeId = "", state, output } = flags;
  return ask(flags, context, async (client, call) => {
    for await (const queued of client.listCommands({ storeId }, call)) {
      if (state === undefined || queued.state === states[state].wire) {
        await terminal.print(
          output === "ndjson"
            ? ndjson(ListCommandsResponseSchema, queued)
            : printable(() => text(queued, terminal.out)),
        );
      }
    }
    return 0;
  });
}

function text(queued: ListCommandsResponse, out: ChalkInstance): string {
  const { storeId, sequence, commandId, type, issuedAt, reason } = queued;
  const at = new Date(Number(issuedAt)).toISOString();
  const named = Object.entries(states).find(([, { wire }]) => wire === queued.state);
  const state = named === undefined ? "unknown" : out[named[1].colour](named[0]);
  const why = reason === "" ? "" : `: ${plain(reason)}`;
  return `[${plain(storeId)}] #${sequence} ${plain(type)} ${plain(commandId)} at ${at} ${state}${why}`;
}
