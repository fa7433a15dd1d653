/**
 * `brewctl head-office cancel`: withdraws a command from the stores that were not sent it yet.
 *
 * rpc: sync.v1.HeadOffice/CancelCommand (proto/sync/v1/head_office.proto)
 * handler: `cancelCommand` in server/head-office.ts
 */

import { Command } from "commander";
import { CancelCommandResponseSchema, CommandState } from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { type ClientFlags, withClientFlags } from "../flags.ts";
import { ndjson } from "../output.ts";
import { ask } from "./ask.ts";
import { storeFlag } from "./store-flag.ts";

export interface CancelFlags extends ClientFlags {
  readonly store?: readonly string[];
}

/** Some stores keep the command. The same exit code as for `stores --check`. */
const troubleExit = 5;

export const command = withClientFlags(
  new Command("cancel")
    .description("withdraw a command that stores were not sent yet")
    .argument("<command-id>", "the command, by its id")
    .addOption(storeFlag("only for this store; may be given several times")),
);

export const examples = `\
  brewctl head-office cancel cmd-102
  brewctl head-office cancel cmd-102 --store store-01
  brewctl head-office commands --state queued          what can be withdrawn`;

export const notes = `\
A store that was not sent the command never gets it. A store that was sent it may apply it all the
same: nothing is changed there, and the exit code is 5. Issue a command that undoes it. The error is
NOT_FOUND for a command that no store has, and FAILED_PRECONDITION where all stores are done with it.`;

export async function run(
  { store = [], output, ...flags }: CancelFlags,
  context: CommandContext,
  [commandId = ""]: readonly string[],
): Promise<Exit> {
  const { terminal } = context;
  return ask({ ...flags, output }, context, async (client, call) => {
    const response = await client.cancelCommand({ commandId, storeIds: [...store] }, call);
    if (output === "ndjson") {
      await terminal.print(ndjson(CancelCommandResponseSchema, response));
    } else {
      for (const { storeId, sequence, state } of response.stores) {
        await terminal.print(
          `${plain(commandId)} as #${sequence} for ${plain(storeId)}: ${outcomeOf(state)}`,
        );
      }
    }
    const kept = response.stores.filter(({ state }) => state !== CommandState.CANCELLED);
    if (kept.length > 0) {
      const stores = kept.length === 1 ? "store keeps" : "stores keep";
      terminal.say(`${kept.length} ${stores} the command; issue one that undoes it`);
    }
    return kept.length > 0 ? troubleExit : 0;
  });
}

function outcomeOf(state: CommandState): string {
  switch (state) {
    case CommandState.CANCELLED:
      return "cancelled";
    case CommandState.RECEIVED:
      return "not cancelled: it was sent, and the store may apply it";
    case CommandState.PARKED:
      return "not cancelled: the store has parked it";
    default:
      return "not cancelled: the store has applied it";
  }
}
