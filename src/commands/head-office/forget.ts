/**
 * `brewctl head-office forget`: hides a store that was closed from the list of stores and from `--check`.
 *
 * rpc: sync.v1.HeadOffice/ForgetStore (proto/sync/v1/head_office.proto)
 * handler: `forgetStore` in server/head-office.ts
 */

import { Command } from "commander";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, withClientFlags } from "../flags.ts";
import { ask } from "./ask.ts";

export const command = withClientFlags(
  new Command("forget")
    .description("hide a store that was closed, until it is heard of again")
    .argument("<store>", "the store"),
);

export const examples = `\
  brewctl head-office forget store-07
  brewctl head-office stores --store store-07          it is still there when asked for by name`;

export const notes = `\
The ledger keeps the store's events and their ids for ever: if the store returns, no event counts
twice. Any contact with the store shows it again. The error is NOT_FOUND for a store that the cloud has
never heard of, and FAILED_PRECONDITION for one that is connected now.`;

export async function run(
  flags: ClientFlags,
  context: CommandContext,
  [storeId = ""]: readonly string[],
): Promise<Exit> {
  const { terminal } = context;
  return ask(flags, context, async (client, call) => {
    await client.forgetStore({ storeId }, call);
    await terminal.print(
      flags.output === "ndjson"
        ? plain(JSON.stringify({ storeId }))
        : `forgotten: ${plain(storeId)}, until it is heard of again`,
    );
    return 0;
  });
}
