/**
 * `brewctl store-sync channel`: events go up as they are recorded, and each gets an answer. It stays
 * up and connects again by itself, for ever.
 *
 * rpc: sync.v1.SyncEngine/OperationalChannel (proto/sync/v1/sync_engine.proto)
 * handler: `operationalChannel` in server/sync-engine.ts
 * room: bridge/channel.ts
 * story: test/story/bridge.test.ts
 */

import { create } from "@bufbuild/protobuf";
import { Command } from "commander";
import { channel } from "../../bridge/channel.ts";
import type { LinkState } from "../../bridge/link.ts";
import type { Settlement } from "../../bridge/outbox.ts";
import type { Answer } from "../../bridge/uplink.ts";
import { formatDuration } from "../../duration.ts";
import { EventAckSchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { positiveDuration } from "../flags.ts";
import { ndjson } from "../output.ts";
import { becomeDrainer, complainOfLedger, openBuffer, tidy } from "./buffer.ts";
import {
  describeLeft,
  type LinkFlags,
  leftExit,
  linkTalk,
  openUplink,
  unmarkedTalk,
  withLinkFlags,
} from "./link-talk.ts";

export interface ChannelFlags extends LinkFlags {
  readonly untilDrained?: boolean;
  readonly for?: number;
}

export const command = withLinkFlags(
  new Command("channel")
    .description("events up, an answer for each down, as long as it is wanted (bidirectional)")
    .option("--until-drained", "end when nothing is pending")
    .option("--for <duration>", "stop after so long", positiveDuration),
);

export const examples = `\
  brewctl store-sync channel                       until Ctrl+C
  brewctl store-sync channel --until-drained       exit 5 if anything is parked
  brewctl store-sync channel -o ndjson | jq -r 'select(.ok | not) | .reason'`;

export const notes = `\
ACK means that the event is on the cloud's disk; it is printed when that is on this disk too. A
refused event is sent again after a while, or parked if another attempt would change nothing.
Ctrl+C sends nothing more and waits up to 2 s for the answers that are due.`;

/** How long a stop waits for the answers that are due, in milliseconds. */
const lastAnswersMs = 2_000;

export async function run(flags: ChannelFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random, interrupted } = context;
  const { output, deadline, untilDrained = false } = flags;
  const outbox = openBuffer(flags, context);
  const lock = becomeDrainer(outbox);
  const over = new AbortController();
  const enough = new AbortController();
  const signal = AbortSignal.any([over.signal, terminal.outputLost]);
  const stop = AbortSignal.any([interrupted, enough.signal]);
  const uplink = openUplink(flags, outbox, context);
  const tell = linkTalk(context);
  const tally = { acked: 0, refused: 0 };
  let printed: Promise<void> | undefined;
  let stopped: Stop | undefined;

  const after = (ms: number | undefined, then: () => void) => {
    if (ms !== undefined) {
      clock.sleep(ms, { signal }).then(then, () => {});
    }
  };
  after(flags.for, () => enough.abort(new Stop(`--for ${formatDuration(flags.for ?? 0)}`)));
  after(deadline, () =>
    enough.abort(new Stop(`--deadline ${formatDuration(deadline ?? 0)}`, leftExit)),
  );
  stop.addEventListener("abort", () => after(lastAnswersMs, () => over.abort(stop.reason as Stop)));

  try {
    if (flags.waitReady !== undefined) {
      await uplink.waitReady({ signal: AbortSignal.any([signal, stop]), waitMs: flags.waitReady });
    }
    await channel({
      ...{ outbox, uplink, clock, random, signal, stop, untilDrained },
      onState(state: LinkState) {
        tell(state);
        if (state.kind === "live") {
          terminal.say("live: everything recorded so far is in the cloud");
          tidy(outbox);
        }
      },
      onAnswer(answer, settlement) {
        tally[settlement.kind === "acked" ? "acked" : "refused"] += 1;
        printed = terminal.print(output === "ndjson" ? json(answer) : text(answer, settlement));
      },
      paced: () => printed,
      onAlarm: (why) => complainOfLedger(terminal, why),
      onUnmarked: unmarkedTalk(context),
    });
    stopped = stop.aborted ? (stop.reason as Stop) : undefined;
  } catch (error) {
    if (!(error instanceof Stop)) {
      throw error;
    }
    stopped = error;
  } finally {
    over.abort(new Stop("over"));
    uplink.close();
    lock.release();
  }
  try {
    const left = describeLeft(outbox);
    const why = stopped?.message ?? "drained";
    terminal.say(
      `channel closed, ${tally.acked} acked · ${left || "nothing left"} · ${plain(why)}`,
    );
    return stopped?.exit ?? (left === "" ? 0 : leftExit);
  } finally {
    outbox.close();
  }
}

function text(answer: Answer, settlement: Settlement): string {
  const id = plain(answer.eventId);
  if (answer.kind !== "refused") {
    return `ACK: ${id}${answer.kind === "duplicate" ? " (the cloud had it already)" : ""}`;
  }
  const what = settlement.kind === "parked" ? "Parked." : "Will retry.";
  return `NACK: ${id} — ${plain(answer.reason)}. ${what}`;
}

/** ProtoJSON of sync.v1.EventAck. */
function json(answer: Answer): string {
  const { eventId } = answer;
  const ack =
    answer.kind === "refused"
      ? {
          reason: answer.reason,
          retryable: answer.isRetryable,
          retryAfterMs: answer.retryAfterMs,
        }
      : { ok: true, duplicate: answer.kind === "duplicate" };
  return ndjson(EventAckSchema, create(EventAckSchema, { eventId, ...ack }));
}
