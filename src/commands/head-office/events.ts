/**
 * `brewctl head-office events`: what the cloud's ledger has taken, in the order in which it did.
 *
 * rpc: sync.v1.HeadOffice/ListEvents (proto/sync/v1/head_office.proto)
 * handler: `listEvents` in server/head-office.ts
 */

import { Command } from "commander";
import { StatusError } from "../../errors.ts";
import { checksumOf, messageChecksum } from "../../event-checksum.ts";
import {
  HeadOffice,
  type ListEventsResponse,
  ListEventsResponseSchema,
} from "../../gen/sync/v1/head_office_pb.ts";
import { plain } from "../../plain.ts";
import { type Exit, Stop } from "../../shutdown.ts";
import { headOfficeAnswers, ledgerIdOf } from "../answer-bounds.ts";
import { type CommandContext, makeClientCall } from "../client-call.ts";
import { type ClientFlags, integer, nonEmpty, withClientFlags } from "../flags.ts";
import { ndjson, printable } from "../output.ts";
import { attemptsOf, describeNews, reconnecting } from "../reconnecting.ts";
import { checkStopFlags, type StopFlags, withStopFlags } from "../stop-rules.ts";

export interface EventsFlags extends ClientFlags, StopFlags {
  readonly store?: string;
  readonly after: number;
  readonly follow?: boolean;
  readonly limit?: number;
  /** How many times in a row to dial anew; `true`: without end. */
  readonly reconnect?: number | true;
}

const limitReached = new Stop("limit reached");

export const command = withStopFlags(
  withClientFlags(
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
      .option("--limit <n>", "stop after n events", integer(1))
      .option(
        "--reconnect [max]",
        "dial anew when the server is lost, at most max times in a row, and go on there",
        integer(1),
      ),
  ),
  "events",
);

export const examples = `\
  brewctl head-office events
  brewctl head-office events --store store-01 -o ndjson | jq -r .payload
  brewctl head-office events --follow --after 1200
  brewctl head-office events --follow --reconnect -o ndjson >>all.ndjson`;

export async function run(flags: EventsFlags, context: CommandContext): Promise<Exit> {
  const { terminal, clock, random } = context;
  const { store: storeId = "", follow = false, limit, output } = flags;
  checkStopFlags(flags, limit);
  let position = BigInt(flags.after);
  let ledgerId: string | undefined;
  const otherLedger = new AbortController();
  let shown = 0;

  return makeClientCall({
    ...{
      service: HeadOffice,
      bounds: headOfficeAnswers,
      method: "listEvents",
      flags,
      context,
      isWatchful: follow,
    },
    tally: () => `got ${shown} ${shown === 1 ? "event" : "events"}`,
    async run(call) {
      const events = reconnecting({
        ...{ clock, random, deadline: call.deadline, signal: call.signal },
        reconnect: call.reconnect,
        maxAttempts: attemptsOf(flags.reconnect),
        tell: (news) => terminal.say(describeNews(news, `going on behind ${position}`)),
        open: () =>
          call.client.listEvents(
            { storeId, after: position, follow },
            {
              ...call,
              signal: AbortSignal.any([call.signal, otherLedger.signal]),
              onHeaders(headers) {
                const id = ledgerIdOf(headers);
                ledgerId ??= id;
                if (id !== undefined && id !== ledgerId) {
                  otherLedger.abort(lostLedger(position));
                }
              },
            },
          ),
      });
      try {
        for await (const event of events) {
          checkIntact(event);
          await terminal.print(
            output === "ndjson"
              ? ndjson(ListEventsResponseSchema, event)
              : printable(() => text(event)),
          );
          position = event.position;
          shown += 1;
          call.count();
          if (shown === limit) {
            throw limitReached;
          }
        }
      } catch (error) {
        // Of what was written last nobody knows whether it was read.
        if (!terminal.outputLost.aborted) {
          terminal.say(`to go on: --after ${position}`);
        }
        throw error;
      }
      return { why: "end of the ledger" };
    },
  });
}

/** Throws DATA_LOSS for an event that is not as its store has recorded it. */
function checkIntact({
  position,
  storeId,
  epoch,
  seq,
  timestamp,
  checksum,
  ...event
}: ListEventsResponse): void {
  const own = checksumOf({ ...event, timestamp: Number(timestamp) });
  if (
    checksum !== undefined &&
    checksum !== messageChecksum(own, { storeId, epoch, seq: Number(seq) })
  ) {
    throw new StatusError(
      "DATA_LOSS",
      `event ${JSON.stringify(event.eventId)} of store ${plain(storeId)} at position ${position} does not have its checksum: it was changed on the ledger's disk or on the way here`,
      {
        hint: `list it again; if it stays so, its store can send it again with store-sync replay; to leave it out: --after ${position}`,
      },
    );
  }
}

/** To go on behind a position of another ledger would leave out events without a word. */
function lostLedger(position: bigint): StatusError {
  const message = `the cloud has another ledger now: its positions are not those up to ${position}`;
  return new StatusError("DATA_LOSS", message, {
    hint: "it has lost its disk; its own events, from the beginning: --after 0",
  });
}

function text({ position, storeId, type, eventId, timestamp, seq }: ListEventsResponse): string {
  const at = new Date(Number(timestamp)).toISOString();
  return `${position} [${plain(storeId)}] ${plain(type)} ${plain(eventId)} at ${at}${seq > 0n ? ` seq=${seq}` : ""}`;
}
