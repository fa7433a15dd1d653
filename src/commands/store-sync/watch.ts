/**
 * `brewctl store-sync watch`: the cloud's commands for this store, each once: those that were queued
 * while it was away, then each at the moment it is issued.
 *
 * rpc: sync.v1.SyncEngine/WatchCommands (proto/sync/v1/sync_engine.proto)
 * handler: `watchCommands` in server/sync-engine.ts
 * room: bridge/watch.ts, bridge/inbox.ts
 * story: test/story/bridge.test.ts
 */

import { create } from "@bufbuild/protobuf";
import { Command } from "commander";
import { type Command as CloudCommand, Inbox, type Received } from "../../bridge/inbox.ts";
import { watch } from "../../bridge/watch.ts";
import { formatDuration } from "../../duration.ts";
import { CloudCommandSchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { integer } from "../flags.ts";
import { ndjson } from "../output.ts";
import { checkStopFlags, type StopFlags, startStopRules, withStopFlags } from "../stop-rules.ts";
import { becomeApplier, openBuffer, refuseHandedOver } from "./buffer.ts";
import { type LinkFlags, linkTalk, openUplink, withLinkFlags } from "./link-talk.ts";

export interface WatchFlags extends LinkFlags, StopFlags {
  readonly limit?: number;
}

export const command = withStopFlags(
  withLinkFlags(
    new Command("watch")
      .description("receive the cloud's commands, each once (server stream)")
      .option("--limit <n>", "stop after n commands", integer(1)),
  ),
  "commands",
);

export const examples = `\
  brewctl store-sync watch                         until Ctrl+C
  brewctl store-sync watch --store store-01 -o ndjson | jq -r .payloadJson
  brewctl store-sync watch --expect 3 --within 5s  exit 4 unless three come in time`;

export const notes = `\
A command is printed when it is on this disk, and never again. The program that reads this output is
the one that applies it, so head office shows a command that was printed as applied, whatever its
reader does. Use run --exec to have an exit code decide, and to repeat what has failed. A command of a
type that this store does not know is kept and counted as parked; the ones after it come all the same.`;

export async function run(flags: WatchFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted } = context;
  const { output, limit, deadline } = flags;
  checkStopFlags(flags, limit);
  const outbox = openBuffer(flags, context, { makes: flags.store !== undefined });
  refuseHandedOver(outbox);
  const lock = becomeApplier(outbox);
  const inbox = new Inbox(outbox.database, { now: () => clock.now() });
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, interrupted, terminal.outputLost]);
  const uplink = openUplink(flags, outbox, context);
  const stop = (reason: Stop) => over.abort(reason);
  const tell = linkTalk(context);
  let isWatching = false;
  let received = 0;
  let ended: Stop;
  try {
    if (flags.waitReady !== undefined) {
      await uplink.waitReady({ signal, waitMs: flags.waitReady });
    }
    if (deadline !== undefined) {
      const reason = new Stop(`--deadline ${formatDuration(deadline)}`, 68);
      clock.sleep(deadline, { signal }).then(
        () => stop(reason),
        () => {},
      );
    }
    const rules = startStopRules(flags, { clock, signal, stop });
    await watch({
      ...{ inbox, uplink, clock, random, signal },
      onState(state) {
        tell(state);
        if (state.kind === "live" && !isWatching) {
          isWatching = true;
          terminal.say(`watching as ${plain(outbox.storeId)}`);
        }
      },
      async onCommand(command, outcome) {
        if (outcome.kind === "known") {
          return;
        }
        received += 1;
        await terminal.print(output === "ndjson" ? json(command) : text(command, outcome));
        rules.count();
        if (received === limit) {
          stop(new Stop("limit reached"));
        }
      },
    });
    return 0;
  } catch (error) {
    if (!(error instanceof Stop)) {
      throw error;
    }
    ended = error;
  } finally {
    over.abort(new Stop("over"));
    uplink.close();
    lock.release();
    outbox.close();
  }
  const commands = `${received} ${received === 1 ? "command" : "commands"}`;
  terminal.say(`watch ended, got ${commands} · ${plain(ended.message)}`);
  return ended.exit;
}

function text({ type }: CloudCommand, received: Received): string {
  return received.kind === "parked"
    ? `[${plain(type)}] received → parked: ${plain(received.reason)}`
    : `[${plain(type)}] received → applying locally`;
}

function json({ commandId, type, payloadJson, sequence, issuedAt }: CloudCommand): string {
  const numbers = { sequence: BigInt(sequence), issuedAt: BigInt(issuedAt) };
  const message = create(CloudCommandSchema, { commandId, type, payloadJson, ...numbers });
  return ndjson(CloudCommandSchema, message);
}
