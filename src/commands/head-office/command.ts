/**
 * `brewctl head-office command`: queues a command for one store, several or all; each gets it at once
 * if it is watching, and else when it comes back.
 *
 * rpc: sync.v1.HeadOffice/IssueCommand (proto/sync/v1/head_office.proto)
 * handler: `issueCommand` in server/head-office.ts
 */

import { Command } from "commander";
import { commandTypes } from "../../bridge/inbox.ts";
import { messageOf, UsageError } from "../../errors.ts";
import { IssueCommandResponseSchema } from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, nonEmpty, withClientFlags } from "../flags.ts";
import { ndjson } from "../output.ts";
import { ask } from "./ask.ts";
import { storeFlag } from "./store-flag.ts";

export interface CommandFlags extends ClientFlags {
  readonly store?: readonly string[];
  readonly allStores?: boolean;
  readonly type: string;
  readonly payload: string;
  readonly id?: string;
}

export const command = withClientFlags(
  new Command("command")
    .description("queue a command for one store, several, or all")
    .addOption(storeFlag("the store that it is for; may be given several times"))
    .option("--all-stores", "for all that the cloud has heard of")
    .requiredOption("--type <type>", `what to do: ${commandTypes.join(", ")}`, nonEmpty)
    .option("--payload <json>", "what belongs to it", "{}")
    .option("--id <id>", "its id; the same command again is then safe (default: a random one)"),
);

export const examples = `\
  brewctl head-office command --store store-01 --type PriceUpdate --payload '{"sku":"ITEM-42","newPrice":299}'
  brewctl head-office command --store store-01 --type PromoActivate --id cmd-102 --payload '{"promoCode":"SUMMER10"}'
  brewctl head-office command --store store-01 --store store-02 --type StockAlert
  brewctl head-office command --all-stores --type PriceUpdate --id price-7 --payload '{"newPrice":299}'`;

export const notes = `\
It is queued for all of them or for none. With --id the same command again is safe, also with more
stores: a store that has it keeps the one that is there.`;

export async function run(flags: CommandFlags, context: CommandContext): Promise<Exit> {
  const { terminal } = context;
  const { store: storeIds = [], allStores = false, output } = flags;
  const { type, payload: payloadJson, id: commandId = "" } = flags;
  if (allStores === storeIds.length > 0) {
    throw new UsageError("expected --store, once or several times, or --all-stores");
  }
  try {
    JSON.parse(payloadJson);
  } catch (error) {
    throw new UsageError(`--payload is not JSON: ${messageOf(error)}`, {
      hint: `such as: --payload '{"sku":"ITEM-42","newPrice":299}'`,
    });
  }
  return ask(flags, context, async (client, call) => {
    const request = { storeIds: [...storeIds], allStores, commandId, type, payloadJson };
    const response = await client.issueCommand(request, call);
    if (output === "ndjson") {
      await terminal.print(ndjson(IssueCommandResponseSchema, response));
    } else {
      const id = plain(response.commandId);
      for (const { storeId, sequence, isWatching } of response.queued) {
        const when = isWatching ? "it is watching" : "it gets it when it comes back";
        await terminal.print(`queued ${id} as #${sequence} for ${plain(storeId)}: ${when}`);
      }
    }
    for (const { storeId, isKnown } of response.queued) {
      if (!isKnown) {
        const undo = `brewctl head-office cancel ${plain(response.commandId)} --store ${plain(storeId)}`;
        terminal.say(`the cloud has never heard of ${plain(storeId)}; if it is mistyped: ${undo}`);
      }
    }
    if (!commandTypes.includes(type)) {
      terminal.say(
        `store-sync watch knows ${commandTypes.join(", ")} and parks ${plain(type)}; a program (run --exec) gets it`,
      );
    }
    return 0;
  });
}
