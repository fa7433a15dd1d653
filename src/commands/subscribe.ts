/**
 * `brewctl subscribe`: the server stream. One request, then events until the server's limit, our
 * own stop rule, or Ctrl+C.
 *
 * rpc: orders.v1.StreamingService/Subscribe (proto/orders/v1/streaming.proto)
 * handler: `subscribe` in server/streaming.ts
 * story: test/story/lesson.test.ts
 *
 *     make run-server
 *     make run-subscribe ARGS="-limit=0"     # and Ctrl+C: the server logs "client gone"
 */

import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Command } from "commander";
import { isTransient } from "../errors.ts";
import {
  type OrderEvent,
  OrderEventSchema,
  StreamingService,
} from "../gen/orders/v1/streaming_pb.ts";
import { plain } from "../plain.ts";
import { type Exit, Stop } from "../shutdown.ts";
import { streamingAnswers } from "./answer-bounds.ts";
import { type ClientCall, type CommandContext, makeClientCall } from "./client-call.ts";
import { type ClientFlags, integer, maxInt32, withClientFlags } from "./flags.ts";
import { type ObserveFlags, observeNotes, withObserveFlags } from "./observe/flags.ts";
import { ndjson, printable } from "./output.ts";
import { attemptsOf, describeNews, reconnecting } from "./reconnecting.ts";
import { checkStopFlags, type StopFlags, withStopFlags } from "./stop-rules.ts";
import { describeProgress } from "./terminal.ts";

export interface SubscribeFlags extends ClientFlags, StopFlags, ObserveFlags {
  readonly customer: string;
  readonly limit?: number;
  /** How many times in a row to dial anew; `true`: without end. */
  readonly reconnect?: number | true;
}

/** The lesson's limit, when no other rule says when to stop. */
const defaultLimit = 5;

const limitReached = new Stop("limit reached");

/** The server does not keep to the limit; what came after it is not shown. */
const limitExceeded = new Stop("limit reached, and the server sent more than was asked for");

/** How long a server may take to end a stream whose limit is reached, in milliseconds. */
const maxLastWordsMs = 1_000;

export const command = withStopFlags(
  withObserveFlags(
    withClientFlags(
      new Command("subscribe")
        .description("watch orders as they come (server stream)")
        .option("--customer <id>", "ask for this customer's orders", "")
        .option(
          "-n, --limit <n>",
          "ask for n events; 0 or less: endless (default: 5, or endless with another stop rule)",
          integer(-maxInt32),
        )
        .option(
          "--reconnect [max]",
          "dial anew when the server is lost, at most max times in a row",
          integer(1),
        ),
    ),
  ),
  "events",
);

export const examples = `\
  brewctl subscribe                                five events, then the server ends the stream
  brewctl subscribe --limit 0                      until Ctrl+C
  brewctl subscribe --limit 0 -o ndjson | jq .amountCents
  brewctl subscribe --for 30s --reconnect          half a minute, also if the server restarts
  brewctl subscribe --expect 3 --within 5s -q      exit 4 unless three events come in time`;

export const notes = observeNotes;

export async function run(flags: SubscribeFlags, context: CommandContext): Promise<Exit> {
  checkStopFlags(flags, flags.limit);
  const hasOtherRule = flags.for ?? flags.idle ?? flags.expect;
  const limit = Math.max(0, flags.limit ?? (hasOtherRule === undefined ? defaultLimit : 0));
  let received = 0;

  return makeClientCall({
    service: StreamingService,
    bounds: streamingAnswers,
    method: "subscribe",
    flags,
    context,
    tally: () => `got ${received} ${received === 1 ? "event" : "events"}`,
    async run(call) {
      const { terminal, clock } = context;
      const startedAt = clock.monotonic();
      const progress = call.progress("waiting for the first event");
      try {
        for await (const event of events(call)) {
          if (limit > 0 && received === limit) {
            throw limitExceeded;
          }
          received += 1;
          if (terminal.showsData) {
            progress.stop();
          }
          await terminal.print(
            flags.output === "ndjson"
              ? ndjson(OrderEventSchema, event)
              : printable(() => text(event, received, terminal.out.dim)),
          );
          if (received !== limit) {
            const elapsedMs = clock.monotonic() - startedAt;
            progress.update(`got ${describeProgress(received, elapsedMs, limit || undefined)}`);
          }
          call.count();
          if (received === limit) {
            // The server ends the stream now; one that does not is not waited for.
            clock.sleep(maxLastWordsMs, call).then(
              () => call.stop(limitReached),
              () => {},
            );
          }
        }
      } finally {
        progress.stop();
      }
      return { why: limit > 0 && received >= limit ? "limit reached" : "server had no more" };
    },
  });

  /** Of one call after another, if need be. */
  function events(call: ClientCall<typeof StreamingService>): AsyncIterable<OrderEvent> {
    const lost = "events of that time are lost, a stream has no replay";
    return reconnecting({
      ...{ clock: context.clock, random: context.random },
      ...{ deadline: call.deadline, signal: call.signal, reconnect: call.reconnect },
      maxAttempts: attemptsOf(flags.reconnect),
      tell: (news) => context.terminal.say(describeNews(news, lost)),
      async *open() {
        try {
          // What is left of the limit: the events before the loss need not come again.
          const request = { customerId: flags.customer, limit: limit && limit - received };
          yield* call.client.subscribe(request, call);
        } catch (error) {
          // All that was asked for has come; how the server said so does not matter.
          throw isTransient(error) && limit > 0 && received === limit ? limitReached : error;
        }
      },
    });
  }
}

function text(event: OrderEvent, number: number, dim: (text: string) => string): string {
  const { orderId, customerId, amountCents, emittedAt } = event;
  const at = emittedAt === undefined ? "?" : rfc3339(timestampDate(emittedAt));
  return `${dim(`[${number}]`)} order_id=${plain(orderId)} customer=${plain(customerId)} amount=${amountCents} at=${at}`;
}

/** To the second, as the original lesson prints it. */
function rfc3339(date: Date): string {
  return date.toISOString().replace(/\.\d+Z$/, "Z");
}
