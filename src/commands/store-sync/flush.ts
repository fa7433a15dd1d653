/**
 * `brewctl store-sync flush`: the backlog goes up, batch by batch, and each batch gets one summary.
 * It ends when nothing is pending, however often the connection breaks on the way.
 *
 * rpc: sync.v1.SyncEngine/UploadBufferedEvents (proto/sync/v1/sync_engine.proto)
 * handler: `uploadBufferedEvents` in server/sync-engine.ts
 * room: bridge/flush.ts
 * story: test/story/bridge.test.ts
 */

import { create } from "@bufbuild/protobuf";
import { Command } from "commander";
import { flush, type Refused, UnnamedError } from "../../bridge/flush.ts";
import type { Recorded } from "../../bridge/outbox.ts";
import type { Summary } from "../../bridge/uplink.ts";
import { formatDuration } from "../../duration.ts";
import { StatusError } from "../../errors.ts";
import { UploadSummarySchema } from "../../gen/sync/v1/sync_engine_pb.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import type { CommandContext } from "../client-call.ts";
import { ndjson } from "../output.ts";
import { describeProgress } from "../terminal.ts";
import { becomeDrainer, complainOfLedger, openBuffer, tidy } from "./buffer.ts";
import { localTime } from "./event-line.ts";
import {
  describeLeft,
  type LinkFlags,
  leftExit,
  linkTalk,
  openUplink,
  unmarkedTalk,
  withLinkFlags,
} from "./link-talk.ts";

export const command = withLinkFlags(
  new Command("flush").description("bring the backlog to the cloud, and end (client stream)"),
);

export const examples = `\
  brewctl store-sync flush
  brewctl store-sync flush --store store-01 --addr cloud.example:50052
  brewctl store-sync flush --deadline 10m          keeps trying so long, also if the cloud is away
  brewctl store-sync flush -o ndjson -q || echo "exit $?: some are left"`;

export const notes = `\
Once connected it survives lost connections by itself. Without --deadline or --wait-ready a cloud
that is not there at the beginning is an error (78). The exit code is 5 while anything is pending or
parked. rejected = duplicates + refused; a duplicate is in the cloud, and as good as accepted. A cloud
that counts rejected events and does not name them is asked event by event, as channel does.`;

/** Each event gets a line if they are so few. */
const fewEvents = 20;

export async function run(flags: LinkFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random } = context;
  const { deadline, waitReady, output } = flags;
  const outbox = openBuffer(flags, context);
  const lock = becomeDrainer(outbox);
  const over = new AbortController();
  const signal = AbortSignal.any([over.signal, context.interrupted, terminal.outputLost]);
  const uplink = openUplink(flags, outbox, context);
  const startedAt = clock.monotonic();
  const total = { accepted: 0, duplicates: 0, refused: 0 };
  let stopped: Stop | undefined;
  try {
    if (deadline !== undefined) {
      const reason = new Stop(`--deadline ${formatDuration(deadline)}`, leftExit);
      clock.sleep(deadline, { signal }).then(
        () => over.abort(reason),
        () => {},
      );
    }
    const { pending } = outbox.counts();
    if (pending > 0) {
      if (waitReady !== undefined) {
        await uplink.waitReady({ signal, waitMs: waitReady });
      } else if (deadline === undefined) {
        await uplink.connect({ signal });
      }
    }
    const showsEvents = output === "text" && pending <= fewEvents;
    const progress = showsEvents ? undefined : terminal.progress("flushing");
    const shown = new Set<string>();
    try {
      await flush({
        ...{ outbox, uplink, clock, random, signal },
        onState: linkTalk(context),
        onSending(event) {
          if (!showsEvents || shown.has(event.eventId)) {
            return undefined;
          }
          shown.add(event.eventId);
          return terminal.print(flushing(event));
        },
        onSummary(summary, refused) {
          add(total, summary, refused);
          tellRefused(refused);
          const done = total.accepted + total.duplicates;
          progress?.update(
            `flushed ${describeProgress(done, clock.monotonic() - startedAt, Math.max(done, pending))}`,
          );
        },
        onAlarm: (why) => complainOfLedger(terminal, why),
        onUnmarked: unmarkedTalk(context),
        onUnnamed: ({ message }) =>
          terminal.say(
            `${plain(message)}; going on with an answer for each event, as store-sync channel does`,
          ),
      });
    } finally {
      progress?.stop();
    }
    tidy(outbox);
  } catch (error) {
    if (error instanceof UnnamedError) {
      stopped = new Stop(error.message, leftExit);
    } else if (error instanceof Stop) {
      stopped = error;
    } else {
      throw withBacklog(error, outbox.counts().pending);
    }
  } finally {
    over.abort(new Stop("over"));
    uplink.close();
    lock.release();
  }
  try {
    await terminal.print(output === "ndjson" ? summaryJson(total) : summaryText(total));
    const left = describeLeft(outbox);
    const rest = left || "everything recorded so far is in the cloud";
    const told = [stopped?.message, rest].filter(Boolean).join(": ");
    if (stopped !== undefined && left !== "") {
      // Also with --quiet: it was not to end here.
      terminal.complain(told);
    } else {
      terminal.say(told);
    }
    return stopped?.exit || (left === "" ? 0 : leftExit);
  } finally {
    outbox.close();
  }

  function tellRefused(refused: readonly Refused[]): void {
    for (const { event, answer, isParked } of refused) {
      const what = isParked ? "Parked." : "Will retry.";
      terminal.say(`refused: ${plain(event.eventId)} — ${plain(answer.reason)}. ${what}`);
    }
  }
}

function flushing({ type, timestamp }: Recorded): string {
  return `⬆ Flushing: [${plain(type)}] from ${localTime(timestamp)}`;
}

type Total = { accepted: number; duplicates: number; refused: number };

/** What waits for another attempt is not refused: it comes again, and is counted then. */
function add(total: Total, { accepted, duplicates }: Summary, refused: readonly Refused[]): void {
  total.accepted += accepted;
  total.duplicates += duplicates;
  total.refused += refused.filter(({ isParked }) => isParked).length;
}

function summaryText({ accepted, duplicates, refused }: Total): string {
  const parts = [
    duplicates > 0 ? `${duplicates} ${duplicates === 1 ? "duplicate" : "duplicates"}` : "",
    refused > 0 ? `${refused} refused` : "",
  ].filter(Boolean);
  const detail = parts.length > 0 ? ` (${parts.join(", ")})` : "";
  return `Upload complete — ${accepted} accepted, ${duplicates + refused} rejected${detail}`;
}

function summaryJson(total: Total): string {
  const rejected = total.duplicates + total.refused;
  return ndjson(UploadSummarySchema, create(UploadSummarySchema, { ...total, rejected }));
}

/** The same error, and that nothing is lost. */
function withBacklog(error: unknown, pending: number): unknown {
  if (!(error instanceof StatusError) || pending === 0) {
    return error;
  }
  const events = pending === 1 ? "1 event stays" : `${pending} events stay`;
  const kept = `${events} pending on this disk; flush again, or with --deadline 10m to keep trying`;
  const { code, message, hint } = error;
  const options = { hint: hint === undefined ? kept : `${hint}; ${kept}`, cause: error };
  return new StatusError(code, message, options);
}
