/**
 * `brewctl head-office command`: queues a command for a store, which gets it at once if it is
 * watching, and else when it comes back.
 *
 * rpc: sync.v1.HeadOffice/IssueCommand (proto/sync/v1/head_office.proto)
 * handler: `issueCommand` in server/head-office.ts
 */

import { Command } from "commander";
import { commandTypes } from "../../bridge/inbox.ts";
import { messageOf, UsageError } from "../../errors.ts";
import { HeadOffice, IssueCommandResponseSchema } from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, nonEmpty, withClientFlags } from "../flags.ts";
import { ndjson } from "../output.ts";
import { ask } from "./ask.ts";

export interface CommandFlags extends ClientFlags {
  readonly store: string;
  readonly type: string;
  readonly payload: string;
  readonly id: string;
}

export const command = withClientFlags(
  new Command("command")
    .description("queue a command for a store")
    .requiredOption("--store <id>", "the store that it is for", nonEmpty)
    .requiredOption("--type <type>", `what to do: ${commandTypes.join(", ")}`, nonEmpty)
    .option("--payload <json>", "what belongs to it", "{}")
    .option("--id <id>", "its id; the same command again is then safe (default: a random one)", ""),
);

export const examples = `\
  brewctl head-office command --store store-01 --type PriceUpdate --payload '{"sku":"ITEM-42","newPrice":299}'
  brewctl head-office command --store store-01 --type PromoActivate --id cmd-102 --payload '{"promoCode":"SUMMER10"}'`;

export async function run(flags: CommandFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const { store: storeId, type, payload: payloadJson, id: commandId } = flags;
  try {
    JSON.parse(payloadJson);
  } catch (error) {
    throw new UsageError(`--payload is not JSON: ${messageOf(error)}`, {
      hint: `such as: --payload '{"sku":"ITEM-42","newPrice":299}'`,
    });
  }
  return ask(HeadOffice, flags, context, async (client, call) => {
    const response = await client.issueCommand(
      { storeIds: [storeId], commandId, type, payloadJson },
      call,
    );
    const { sequence = 0n, isWatching = false } = response.queued[0] ?? {};
    await terminal.print(
      flags.output === "ndjson"
        ? ndjson(IssueCommandResponseSchema, response)
        : `queued ${plain(response.commandId)} as #${sequence} for ${plain(storeId)}: ${isWatching ? "it is watching" : "it gets it when it comes back"}`,
    );
    if (!commandTypes.includes(type)) {
      terminal.say(`a store knows ${commandTypes.join(", ")}; it will park ${plain(type)}`);
    }
    return 0;
  });
}
