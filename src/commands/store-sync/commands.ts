/** `brewctl store-sync commands`: what the cloud has told this store, command by command, in order. */

import { create } from "@bufbuild/protobuf";
import { Command, Option } from "commander";
import {
  type CommandState,
  commandStates,
  Inbox,
  type ReceivedCommand,
} from "../../bridge/inbox.ts";
import { CloudCommandSchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import type { Exit } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { integer, maxInt32 } from "../flags.ts";
import { jsonOf } from "../output.ts";
import { type LocalFlags, openBuffer, withLocalFlags } from "./buffer.ts";

export interface CommandsFlags extends LocalFlags {
  readonly state?: CommandState;
  readonly limit?: number;
}

export const command = withLocalFlags(
  new Command("commands")
    .description("the commands that came from the cloud, in their order; no network needed")
    .addOption(new Option("--state <state>", "only those").choices(commandStates))
    .option("--limit <n>", "at most n commands", integer(1)),
);

export const examples = `\
  brewctl store-sync commands
  brewctl store-sync commands --state parked       with the reason of each
  brewctl store-sync commands -o ndjson | jq -r 'select(.state == "applied") | .commandId'`;

export const notes = `\
received: on this disk, and waits to be applied. parked: it could not be applied, and the ones behind
it went on; to try again: brewctl store-sync retry --commands ID`;

/** Read at a time: a longer look would keep SQLite's log from being shortened. */
const pageSize = 200;

export async function run(flags: CommandsFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, interrupted } = context;
  const { output, state, limit = maxInt32 } = flags;
  const outbox = openBuffer(flags, context);
  const inbox = new Inbox(outbox.database, { now: () => clock.now() });
  try {
    const chosen = state === undefined ? {} : { state };
    let left = limit;
    for (let after = 0; ; ) {
      const page = inbox.commands({ ...chosen, after, limit: Math.min(left, pageSize) });
      for (const command of page) {
        if (terminal.outputLost.aborted || interrupted.aborted) {
          return interrupted.aborted ? interrupted.reason.exit : 0;
        }
        await terminal.print(output === "ndjson" ? json(command) : text(command));
      }
      left -= page.length;
      const last = page.at(-1);
      if (last === undefined || left === 0) {
        if (left === limit && output === "text") {
          terminal.say(`no ${state === undefined ? "" : `${state} `}commands`);
        }
        return 0;
      }
      after = last.number;
    }
  } finally {
    outbox.close();
  }
}

function text(command: ReceivedCommand): string {
  const { sequence, state, type, commandId, issuedAt, attempts, reason } = command;
  const tries = `${attempts} ${attempts === 1 ? "attempt" : "attempts"}`;
  const why = reason === "" ? "" : ` — ${plain(reason)} (${tries})`;
  return `#${sequence} ${state.padEnd(8)} [${plain(type)}] ${plain(commandId)} of ${new Date(issuedAt).toISOString()}${why}`;
}

/** ProtoJSON of sync.v1.CloudCommand, with what the buffer knows of it beside. */
function json(command: ReceivedCommand): string {
  const { commandId, type, payloadJson, sequence, issuedAt } = command;
  const { state, attempts, reason, notBefore, receivedAt } = command;
  const numbers = { sequence: BigInt(sequence), issuedAt: BigInt(issuedAt) };
  const message = create(CloudCommandSchema, { commandId, type, payloadJson, ...numbers });
  const printed = jsonOf(CloudCommandSchema, message);
  const beside = { state, attempts, reason, notBefore, receivedAt };
  return plain(JSON.stringify({ ...printed, ...beside }));
}
